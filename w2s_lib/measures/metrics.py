"""What a run's predictions are worth: accuracy, performance gap recovered (PGR), agreement, each with its interval.

Intervals cover both the seeds and the test rows (`w2s_lib.measures.intervals` says how). Predictions are joined by seed and
row, never by position, and a mismatch is an error. The PGR chapter (`book/pgr.md`) motivates them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from w2s_lib.measures.intervals import Codes, Floats, Interval, mean_interval, ratio_interval

__all__ = [
    "Agreement",
    "Interval",
    "accuracy",
    "accuracy_interval",
    "agreement",
    "difference_interval",
    "gap_interval",
    "pgr",
    "pgr_interval",
    "pgr_table",
    "predicted_label",
]


class Record(Protocol):
    """What these functions read of a finished run."""

    @property
    def predictions(self) -> pd.DataFrame:
        """Index row; columns `split`, `label`, `p` = P(y = 1), `group`."""

    @property
    def spec(self) -> Any:
        """A `RunSpec`, of which `seed`, `task.name` and `task.sha256` are read."""


T = TypeVar("T")


@dataclass(frozen=True)
class Agreement(Generic[T]):
    """Share of rows on which a student repeats its supervisor, in [0, 1]; NaN where there are no such rows."""

    overall: T
    supervisor_right: T
    supervisor_wrong: T


def predicted_label(p: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """Hard 0/1 labels of P(y = 1), any shape: 1 where p > 0.5. A tie, p = 0.5, is a 0, here and everywhere.

    Raises:
        ValueError: a probability outside [0, 1], or NaN.
    """
    values = np.asarray(p, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("probabilities must be in [0, 1] and not NaN")
    return (values > 0.5).astype(np.int8)


def accuracy(p: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Share of rows whose `predicted_label` is the ground truth, in [0, 1].

    Args:
        p: shape (n,), P(y = 1), or hard 0/1 predictions.
        label: shape (n,), 0 or 1.

    Raises:
        ValueError: no rows, unequal lengths, p outside [0, 1], a label other than 0 and 1.
    """
    return float(np.mean(_hits(p, label)))


def pgr(*, weak: float, student: float, ceiling: float) -> float:
    """Performance gap recovered, (student - weak) / (ceiling - weak), of three accuracies in [0, 1].

    0: the student is no better than its weak supervisor; 1: it is as good as with ground truth. Never clipped: it
    is negative where the student is worse than its supervisor, above 1 where it beats the ceiling. NaN when
    ceiling <= weak: there is no gap.

    Raises:
        ValueError: an accuracy outside [0, 1], or NaN.

    Source: Burns et al. 2023, arXiv 2312.09390. Chapter: `book/pgr.md`.
    """
    for name, value in (("weak", weak), ("student", student), ("ceiling", ceiling)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value!r}: an accuracy must be in [0, 1]")
    return (student - weak) / (ceiling - weak) if ceiling > weak else math.nan


def agreement(
    student_pred: npt.ArrayLike, supervisor_pred: npt.ArrayLike, gt_label: npt.ArrayLike
) -> Agreement[float]:
    """How often the student says what its supervisor says: overall, where the supervisor is right, where it is wrong.

    All three have shape (n,) and hold hard 0/1 labels (`predicted_label` makes them of probabilities).

    Raises:
        ValueError: no rows, unequal lengths, values other than 0 and 1.

    Source: student-supervisor agreement, Burns et al. 2023, arXiv 2312.09390.
    """
    student, supervisor, truth = _binary(
        student_pred=student_pred, supervisor_pred=supervisor_pred, gt_label=gt_label
    )
    same, right = student == supervisor, supervisor == truth

    def share(rows: npt.NDArray[np.bool_]) -> float:
        return float(np.mean(same[rows])) if rows.any() else math.nan

    return Agreement(float(np.mean(same)), share(right), share(~right))


def accuracy_interval(records: Iterable[Record]) -> Interval:
    """Test accuracy of one arm, given as one record a seed: the mean, with an interval over seeds and test rows.

    From a single seed the interval covers the test rows only, and its note says so.
    """
    x, group = correctness(arm=records)
    return mean_interval(x[0], group)


def difference_interval(a: Iterable[Record], b: Iterable[Record]) -> Interval:
    """Test accuracy of arm `a` minus that of arm `b`, paired by seed and test row.

    Its `detectable` is the smallest true difference that data like these show with 80% power: report it beside a null.

    Raises:
        ValueError: the arms differ in seeds, task, test rows, labels or groups.
    """
    x, group = correctness(a=a, b=b)
    return mean_interval(x[0] - x[1], group)


def gap_interval(*, weak: Iterable[Record], ceiling: Iterable[Record]) -> Interval:
    """Test accuracy of the ceiling minus that of the weak supervisor: the gap that a student could recover."""
    return difference_interval(ceiling, weak)


def pgr_interval(
    *, weak: Iterable[Record], student: Iterable[Record], ceiling: Iterable[Record]
) -> Interval:
    """PGR of the mean accuracies, with Fieller's interval over seeds and, paired, test rows.

    Each arm is given as one record a seed. Where the lower bound of `gap_interval` is not above 0 there is no PGR:
    the value is NaN, and the interval prints as "no gap to recover".

    Raises:
        ValueError: the arms differ in seeds, task, test rows, labels or groups.
    """
    x, group = correctness(weak=weak, student=student, ceiling=ceiling)
    return ratio_interval(x[1] - x[0], x[2] - x[0], group)


def pgr_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell of a sweep's tidy frame: a student, its supervisor, and the ceiling of the student's model.

    Columns: `supervisor`, `model`, `depth` (NA for a whole hub model); `weak`, `student`, `ceiling`, `gap` and `pgr`, each
    an `Interval`; `seeds`, a list of (seed, student accuracy, PGR). Ordered by depth, models without one last and in the
    order of the frame, then by the supervisor's accuracy.

    Raises:
        ValueError: no student, no supervisor or ceiling for one, or two runs of a seed in a cell (filter first).
    """
    cells: list[dict[str, Any]] = []
    students = runs[runs["role"] == "student"]
    if students.empty:
        raise ValueError("no run has the role 'student'")
    order = list(students["model"].unique())
    for (supervisor, model), cell in students.groupby(["supervisor", "model"], sort=False):
        arms = {
            "weak": runs[(runs["role"] == "supervisor") & (runs["model"] == supervisor)],
            "student": cell,
            "ceiling": runs[(runs["role"] == "ceiling") & (runs["model"] == model)],
        }
        try:
            x, group = correctness(**{arm: list(frame["record"]) for arm, frame in arms.items()})
        except ValueError as error:
            raise ValueError(f"student {model!r} of supervisor {supervisor!r}: {error}") from error
        of_seed = zip(
            sorted(record.spec.seed for record in cell["record"]), x.mean(axis=2).T, strict=True
        )
        cells.append(
            {
                "supervisor": supervisor,
                "model": model,
                "depth": cell["depth"].iloc[0],
                **{arm: mean_interval(values, group) for arm, values in zip(arms, x, strict=True)},
                "gap": mean_interval(x[2] - x[0], group),
                "pgr": ratio_interval(x[1] - x[0], x[2] - x[0], group),
                "seeds": [
                    (seed, float(s), float(pgr(weak=w, student=s, ceiling=c)))
                    for seed, (w, s, c) in of_seed
                ],
            }
        )
    cells.sort(
        key=lambda row: (
            math.inf if pd.isna(row["depth"]) else row["depth"],
            order.index(row["model"]),
            row["weak"].value,
        )
    )
    return pd.DataFrame(cells).astype({"depth": "Int64"})


def _hits(p: npt.ArrayLike, label: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    hard, truth = _binary(p=predicted_label(p), label=label)
    return np.equal(hard, truth)


def _binary(**columns: npt.ArrayLike) -> list[npt.NDArray[np.int8]]:
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(
        len(shape) != 1 or shape[0] == 0 for shape in shapes.values()
    ):
        raise ValueError(f"expected one value a row, and at least one row; the shapes are {shapes}")
    for name, array in arrays.items():
        if not np.isin(array, (0, 1)).all():
            raise ValueError(f"{name} must hold only 0 and 1")
    return [array.astype(np.int8) for array in arrays.values()]


def correctness(**arms: Iterable[Record]) -> tuple[Floats, Codes]:
    """Correctness, shape (arms, seeds, test rows), and group codes, shape (test rows,), joined by seed and row.

    Raises:
        ValueError: the arms differ in seeds, task, test rows, labels or groups.
    """
    sorted_arms = {
        arm: sorted(records, key=lambda record: record.spec.seed) for arm, records in arms.items()
    }
    seeds = {arm: [record.spec.seed for record in records] for arm, records in sorted_arms.items()}
    wanted = next(iter(seeds.values()))
    for arm, found in seeds.items():
        if not found or len(set(found)) < len(found):
            raise ValueError(f"{arm}: expected one record a seed, the seeds are {found}")
        if found != wanted:
            raise ValueError(
                f"{arm}: the seeds are {found}, those of {next(iter(seeds))} are {wanted}"
            )
    first = next(iter(sorted_arms.values()))[0]
    task, rows, hits = first.spec.task, rows_of(first), []
    for arm, records in sorted_arms.items():
        for record in records:
            other, table, where = (
                record.spec.task,
                rows_of(record),
                f"{arm}, seed {record.spec.seed}",
            )
            if (other.name, other.sha256) != (task.name, task.sha256):
                raise ValueError(
                    f"{where}: task {other.name!r} cannot be joined to task {task.name!r}"
                )
            if not table[["label", "group"]].equals(rows[["label", "group"]]):
                raise ValueError(
                    f"{where}: its test rows, labels or groups are not those of the other records"
                )
            hits.append(_hits(table["p"], table["label"]))
    correct = np.array(hits, dtype=np.float64).reshape(len(arms), len(wanted), len(rows))
    return correct, np.unique(rows["group"], return_inverse=True)[1]


def rows_of(record: Record, split: str = "test") -> pd.DataFrame:
    """A record's predictions of a split, by row. Raises `ValueError` where there are none, or one twice."""
    table = record.predictions
    table = table[table["split"] == split].sort_index()
    if table.empty or not table.index.is_unique:
        raise ValueError(f"seed {record.spec.seed}: no {split} rows, or a {split} row twice")
    return table
