"""The arms of an experiment as `RunSpec`s: supervisor, student, ceiling, chain, and baselines."""

from collections.abc import Sequence
from typing import Any, get_args

from w2s_lib.runs.errors import SpecError, nearest
from w2s_lib.runs.losses import XentLoss
from w2s_lib.runs.method import Method
from w2s_lib.runs.model_names import split_revision
from w2s_lib.runs.settings import APPLIES, OF_A_MODEL, Kind, NextToken, NoisyTruth, Task
from w2s_lib.runs.spec import Continue, FromRun, RunSpec, Taught
from w2s_lib.tasks.table import default_task


def _spec(
    kind: Kind, model: str, task: Task | str, settings: dict[str, Any], **given: Any
) -> RunSpec:
    """A run with the settings that apply to its kind, given or inherited; any other is refused."""
    applies = [name for name in ("seed", *APPLIES[kind]) if name != "loss"]
    for name in settings:
        if name not in applies:
            known = name in APPLIES["classifier"]
            said = f"{name} does not apply" if known else f"unknown setting {name!r}"
            raise SpecError(f"{kind} {model!r}: {said}: {nearest(name, applies)}")
    start = settings.get("start")
    if isinstance(start, RunSpec):
        start = Continue(run=start)
        settings = settings | {"start": start}
    inherited: dict[str, Any] = {}
    labels = given.get("labels")
    if isinstance(labels, Taught):
        inherited["seed"] = labels.run.seed
        if labels.run.kind != "tfidf":
            inherited |= {name: getattr(labels.run, name) for name in OF_A_MODEL if name in applies}
    if isinstance(start, Continue):
        inherited |= {name: getattr(start.run, name) for name in ("lora", *OF_A_MODEL)}
    model, revision = split_revision(model)
    task = default_task(task) if isinstance(task, str) else task
    return RunSpec(model=model, revision=revision, task=task, **given, **inherited | settings)


def _classifier(model: str) -> Kind:
    return "tfidf" if model == "tfidf" else "classifier"


def _labels(teacher: RunSpec | Taught) -> Taught:
    if isinstance(teacher, RunSpec):
        return FromRun(run=teacher)
    if not isinstance(teacher, Taught):
        names = ", ".join(label.__name__ for label in get_args(Taught))
        raise SpecError(f"the teacher must be a RunSpec, or one of {names}, not {teacher!r}")
    return teacher


def supervisor(model: str, task: Task | str, **settings: Any) -> RunSpec:
    """The weak supervisor: ground truth, on the supervisor half.

    As in all arms, nothing is read and no hub is asked.

    Args:
        model: `smollm2-135m@4`, `tfidf`, ...: see `RunSpec.model`. Of a hub model a branch, a tag
            or a commit may be named, `hf:owner/name:revision@6`; `sweep` finds the commit that it
            means.
        task: a task's name or a `Task`.
        **settings: `recipe`, `lora`, `quantization`, `precision`, `device`, `seed`; `start`, a run
            whose adapters it continues, with its LoRA, quantization, precision and device;
            `predict_halves` (here True by default, so that it can teach). To `tfidf` only the last
            and `seed` apply.

    Raises:
        SpecError: a setting that is unknown or does not apply.
    """
    settings = {"predict_halves": True} | settings
    return _spec(_classifier(model), model, task, settings, half="supervisor")


def ceiling(
    model: str,
    task: Task | str,
    *,
    noise: float | None = None,
    half: str = "student",
    **settings: Any,
) -> RunSpec:
    """The strong ceiling: ground truth, on the student half, the very texts that the student sees.

    Args:
        model: see `supervisor`.
        task: see `supervisor`.
        noise: the share of either class's labels that is flipped at random: see `NoisyTruth`.
        half: "pool" for a ceiling that learns from all that is neither test nor validation.
        **settings: see `supervisor`; `predict_halves` is False by default.

    Raises:
        SpecError: see `supervisor`.
    """
    noisy = {} if noise is None else {"labels": NoisyTruth(share=noise)}
    return _spec(_classifier(model), model, task, settings, half=half, **noisy)


def student(model: str, teacher: RunSpec | Taught, *, loss: Any = None, **settings: Any) -> RunSpec:
    """The strong student: its teacher's labels, on the half that the teacher was not trained on.

    It inherits its teacher's quantization, precision and device where they are not given; `tfidf`
    has none to give, and its students have the defaults. LoRA and recipe are not inherited.

    Args:
        model: see `supervisor`.
        teacher: the run whose labels it learns as they come; or `Hard`, `Centred`, `Flip`, ...
            around it, or `Relabelled`, by a function of your own.
        loss: `XentLoss()`, naive finetuning, by default; or another loss, such as
            `ConfidenceLoss(...)`.
        **settings: see `supervisor`; `predict_halves=True` for a student that will teach. The seed
            is the teacher's, since the seed draws the halves.

    Raises:
        SpecError: a setting that is unknown or does not apply; a teacher that gives no labels.
    """
    labels = _labels(teacher)
    half = "student" if labels.run.half == "supervisor" else "supervisor"
    given = {"labels": labels, "half": half, "loss": XentLoss() if loss is None else loss}
    return _spec(_classifier(model), model, labels.run.task, settings, **given)


def chain(models: Sequence[str], task: Task | str, **settings: Any) -> list[RunSpec]:
    """Bootstrapping through intermediate models: each learns from the one before.

    Rungs alternate halves, so that each labels only texts that it was not trained on. Chapter:
    bootstrapping.

    Args:
        models: from the weakest to the strongest.
        task: see `supervisor`.
        **settings: of every rung, so they must apply to each: see `supervisor`. All but the last
            predict the halves.

    Raises:
        SpecError: fewer than two models; see `supervisor`.
    """
    if len(models) < 2:
        raise SpecError(f"a chain needs at least two models, not {list(models)}")
    steps = [supervisor(models[0], task, **settings)]
    for rung, model in enumerate(models[1:], 2):
        teaches = {"predict_halves": rung < len(models)}
        steps.append(student(model, steps[-1], **teaches | settings))
    return steps


def generative(
    model: str, task: Task | str, *, corpus: str = "", half: str = "student", **settings: Any
) -> RunSpec:
    """Generative finetuning: the next token of the half's own texts, no label seen.

    Chapter: generative supervision.

    Args:
        model: see `supervisor`.
        task: see `supervisor`.
        corpus: another task whose texts are read instead, as many tokens of them.
        half: whose texts: those of the run that will continue this one.
        **settings: `recipe`, `lora`, `quantization`, `precision`, `device`, `seed`.
    """
    return _spec("reader", model, task, settings, half=half, labels=NextToken(corpus=corpus))


def probe(
    model: str,
    task: Task | str | None = None,
    *,
    teacher: RunSpec | Taught | None = None,
    **settings: Any,
) -> RunSpec:
    """A linear probe on the last token's state after `model`'s depth, on the student half.

    It inherits as `student` does. Chapter: saliency.

    Args:
        model: the depth is the layer that is read, as in `smollm2-135m@20`.
        task: see `supervisor`; by default the teacher's.
        teacher: the run whose labels the probe learns; none: ground truth.
        **settings: `quantization`, `precision`, `device`, `seed`, `predict_halves`; with
            `start=run` the states are those of that finetuned model, else of the frozen one.

    Raises:
        SpecError: neither task nor teacher; see `supervisor`.
    """
    given: dict[str, Any] = {"half": "student", "method": "probe"}
    if teacher is not None:
        given["labels"] = labels = _labels(teacher)
        task = labels.run.task if task is None else task
    if task is None:
        raise SpecError("a probe needs a task, or a teacher that has one")
    return _spec("probe", model, task, settings, **given)


def entry(method: Method, model: str, teacher: RunSpec | Taught, **settings: Any) -> RunSpec:
    """A student of your own: a function of texts, or of a frozen model's states. Chapter: leaderboard.

    It inherits as `student` does, and is never given ground truth.

    Args:
        method: what `@w2s.method` has made of a function.
        model: the depth is the layer whose states it is given, as in `smollm2-135m@29`; "texts"
            where it takes texts.
        teacher: the run whose labels it learns.
        **settings: `seed`, and with states `quantization`, `precision`, `device`.

    Raises:
        SpecError: see `student`.
    """
    if not isinstance(method, Method):
        raise SpecError(f"an entry's method is a function under @w2s.method, not {method!r:.100}")
    labels = _labels(teacher)
    given = {"labels": labels, "half": "student", "method": method}
    kind: Kind = "text_method" if model == "texts" else "method"
    return _spec(kind, model, labels.run.task, settings, **given)


def zero_shot(model: str, task: Task | str, **settings: Any) -> RunSpec:
    """The model's own next-token odds of the task's two label words.

    Args:
        model: see `supervisor`.
        task: see `supervisor`.
        **settings: `quantization`, `precision`, `device`, `seed`, `predict_halves`.
    """
    return _spec("zero_shot", model, task, settings, half="student", method="zero_shot")


def transfer(run: RunSpec, task: Task | str) -> RunSpec:
    """A finetuned run's answers on another task's test and validation texts; nothing is trained.

    A record of its own, keyed by the run and the task. Whoever trains the run keeps its adapters
    for it.

    Args:
        run: a finetuned classifier.
        task: what it is asked about.

    Raises:
        SpecError: a run that is no such classifier, or was trained on that task.
    """
    settings = {"start": run, "seed": run.seed}
    return _spec("transfer", run.model, task, settings, method="transfer")
