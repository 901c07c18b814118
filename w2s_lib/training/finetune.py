"""One `fit`, one `predict`: LoRA finetuning of a 4-bit language model on soft labels.

What trains is kept in float32 by the optimiser and copied into bf16 adapters after each step: peft's own float32 adapters
cost a third of the speed on a CPU, and AdamW on bf16 weights alone would lose small updates to rounding.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm.auto import tqdm

from w2s_lib.models import backbone as models
from w2s_lib.models.classifier import Classifier, Finetuned, FloatArray
from w2s_lib.models.families import capped, keep_blocks
from w2s_lib.models.lora import add_lora, load_adapters
from w2s_lib.models.machine import threads
from w2s_lib.models.memory import checkpoint_where_needed
from w2s_lib.models.trunk import Inputs, blocks_under, inputs_at
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.spec import RunSpec
from w2s_lib.tasks.table import TaskTable
from w2s_lib.training.objective import objective

# oneDNN keeps a compiled kernel for every shape it has met, and batches of texts have thousands: a gigabyte by its default
# of 1,024. A hundred are as fast (measured). It is read at the first matrix product of a process.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")

NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
MEGABATCH = 8
"""Batches are cut from this many batches' worth of random rows, sorted by length: little padding, still random draws."""


class TrainingError(RuntimeError):
    """Training could not be finished: out of memory, or a loss that is not a number. No record is written."""


def learning_rate_factor(step: int, n_steps: int, warmup_fraction: float) -> float:
    """Linear warm-up, then linear decay to 0: the factor on the learning rate at `step` of 0 .. n_steps - 1."""
    warmup = round(warmup_fraction * n_steps)
    if step < warmup:
        return (step + 1) / warmup
    return (n_steps - step) / max(1, n_steps - warmup)


def epoch_batches(
    rows: Any, length: Any, *, batch_size: int, rng: np.random.Generator
) -> list[Any]:
    """Random batches of similar length: each row at most once, the last partial batch dropped.

    Args:
        rows: (n,) row numbers.
        length: tokens of every row of the table, indexed by row.
        batch_size: rows a batch.
        rng: draws the order; sorting happens only inside a megabatch, then the batches are shuffled.
    """
    shuffled = rng.permutation(rows)[: len(rows) // batch_size * batch_size]
    batches: list[Any] = []
    for start in range(0, len(shuffled), MEGABATCH * batch_size):
        mega = shuffled[start : start + MEGABATCH * batch_size]
        mega = mega[np.argsort(length[mega], kind="stable")]
        batches += np.split(mega, len(mega) // batch_size)
    return [batches[i] for i in rng.permutation(len(batches))]


@contextlib.contextmanager
def few_threads(device: str) -> Iterator[None]:
    """Runs on a CPU with `threads()`, by default one: the bits do not depend on how many cores a machine has."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _MasterWeights:
    """AdamW on float32 copies of the trained parameters, which may themselves be bf16."""

    def __init__(self, parameters: list[nn.Parameter], spec: RunSpec) -> None:
        self.parameters = parameters
        self.masters = [p.detach().float().clone().requires_grad_() for p in parameters]
        recipe = spec.recipe
        self.optimiser = torch.optim.AdamW(
            self.masters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    def step(self, factor: float, max_grad_norm: float, learning_rate: float) -> None:
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            assert parameter.grad is not None
            master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(self.masters, max_grad_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate * factor
        self.optimiser.step()
        with torch.no_grad():
            for master, parameter in zip(self.masters, self.parameters, strict=True):
                parameter.copy_(master)


def adapted(
    spec: RunSpec,
    table: TaskTable,
    *,
    causal_lm: bool = False,
    start: Path | None = None,
    trunk: bool = True,
    progress: bool = True,
) -> tuple[Any, Inputs, int, Any]:
    """The adapted top of a run's backbone before its first step, drawn from torch's global generator.

    Args:
        spec: a run with `method="finetune"`.
        table: the texts.
        causal_lm: load the language-modelling head as well.
        start: a folder of adapters to start from, in place of fresh ones.
        trunk: see `build`. Where `trunk_exact` or `affordable` does not hold there is none: slower, and as exact.
        progress: show bars.

    Returns:
        The peft model; what enters its first block; that block's number; the whole model's language-modelling head or None.
    """
    config = models.load_config(spec.name, spec.revision)
    depth = spec.depth or config.num_hidden_layers
    n_top = depth if spec.lora.blocks == "all" else min(int(spec.lora.blocks), depth)
    boundary = blocks_under(spec, table, config, n_top) if trunk else 0
    inputs = inputs_at(
        spec, table, boundary, progress=progress
    )  # which loads the model too: before it is here, not beside it
    backbone = models.load_backbone(spec, causal_lm=causal_lm)
    words = capped(backbone.get_output_embeddings(), backbone.config) if causal_lm else None
    backbone = backbone.base_model if causal_lm else backbone
    torch.manual_seed(spec.seed)
    top = add_lora(keep_blocks(backbone, boundary, depth), spec, n_top=n_top)
    if start:
        load_adapters(top, boundary, start)
    return top, inputs, boundary, words


def build(
    spec: RunSpec,
    table: TaskTable,
    *,
    start: Path | None = None,
    trunk: bool = True,
    progress: bool = True,
) -> Finetuned:
    """The model of a run before its first step: backbone, adapters and head, drawn by the spec's seed.

    Args:
        spec: a run with `method="finetune"`.
        table: the task's texts.
        start: a folder of adapters to start from, in place of fresh ones.
        trunk: share the frozen blocks' states where that is exact. False computes them anew in every pass; the logits
            agree within bf16's tolerance.
        progress: show bars.
    """
    with torch.random.fork_rng():
        top, inputs, boundary, _ = adapted(spec, table, start=start, trunk=trunk, progress=progress)
        model = Classifier(top, comparison=table.texts_a_row == 2)
    return Finetuned(spec, models.move(model, spec.device), inputs, boundary)


def fit(
    spec: RunSpec,
    table: TaskTable,
    rows: Any,
    labels: FloatArray,
    *,
    start: Path | None = None,
    watch: Any = (),
    trunk: bool = True,
    progress: bool = True,
) -> Finetuned:
    """Finetunes `spec.model` on soft labels.

    Args:
        spec: a run with `method="finetune"`.
        table: the task's texts.
        rows: (n,) rows of the half that it trains on.
        labels: (n,) P(y = 1) for each of them.
        start: see `build`.
        watch: rows to predict at each of `spec.snapshots`.
        trunk: see `build`.
        progress: show bars with the time left.

    Raises:
        TrainingError: out of memory, or a loss that is not finite; the message says at which step and what to change.
        SpecError: fewer rows than one batch.
    """
    models.check(spec)
    batch_size = spec.recipe.batch_size
    if len(rows) < batch_size or len(rows) != len(labels):
        raise SpecError(
            f"{len(rows)} rows and {len(labels)} labels: need one label a row, and at least one batch of "
            f"{batch_size}"
        )
    with advice_on_memory(spec):
        fitted = build(spec, table, start=start, trunk=trunk, progress=progress)
        longest = int(fitted.inputs.length[rows].max())
        fitted.notes = checkpoint_where_needed(
            fitted.model.backbone, spec, longest, texts_a_row=table.texts_a_row
        )
        label_of = np.full(len(fitted.inputs.length), np.nan, dtype=np.float32)
        label_of[np.asarray(rows)] = np.asarray(labels, dtype=np.float32)

        def loss_of(batch: Any, done: float) -> Tensor:
            logits = fitted.model(*fitted.inputs.batch(batch))
            return objective(
                spec.loss, logits, torch.from_numpy(label_of[batch]).to(logits.device), done
            )

        batches = all_batches(spec, np.asarray(rows), fitted.inputs.length)
        marks = {share: max(1, round(share * len(batches))) for share in spec.snapshots}

        def after(step: int) -> None:
            here = [share for share, at in marks.items() if at == step]
            if here:
                fitted.snapshots |= dict.fromkeys(here, (np.asarray(watch), fitted.glimpse(watch)))

        optimise(fitted.model, spec, batches, loss_of, after=after, progress=progress)
    return fitted


@contextlib.contextmanager
def advice_on_memory(spec: RunSpec) -> Iterator[None]:
    """Turns running out of memory into a `TrainingError` that says what to change."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        named = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not named and not any(words in str(error) for words in NO_MEMORY):
            raise
        raise TrainingError(
            f"out of memory while training {spec.model}: set recipe.batch_size below {spec.recipe.batch_size}, or lora.blocks "
            f"below {spec.lora.blocks}; over several GPUs, W2S_DEVICE_MAP=auto. No record was written."
        ) from error


def all_batches(spec: RunSpec, rows: Any, length: Any) -> list[Any]:
    """The batches of every epoch of a run, in order, drawn by its seed."""
    rng = np.random.default_rng([spec.seed, 1])
    return [
        batch
        for _ in range(spec.recipe.epochs)
        for batch in epoch_batches(rows, length, batch_size=spec.recipe.batch_size, rng=rng)
    ]


def optimise(
    model: nn.Module,
    spec: RunSpec,
    batches: Sequence[Any],
    loss_of: Callable[[Any, float], Tensor],
    *,
    after: Callable[[int], None] = lambda step: None,
    progress: bool = True,
) -> None:
    """One step a batch on what of `model` requires a gradient.

    Args:
        model: what trains.
        spec: gives recipe and device.
        batches: what `loss_of` takes, one a step.
        loss_of: (batch, share of training done in [0, 1)) -> the loss, a scalar.
        after: called with the number of steps done, after each.
        progress: show a bar.

    Raises:
        TrainingError: a loss that is not finite.
    """
    recipe = spec.recipe
    with contextlib.suppress(Exception):
        AcceleratorState._reset_state(
            reset_partial_state=True
        )  # a notebook may move from one device to another
    accelerator = Accelerator(cpu=spec.device == "cpu", mixed_precision="no")
    model.train()
    optimiser = _MasterWeights([p for p in model.parameters() if p.requires_grad], spec)
    for step, batch in enumerate(
        tqdm(batches, desc=f"train {spec.model}", unit="step", leave=False, disable=not progress)
    ):
        loss = loss_of(batch, step / len(batches))
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} at step {step + 1} of {len(batches)}: try a lower "
                f"recipe.learning_rate than {recipe.learning_rate}. No record was written."
            )
        accelerator.backward(loss)
        optimiser.step(
            learning_rate_factor(step, len(batches), recipe.warmup_fraction),
            recipe.max_grad_norm,
            recipe.learning_rate,
        )
        after(step + 1)
