"""What a run is: frozen, nested, validated descriptions with a canonical JSON form and a hash.

A *run* is one model, fitted on one set of labels, then asked for its predictions. Its labels can come from another run,
so a supervisor, a chain and a student are one type nested in itself, and `RunSpec.run_id` covers the whole lineage.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from .parts import ConfidenceLoss, Lora, Part, Recipe, SpecError, Task, XentLoss, nearest, require

__all__ = ["ConfidenceLoss", "Flip", "FromRun", "GroundTruth", "Lora", "Recipe", "RunSpec", "SpecError", "Task",
           "XentLoss", "nearest"]

SEMANTICS = 1
"""Raised when the same spec would train to different bits. It is part of every id."""

EMBEDDED_DEPTH = {"smollm2-135m": 30}
"""Models that need no hub, and how many blocks each has."""

HALVES = ("supervisor", "student")


@dataclass(frozen=True, kw_only=True)
class GroundTruth(Part):
    """The task's own labels."""


@dataclass(frozen=True, kw_only=True)
class FromRun(Part):
    """Labels that another run gives to texts it was not trained on: soft, P(y=1), or `hard`, 0/1 at one half."""

    run: RunSpec
    hard: bool = False

    def _validate(self) -> None:
        _require_parts(self)


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
        _require_parts(self)


@dataclass(frozen=True, kw_only=True)
class RunSpec(Part):
    """One run. Build it with `supervisor`, `student`, `ceiling`, `chain`, `probe` or `zero_shot`."""

    model: str
    """`smollm2-135m`, `name@depth`, `hf:<owner>/<name>`, a local folder (`./model@6`), or `tfidf`."""
    task: Task = field(default_factory=Task)
    labels: GroundTruth | FromRun | Flip = field(default_factory=GroundTruth)
    half: str = "student"
    """The half of the training pool that the run is fitted on."""
    loss: XentLoss | ConfidenceLoss = field(default_factory=XentLoss)
    recipe: Recipe = field(default_factory=Recipe)
    lora: Lora = field(default_factory=Lora)
    method: str = "finetune"
    """"finetune", "probe" (logistic regression on the frozen model's last state) or "zero_shot" (label-word odds)."""
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
        _require_parts(self)
        object.__setattr__(self, "model", canonical_model(self.model))
        require(self.name != "tfidf" or self.method == "finetune", f"'tfidf' is no language model: there is no {self.method}")
        require(isinstance(self.loss, XentLoss) or (self.method == "finetune" and self.name != "tfidf"),
                f"{type(self.loss).__name__} would be ignored: {self.model!r} by {self.method!r} does not minimise it")
        require(self.method != "zero_shot" or isinstance(self.labels, GroundTruth), "zero_shot learns from no labels")
        require(self.recipe.batch_size <= self.task.n_train,
                 f"Recipe.batch_size is {self.recipe.batch_size}, more than the {self.task.n_train} rows of a half")
        if isinstance(self.labels, (FromRun, Flip)):
            giver = self.labels.run
            require(giver.task == self.task, f"the labels come from a run on another task: {giver.task} against {self.task}")
            require(giver.seed == self.seed, f"the labels come from seed {giver.seed}, this run has seed {self.seed}: their "
                     "halves would overlap, since the seed draws them")
            require(giver.half != self.half, f"the labels' run was trained on the {self.half} half: the texts it would label")

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
    def role(self) -> Literal["supervisor", "student", "ceiling", "baseline"]:
        """What the run is in an experiment."""
        if not isinstance(self.labels, GroundTruth):
            return "student"
        if self.half == "supervisor":
            return "supervisor"
        return "ceiling" if self.method == "finetune" and self.name != "tfidf" else "baseline"

    @property
    def run_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON: it covers the whole lineage."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, fields equal to their default left out (`semantics` never is)."""
        return json.dumps(_encode(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`. Raises `SpecError` on a field that is not known."""
        return cls(**_decode(cls, json.loads(text)))

    def with_seed(self, seed: int) -> RunSpec:
        """The same run, and all runs that it learns from, under another seed."""
        labels = self.labels
        if not isinstance(labels, GroundTruth):
            labels = dataclasses.replace(labels, run=labels.run.with_seed(seed))
        return dataclasses.replace(self, seed=seed, labels=labels)

    def lineage(self) -> Iterator[RunSpec]:
        """Every run that this one needs, the first teacher first, itself last."""
        if not isinstance(self.labels, GroundTruth):
            yield from self.labels.run.lineage()
        yield self


UNIONS: dict[str, tuple[type[Part], ...]] = {"labels": (GroundTruth, FromRun, Flip), "loss": (XentLoss, ConfidenceLoss)}
_PARTS: dict[str, type[Part]] = {"task": Task, "recipe": Recipe, "lora": Lora, "run": RunSpec}


def split_model(model: str) -> tuple[str, int | None]:
    """`name@depth` -> (name, depth); the depth is None where none is given. Raises `SpecError`."""
    name, at, depth = model.partition("@")
    require(not at or depth.isdecimal(), f"the depth in {model!r} must be a whole number, as in 'smollm2-135m@4'")
    return name, int(depth) if at else None


def canonical_model(model: str) -> str:
    """Checks a model's name and depth; a depth that keeps every block is left out, so one model has one name."""
    name, depth = split_model(model)
    known = [*EMBEDDED_DEPTH, "tfidf"]
    require(name in known or (name.startswith("hf:") and len(name) > 3) or "/" in name,
             f"unknown model {name!r}: {nearest(name, known)} Also 'hf:<owner>/<name>' or a local folder with a '/' in it.")
    require(depth is None or name != "tfidf", "'tfidf' has no depth")
    most = EMBEDDED_DEPTH.get(name)
    require(depth is None or (depth >= 1 and (most is None or depth <= most)),
             f"depth {depth} of {name!r}: must be 1 to {most or 'the number of its blocks'}")
    return name if depth is None or depth == most else f"{name}@{depth}"


def _encode(part: Any) -> Any:
    if not isinstance(part, Part):
        return part
    out: dict[str, Any] = {}
    for f in fields(part):
        value = getattr(part, f.name)
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if value != default or f.name == "semantics":
            out[f.name] = _encode(value)
            if f.name in UNIONS:
                out[f.name]["type"] = type(value).__name__
    return out


def _require_parts(part: Part) -> None:
    for f in fields(part):
        kinds = UNIONS.get(f.name) or ((_PARTS[f.name],) if f.name in _PARTS else ())
        value, names = getattr(part, f.name), [kind.__name__ for kind in kinds]
        require(not kinds or isinstance(value, kinds),
                f"{type(part).__name__}.{f.name} is {value!r}: {nearest(str(value), names)}")


def _decode(kind: type[Part], data: Any) -> dict[str, Any]:
    require(isinstance(data, dict), f"{kind.__name__} must be a JSON object, not {data!r}")
    out: dict[str, Any] = {}
    for key, value in data.items():
        if key in UNIONS:
            types = {k.__name__: k for k in UNIONS[key]}
            tag = value.get("type", "") if isinstance(value, dict) else value
            require(tag in types, f"unknown type {tag!r} of {key}: {nearest(str(tag), types)}")
            out[key] = types[tag](**_decode(types[tag], {k: v for k, v in value.items() if k != "type"}))
        elif key in _PARTS and kind is not Task:
            out[key] = _PARTS[key](**_decode(_PARTS[key], value))
        else:
            out[key] = value
    return out
