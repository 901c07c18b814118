"""What predictions are worth: accuracy, AUC, agreement, performance gap recovered (PGR).

Classes are balanced by construction, so every model answers at the median of its own P(y = 1) on
the validation texts: no individual label enters, and a model that prefers one class is not
punished for it twice. That is `accuracy`, and `auc`, which needs no threshold, stands beside it;
`accuracy_at_half`, `log_loss` and `brier` are secondary. Intervals cover both the seeds and the
test rows (`w2s_lib.measures.intervals` says how). Predictions are joined by seed and row, never by
position, and a mismatch is an error. The PGR chapter (`book/pgr.md`) motivates them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from w2s_lib.measures.intervals import Codes, Floats, Interval, mean_interval, ratio_interval
from w2s_lib.runs.errors import nearest
from w2s_lib.runs.record import Record, predicted_label

Arm: TypeAlias = Sequence[Record]
"""One record a seed."""
Labels: TypeAlias = npt.NDArray[np.int8]
T = TypeVar("T")


@dataclass(frozen=True)
class Agreement(Generic[T]):
    """Share of rows on which a student repeats its supervisor; NaN where there are no such rows."""

    overall: T
    supervisor_right: T
    supervisor_wrong: T

    def with_note(self: Agreement[Interval], note: str) -> Agreement[Interval]:
        """The same with one more note on each interval, if it says anything."""
        return Agreement(*(interval.with_note(note) for interval in vars(self).values()))


def accuracy(p: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Share of rows whose `predicted_label` is the ground truth, in [0, 1].

    Args:
        p: shape (n,), P(y = 1), or hard 0/1 predictions.
        label: shape (n,), 0 or 1.

    Raises:
        ValueError: no rows, unequal lengths, p outside [0, 1], a label other than 0 and 1.
    """
    hard, truth = _binary(p=predicted_label(p), label=label)
    return float(np.mean(hard == truth))


def pgr(*, weak: float, student: float, ceiling: float) -> float:
    """Performance gap recovered, (student - weak) / (ceiling - weak), of accuracies in [0, 1].

    0: the student is no better than its weak supervisor; 1: it is as good as with ground truth.
    Never clipped: it is negative where the student is worse than its supervisor, above 1 where it
    beats the ceiling. NaN when ceiling <= weak: there is no gap.

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
    """How often a student repeats its supervisor: overall, where that is right, where it is wrong.

    All three have shape (n,) and hold hard 0/1 labels (`predicted_label` makes them of
    probabilities).

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


def contrast_interval(terms: Sequence[tuple[float, Arm]], *, metric: str = "accuracy") -> Interval:
    """A weighted sum over arms, paired by seed and test row: [(1, a), (-1, b)] is a difference.

    Its `detectable` is the smallest true sum that data like these show with 80% power: report it
    beside a null. From a single seed the interval covers the test rows only, and its note says so.

    Args:
        terms: weights and arms, each arm one record a seed.
        metric: one of `METRICS`.

    Raises:
        ValueError: another metric; the arms differ in seeds, task, test rows, labels or groups.
    """
    x, group = scores(metric, **{f"term {i}": records for i, (_, records) in enumerate(terms)})
    return mean_interval(np.tensordot([weight for weight, _ in terms], x, axes=1), group)


def pgr_interval(*, weak: Arm, student: Arm, ceiling: Arm, metric: str = "accuracy") -> Interval:
    """PGR of the means over seeds, with Fieller's interval over seeds and, paired, test rows.

    Where the lower bound of ceiling minus weak is not above 0 there is no PGR: the value is NaN,
    and the interval prints as "no gap to recover".

    Raises:
        ValueError: the arms differ in seeds, task, test rows, labels or groups.
    """
    x, group = scores(metric, weak=weak, student=student, ceiling=ceiling)
    return ratio_interval(x[1] - x[0], x[2] - x[0], group)


def _binary(**columns: npt.ArrayLike) -> list[npt.NDArray[np.int8]]:
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    shape, *others = set(shapes.values())
    if others or len(shape) != 1 or not shape[0]:
        raise ValueError(f"expected one value a row, and at least one row; the shapes are {shapes}")
    for name, array in arrays.items():
        if not np.isin(array, (0, 1)).all():
            raise ValueError(f"{name} must hold only 0 and 1")
    return [array.astype(np.int8) for array in arrays.values()]


def scores(metric: str, **arms: Arm) -> tuple[Floats, Codes]:
    """A metric by test row, shape (arms, seeds, test rows), and group codes, (test rows,).

    Raises:
        ValueError: an unknown metric; see `joined`.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}: {nearest(metric, METRICS)}")
    p, label, group = joined(arms)
    part = METRICS[metric](p, label, lambda: joined(arms, "validation")[0])
    return part.astype(np.float64), group


def placements(p: Floats, label: Labels) -> Floats:
    """Each row's part in the AUC, so that its mean over rows is the AUC. See `scores`.

    The placement of a positive row is the share of negative rows whose P(y = 1) is lower; that of a
    negative row the share of positive ones whose P is higher; ties count half. Both have the AUC as
    their mean. A row's part is the AUC plus its placement's deviation from it, divided by the share
    of rows of its class: the variance of the mean is then that of DeLong et al. 1988 (to a factor
    of 1 - 1/n), with one seed, and `mean_interval` adds the variation over seeds.

    Args:
        p: (arms, seeds, rows).
        label: (rows,).

    Raises:
        ValueError: test rows of one class alone.

    Source: DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more
    correlated receiver operating characteristic curves", Biometrics 44.
    """
    positive = label == 1
    if positive.all() or not positive.any():
        raise ValueError("an AUC needs test rows of both classes")
    rank, part = _ranks(p), np.empty_like(p)
    for rows in (positive, ~positive):
        below = (rank[..., rows] - _ranks(p[..., rows])) / (~rows).sum()
        placement = below if rows is positive else 1 - below
        auc = placement.mean(axis=2, keepdims=True)
        part[..., rows] = auc + (placement - auc) / rows.mean()
    return part


def _ranks(p: Floats) -> Floats:
    """Ranks along the last axis, ties at their mean; without scipy.stats, which loads for long."""
    rows = pd.DataFrame(p.reshape(-1, p.shape[-1]).T)
    return rows.rank().to_numpy().T.reshape(p.shape)


EDGE = 2.0**-17
"""For the log-loss a P that was rounded to 0 or 1 is taken half a step inside."""
METRICS: dict[str, Callable[[Floats, Labels, Callable[[], Floats]], npt.NDArray[Any]]] = {
    "accuracy": lambda p, label, validation: (
        (p > np.median(validation(), axis=2, keepdims=True)) == label
    ),
    "auc": lambda p, label, _: placements(p, label),
    "accuracy_at_half": lambda p, label, _: predicted_label(p) == label,
    "log_loss": lambda p, label, _: -np.log(np.where(label == 1, p, 1 - p).clip(EDGE)),
    "brier": lambda p, label, _: (p - label) ** 2,
}
"""A metric -> its part by row, of P(y = 1) on test rows, labels, and P(y = 1) on validation rows,
which is asked for where it is needed; the mean over rows is the metric."""

WRITTEN = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "accuracy_at_half": "accuracy at 1/2",
    "log_loss": "log-loss",
    "brier": "Brier score",
}
"""What a reader sees of the name of a metric."""


def collapsed(record: Record) -> bool:
    """Whether a run has learned to say one thing, or nothing.

    At the threshold 1/2 it gives one answer on more than 95% of the test rows, or its AUC is below
    .55.
    """
    rows = rows_of(record, "test")
    p, label = rows["p"].to_numpy(np.float64), rows["label"].to_numpy(np.int8)
    yes = float(predicted_label(p).mean())
    return not 0.05 <= yes <= 0.95 or float(placements(p[None, None], label).mean()) < 0.55


def answers(record: Record) -> pd.Series[bool]:
    """Of each row that a run predicts whether it says yes: at the median of P on validation texts."""
    p = record.predictions["p"]
    return p > rows_of(record, "validation")["p"].median()


def joined(arms: Mapping[str, Arm], split: str = "test") -> tuple[Floats, Labels, Codes]:
    """P(y = 1) of a split, shape (arms, seeds, rows); labels and group codes, (rows,).

    Raises:
        ValueError: the arms differ in seeds, task, rows, labels or groups.
    """
    by_seed = {
        arm: sorted(records, key=lambda record: record.spec.seed) for arm, records in arms.items()
    }
    seeds = {arm: [record.spec.seed for record in records] for arm, records in by_seed.items()}
    wanted = next(iter(seeds.values()))
    for arm, found in seeds.items():
        if not found or len(set(found)) < len(found):
            raise ValueError(f"{arm}: expected one record a seed, the seeds are {found}")
        if found != wanted:
            raise ValueError(f"{arm}: the seeds are {found}, those of {next(iter(seeds))} {wanted}")
    first = next(iter(by_seed.values()))[0]
    task, rows, p = first.spec.task, rows_of(first, split), []
    identity = _identity(rows)
    for arm, record in [(arm, record) for arm, records in by_seed.items() for record in records]:
        other, table = record.spec.task, rows_of(record, split)
        where = f"{arm}, seed {record.spec.seed}"
        if (other.name, other.sha256) != (task.name, task.sha256):
            raise ValueError(f"{where}: task {other.name!r} cannot be joined to task {task.name!r}")
        if not all(map(np.array_equal, _identity(table), identity)):
            raise ValueError(f"{where}: its {split} rows, labels or groups are not the others'")
        p.append(table["p"].to_numpy(np.float64))
    predicted_label(p)  # refuses what is no probability, NaN among it
    (label,) = _binary(label=rows["label"])
    group = np.unique(rows["group"], return_inverse=True)[1]
    return np.array(p).reshape(len(arms), len(wanted), len(rows)), label, group


def _identity(rows: pd.DataFrame) -> list[npt.NDArray[Any]]:
    return [rows.index.to_numpy(), rows["label"].to_numpy(), rows["group"].to_numpy()]


def rows_of(record: Record, split: str) -> pd.DataFrame:
    """A record's predictions of a split, by row. `ValueError` if there are none, or one twice."""
    table = record.by_split.get(split)
    if table is None or not table.index.is_unique:
        raise ValueError(f"seed {record.spec.seed}: no {split} rows, or a {split} row twice")
    return table
