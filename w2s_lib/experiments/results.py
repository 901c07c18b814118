"""What a sweep returns: its runs, asked by arm. Seeds are paired here, so a chapter need not do it.

An arm is a `RunSpec` (its own seed does not matter), a `Snapshot` of one, or a list of records.
Every measure takes the seeds that all its arms have; where some arm has more, the interval's note
says which were used. `book/pgr.md` shows the measures at work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import pandas as pd

from w2s_lib.figures.table import Shown, Table, table
from w2s_lib.measures.agreement import (
    agreement_difference_interval,
    agreement_interval,
    error_correlation_interval,
    excess_agreement_difference_interval,
    excess_agreement_interval,
)
from w2s_lib.measures.intervals import Interval
from w2s_lib.measures.metrics import Agreement, contrast_interval, pgr, pgr_interval
from w2s_lib.runs.errors import SpecError, nearest, require
from w2s_lib.runs.model_names import short_name
from w2s_lib.runs.record import Record
from w2s_lib.runs.rows import COLUMNS, row_of
from w2s_lib.runs.spec import Flip, FromRun, NextToken, RunSpec

SAME = ("recipe", "lora", "precision", "quantization", "device")
"""In what a student and its ceiling must not differ, for their PGR to mean something."""


@dataclass(frozen=True)
class Snapshot:
    """An arm as it was after a share of its training, in (0, 1]; 1 is its end.

    Raises:
        SpecError: the run was not asked for a snapshot there.
    """

    spec: RunSpec
    share: float

    def __post_init__(self) -> None:
        have = (*self.spec.snapshots, 1.0)
        require(self.share in have, f"no snapshot at {self.share!r}: the run has {have}")


Arm: TypeAlias = RunSpec | Snapshot | Sequence[Any]


class Results(Shown):
    """The runs of a sweep, by arm. In a notebook it shows itself as a table, an arm a row."""

    def __init__(self, records: Iterable[Record], *, threshold: str = "half") -> None:
        """Args: see `with_threshold`."""
        if threshold not in THRESHOLDS:
            raise SpecError(f"unknown threshold {threshold!r}: {nearest(threshold, THRESHOLDS)}")
        self.all_records = tuple(records)
        self.threshold = threshold
        self._arms: dict[str, dict[int, Record]] = {}
        for record in self.all_records:
            self._arms.setdefault(_arm_key(record.spec.to_json()), {})[record.spec.seed] = record

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a run.

        Columns `record`, `run_id`, `role`, `model`, `depth`, `supervisor` and `supervisor_run`
        (model and id of the run that gave the labels, or ""), `labels`, `loss` and `start` (with
        what differs from the default), `method`, `lora_blocks`, `quantization`, `half`, `seed`,
        `n_train`, `task`, `accuracy` (test) and `validation_accuracy` (NaN where there is none),
        the losses of next-token runs, `seconds`, `device`, `hardware`, `date`, `commit` and `spec`.
        """
        rows = [row_of(record) | {"record": record} for record in self.all_records]
        return pd.DataFrame(rows, columns=[*COLUMNS, "record"]).astype(COLUMNS)

    def with_threshold(self, threshold: str) -> Results:
        """The same runs, whose answers are cut at another threshold.

        Args:
            threshold: "half": P(y = 1) above 0.5; "median": above the model's own median on the
                same split; "validation median": above its median on the validation texts. The
                latter two use no label. Classes are balanced, so they take out that a run may
                prefer one class, and leave how well it ranks.
        """
        return Results(self.all_records, threshold=threshold)

    def with_seeds(self, seeds: Iterable[int]) -> Results:
        """The same arms, with these seeds alone."""
        wanted = set(seeds)
        kept = [record for record in self.all_records if record.spec.seed in wanted]
        return Results(kept, threshold=self.threshold)

    def records(self, arm: Arm) -> list[Any]:
        """The records of an arm by rising seed, as they are stored: the threshold plays no part.

        Raises:
            SpecError: there is no run of this arm.
        """
        found = self._of(arm)
        return [found[seed] for seed in sorted(found)]

    def accuracy(self, arm: Arm) -> Interval:
        """Test accuracy."""
        return self.contrast([(1, arm)])

    def auc(self, arm: Arm) -> Interval:
        """Area under the ROC curve on test rows, which no threshold moves."""
        return self.contrast([(1, arm)], metric="auc")

    def difference(self, a: Arm, b: Arm, *, metric: str = "accuracy") -> Interval:
        """Test accuracy (or "auc") of `a` minus that of `b`, paired by seed and test row."""
        return self.contrast([(1, a), (-1, b)], metric=metric)

    def contrast(self, terms: Sequence[tuple[float, Arm]], *, metric: str = "accuracy") -> Interval:
        """A weighted sum of accuracies (or AUCs), such as [(1, a), (-1, b), (-1, c), (1, d)]."""
        weights, arms = zip(*terms, strict=True)
        found, note = self._paired(*arms)
        interval = contrast_interval(list(zip(weights, found, strict=True)), metric=metric)
        return interval.with_note(note)

    def gap(self, *, weak: Arm, ceiling: Arm, metric: str = "accuracy") -> Interval:
        """The ceiling minus the supervisor: what a student could recover."""
        return self.difference(ceiling, weak, metric=metric)

    def pgr(self, *, weak: Arm, student: Arm, ceiling: Arm, metric: str = "accuracy") -> Interval:
        """Performance gap recovered; NaN with the note "no gap to recover" where there is none.

        Raises:
            SpecError: student and ceiling differ in recipe, LoRA, precision, quantization or
                device.
        """
        one, other = self.records(student)[0], self.records(ceiling)[0]
        for field in SAME:
            a, b = getattr(one.spec, field), getattr(other.spec, field)
            require(a == b, f"no PGR: the student's {field} is {a!r}, the ceiling's {b!r}")
        (w, s, c), note = self._paired(weak, student, ceiling)
        return pgr_interval(weak=w, student=s, ceiling=c, metric=metric).with_note(note)

    def pgr_end_point_error(self, cells: Sequence[tuple[Arm, Arm]]) -> Interval:
        """How far PGR is from 0 for the supervisor itself, and from 1 for the ceiling itself.

        Args:
            cells: supervisor and ceiling; the largest deviation over all of them is given.
        """
        off = 0.0
        for weak, ceiling in cells:
            low, high = self.accuracy(weak).value, self.accuracy(ceiling).value
            for student, end in ((low, 0), (high, 1)) if high > low else ():
                off = max(off, abs(pgr(weak=low, student=student, ceiling=high) - end))
        return Interval(off, off, off, strict_low=off, strict_high=off)

    def agreement(self, student: Arm, supervisor: Arm) -> Agreement[Interval]:
        """How often a student repeats its supervisor: overall, where that is right, where wrong."""
        found, note = self._paired(student, supervisor)
        return agreement_interval(*found).with_note(note)

    def agreement_difference(self, a: Arm, b: Arm, supervisor: Arm) -> Agreement[Interval]:
        """Agreement of `a` with the supervisor minus that of `b`, paired by seed and test row."""
        found, note = self._paired(a, b, supervisor)
        return agreement_difference_interval(*found).with_note(note)

    def excess_agreement(
        self, student: Arm, *, ceilings: Sequence[Arm], supervisor: Arm
    ) -> Interval:
        """Agreement on the supervisor's errors beyond what accuracy explains.

        See `measures.agreement.excess_agreement_interval`.
        """
        (s, w, *tops), note = self._paired(student, supervisor, *ceilings)
        return excess_agreement_interval(s, tops, w).with_note(note)

    def excess_agreement_difference(
        self, large: tuple[Arm, Sequence[Arm]], small: tuple[Arm, Sequence[Arm]], *, supervisor: Arm
    ) -> Interval:
        """`excess_agreement` of a large student minus a small one's: (student, ceilings) each."""
        arms = [large[0], *large[1], small[0], *small[1]]
        (w, *found), note = self._paired(supervisor, *arms)
        first, second = found[: len(large[1]) + 1], found[len(large[1]) + 1 :]
        return excess_agreement_difference_interval(
            (first[0], first[1:]), (second[0], second[1:]), w
        ).with_note(note)

    def error_correlation(self, a: Arm, b: Arm) -> Interval:
        """Correlation (phi) of two arms' errors over test rows, averaged over seeds."""
        found, note = self._paired(a, b)
        return error_correlation_interval(*found).with_note(note)

    def by_seed(self, measure: str, *args: Any, **kwargs: Any) -> dict[int, float]:
        """A measure's value a seed, for dots in a figure: `runs.by_seed("difference", a, b)`."""
        found = {}
        for seed in sorted({record.spec.seed for record in self.all_records}):
            try:
                found[seed] = getattr(self.with_seeds([seed]), measure)(*args, **kwargs).value
            except NoSuchRun:
                continue
        return found

    def compare(
        self, pairs: Mapping[str, tuple[Arm, Arm]], *, metric: str = "accuracy"
    ) -> Comparison:
        """Several differences at once, by label: a table, and `.plot()`."""
        intervals, seeds = {}, {}
        for label, pair in pairs.items():
            intervals[label] = self.difference(*pair, metric=metric)
            seeds[label] = list(self.by_seed("difference", *pair, metric=metric).values())
        return Comparison(intervals, seeds, metric)

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self.all_records)

    def _table(self) -> Table:
        """An arm a row: what it is, as far as arms differ in it, its test accuracy, its seeds."""
        arms = [list(arm.values()) for arm in self._arms.values()]
        rows = pd.DataFrame([row_of(arm[0]) for arm in arms])
        varying = [name for name in VARIANTS if rows[name].nunique() > 1]
        rows = rows[["role", "model", "supervisor", *varying]]
        for name in ("model", "supervisor"):
            rows[name] = [short_name(model) if model else "" for model in rows[name]]
        rows["test accuracy"] = [
            "" if isinstance(arm[0].spec.labels, NextToken) else format(self.accuracy(arm), ".3f")
            for arm in arms
        ]
        rows["seeds"] = [_seeds(record.spec.seed for record in arm) for arm in arms]
        return table(rows)

    def _of(self, arm: Arm) -> dict[int, Any]:
        if isinstance(arm, Snapshot):
            found = self._of(arm.spec)
            return found if arm.share == 1 else {s: r.at(arm.share) for s, r in found.items()}
        if not isinstance(arm, RunSpec):
            return {record.spec.seed: record for record in arm}
        key, loose = _arm_key(arm.to_json()), _arm_key(arm.to_json(), pins=False)
        if key in self._arms:
            return self._arms[key]
        like = [key for key in self._arms if _arm_key(key, pins=False) == loose]
        if len(like) == 1:
            return self._arms[like[0]]
        what = "several revisions" if like else "no run"
        have = dict.fromkeys(_label(record.spec) for record in self.all_records)
        raise NoSuchRun(f"there is {what} of {_label(arm)}; there is: {'; '.join(have) or 'none'}")

    def _paired(self, *arms: Arm) -> tuple[list[list[Record]], str]:
        """The arms at the seeds that all of them have; a note where some arm has more."""
        found = [self._of(arm) for arm in arms]
        seeds = sorted(set.intersection(*(set(arm) for arm in found)))
        if not seeds:
            have = ", ".join(f"{_label(a)} {sorted(f)}" for a, f in zip(arms, found, strict=True))
            raise NoSuchRun(f"the arms have no seed in common: {have}")
        cut = THRESHOLDS[self.threshold]
        more = any(len(arm) > len(seeds) for arm in found)
        note = f"seeds {_seeds(seeds)} alone, which all arms have" if more else ""
        return [[cut(arm[seed]) for seed in seeds] for arm in found], note


class NoSuchRun(SpecError):
    """A sweep was asked for an arm, or a seed, that it does not have."""


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Differences between arms by label, each with its interval and its seeds' own values."""

    intervals: dict[str, Interval]
    seeds: dict[str, list[float]]
    metric: str = "accuracy"

    def __getitem__(self, label: str) -> Interval:
        """The interval of one comparison."""
        return self.intervals[label]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a comparison: `difference` (an `Interval`), `detectable`, `seeds`, `note`."""
        rows = [(label, x, x.detectable, x.n_seeds, x.note) for label, x in self.intervals.items()]
        columns = ["comparison", "difference", "detectable", "seeds", "note"]
        return pd.DataFrame(rows, columns=columns)

    def plot(self, *, title: str = "", **options: Any) -> Any:
        """A row a comparison, a line at no difference. Options: `figures.charts.accuracy_dots`."""
        from w2s_lib.figures.charts import accuracy_dots  # loads altair

        options.setdefault("x_title", f"difference in test {self.metric}")
        usual = {"references": {"no difference": 0.0}, "number": "+.3f", "seeds": self.seeds}
        return accuracy_dots(self.intervals, title=title, **usual | options)

    def _table(self) -> Table:
        rows = self.frame
        return table(
            rows if rows["note"].any() else rows.drop(columns="note"),
            formats={"difference": "+.3f", "detectable": ".3f"},
        )


VARIANTS = ("labels", "loss", "method", "start", "lora_blocks", "quantization", "device")


def _at_validation_median(record: Record) -> Record:
    """P(y = 1) in the same order, above 1/2 where above its median on the validation texts."""
    rows = record.predictions
    above = rows["p"] > rows.loc[rows["split"] == "validation", "p"].median()
    return replace(record, predictions=rows.assign(p=(rows["p"].rank(pct=True) + above) / 2))


THRESHOLDS: dict[str, Callable[[Any], Any]] = {
    "half": lambda record: record,
    "median": lambda record: record.at_median,
    "validation median": _at_validation_median,
}


@lru_cache(maxsize=4096)
def _arm_key(text: str, *, pins: bool = True) -> str:
    """A spec's JSON without seeds; with `pins=False` also without what pins its models and data."""
    dropped = {"seed"} if pins else {"seed", "revision", "sha256"}

    def kept(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        return {name: kept(part) for name, part in node.items() if name not in dropped}

    return json.dumps(kept(json.loads(text)), sort_keys=True)


def _label(arm: Arm) -> str:
    if isinstance(arm, Snapshot):
        return f"{_label(arm.spec)} after {arm.share:.0%}"
    if not isinstance(arm, RunSpec):
        return f"{len(arm)} records"
    labels = arm.labels
    teacher = f" of {labels.run.model}" if isinstance(labels, (FromRun, Flip)) else ""
    return f"{arm.role} {arm.model}{teacher}"


def _seeds(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
