"""What a run is: a frozen, nested, checked description with a canonical JSON form and a hash.

A *run* is one model, fitted on one set of labels, then asked for its predictions. Labels can come
from another run: supervisor, chain and student are one type nested in itself, under one hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field, NonNegativeInt

from w2s_lib.runs import model_names, settings
from w2s_lib.runs.description import BY_TYPE, Choice, Description, defaults
from w2s_lib.runs.errors import SpecError, require
from w2s_lib.runs.losses import Loss, XentLoss
from w2s_lib.runs.method import Method
from w2s_lib.runs.settings import GroundTruth, Lora, NextToken, NoisyTruth, Pretrained, Recipe, Task

SEMANTICS = 2
"""Raised when the same spec would train to different bits. It is part of every id. 1 was the first
edition's: one stream of random numbers for teacher and student, other test rows."""


class OfRun(Choice):
    """What is taken from another run: its labels, or its adapters."""

    run: RunSpec


class FromRun(OfRun):
    """Another run's labels as they come, P(y=1): naive finetuning (Burns et al. 2023, section 4.2)."""


class Hard(OfRun):
    """Another run's labels, made 0 or 1 at one half: a control for how sure its teacher is."""


class Centred(OfRun):
    """Another run's labels, their logits less the median logit over the half: as many yes as no.

    A control for a teacher that prefers one class. No individual label enters.
    """


class Flip(OfRun):
    """Ground truth, 0 or 1, with as many random errors in either class as `run` makes there.

    A control: are a supervisor's errors harder to see through? (Burns et al. 2023, simulated ones.)
    """


class ModelErrors(OfRun):
    """Another run's labels, made 0 or 1 at their median over the half: as many yes as no.

    It errs as often in either class, and the next four kinds as often as it does: they differ in
    where errors stand alone (Burns et al. 2023, simulated supervisors). Chapter: people.
    """


class CoinErrors(OfRun):
    """Ground truth, 0 or 1, with as many errors as `ModelErrors` has, anywhere."""


class RaterErrors(OfRun):
    """Ground truth, 0 or 1, with as many errors as `ModelErrors` has, a single rater's.

    A row's chance is proportional to the share of its raters who contradict the truth, among those
    who are not on the panel that says what is true (`Task.panel`).
    """


class WordErrors(OfRun):
    """Ground truth, 0 or 1, with as many errors as `ModelErrors` has: where words weigh most.

    Each word's weight is drawn once for everybody; a text has their mean.
    """


class LengthErrors(OfRun):
    """Ground truth, 0 or 1, with as many errors as `ModelErrors` has: the longest texts."""


class Relabelled(OfRun):
    """Another run's labels as a function of one's own changes them. Chapter: leaderboard.

    It is given the half's texts, or the frozen states of the model that will learn, and that run's
    labels; then texts or states of the test and validation rows, mixed. It gives P(y = 1) of the
    half.
    """

    method: Method


Erring: TypeAlias = ModelErrors | CoinErrors | RaterErrors | WordErrors | LengthErrors
"""Labels that are all wrong equally often, in either class."""
Taught: TypeAlias = FromRun | Hard | Centred | Flip | Erring | Relabelled
"""Labels that come from another run, `labels.run`."""
_LEARNS = {"reader": NextToken, "zero_shot": GroundTruth, "transfer": GroundTruth}
"""The labels of a kind of run that learns no others."""


class Continue(OfRun):
    """Start from the adapters of a run: one of `NextToken`, or one whose states are probed."""


class RunSpec(Description):
    """One run. Built by `supervisor`, `student`, `ceiling` and the other arms."""

    model: str
    """`smollm2-135m`, `name@depth`, `hf:<owner>/<name>`, a local folder (`./model@6`), or
    `tfidf`."""
    revision: str = ""
    """What exactly the name means: a hub model's commit, a folder's digest.
    `w2s_lib.models.pins.pin` fills it in; until then it is "", or the branch or tag of a hub model
    that is wanted."""
    task: Task = Task()
    labels: Annotated[GroundTruth | NoisyTruth | Taught | NextToken, BY_TYPE] = GroundTruth()
    half: settings.Half = "student"
    """The half of the training pool that the run is fitted on; or all of the "pool", which is more
    than both halves: the most that ground truth can teach."""
    loss: Loss = XentLoss()
    start: Annotated[Pretrained | Continue, BY_TYPE] = Pretrained()
    recipe: Recipe = Recipe()
    lora: Lora = Lora()
    method: Literal["finetune", "probe", "zero_shot", "transfer"] | Method = "finetune"
    """"finetune", "probe" (logistic regression on the last token's states after `model`'s depth),
    a function of them, "zero_shot" (label-word odds), "transfer" (`start`, on another task)."""
    predict_halves: bool = False
    """Whether the halves are predicted as well as test and validation: a teacher's have to be."""
    quantization: settings.Quantization = "nf4"
    precision: settings.Precision = "bf16"
    device: settings.Device = "cpu"
    seed: NonNegativeInt = 0
    """Draws the halves, and, each from a stream of its own, what `stream` is for."""
    semantics: Annotated[int, Field(ge=1)] = SEMANTICS

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", model_names.canonical_model(self.model, self.revision))
        self._require_settings_that_apply()
        batch, rows = self.recipe.batch_size, self.task.n_train
        require(batch <= rows, f"Recipe.batch_size is {batch}, more than the {rows} rows of a half")
        if self.teacher:
            self._require_teacher_that_labels(self.teacher)
        if self.continued:
            self._require_adapters_that_fit(self.continued)

    def _require_settings_that_apply(self) -> None:
        labels, kind, no_model = self.labels, self.kind, model_names.NO_MODEL
        said = f"RunSpec.labels is {type(labels).__name__}, which a {kind} does not learn"
        require(isinstance(labels, _LEARNS.get(kind, GroundTruth | NoisyTruth | Taught)), said)
        alone = no_model.get(self.name, kind) == kind
        require(alone, f"{self.name!r} is no language model: it cannot be a {kind}")
        alone = kind != "text_method" or self.name == "texts"
        require(alone, f"a method that takes texts is asked as 'texts', not as {self.model!r}")
        made = isinstance(labels, Relabelled) and labels.method.sees == "states"
        said = f"{self.name!r} has no states, from which RunSpec.labels would be made"
        require(not made or self.name not in no_model, said)
        for name, default in defaults(RunSpec).items():
            applies = name in settings.APPLIES[kind] or name not in settings.APPLIES["classifier"]
            if name == "lora" and kind == "probe":
                applies = self.continued is not None
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
        said = f"the labels' run was trained on the {self.half} half: the texts it would label"
        require(teacher.half != self.half, said)
        said = f"the run of {teacher.model!r} gives no labels: it predicts no half"
        require(teacher.predict_halves, f"{said} (predict_halves=True)")

    def _require_adapters_that_fit(self, earlier: RunSpec) -> None:
        """Refuses to start from a run whose adapters do not fit, or that has seen other texts."""
        require(earlier.trains, f"a {earlier.kind} has no adapters to start from")
        same = ("seed", "name", "revision", *settings.OF_A_MODEL, "lora")
        self._require_same(earlier, "adapters", *same)
        if self.kind == "transfer":
            fits = self.model == earlier.model and earlier.kind == "classifier"
            require(fits, "what is asked about another task is a classifier of the same model")
            said = f"the run was trained on {self.task.name!r}: ask it about another task"
            require(self.task.name != earlier.task.name, said)
            return
        self._require_same(earlier, "adapters", "task", "half")
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
        return model_names.split_model(self.model)[0]

    @property
    def depth(self) -> int | None:
        """Blocks kept: None for `tfidf`, and where only the model's configuration knows."""
        name, depth = model_names.split_model(self.model)
        return depth or model_names.EMBEDDED_DEPTH.get(name)

    @property
    def kind(self) -> settings.Kind:
        """What is fitted; it says which settings apply (`APPLIES`)."""
        if isinstance(self.method, Method):
            return "method" if self.method.sees == "states" else "text_method"
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
        return self.labels.run if isinstance(self.labels, OfRun) else None

    @property
    def continued(self) -> RunSpec | None:
        """The run whose adapters this one starts from."""
        return self.start.run if isinstance(self.start, OfRun) else None

    @cached_property
    def stream(self) -> tuple[int, int, int]:
        """What seeds the run's start, order and flips: seed, half, earlier teachers of that half.

        A student never begins from its teacher's head or in its order, nor a later rung of a chain
        from an earlier one's. A student and its ceiling do begin alike.
        """
        same, run = 0, self.teacher
        while run:
            same, run = same + (run.half == self.half), run.teacher
        return (self.seed, get_args(settings.Half).index(self.half), same)

    @property
    def role(self) -> settings.Role:
        """What the run is in an experiment."""
        if self.kind == "reader":
            return "generative"
        if self.kind == "transfer":
            return "transfer"
        if self.teacher:
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
        if model_names.is_hub(self.name) and not re.fullmatch("[0-9a-f]{40}", self.revision):
            return f"the commit of {self.name!r}"
        if model_names.is_folder(self.name) and not self.revision:
            return f"the content of the folder {self.name!r}"
        if self.task.name not in settings.EMBEDDED_TASKS and not self.task.sha256:
            return f"the content of task {self.task.name!r}"
        return ""

    @cached_property
    def run_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON, lineage included.

        Raises:
            SpecError: it is not said yet which weights or texts are meant: see `pinned`.
        """
        for run in self.lineage():
            if what := run._unpinned:
                raise SpecError(f"no id yet: {what} is not pinned, which `sweep` or `pin` does")
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def with_seed(self, seed: int) -> RunSpec:
        """The same run, and all runs that it learns from, under another seed."""
        return self.map_lineage(lambda run: {"seed": seed})

    def map_lineage(self, change: Callable[[RunSpec], dict[str, Any]]) -> RunSpec:
        """The same lineage, each run of it with the settings that `change` gives for it."""
        changed: dict[str, Any] = {}
        for name in ("labels", "start"):
            if isinstance(part := getattr(self, name), OfRun):
                changed[name] = replace(part, run=part.run.map_lineage(change))
        return replace(self, **changed, **change(self))

    def parents(self) -> list[RunSpec]:
        """The runs that this one needs directly: its teacher, and the one that it continues."""
        return [run for run in (self.teacher, self.continued) if run is not None]

    def lineage(self) -> Iterator[RunSpec]:
        """Every run needed, the first teacher first, itself last; one needed twice comes twice."""
        for parent in self.parents():
            yield from parent.lineage()
        yield self
