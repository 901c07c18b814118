"""Settings of a run that name no other run: task, adapters, recipe, ground truth; which apply."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator
from pydantic_core import ArgsKwargs

from w2s_lib.runs.description import Choice, Description
from w2s_lib.runs.errors import require
from w2s_lib.runs.losses import Share

Half = Literal["supervisor", "student", "pool"]
Quantization = Literal["nf4", "none"]
Precision = Literal["bf16", "fp32"]
Device = Literal["cpu", "cuda"]
Role = Literal["supervisor", "student", "ceiling", "baseline", "generative", "transfer"]
Kind = Literal[
    "classifier", "reader", "tfidf", "probe", "method", "text_method", "zero_shot", "transfer"
]

OF_A_MODEL = ("quantization", "precision", "device")
"""What a student takes over from its teacher, and any run from the one whose adapters it
continues."""
APPLIES: dict[Kind, tuple[str, ...]] = {
    "classifier": ("recipe", "lora", *OF_A_MODEL, "loss", "start", "predict_halves"),
    "reader": ("recipe", "lora", *OF_A_MODEL),
    "probe": ("lora", *OF_A_MODEL, "start", "predict_halves"),
    "method": OF_A_MODEL,
    "zero_shot": (*OF_A_MODEL, "predict_halves"),
    "transfer": ("lora", *OF_A_MODEL, "start"),
    "tfidf": ("predict_halves",),
    "text_method": (),
}
"""The settings that mean something to each kind of run, beside its seed; any other is refused."""

EMBEDDED_TASKS = ("movie", "amazon", "nyt", "tweets", "movie-preference")
"""Tasks whose content comes with the library's pinned data, so that their name alone says what it
is."""

SIZES = ("n_train", "n_validation", "n_test")
Rows = Annotated[int, Field(ge=2, multiple_of=2)]
"""A number of rows: even, as classes are balanced."""


class Task(Description):
    """A named task and how many rows of it are used.

    The sizes below are those of `movie`. They belong to it, not to others: of any other task all
    three are given, as `default_task` does. In JSON they are left out where they equal these.
    """

    name: str = "movie"
    """An embedded task, one of `hub_tasks`, or a path to a user's file."""
    n_train: Rows = 2000
    """Rows in each of the two halves of the training pool."""
    n_validation: Rows = 500
    n_test: Rows = 4000
    min_rating: NonNegativeFloat = 0.5
    """Embedded tasks: rows whose mean human rating is this close to 0 are left out as having no
    clear label; in comparisons, pairs whose mean ratings are closer than this."""
    max_rating: NonNegativeFloat = 4.0
    """Embedded tasks but comparisons: rows whose mean human rating is further from 0 are left out,
    as too clear. Ratings end at 4."""
    panel: NonNegativeInt = 0
    """Embedded tasks but comparisons: how many of a text's raters, drawn once for everybody, say
    what is true, by the sign of their mean rating. The others can be supervisors (`RaterErrors`).
    0: all say what is true. No test row is one that a task without a panel is tested on."""
    template: str = "{text} It was"
    """What the model reads; the state of its last token is classified (Gao et al. 2021 use the same
    ending)."""
    label_words: str = "terrible/great"
    """Zero-shot: the words, of one token each, that stand for label 0 and label 1 after the
    template."""
    max_tokens: NonNegativeInt = 0
    """A longer text loses its beginning or its end; the template stays whole. 0: no text may exceed
    what the model reads."""
    cut: Literal["end", "start"] = "end"
    """What a long text loses: its "end", or its "start", where what is judged comes last."""
    sha256: str = ""
    """A user's file: the digest of its content, so that a changed file is another task."""

    @model_validator(mode="before")
    @classmethod
    def _require_sizes(cls, given: Any) -> Any:
        settings = given.kwargs or {} if isinstance(given, ArgsKwargs) else {}
        name = settings.get("name", "movie")
        absent = [size for size in SIZES if name != "movie" and size not in settings]
        said = f"Task {name!r} without {absent}: give it, or use default_task({name!r})"
        require(not absent, said)
        return given

    def __post_init__(self) -> None:
        said = f"Task.template must contain '{{text}}': {self.template!r}"
        require("{text}" in self.template, said)


class Lora(Description):
    """Low-rank adapters (Hu et al. 2021) on every linear layer of the top blocks."""

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: NonNegativeFloat = 32.0
    blocks: Literal["all"] | Annotated[int, Field(ge=1)] = 10
    """How many of the top blocks are adapted (all, where there are fewer), or "all"."""

    def n_adapted(self, depth: int) -> int:
        """How many of a model's `depth` blocks are adapted: always its top ones."""
        return depth if self.blocks == "all" else min(depth, self.blocks)


class Recipe(Description):
    """How long and how fast: the same for supervisors, students and ceilings."""

    epochs: Annotated[int, Field(ge=1)] = 2
    batch_size: Annotated[int, Field(ge=2)] = 16
    learning_rate: PositiveFloat = 1e-3
    warmup_fraction: Share = 0.1
    """Share of the steps over which the rate rises from 0, before it falls linearly to 0."""
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0


class GroundTruth(Choice):
    """The task's own labels."""


class NoisyTruth(Choice):
    """The task's own labels, 0 or 1, with a share of them flipped at random in either class.

    A ceiling brought down to a student's accuracy: a yardstick of what a model that has never seen
    the supervisor gets wrong. The flips of a smaller share are among those of a larger one.
    """

    share: Annotated[float, Field(gt=0, lt=0.5)]


class NextToken(Choice):
    """No labels: the run learns the next token of the half's texts.

    Generative finetuning (Burns et al. 2023).
    """

    corpus: str = ""
    """A task whose texts are read in place of the half's own, as many tokens of them: a control."""


class Pretrained(Choice):
    """Start from the pretrained weights, with fresh adapters."""
