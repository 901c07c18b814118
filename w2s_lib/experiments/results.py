"""What a sweep returns: its runs, asked by arm. Seeds are paired here, so a chapter need not do it.

An arm is a `RunSpec` (its own seed does not matter), or a list of records.
Every measure takes the seeds that all its arms have; where some arm has more, the interval's note
says which were used. A zero-shot run ranks all texts alike under every seed, so one stands for all.
`book/pgr.md` shows the measures at work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import combinations
from statistics import median
from typing import Any, TypeAlias, TypeVar

import pandas as pd

from w2s_lib.experiments.compared import Cells, Comparison
from w2s_lib.figures.table import Shown, Table, table
from w2s_lib.measures import agreement as measures
from w2s_lib.measures import metrics
from w2s_lib.measures.intervals import LEVEL, Codes, Floats, Interval
from w2s_lib.measures.metrics import METRICS, WRITTEN, Agreement
from w2s_lib.runs.errors import SpecError, require
from w2s_lib.runs.model_names import short_name
from w2s_lib.runs.record import COLUMNS, Record, row_of
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import RunSpec

SAME = ("recipe", "lora", "precision", "quantization", "device")
"""In what a student and its ceiling must not differ, for their PGR to mean something."""

LISTENERS: list[Callable[[Iterable[Record]], None]] = []
"""Told of the records that a measure or a frame is made of: a page says which are behind it."""

Arm: TypeAlias = RunSpec | Sequence[Any]
Measured = TypeVar("Measured", Interval, Agreement[Interval])


class Results(Shown):
    """The runs of a sweep, by arm. In a notebook it shows itself as a table, an arm a row."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.all_records = tuple(records)
        self._arms: dict[str, dict[int, Record]] = {}
        for record in self.all_records:
            self._arms.setdefault(_arm_key(record.spec.to_json()), {})[record.spec.seed] = record

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a run.

        Columns `record`, `run_id`, `role`, `model`, `depth`, `supervisor` and `supervisor_run`
        (model and id of the run that gave the labels, or ""), `labels`, `loss` and `start` (with
        what differs from the default), `method`, `lora_blocks`, `quantization`, `half`, `seed`,
        `n_train`, `task`, `accuracy` (test) and `validation_accuracy` (both at the threshold 1/2,
        unlike the method `accuracy`; NaN where there is none), the losses of next-token runs,
        `seconds`, `device`, `hardware`, `date`, `commit` and `spec`.
        """
        _tell(self.all_records)
        rows = [row_of(record) | {"record": record} for record in self.all_records]
        return pd.DataFrame(rows, columns=[*COLUMNS, "record"]).astype(COLUMNS)

    def with_seeds(self, seeds: Iterable[int]) -> Results:
        """The same arms, with these seeds alone."""
        wanted = set(seeds)
        return Results(record for record in self.all_records if record.spec.seed in wanted)

    def records(self, arm: Arm) -> list[Any]:
        """The records of an arm by rising seed, as they are stored.

        Raises:
            SpecError: there is no run of this arm.
        """
        return [record for _, record in sorted(self._of(arm).items())]

    def right(self, arm: Arm) -> pd.DataFrame:
        """Whether each test text is answered rightly, at the median: a row a text, a column a seed."""
        records = self.records(arm)
        found = metrics.scores("accuracy", arm=records)[0][0].astype(bool)
        rows = metrics.rows_of(records[0], "test").index
        return pd.DataFrame(found.T, rows, [record.spec.seed for record in records])

    def accuracy(self, arm: Arm) -> Interval:
        """Test accuracy; the threshold is the model's own median on validation texts."""
        return self.contrast([(1, arm)])

    def auc(self, arm: Arm) -> Interval:
        """Area under the ROC curve on test rows, which no threshold moves."""
        return self.contrast([(1, arm)], metric="auc")

    def difference(self, a: Arm, b: Arm, *, metric: str = "accuracy") -> Interval:
        """Test accuracy (or another of `METRICS`) of `a` minus `b`, paired by seed and row."""
        return self.contrast([(1, a), (-1, b)], metric=metric)

    def contrast(self, terms: Sequence[tuple[float, Arm]], *, metric: str = "accuracy") -> Interval:
        """A weighted sum of metrics, such as [(1, a), (-1, b), (-1, c), (1, d)]."""
        weights, arms = zip(*terms, strict=True)
        found, note = self._paired(*arms)
        interval = metrics.contrast_interval(list(zip(weights, found, strict=True)), metric=metric)
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
        return metrics.pgr_interval(weak=w, student=s, ceiling=c, metric=metric).with_note(note)

    def agreement(self, student: Arm, supervisor: Arm) -> Agreement[Interval]:
        """How often a student repeats its supervisor: overall, where that is right, where wrong."""
        return self._measure(measures.agreement_by_supervisor, student, supervisor)

    def agreement_difference(self, a: Arm, b: Arm, supervisor: Arm) -> Agreement[Interval]:
        """Agreement of `a` with the supervisor minus that of `b`, paired by seed and test row."""
        return self._measure(measures.agreement_difference, a, b, supervisor)

    def asymmetry(self, a: Arm, b: Arm, supervisor: Arm) -> Interval:
        """Change of agreement where the supervisor is wrong minus the change where it is right.

        See `measures.agreement.asymmetry`.
        """
        return self._measure(measures.asymmetry, a, b, supervisor)

    def transmitted_errors(self, student: Arm, supervisor: Arm) -> Interval:
        """Errors on its own teacher's errors beyond those on another seed's teacher's.

        See `measures.agreement.transmitted_errors`.
        """
        return self._measure(measures.transmitted_errors, student, supervisor)

    def gain_by_misfit(self, students: Sequence[Arm], supervisor: Arm) -> Interval:
        """How much students gain for each answer of their supervisor that they change.

        See `measures.agreement.gain_by_misfit`.
        """
        return self._measure(measures.gain_by_misfit, *students, supervisor)

    def excess_agreement(
        self, student: Arm, *, ceilings: Sequence[Arm], supervisor: Arm
    ) -> Interval:
        """Agreement on the supervisor's errors beyond what accuracy explains.

        See `measures.agreement.excess_agreement`.
        """
        return self._measure(measures.excess_agreement, student, *ceilings, supervisor)

    def error_correlation(self, a: Arm, b: Arm) -> Interval:
        """Correlation (phi) of two arms' errors over test rows, averaged over seeds."""
        return self._measure(measures.error_correlation, a, b)

    def cells(
        self, triples: Mapping[str, tuple[Arm, Arm, Arm]], *, metric: str = "accuracy"
    ) -> Cells:
        """Several experiments at once, by label: (supervisor, student, ceiling) each.

        Every row has the seeds that its three arms share. `.plot()` draws them as rulers.
        """
        rows, seeds = {}, {}
        for label, (weak, student, ceiling) in triples.items():
            arms = {"weak": weak, "student": student, "ceiling": ceiling}
            rows[label] = {
                **{role: self.contrast([(1, arm)], metric=metric) for role, arm in arms.items()},
                "gain": self.difference(student, weak, metric=metric),
                "pgr": self.pgr(**arms, metric=metric),
            }
            seeds[label] = list(self.by_seed("contrast", [(1, student)], metric=metric).values())
        return Cells(rows, seeds, metric)

    def collapsed(self, arm: Arm) -> list[int]:
        """The seeds under which an arm says one thing, or knows nothing: `metrics.collapsed`."""
        return [seed for seed, record in sorted(self._of(arm).items()) if metrics.collapsed(record)]

    def metrics(self, arms: Mapping[str, Arm]) -> pd.DataFrame:
        """Every metric of every arm, a row an arm.

        Columns `arm`; each of `METRICS` by its name in `WRITTEN`, an `Interval` each; and
        `collapsed`, how many of the arm's runs, and under which seeds: "2 of 3 (300, 302)".
        """
        rows = []
        for label, arm in arms.items():
            values = {WRITTEN[m]: self.contrast([(1, arm)], metric=m) for m in METRICS}
            seeds = self.collapsed(arm)
            which = f" ({_seeds(seeds)})" if seeds else ""
            counted = f"{len(seeds)} of {len(self._found(arm))}{which}"
            rows.append({"arm": label, **values, "collapsed": counted})
        return pd.DataFrame(rows)

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

    def leaderboard(self, students: Mapping[str, Arm], *, weak: Arm, ceiling: Arm) -> pd.DataFrame:
        """Students of one supervisor from the best down, and how far fresh seeds and texts could move each.

        A student's `best` rank is 1 more than how many are clearly better, its `worst` is the number of
        students less those that are clearly worse: at 95% for all of its comparisons together, by
        Bonferroni. Most of a close field can stand nearly anywhere.

        Args:
            students: by label.
            weak: their supervisor.
            ceiling: one for all, however they are trained, so PGR orders them as accuracy does.

        Returns:
            A row a student: `method` (its label), `rank`, `best`, `worst`; intervals `accuracy`, `AUC`, `PGR`;
            `collapsed`, how many of its seeds did, which stay in; and `seconds`, the median over seeds, with those of the students that teach it.

        Raises:
            SpecError: there is no run of a student, or of one that teaches it.

        Source: Mogstad, Romano, Shaikh and Wilhelm 2024, "Inference for ranks", Review of Economic Studies 91.
        """
        better, worse = (dict.fromkeys(students, 0) for _ in range(2))
        for a, b in combinations(students, 2):
            apart = self.difference(students[a], students[b])
            apart = apart.at(1 - (1 - LEVEL) / (len(students) - 1))
            if apart.low * apart.high > 0:
                above, below = (a, b) if apart.low > 0 else (b, a)
                worse[above] += 1
                better[below] += 1

        def seconds(step: RunSpec) -> float:
            return float(self._found(step)[step.seed].provenance["seconds"])

        rows: list[dict[str, Any]] = []
        for name, arm in students.items():
            (w, s, c), note = self._paired(weak, arm, ceiling)
            steps = [[*record.spec.lineage()][1:] for record in s]
            rows.append(
                {
                    "method": name,
                    "best": better[name] + 1,
                    "worst": len(students) - worse[name],
                    "accuracy": self.accuracy(arm),
                    "AUC": self.auc(arm),
                    "PGR": metrics.pgr_interval(weak=w, student=s, ceiling=c).with_note(note),
                    "collapsed": len(self.collapsed(arm)),
                    "seconds": median(sum(map(seconds, own)) for own in steps),
                }
            )
        rows.sort(key=lambda row: -row["accuracy"].value)
        return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="rank")).reset_index()

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
        found = self._found(arm)
        _tell(found.values())
        return found

    def _found(self, arm: Arm) -> dict[int, Any]:
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

    def _measure(self, measure: Callable[[Floats, Codes], Measured], *arms: Arm) -> Measured:
        """What a measure of correctness makes of arms, at the seeds that all of them have."""
        found, note = self._paired(*arms)
        x, group = metrics.scores("accuracy", **{f"arm {i}": arm for i, arm in enumerate(found, 1)})
        return measure(x, group).with_note(note)

    def _paired(self, *arms: Arm) -> tuple[list[list[Record]], str]:
        """The arms at the seeds that all of them have; a note where some arm has more."""
        found = [self._of(arm) for arm in arms]
        seeded = [set(arm) for arm in found if not _is_untaught(arm)] or [set(found[0])]
        seeds = sorted(set.intersection(*seeded))
        found = [_under(seeds, arm) if _is_untaught(arm) else arm for arm in found]
        if not seeds:
            have = ", ".join(f"{_label(a)} {sorted(f)}" for a, f in zip(arms, found, strict=True))
            raise NoSuchRun(f"the arms have no seed in common: {have}")
        more = any(len(arm) > len(seeds) for arm in found)
        note = f"seeds {_seeds(seeds)} alone, which all arms have" if more else ""
        return [[arm[seed] for seed in seeds] for arm in found], note


def _tell(records: Iterable[Record]) -> None:
    for listener in LISTENERS:
        listener(records)


def _is_untaught(arm: Mapping[int, Record]) -> bool:
    """Whether an arm is one zero-shot run, which no seed changes."""
    return len(arm) == 1 and all(record.spec.kind == "zero_shot" for record in arm.values())


def _under(seeds: Iterable[int], arm: Mapping[int, Record]) -> dict[int, Record]:
    (record,) = arm.values()
    return {seed: replace(record, spec=record.spec.with_seed(seed)) for seed in seeds}


class NoSuchRun(SpecError):
    """A sweep was asked for an arm, or a seed, that it does not have."""


VARIANTS = ("labels", "loss", "method", "start", "lora_blocks", "quantization", "device")


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
    if not isinstance(arm, RunSpec):
        return f"{len(arm)} records"
    teacher = f" of {arm.teacher.model}" if arm.teacher else ""
    return f"{arm.role} {arm.model}{teacher}"


def _seeds(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
