"""The parts of a run's description: the task, the loss, the adapters, the recipe. Each refuses what makes no sense."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Self

from w2s_lib.runs.errors import SpecError, nearest, require


@dataclass(frozen=True, kw_only=True)
class Part:
    """Typed by its annotations: a wrong type, a NaN or an infinity is refused at construction."""

    def __new__(cls, *args: object, **given: object) -> Self:
        """Refuses, by its name, a field that does not exist."""
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                raise SpecError(f"unknown field {name!r} of {cls.__name__}: {nearest(name, known)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if hasattr(value, "item") and not isinstance(value, (str, Part)):
                value = (
                    value.item()
                )  # a NumPy scalar would hash differently from the number that it shows
            where = f"{type(self).__name__}.{f.name}"
            if isinstance(value, list) and str(f.type).startswith("tuple"):
                value = tuple(value)  # what JSON makes of one
            if f.type == "float":
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                require(
                    number and math.isfinite(value),
                    f"{where} must be a finite number, not {value!r}",
                )
                value = float(value)
            elif f.type == "int":
                require(
                    isinstance(value, int) and not isinstance(value, bool),
                    f"{where} must be a whole number, not {value!r}",
                )
            elif f.type in ("str", "bool"):
                require(
                    isinstance(value, str if f.type == "str" else bool),
                    f"{where} must be a {f.type}, not {value!r}",
                )
            object.__setattr__(self, f.name, value)
        self._validate()

    def _validate(self) -> None:
        """Refuse what the types alone allow."""

    def _at_least(self, **lowest: float) -> None:
        for name, low in lowest.items():
            value = getattr(self, name)
            require(
                value >= low, f"{type(self).__name__}.{name} must be at least {low}, not {value!r}"
            )

    def _within(self, **ends: tuple[float, float]) -> None:
        for name, (low, high) in ends.items():
            value = getattr(self, name)
            require(
                low <= value <= high,
                f"{type(self).__name__}.{name} must be in [{low}, {high}], not {value!r}",
            )

    def _one_of(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        require(
            value in choices,
            lambda: f"{type(self).__name__}.{name} is {value!r}: {nearest(str(value), choices)}",
        )


@dataclass(frozen=True, kw_only=True)
class Task(Part):
    """A named task and how many rows of it are used."""

    name: str = "movie"
    """An embedded task, one of `hub_tasks`, a path to a user's file, or `hf:<dataset>`."""
    n_train: int = 1000
    """Rows in each of the two halves of the training pool."""
    n_validation: int = 500
    n_test: int = 2000
    min_rating: float = 0.5
    """Embedded tasks: rows whose mean human rating is this close to 0 are left out as having no clear label; in comparisons,
    pairs whose mean ratings are closer than this."""
    template: str = "{text} It was"
    """What the model reads; the state of its last token is classified (Gao et al. 2021 use the same ending)."""
    label_words: str = "terrible/great"
    """Zero-shot: the words, of one token each, that stand for label 0 and label 1 after the template."""
    max_tokens: int = 0
    """A longer text loses its beginning or its end; the template stays whole. 0: no text may exceed what the model reads."""
    cut: str = "end"
    """What a long text loses: its "end", or its "start", where what is judged comes last."""
    sha256: str = ""
    """A user's file: the digest of its content, so that a changed file is another task."""

    def _validate(self) -> None:
        self._at_least(n_train=2, n_validation=2, n_test=2, min_rating=0.0, max_tokens=0)
        self._one_of("cut", ("end", "start"))
        for name in ("n_train", "n_validation", "n_test"):
            require(
                getattr(self, name) % 2 == 0,
                f"Task.{name} must be even, as classes are balanced: {getattr(self, name)}",
            )
        require(
            "{text}" in self.template, f"Task.template must contain '{{text}}': {self.template!r}"
        )


@dataclass(frozen=True, kw_only=True)
class XentLoss(Part):
    """Cross-entropy against the labels as they are: naive finetuning."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceLoss(Part):
    """The auxiliary confidence loss (Burns et al. 2023, eq. 1): alpha rises linearly to `alpha_max`, then stays."""

    alpha_max: float = 0.5
    warmup_fraction: float = 0.2
    """Share of training over which alpha rises from 0."""
    threshold: str | float = "half"
    """Hardening threshold: "half" of each batch positive, the labels' "mean" positive, or a fixed number in (0, 1)."""
    schedule: str = "linear"
    """"linear", the paper's; or "step", that of the code published later (openai/weak-to-strong): alpha_max times the share
    of training that is done, and at the end of the warm-up a jump to alpha_max."""

    def _validate(self) -> None:
        self._within(alpha_max=(0, 1), warmup_fraction=(0, 1))
        self._one_of("schedule", ("linear", "step"))
        if isinstance(self.threshold, str):
            self._one_of("threshold", ("half", "mean"))
        else:
            require(
                isinstance(self.threshold, float) and 0 < self.threshold < 1,
                f"ConfidenceLoss.threshold must be 'half', 'mean' or in (0, 1), not {self.threshold!r}",
            )


@dataclass(frozen=True, kw_only=True)
class EntropyLoss(Part):
    """`losses.entropy_loss`: the student's own entropy instead of its hardened prediction; alpha rises as in the paper."""

    alpha_max: float = 0.5
    warmup_fraction: float = 0.2

    def _validate(self) -> None:
        self._within(alpha_max=(0, 1), warmup_fraction=(0, 1))


@dataclass(frozen=True, kw_only=True)
class ProductLoss(Part):
    """`losses.product_loss`: the target is the product of the label and the student's own prediction, normalised."""

    label_power: float = 1.0
    prediction_power: float = 1.0

    def _validate(self) -> None:
        self._at_least(label_power=0.0, prediction_power=0.0)


@dataclass(frozen=True, kw_only=True)
class WindowLoss(Part):
    """`losses.window_loss`: only rows that the student is still unsure of are learned."""

    radius: float = 0.15

    def _validate(self) -> None:
        self._within(radius=(0, 0.5))


@dataclass(frozen=True, kw_only=True)
class ReverseLoss(Part):
    """`losses.reverse_xent_loss`: cross-entropy with prediction and label in each other's place."""

    floor: float = 0.01
    """Labels are kept this far from 0 and 1, where their logarithm is infinite."""

    def _validate(self) -> None:
        require(0 < self.floor < 0.5, f"ReverseLoss.floor must be in (0, 0.5), not {self.floor}")


@dataclass(frozen=True, kw_only=True)
class AdaptiveLoss(Part):
    """`losses.adaptive_confidence_loss`: each row weighs its label against the student's own verdict."""

    temperature: float = 1.0

    def _validate(self) -> None:
        require(
            self.temperature > 0,
            f"AdaptiveLoss.temperature must be above 0, not {self.temperature}",
        )


LOSSES: tuple[type[Part], ...] = (
    XentLoss,
    ConfidenceLoss,
    EntropyLoss,
    ProductLoss,
    WindowLoss,
    ReverseLoss,
    AdaptiveLoss,
)


@dataclass(frozen=True, kw_only=True)
class Lora(Part):
    """Low-rank adapters (Hu et al. 2021) on every linear layer of the top blocks."""

    rank: int = 16
    alpha: float = 32.0
    blocks: int | str = 10
    """How many of the top blocks are adapted (all, where there are fewer), or "all"."""

    def _validate(self) -> None:
        self._at_least(rank=1, alpha=0.0)
        ok = self.blocks == "all" or (
            isinstance(self.blocks, int) and not isinstance(self.blocks, bool) and self.blocks >= 1
        )
        require(
            ok, f"Lora.blocks must be a whole number of at least 1 or 'all', not {self.blocks!r}"
        )

    def n_adapted(self, depth: int) -> int:
        """How many of a model's `depth` blocks are adapted: always its top ones."""
        return depth if self.blocks == "all" else min(depth, int(self.blocks))


@dataclass(frozen=True, kw_only=True)
class Recipe(Part):
    """How long and how fast: the same for supervisors, students and ceilings."""

    epochs: int = 2
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_fraction: float = 0.1
    """Share of the steps over which the rate rises from 0, before it falls linearly to 0."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def _validate(self) -> None:
        self._at_least(epochs=1, batch_size=2, weight_decay=0.0, warmup_fraction=0.0)
        require(
            self.learning_rate > 0,
            f"Recipe.learning_rate must be above 0, not {self.learning_rate}",
        )
        require(
            self.max_grad_norm > 0,
            f"Recipe.max_grad_norm must be above 0, not {self.max_grad_norm}",
        )
        require(
            self.warmup_fraction <= 1,
            f"Recipe.warmup_fraction must be in [0, 1], not {self.warmup_fraction}",
        )
