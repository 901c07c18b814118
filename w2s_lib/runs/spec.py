"""What a run is: a frozen, nested, checked description with a canonical JSON form and a hash.

A *run* is one model, fitted on one set of labels, then asked for its predictions. Its labels can
come from another run, so a supervisor, a chain and a student are one type nested in itself, and
`RunSpec.run_id` covers the whole lineage.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import field, fields, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from w2s_lib.runs.description import STRICT, Description
from w2s_lib.runs.errors import SpecError, require
from w2s_lib.runs.losses import Loss, XentLoss
from w2s_lib.runs.model_names import EMBEDDED_DEPTH, canonical_model, is_folder, is_hub, split_model
from w2s_lib.runs.settings import EMBEDDED_TASKS, Lora, Recipe, Task

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
]

SEMANTICS = 1
"""Raised when the same spec would train to different bits. It is part of every id."""
Half = Literal["supervisor", "student"]
Quantization = Literal["nf4", "none"]
Precision = Literal["bf16", "fp32"]
Device = Literal["cpu", "cuda"]
Kind = Literal["classifier", "reader", "tfidf", "probe", "zero_shot"]

_OF_A_MODEL = ("quantization", "precision", "device")
_OF_CLASSIFIER = ("recipe", "lora", *_OF_A_MODEL, "loss", "start", "snapshots", "predict_halves")
APPLIES: dict[Kind, tuple[str, ...]] = {
    "classifier": _OF_CLASSIFIER,
    "reader": ("recipe", "lora", *_OF_A_MODEL),
    "probe": ("lora", *_OF_A_MODEL, "start", "predict_halves"),
    "zero_shot": (*_OF_A_MODEL, "predict_halves"),
    "tfidf": (),
}
"""The settings that mean something to each kind of run, beside its seed; any other is refused."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GroundTruth(Description):
    """The task's own labels."""

    type: Literal["GroundTruth"] = field(default="GroundTruth", repr=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FromRun(Description):
    """Labels that another run gives to texts it was not trained on: soft, P(y=1), or `hard`."""

    type: Literal["FromRun"] = field(default="FromRun", repr=False)
    run: RunSpec
    hard: bool = False
    own_texts: bool = False
    """A control: the run labels the very texts that it was trained on."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Flip(Description):
    """Another run's labels dealt out at random among the rows of the same true class.

    Accuracy, class balance and calibration stay exactly those of `run`; only *which* rows are wrong
    becomes random. With `hard`, ground truth with random flips at the supervisor's accuracy. A
    control: are a supervisor's errors harder to see through than random ones of the same number?
    (Burns et al. 2023, simulated supervisors.)
    """

    type: Literal["Flip"] = field(default="Flip", repr=False)
    run: RunSpec
    hard: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NextToken(Description):
    """No labels: the run learns the next token of the half's texts.

    Generative finetuning (Burns et al. 2023).
    """

    type: Literal["NextToken"] = field(default="NextToken", repr=False)
    corpus: str = ""
    """A task whose texts are read in place of the half's own, as many tokens of them: a control."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pretrained(Description):
    """Start from the pretrained weights, with fresh adapters."""

    type: Literal["Pretrained"] = field(default="Pretrained", repr=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Continue(Description):
    """Start from the adapters of a run: one of `NextToken`, or one whose states are probed."""

    type: Literal["Continue"] = field(default="Continue", repr=False)
    run: RunSpec


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunSpec(Description):
    """One run. Built by `supervisor`, `student`, `ceiling` and the other arms."""

    model: str
    """`smollm2-135m`, `name@depth`, `hf:<owner>/<name>`, a local folder (`./model@6`), or
    `tfidf`."""
    revision: str = ""
    """What exactly the name means: a hub model's commit, a folder's digest.
    `w2s_lib.models.pins.pin` fills it in; until then it is "", or the branch or tag of a hub model
    that is wanted."""
    task: Task = field(default_factory=Task)
    labels: Annotated[GroundTruth | FromRun | Flip | NextToken, Field(discriminator="type")] = (
        field(default_factory=GroundTruth)
    )
    half: Half = "student"
    """The half of the training pool that the run is fitted on."""
    loss: Loss = field(default_factory=XentLoss)
    start: Annotated[Pretrained | Continue, Field(discriminator="type")] = field(
        default_factory=Pretrained
    )
    recipe: Recipe = field(default_factory=Recipe)
    lora: Lora = field(default_factory=Lora)
    method: Literal["finetune", "probe", "zero_shot"] = "finetune"
    """"finetune", "probe" (logistic regression on the last token's state after `model`'s depth) or
    "zero_shot" (label-word odds)."""
    snapshots: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1, strict=True)], ...], Field(strict=False)
    ] = ()
    """Shares of training, in (0, 1), after which test and validation are predicted as well."""
    predict_halves: bool = True
    """False: only test and validation are predicted, so nobody can learn from the run; it saves a
    fifth."""
    quantization: Quantization = "nf4"
    precision: Precision = "bf16"
    device: Device = "cpu"
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the halves, the initial head and adapters, and the order of training."""
    semantics: Annotated[int, Field(ge=1)] = SEMANTICS

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", canonical_model(self.model, self.revision))
        self._require_settings_that_apply()
        batch, rows, shares = self.recipe.batch_size, self.task.n_train, self.snapshots
        require(batch <= rows, f"Recipe.batch_size is {batch}, more than the {rows} rows of a half")
        rising = shares == tuple(sorted(set(shares)))
        require(rising, f"RunSpec.snapshots must be rising shares of training, not {shares!r}")
        if self.teacher:
            self._require_teacher_that_labels(self.teacher)
        if self.continued:
            self._require_adapters_that_fit(self.continued)

    def _require_settings_that_apply(self) -> None:
        labels, kind = type(self.labels).__name__, self.kind
        learns = {"reader": ("NextToken",), "zero_shot": ("GroundTruth",)}
        allowed = learns.get(kind, ("GroundTruth", "FromRun", "Flip"))
        require(labels in allowed, f"RunSpec.labels is {labels}, which a {kind} does not learn")
        alone = self.name != "tfidf" or kind == "tfidf"
        require(alone, f"'tfidf' is no language model: it cannot be a {kind}")
        for name, default in _SETTINGS.items():
            applies = name in APPLIES[kind] and (
                name != "lora" or kind != "probe" or self.continued
            )
            if not applies and getattr(self, name) != default:
                shown = f"{getattr(self, name)!r:.100}"
                raise SpecError(f"{name} does not apply to a {kind}: {shown} would be ignored")

    def _require_same(self, parent: RunSpec, what: str, *names: str) -> None:
        for name in names:
            mine, other = getattr(self, name), getattr(parent, name)
            if mine != other:
                raise SpecError(f"the {what} come from a run of {name} {other!r}, not {mine!r}")

    def _require_teacher_that_labels(self, teacher: RunSpec) -> None:
        self._require_same(teacher, "labels", "task", "seed")  # the seed draws the halves
        own = isinstance(self.labels, FromRun) and self.labels.own_texts
        if own:
            said = "own_texts=True is for a run on the half that it then labels"
        else:
            said = f"the labels' run was trained on the {self.half} half: the texts it would label"
        require((teacher.half == self.half) == own, said)
        labels = teacher.predict_halves and teacher.kind != "reader"
        require(labels, f"the run of {teacher.model!r} gives no labels: it predicts no half")

    def _require_adapters_that_fit(self, earlier: RunSpec) -> None:
        """Refuses to start from a run whose adapters do not fit, or that has seen other texts."""
        require(earlier.trains, f"a {earlier.kind} has no adapters to start from")
        same = ("task", "seed", "name", "revision", *_OF_A_MODEL, "lora", "half")
        self._require_same(earlier, "adapters", *same)
        if self.kind != "probe":
            fits = self.model == earlier.model and earlier.kind == "reader"
            require(fits, "a classifier continues a NextToken run of the same model")
            return
        layer, top = self.depth, earlier.depth
        if layer is None or top is None:
            raise SpecError("to probe a finetuned model, name both depths: 'name@20'")
        lowest = top - earlier.lora.n_adapted(top) + 1
        said = f"layer {layer} is not one of the adapted layers, {lowest} to {top}"
        require(lowest <= layer <= top, f"{said}: below them it is the frozen model")

    @property
    def name(self) -> str:
        """The model without its depth."""
        return split_model(self.model)[0]

    @property
    def depth(self) -> int | None:
        """Blocks kept: None for `tfidf`, and where only the model's configuration knows."""
        name, depth = split_model(self.model)
        return depth or EMBEDDED_DEPTH.get(name)

    @property
    def kind(self) -> Kind:
        """What is fitted; it says which settings apply (`APPLIES`)."""
        if self.method != "finetune":
            return self.method
        if isinstance(self.labels, NextToken):
            return "reader"
        return "tfidf" if self.name == "tfidf" else "classifier"

    @property
    def trains(self) -> bool:
        """Whether a language model is finetuned: it is not probed, asked or counted words."""
        return self.kind in ("classifier", "reader")

    @property
    def teacher(self) -> RunSpec | None:
        """The run that gives the labels."""
        return self.labels.run if isinstance(self.labels, (FromRun, Flip)) else None

    @property
    def continued(self) -> RunSpec | None:
        """The run whose adapters this one starts from."""
        return self.start.run if isinstance(self.start, Continue) else None

    @property
    def training_key(self) -> RunSpec:
        """The run without what only says what it predicts: equal keys are one training."""
        return replace(self, snapshots=(), predict_halves=True) if self.trains else self

    @property
    def role(self) -> Literal["supervisor", "student", "ceiling", "baseline", "generative"]:
        """What the run is in an experiment."""
        if self.kind == "reader":
            return "generative"
        if not isinstance(self.labels, GroundTruth):
            return "student"
        if self.half == "supervisor":
            return "supervisor"
        return "ceiling" if self.trains else "baseline"

    @cached_property
    def pinned(self) -> bool:
        """Whether it is said exactly which weights and texts are meant, along the whole lineage."""
        return not self._unpinned and all(parent.pinned for parent in self.parents())

    @property
    def _unpinned(self) -> str:
        """What of this run alone is not pinned, in words; "" where all is."""
        if is_hub(self.name) and not re.fullmatch("[0-9a-f]{40}", self.revision):
            return f"the commit of {self.name!r}"
        if is_folder(self.name) and not self.revision:
            return f"the content of the folder {self.name!r}"
        if self.task.name not in EMBEDDED_TASKS and not self.task.sha256:
            return f"the content of task {self.task.name!r}"
        return ""

    @cached_property
    def run_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON, lineage included.

        Raises:
            SpecError: it is not said yet which weights or texts are meant: see `pinned`.
        """
        if not self.pinned:
            what = next(run._unpinned for run in self.lineage() if run._unpinned)
            raise SpecError(
                f"there is no id yet: {what} is not pinned, which `sweep` or `pin` does"
            )
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def with_seed(self, seed: int) -> RunSpec:
        """The same run, and all runs that it learns from, under another seed."""
        return self.map_lineage(lambda run: {"seed": seed})

    def map_lineage(self, change: Callable[[RunSpec], dict[str, Any]]) -> RunSpec:
        """The same lineage, each run of it with the settings that `change` gives for it."""
        settings: dict[str, Any] = {}
        if isinstance(self.labels, (FromRun, Flip)):
            settings["labels"] = replace(self.labels, run=self.labels.run.map_lineage(change))
        if isinstance(self.start, Continue):
            settings["start"] = replace(self.start, run=self.start.run.map_lineage(change))
        return replace(self, **settings, **change(self))

    def parents(self) -> list[RunSpec]:
        """The runs that this one needs directly: its teacher, and the one that it continues."""
        return [run for run in (self.teacher, self.continued) if run is not None]

    def lineage(self) -> Iterator[RunSpec]:
        """Every run needed, the first teacher first, itself last; one needed twice comes twice."""
        for parent in self.parents():
            yield from parent.lineage()
        yield self


_SETTINGS: dict[str, Any] = {
    f.name: f.default_factory() if callable(f.default_factory) else f.default
    for f in fields(RunSpec)
    if f.name in APPLIES["classifier"]
}
"""The settings that do not apply to every kind, with their defaults."""
