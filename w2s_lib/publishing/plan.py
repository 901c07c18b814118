"""What chapters would train, before any of it is downloaded or trained.

Distinct runs, downloads, memory and time. Runs are described by the chapters' `parameters` and
`specs` cells alone. Memory and time come from a few steps of two blocks of a model's shape, with
random weights, on the device that the runs ask for.
"""

import statistics
import tempfile
import timeit
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from w2s_lib.models import backbone as models
from w2s_lib.models.classifier import Classifier
from w2s_lib.models.families import blocks_of, cut, skeleton
from w2s_lib.models.inputs import Inputs
from w2s_lib.models.lora import add_lora
from w2s_lib.models.machine import OPTIMISER_BYTES, kept_bytes, one_thread
from w2s_lib.models.pins import downloaded, folder_digest, pin, resolve_revision
from w2s_lib.publishing.chapters import Job, planned_specs
from w2s_lib.runs.errors import AssetError, DeviceError, SpecError
from w2s_lib.runs.model_names import is_hub
from w2s_lib.runs.settings import Lora, Task
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import recorded
from w2s_lib.tasks.table import load_table, needs_download, texts_a_row
from w2s_lib.training.execute import cost

ASSUMED = 128
"""Tokens of a text whose table is not there yet, where its task sets no `max_tokens`."""


@dataclass(frozen=True)
class Plan:
    """What is planned.

    Attributes:
        chapters: name -> its distinct runs by their ids, teachers included.
        recorded: the ids of all runs that have a record.
    """

    chapters: dict[str, dict[str, RunSpec]]
    recorded: set[str]

    @property
    def runs(self) -> dict[str, RunSpec]:
        """Id -> spec of all runs."""
        return {name: spec for own in self.chapters.values() for name, spec in own.items()}

    @property
    def missing(self) -> list[RunSpec]:
        """Those without a record."""
        return [spec for name, spec in self.runs.items() if name not in self.recorded]


def make_plan(jobs: Iterable[Job]) -> Plan:
    """The plan of some chapters, each with its parameters; nothing is asked of a hub.

    Raises:
        BookError: a chapter's `specs` cell failed.
    """
    chapters: dict[str, dict[str, RunSpec]] = {}
    for job in jobs:
        for spec in planned_specs(job.chapter, job.parameters):
            for step in pin(spec, local_only=True).lineage():
                name = step.run_id if step.pinned else step.to_json()
                chapters.setdefault(job.chapter.name, {})[name] = step
    return Plan(chapters, recorded())


def downloads(plan: Plan) -> list[str]:
    """What the missing runs need that is not on this machine: models, then datasets."""
    missing = plan.missing
    hub = {(spec.name, spec.revision) for spec in missing if is_hub(spec.name)}
    models = {f"model {name}" for name, revision in hub if not downloaded(name, revision)}
    tasks = {f"dataset of task {s.task.name}" for s in missing if needs_download(s.task)}
    return sorted(models) + sorted(tasks)


@dataclass(frozen=True)
class Step:
    """A step of training, measured: see `measure`.

    Attributes:
        seconds: of one text of mean length through one block, forward; a step counts as three.
        weights: bytes of one frozen block.
        trained: parameters of one block's adapters.
        kept: bytes that one block keeps of a batch of the longest texts, for the backward pass.
    """

    seconds: float
    weights: int
    trained: int
    kept: int


@lru_cache(maxsize=64)
def measure(spec: RunSpec, mean: int, longest: int) -> Step:
    """Takes steps of two blocks that have a model's shape, and go the way of every run.

    Args:
        spec: gives model, device, quantization, precision, rank and batch size.
        mean: tokens of a text, for the time.
        longest: tokens of a text, for the memory.

    Raises:
        DeviceError: the device is not here.
        AssetError, SpecError: the model's configuration cannot be had.
    """
    models.check(spec)
    config = cut(models.load_config(spec.name, spec.revision), 0, 2)
    config.vocab_size = min(config.vocab_size, 1000)
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, token, None)
    with tempfile.TemporaryDirectory() as folder, one_thread(spec.device), torch.random.fork_rng():
        with models.quiet():
            random = AutoModelForCausalLM.from_config(config, dtype=models.DTYPES[spec.precision])
            random.save_pretrained(folder)
        two = replace(spec, model=folder, revision=folder_digest(folder))
        backbone = models.load_backbone(two)
        weights = sum(p.nbytes for p in blocks_of(backbone).parameters())
        top = add_lora(backbone, two, n_top=2)
        trained = sum(p.numel() for p in top.parameters() if p.requires_grad)
        model = Classifier(top, last_only=False).to(spec.device).train()

        def loss(tokens: int) -> Tensor:
            shape = (spec.recipe.batch_size, tokens)
            ids = torch.randint(config.vocab_size, shape, device=spec.device)
            lengths = torch.full(shape[:1], tokens, device=spec.device)
            logits: Tensor = model(ids, lengths)
            return logits.square().mean()

        def step() -> None:
            loss(mean).backward()  # type: ignore[no-untyped-call]
            if spec.device == "cuda":
                torch.cuda.synchronize()

        kept = kept_bytes(model, lambda: loss(longest))
        seconds = timeit.repeat(step, number=1, repeat=5)
    unit = statistics.median(seconds[1:]) / (3 * spec.recipe.batch_size * 2)
    return Step(unit, weights // 2, trained // 2, kept // 2)


def step_of(spec: RunSpec) -> Step:
    """`measure` for what a run asks for; once for all runs that differ in nothing that matters."""
    shape = RunSpec(
        model=spec.name,
        revision=resolve_revision(spec.name, spec.revision),
        device=spec.device,
        quantization=spec.quantization,
        precision=spec.precision,
        lora=Lora(rank=spec.lora.rank, blocks="all"),
        recipe=replace(spec.recipe, epochs=1),
    )
    return measure(shape, *_tokens(spec.name, spec.revision, spec.task))


def depth_of(spec: RunSpec) -> int:
    """A model's blocks, which its configuration knows where its name does not."""
    return spec.depth or int(_config(spec).num_hidden_layers)


def memory(spec: RunSpec) -> int:
    """Bytes of a finetuning run, about: weights, adapters, optimiser, and a step's states."""
    step, depth, shape = step_of(spec), depth_of(spec), skeleton(_config(spec))
    n_parameters, n_in_block = (
        sum(p.numel() for p in part.parameters()) for part in (shape, blocks_of(shape))
    )
    outside = (n_parameters - n_in_block) * models.DTYPES[spec.precision].itemsize
    adapted = step.kept * texts_a_row(spec.task) + OPTIMISER_BYTES * step.trained
    return outside + depth * step.weights + spec.lora.n_adapted(depth) * adapted


def hours(plan: Plan, workers: int) -> float:
    """How long the missing runs take together; downloads and shared trunks extra.

    Raises:
        AssetError, SpecError: a model's configuration cannot be had.
        DeviceError: the runs ask for a device that is not here.
    """
    trained = [spec for spec in plan.missing if spec.trains]
    seconds = sum(step_of(spec).seconds * cost(spec, depth=depth_of(spec)) for spec in trained)
    return seconds / workers / 3600


def _config(spec: RunSpec) -> Any:
    return models.load_config(spec.name, resolve_revision(spec.name, spec.revision))


@lru_cache(maxsize=64)
def _tokens(name: str, revision: str, task: Task) -> tuple[int, int]:
    """Tokens of a task's texts, mean and most: measured where model and table are here."""
    if needs_download(task) or (is_hub(name) and not revision):
        return task.max_tokens or ASSUMED, task.max_tokens or ASSUMED
    length = Inputs(RunSpec(model=name, revision=revision, task=task), load_table(task)).text_length
    return round(length.mean()), int(length.max())


def describe(plan: Plan, workers: int | None) -> str:
    """The plan in words: a line a chapter, then downloads, memory and time, as far as known."""
    rows = plan.chapters | {"all, distinct": plan.runs}
    table = pd.DataFrame({"runs": map(len, rows.values())}, index=list(rows))
    table["recorded"] = [len(own.keys() & plan.recorded) for own in rows.values()]
    table["to train"] = table["runs"] - table["recorded"]
    lines = [table.to_string()]
    if not plan.missing:
        return "\n".join([*lines, "", "Nothing to train."])
    lines += ["", f"downloads  {', '.join(downloads(plan)) or 'none'}"]
    try:
        lines += _memory_and_time(plan, workers)
    except (AssetError, SpecError, DeviceError) as error:
        lines.append(f"memory and time cannot be told here: {error}")
    return "\n".join(lines)


def _memory_and_time(plan: Plan, workers: int | None) -> list[str]:
    """The lines of a plan that rest on steps that are taken on this machine."""
    missing, lines = plan.missing, []
    trained = [spec for spec in missing if spec.trains]
    if trained:
        most = max(trained, key=memory)
        size, what = memory(most) / 2**30, f"{most.role} {most.model} on {most.task.name}"
        lines.append(f"memory     a step at its longest texts about {size:.1f} GiB: {what};")
        lines.append("           the libraries and the texts' states come on top")
    if any(spec.role == "generative" for spec in trained):
        lines.append("           and, for a run that reads, the logits of its words")
    if any(needs_download(spec.task) and not spec.task.max_tokens for spec in missing):
        lines.append(f"           if texts, where they are not here yet, have {ASSUMED} tokens")
    spread = f"with {workers} workers" if workers else "of one of the cluster's workers"
    needed = hours(plan, workers or 1)
    said = f"{60 * needed:.0f} min" if needed < 2 else f"{needed:.1f} h"
    lines.append(f"time       about {said} {spread}, downloads and shared trunks extra")
    return lines
