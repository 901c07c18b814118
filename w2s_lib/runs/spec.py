"""What a run is: frozen, nested, validated descriptions with a canonical JSON form and a hash.

A *run* is one model, fitted on one set of labels, then asked for its predictions. Its labels can come from another run,
so a supervisor, a chain and a student are one type nested in itself, and `RunSpec.run_id` covers the whole lineage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from w2s_lib.runs.codec import NESTED, UNIONS, decode, encode, require_parts
from w2s_lib.runs.errors import SpecError, nearest, require
from w2s_lib.runs.model_names import EMBEDDED_DEPTH, canonical_model, split_model
from w2s_lib.runs.parts import LOSSES, Lora, Part, Recipe, Task, XentLoss

__all__ = [
    "Continue",
    "Flip",
    "FromRun",
    "GroundTruth",
    "Lora",
    "NextToken",
    "Pretrained",
    "Recipe",
    "RunSpec",
    "SpecError",
    "Task",
    "XentLoss",
    "nearest",
]

SEMANTICS = 1
"""Raised when the same spec would train to different bits. It is part of every id."""

HALVES = ("supervisor", "student")


@dataclass(frozen=True, kw_only=True)
class GroundTruth(Part):
    """The task's own labels."""


@dataclass(frozen=True, kw_only=True)
class FromRun(Part):
    """Labels that another run gives to texts it was not trained on: soft, P(y=1), or `hard`, 0/1 at one half."""

    run: RunSpec
    hard: bool = False
    own_texts: bool = False
    """A control: the run labels the very texts that it was trained on."""

    def _validate(self) -> None:
        require_parts(self)


@dataclass(frozen=True, kw_only=True)
class Flip(Part):
    """Another run's labels dealt out at random among the rows of the same true class.

    Accuracy, class balance and calibration stay exactly those of `run`; only *which* rows are wrong becomes random. With
    `hard`, ground truth with random flips at the supervisor's accuracy. A control: are a supervisor's errors harder to
    see through than random ones of the same number? (Burns et al. 2023, simulated supervisors.)
    """

    run: RunSpec
    hard: bool = False

    def _validate(self) -> None:
        require_parts(self)


@dataclass(frozen=True, kw_only=True)
class NextToken(Part):
    """No labels: the next token of the half's texts is what the run learns. Generative finetuning (Burns et al. 2023)."""

    corpus: str = ""
    """A task whose texts are read in place of the half's own, as many tokens of them: a control of the domain."""


@dataclass(frozen=True, kw_only=True)
class Pretrained(Part):
    """Start from the pretrained weights, with fresh adapters."""


@dataclass(frozen=True, kw_only=True)
class Continue(Part):
    """Start from the adapters of a run: one of `NextToken`, or one whose states are probed."""

    run: RunSpec

    def _validate(self) -> None:
        require_parts(self)


@dataclass(frozen=True, kw_only=True)
class RunSpec(Part):
    """One run. Build it with `supervisor`, `student`, `ceiling`, `chain`, `generative`, `probe` or `zero_shot`."""

    model: str
    """`smollm2-135m`, `name@depth`, `hf:<owner>/<name>`, a local folder (`./model@6`), or `tfidf`."""
    revision: str = ""
    """What the name means: a hub model's commit, a folder's digest. The arms fill it in (`revisions.current`)."""
    task: Task = field(default_factory=Task)
    labels: GroundTruth | FromRun | Flip | NextToken = field(default_factory=GroundTruth)
    half: str = "student"
    """The half of the training pool that the run is fitted on."""
    loss: Part = field(default_factory=XentLoss)
    """One of `parts.LOSSES`."""
    start: Pretrained | Continue = field(default_factory=Pretrained)
    recipe: Recipe = field(default_factory=Recipe)
    lora: Lora = field(default_factory=Lora)
    method: str = "finetune"
    """"finetune", "probe" (logistic regression on the last token's state after `model`'s depth) or "zero_shot" (label-word
    odds)."""
    snapshots: tuple[float, ...] = ()
    """Shares of training, in (0, 1), after which test and validation are predicted as well."""
    predict_halves: bool = True
    """False: only test and validation are predicted, so nobody can learn from the run; a fifth of its work is saved."""
    quantization: str = "nf4"
    precision: str = "bf16"
    device: str = "cpu"
    seed: int = 0
    """Draws the halves, the initial head and adapters, and the order of training."""
    semantics: int = SEMANTICS

    def _validate(self) -> None:
        self._one_of("half", HALVES)
        self._one_of("method", ("finetune", "probe", "zero_shot"))
        self._one_of("quantization", ("nf4", "none"))
        self._one_of("precision", ("bf16", "fp32"))
        self._one_of("device", ("cpu", "cuda"))
        self._at_least(seed=0, semantics=1)
        require_parts(self)
        object.__setattr__(self, "model", canonical_model(self.model, self.revision))
        require(
            self.name != "tfidf" or self.method == "finetune",
            f"'tfidf' is no language model: there is no {self.method}",
        )
        require(
            isinstance(self.loss, XentLoss) or self.trains,
            f"{type(self.loss).__name__} would be ignored: {self.model!r} by {self.method!r} does not minimise it",
        )
        require(
            self.method != "zero_shot" or isinstance(self.labels, GroundTruth),
            "zero_shot learns from no labels",
        )
        require(
            self.recipe.batch_size <= self.task.n_train,
            f"Recipe.batch_size is {self.recipe.batch_size}, more than the {self.task.n_train} rows of a half",
        )
        reads, shares = isinstance(self.labels, NextToken), self.snapshots
        require(
            not self.snapshots or (self.trains and not reads),
            "only a finetuned classifier has snapshots",
        )
        require(
            isinstance(shares, tuple)
            and all(isinstance(f, float) and 0 < f < 1 for f in shares)
            and shares == tuple(sorted(set(shares))),
            f"RunSpec.snapshots must be rising shares of training in (0, 1), not {shares!r}",
        )
        for parent in self.parents():
            what = (
                "the adapters"
                if isinstance(self.start, Continue) and parent is self.start.run
                else "the labels"
            )
            require(
                parent.task == self.task,
                f"{what} come from a run on another task: {parent.task} against {self.task}",
            )
            require(
                parent.seed == self.seed,
                f"{what} come from seed {parent.seed}, this run has seed {self.seed}: their "
                "halves would overlap, since the seed draws them",
            )
        if isinstance(self.labels, (FromRun, Flip)):
            giver, own = self.labels.run, isinstance(self.labels, FromRun) and self.labels.own_texts
            require(
                (giver.half == self.half) == own,
                "own_texts=True is for a run on the half that it then labels"
                if own
                else f"the labels' run was trained on the {self.half} half: the texts it would label",
            )
            require(
                giver.predict_halves and not isinstance(giver.labels, NextToken),
                f"run {giver.run_id} gives no labels: it predicts no half",
            )
        require(
            not reads
            or (
                self.trains
                and self.start == Pretrained()
                and self.loss == XentLoss()
                and self.predict_halves
            ),
            "NextToken is finetuned from the pretrained weights, with XentLoss, and predicts no half as it is",
        )
        if isinstance(self.start, Continue):
            _require_continuation(self, self.start.run)

    @property
    def name(self) -> str:
        """The model without its depth."""
        return split_model(self.model)[0]

    @property
    def depth(self) -> int | None:
        """Blocks kept: None for a whole model whose depth only its own configuration knows, and for `tfidf`."""
        name, depth = split_model(self.model)
        return depth or EMBEDDED_DEPTH.get(name)

    @property
    def trains(self) -> bool:
        """Whether a language model is finetuned: it is not probed, asked or counted words."""
        return self.method == "finetune" and self.name != "tfidf"

    @property
    def learned(self) -> RunSpec:
        """The run without what only says which rows it predicts, and when: runs of which this is equal learn the same."""
        return replace(self, snapshots=(), predict_halves=True) if self.trains else self

    @property
    def role(self) -> Literal["supervisor", "student", "ceiling", "baseline", "generative"]:
        """What the run is in an experiment."""
        if isinstance(self.labels, NextToken):
            return "generative"
        if not isinstance(self.labels, GroundTruth):
            return "student"
        if self.half == "supervisor":
            return "supervisor"
        return "ceiling" if self.trains else "baseline"

    @property
    def run_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON: it covers the whole lineage."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, fields equal to their default left out (`semantics` never is)."""
        return json.dumps(encode(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`. Raises `SpecError` on a field that is not known."""
        return cls(**decode(cls, json.loads(text)))

    def with_seed(self, seed: int) -> RunSpec:
        """The same run, and all runs that it learns from, under another seed."""
        return self.along(lambda run: {"seed": seed})

    def along(self, change: Callable[[RunSpec], dict[str, Any]]) -> RunSpec:
        """The same run, and all runs that it learns from, each with the settings that `change` gives for it."""
        held = {"labels": self.labels, "start": self.start}
        taught: dict[str, Any] = {
            name: replace(part, run=part.run.along(change))
            for name, part in held.items()
            if isinstance(part, (FromRun, Flip, Continue))
        }
        return replace(self, **taught, **change(self))

    def parents(self) -> list[RunSpec]:
        """The runs that this one needs directly: the one that gives its labels, the one that it starts from."""
        return [
            part.run
            for part in (self.labels, self.start)
            if isinstance(part, (FromRun, Flip, Continue))
        ]

    def lineage(self) -> Iterator[RunSpec]:
        """Every run that this one needs, the first teacher first, itself last; one needed twice comes twice."""
        for parent in self.parents():
            yield from parent.lineage()
        yield self


UNIONS.update(
    labels=(GroundTruth, FromRun, Flip, NextToken), loss=LOSSES, start=(Pretrained, Continue)
)
NESTED.update(task=Task, recipe=Recipe, lora=Lora, run=RunSpec)


def _require_continuation(spec: RunSpec, earlier: RunSpec) -> None:
    """Refuses to start `spec` from a run whose adapters do not fit it, or that has seen other texts."""
    for name in ("name", "revision", "quantization", "precision", "device", "lora", "half"):
        mine, other = getattr(spec, name), getattr(earlier, name)
        require(
            mine == other,
            f"a run starts from one of the same {name}, not from {other!r} for {mine!r}",
        )
    require(earlier.trains, f"run {earlier.run_id} has no adapters to start from")
    if spec.method == "probe":
        require(
            spec.depth is not None and earlier.depth is not None,
            "to probe a finetuned model, name both depths: 'name@20'",
        )
        layer, top = spec.depth or 0, earlier.depth or 0
        adapted = earlier.lora.n_adapted(top)
        require(
            top - adapted < layer <= top,
            f"layer {layer} of run {earlier.run_id} is not one of its {adapted} adapted "
            f"ones, up to {top}: below them it is the frozen model",
        )
    else:
        require(
            spec.model == earlier.model
            and isinstance(earlier.labels, NextToken)
            and spec.method == "finetune",
            "a classifier continues a NextToken run of the same model",
        )
