"""What chapters would train, before any of it is downloaded or trained: distinct runs, downloads, memory and time.

Runs are described by the chapters' `parameters` and `specs` cells alone. Memory comes from the models' configurations. Time
comes from a few steps of a model of the same shape with two blocks and random weights, on the device that the runs ask for.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from w2s_lib.models.pins import downloaded
from w2s_lib.publishing.chapters import Job, planned_specs
from w2s_lib.runs.model_names import is_hub, planning
from w2s_lib.runs.spec import Lora, RunSpec, Task
from w2s_lib.runs.store import recorded
from w2s_lib.tasks.table import pending, texts_a_row

STEPS = 5
"""Of the calibration, the first of which does not count."""
ASSUMED = 128
"""Tokens of a text whose table is not there yet, where its task sets no `max_tokens`."""


@dataclass(frozen=True)
class Plan:
    """What is planned.

    Attributes:
        chapters: name -> how many distinct runs it has, teachers included, and how many of them have no record.
        runs: id -> spec, all of them, teachers first.
        missing: those without a record.
    """

    chapters: dict[str, tuple[int, int]]
    runs: dict[str, RunSpec]
    missing: dict[str, RunSpec]


def make_plan(jobs: Iterable[Job]) -> Plan:
    """The plan of some chapters, each with its parameters; nothing is asked of a hub.

    Raises:
        BookError: a chapter's `specs` cell failed.
    """
    chapters: dict[str, tuple[int, int]] = {}
    runs: dict[str, RunSpec] = {}
    missing: dict[str, RunSpec] = {}
    have = recorded()
    for job in jobs:
        with planning():
            own = {
                step.run_id: step
                for spec in planned_specs(job.chapter, job.parameters)
                for step in spec.lineage()
            }
        absent = {run_id: spec for run_id, spec in own.items() if run_id not in have}
        before = chapters.get(job.chapter.name, (0, 0))  # of another variant
        chapters[job.chapter.name] = (before[0] + len(own), before[1] + len(absent))
        runs, missing = runs | own, missing | absent
    return Plan(chapters, runs, missing)


def downloads(plan: Plan) -> list[str]:
    """What the missing runs need that is not on this machine: models, then datasets."""
    missing = plan.missing.values()
    models = sorted(
        {
            spec.name
            for spec in missing
            if is_hub(spec.name) and not downloaded(spec.name, spec.revision)
        }
    )
    size = {spec.name: spec for spec in missing}
    tasks = sorted({spec.task.name for spec in missing if pending(spec.task)})
    return [f"model {name}{_gigabytes(size[name])}" for name in models] + [
        f"dataset of task {name}" for name in tasks
    ]


def largest(plan: Plan) -> tuple[RunSpec, int] | None:
    """The missing run that takes the most memory to train, and its bytes; None where nothing is trained.

    Raises:
        AssetError, SpecError: a model's configuration cannot be had.
    """
    from w2s_lib.models.memory import training_bytes

    trained = {
        (
            s.model,
            s.task,
            s.lora,
            s.recipe.batch_size,
            s.quantization,
            s.precision,
            s.role == "generative",
        ): s
        for s in plan.missing.values()
        if s.trains
    }
    sizes = []
    for spec in trained.values():
        _, longest = _tokens(spec.name, spec.revision, spec.task)
        sizes.append(
            (spec, training_bytes(spec, _config(spec), longest, texts_a_row=texts_a_row(spec.task)))
        )
    return max(sizes, key=lambda pair: pair[1], default=None)


def hours(plan: Plan, workers: int) -> float:
    """How long the missing runs take together, from `calibrate`; downloads and shared trunks extra.

    Raises:
        AssetError, SpecError: a model's configuration cannot be had.
        DeviceError: the runs ask for a device that is not here.
    """
    from w2s_lib.training.execute import cost, trainings

    seconds = 0.0
    for spec, *others in trainings(plan.missing.values()).values():
        if spec.trains:
            config = _config(spec)
            unit = calibrate(
                spec.name,
                _revision(spec),
                spec.device,
                spec.quantization,
                spec.precision,
                spec.recipe.batch_size,
                _tokens(spec.name, spec.revision, spec.task)[0],
            )
            seconds += unit * cost(spec, *others, depth=config.num_hidden_layers)
    return seconds / workers / 3600


@lru_cache(maxsize=64)
def calibrate(
    name: str,
    revision: str,
    device: str,
    quantization: str,
    precision: str,
    batch_size: int,
    tokens: int,
) -> float:
    """Seconds to take one text through one block of a model, forward; a step of training counts as three.

    The blocks have the model's shape and random weights, and go the way of every run: NF4, LoRA, the classifier's head.

    Args:
        name: the model, without its depth.
        revision: its commit or digest.
        device: "cpu", with the threads of a run, or "cuda".
        quantization: see `RunSpec`.
        precision: see `RunSpec`.
        batch_size: texts a step.
        tokens: of each text.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from w2s_lib.models.backbone import DTYPES, load_backbone, load_config, quiet
    from w2s_lib.models.classifier import Classifier
    from w2s_lib.models.families import cut
    from w2s_lib.models.lora import add_lora
    from w2s_lib.models.pins import folder_digest
    from w2s_lib.runs.errors import DeviceError
    from w2s_lib.training.finetune import few_threads
    from w2s_lib.training.losses import xent_loss

    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("the runs ask for device='cuda' and this machine has none")
    config = copy.deepcopy(cut(load_config(name, revision), 0, 2))
    config.vocab_size = min(config.vocab_size, 1000)
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, token, None)
    with tempfile.TemporaryDirectory() as folder, few_threads(device), torch.random.fork_rng():
        with quiet():
            AutoModelForCausalLM.from_config(config, dtype=DTYPES[precision]).save_pretrained(
                folder
            )
        spec = RunSpec(
            model=folder,
            revision=folder_digest(folder),
            device=device,
            quantization=quantization,
            precision=precision,
            lora=Lora(blocks="all"),
        )
        model = (
            Classifier(add_lora(load_backbone(spec), spec, n_top=2), last_only=False)
            .to(device)
            .train()
        )
        ids = torch.randint(1000, (batch_size, tokens), device=device)
        length, labels = (
            torch.full((batch_size,), tokens, device=device),
            torch.full((batch_size,), 0.5, device=device),
        )
        taken = []
        for _ in range(STEPS):
            started = time.perf_counter()
            torch.autograd.backward(xent_loss(model(ids, length), labels))
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:]) / (3 * batch_size * 2)


def _revision(spec: RunSpec) -> str:
    """The model's commit, asked of the hub where planning left it open: some kilobytes of configuration are fetched by it."""
    from w2s_lib.models.pins import current

    return spec.revision or current(spec.name)


def _config(spec: RunSpec) -> Any:
    from w2s_lib.models.backbone import load_config

    return load_config(spec.name, _revision(spec))


@lru_cache(maxsize=64)
def _tokens(name: str, revision: str, task: Task) -> tuple[int, int]:
    """Tokens of a task's texts, the mean and the most: measured where model and table are there, else assumed."""
    from w2s_lib.models.trunk import Inputs
    from w2s_lib.tasks.table import load_table

    if pending(task) or (is_hub(name) and not revision):
        return task.max_tokens or ASSUMED, task.max_tokens or ASSUMED
    length = Inputs(RunSpec(model=name, revision=revision, task=task), load_table(task)).text_length
    return round(length.mean()), int(length.max())


def _gigabytes(spec: RunSpec) -> str:
    """How large a hub model is in bf16, in words; nothing where its configuration cannot be had."""
    from w2s_lib.models.memory import training_memory
    from w2s_lib.runs.errors import AssetError

    try:
        config = _config(spec)
    except AssetError:
        return ""
    return f" ({1e-9 * training_memory(RunSpec(model=spec.name, quantization='none'), config, 1).weights:.1f} GB)"


def describe(plan: Plan, workers: int | None) -> str:
    """The plan in words: a line a chapter, then downloads, memory and time, or why these cannot be told."""
    from w2s_lib.runs.errors import AssetError, DeviceError, SpecError

    width = max(map(len, ["all, distinct", *plan.chapters]))
    lines = [f"{'':<{width}}  {'runs':>6}  {'recorded':>8}  {'to train':>8}"]
    rows = plan.chapters | {"all, distinct": (len(plan.runs), len(plan.missing))}
    lines += [
        f"{name:<{width}}  {n:>6,}  {n - absent:>8,}  {absent:>8,}"
        for name, (n, absent) in rows.items()
        if n
    ]
    if not plan.missing:
        return "\n".join([*lines, "", "Nothing to train."])
    lines += ["", f"downloads  {', '.join(downloads(plan)) or 'none'}"]
    told = "memory and time"
    try:
        if most := largest(plan):
            spec, n_bytes = most
            lines.append(
                f"memory     at most {n_bytes / 2**30:.1f} GiB: {spec.role} {spec.model} on {spec.task.name}"
            )
        if any(pending(spec.task) and not spec.task.max_tokens for spec in plan.missing.values()):
            lines.append(
                f"           if texts have {ASSUMED} tokens, where a table is not here yet and sets no max_tokens"
            )
        told = "time"
        spread = (
            f"with {workers} worker{'s' * (workers > 1)}"
            if workers
            else "of one worker, shared among the cluster's"
        )
        words = f"{_in_words(hours(plan, workers or 1))} {spread}"
        lines.append(
            f"time       about {words}, downloads and shared trunks extra; from a few steps on this machine"
        )
    except (AssetError, SpecError, DeviceError) as error:
        lines.append(f"{told} cannot be told here: {error}")
    return "\n".join(lines)


def _in_words(value: float) -> str:
    return f"{60 * value:.0f} min" if value < 2 else f"{value:.1f} h"
