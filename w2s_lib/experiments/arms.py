"""The arms of an experiment as `RunSpec`s: supervisor, student, ceiling, chain, and the baselines beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from w2s_lib.runs.errors import SpecError, nearest
from w2s_lib.runs.model_names import split_revision
from w2s_lib.runs.spec import (
    Continue,
    Flip,
    FromRun,
    GroundTruth,
    NextToken,
    RunSpec,
    Task,
    XentLoss,
)
from w2s_lib.tasks.table import default_task

SETTINGS = (
    "recipe",
    "lora",
    "quantization",
    "precision",
    "device",
    "seed",
    "start",
    "snapshots",
    "predict_halves",
)


def _spec(model: str, task: Task | str, settings: dict[str, Any], **given: Any) -> RunSpec:
    for name in settings:
        if name not in SETTINGS:
            raise SpecError(f"unknown setting {name!r}: {nearest(name, SETTINGS)}")
    if isinstance(start := settings.get("start"), RunSpec):
        settings = settings | {"start": Continue(run=start)}
    if (
        model == "tfidf"
    ):  # nothing but the seed and the labels changes it, so nothing else may change its id
        settings = {name: value for name, value in settings.items() if name == "seed"}
    model, revision = split_revision(model)
    return RunSpec(
        model=model,
        revision=revision,
        task=default_task(task) if isinstance(task, str) else task,
        **given,
        **settings,
    )


def supervisor(model: str, task: Task | str, **settings: Any) -> RunSpec:
    """The weak supervisor: ground truth, on the supervisor half.

    Args:
        model: `smollm2-135m@4`, `tfidf`, ...: see `RunSpec.model`. Of a hub model the commit that is current is asked for
            and pinned, or that of a branch, a tag or a commit in `hf:owner/name:revision@6`; of a folder its content's digest.
        task: a task's name or a `Task`.
        **settings: `recipe`, `lora`, `quantization`, `precision`, `device`, `seed`; `start`, a run whose adapters it
            continues; `snapshots`, `predict_halves`: see `RunSpec`.
    """
    return _spec(model, task, settings, half="supervisor")


def ceiling(model: str, task: Task | str, **settings: Any) -> RunSpec:
    """The strong ceiling: ground truth, on the student half: the very texts that the student sees. Args: `supervisor`."""
    return _spec(model, task, settings, half="student")


def student(
    model: str,
    teacher: RunSpec | FromRun | Flip,
    *,
    hard: bool = False,
    loss: Any = None,
    **settings: Any,
) -> RunSpec:
    """The strong student: its teacher's labels, on the half that the teacher was not trained on.

    Args:
        model: see `supervisor`.
        teacher: the run whose labels it learns; or `FromRun` or `Flip` around it.
        hard: labels made 0 or 1.
        loss: `XentLoss()`, naive finetuning, by default; or another of `parts.LOSSES`, such as `ConfidenceLoss(...)`.
        **settings: see `supervisor`. The seed is the teacher's, since the seed draws the halves.
    """
    labels = FromRun(run=teacher, hard=hard) if isinstance(teacher, RunSpec) else teacher
    if not isinstance(labels, (FromRun, Flip)):
        raise SpecError(
            f"the teacher must be a RunSpec, or FromRun or Flip around one, not {teacher!r}"
        )
    if hard and not labels.hard:
        raise SpecError(
            "say hard=True in the labels themselves: "
            + type(labels).__name__
            + "(run=..., hard=True)"
        )
    own = isinstance(labels, FromRun) and labels.own_texts
    half = (
        labels.run.half if own else "student" if labels.run.half == "supervisor" else "supervisor"
    )
    return _spec(
        model,
        labels.run.task,
        {"seed": labels.run.seed} | settings,
        labels=labels,
        half=half,
        loss=loss if loss is not None else XentLoss(),
    )


def chain(
    models: Sequence[str], task: Task | str, *, own_texts: bool = False, **settings: Any
) -> list[RunSpec]:
    """Bootstrapping through intermediate models: the first learns ground truth, each next one from the last.

    Rungs alternate halves, so that each labels only texts that it was not trained on. Args: `supervisor`. Chapter:
    bootstrapping.

    Args:
        models: from the weakest to the strongest.
        task: see `supervisor`.
        own_texts: a control: from the second rung on all learn on the student half, so each labels its own training texts.
        **settings: see `supervisor`.
    """
    if len(models) < 2:
        raise SpecError(f"a chain needs at least two models, not {list(models)}")
    steps = [supervisor(models[0], task, **settings)]
    for model in models[1:]:
        own = own_texts and len(steps) > 1
        steps.append(student(model, FromRun(run=steps[-1], own_texts=own), **settings))
    return steps


def generative(
    model: str, task: Task | str, *, corpus: str = "", half: str = "student", **settings: Any
) -> RunSpec:
    """Generative finetuning: the next token of the half's own texts, no label seen. Chapter: generative supervision.

    Args:
        model: see `supervisor`.
        task: see `supervisor`.
        corpus: another task whose texts are read instead, as many tokens of them.
        half: whose texts: those of the run that will continue this one.
        **settings: see `supervisor`.
    """
    return _spec(model, task, settings, half=half, labels=NextToken(corpus=corpus))


def probe(
    model: str,
    task: Task | str | None = None,
    *,
    teacher: RunSpec | FromRun | None = None,
    **settings: Any,
) -> RunSpec:
    """A linear probe on the last token's state after `model`'s depth, on the student half. Chapter: saliency.

    Args:
        model: the depth is the layer that is read, as in `smollm2-135m@20`.
        task: see `supervisor`; not needed with a teacher.
        teacher: the run whose labels the probe learns; none: ground truth.
        **settings: see `supervisor`; with `start=run` the states are those of that finetuned model, else of the frozen one.
    """
    if teacher is None:
        if task is None:
            raise SpecError("a probe needs a task, or a teacher that has one")
        return _spec(model, task, settings, half="student", method="probe", labels=GroundTruth())
    labels = FromRun(run=teacher) if isinstance(teacher, RunSpec) else teacher
    return _spec(
        model,
        labels.run.task,
        {"seed": labels.run.seed} | settings,
        half="student",
        method="probe",
        labels=labels,
    )


def zero_shot(model: str, task: Task | str, **settings: Any) -> RunSpec:
    """The model's own next-token odds of the task's two label words. Args: `supervisor`."""
    return _spec(model, task, settings, half="student", method="zero_shot", labels=GroundTruth())
