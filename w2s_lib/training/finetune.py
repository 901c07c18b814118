"""LoRA finetuning of a 4-bit language model on soft labels; and what every fit is given.

What trains is kept in float32 by the optimiser and copied into bf16 adapters after each step:
peft's own float32 adapters cost a third of the speed on a CPU, and AdamW on bf16 weights alone
would lose small updates to rounding.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from w2s_lib.models import backbone as models
from w2s_lib.models.classifier import Classifier, Finetuned
from w2s_lib.models.families import capped, keep_blocks
from w2s_lib.models.inputs import Inputs
from w2s_lib.models.lora import add_lora, load_adapters
from w2s_lib.models.machine import checkpoint_where_needed, free_gpu, is_out_of_memory
from w2s_lib.models.trunk import inputs_at, trunk_depth
from w2s_lib.runs.errors import OutOfMemory, SpecError, TrainingError
from w2s_lib.runs.spec import RunSpec
from w2s_lib.tasks.table import TaskTable

# oneDNN keeps a compiled kernel for every shape it has met, and batches of texts have thousands: a
# gigabyte by its default of 1,024. A hundred are as fast (measured). It is read at the first matrix
# product of a process.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")

MEGABATCH = 8
"""Batches are cut from this many batches' worth of random rows, sorted by length.

So there is little padding, and the draws are still random.
"""


def no_rows() -> Any:
    """No rows, or labels of none."""
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Data:
    """What a run is fitted on, and what it will be asked.

    Attributes:
        table: the task's texts.
        rows: (n,) rows of the half that it is fitted on.
        labels: (n,) P(y = 1) for each of them; what reads or is asked for words does without.
        validation: rows that may choose a setting.
        validation_labels: P(y = 1) for each of them, where a run's kind has such a setting.
        asked: all rows that the run's records hold.
        adapters: the folder of the adapters of `spec.start`.
    """

    table: TaskTable
    rows: Any
    labels: Any
    validation: Any = field(default_factory=no_rows)
    validation_labels: Any = field(default_factory=no_rows)
    asked: Any = field(default_factory=no_rows)
    adapters: Path | None = None


def learning_rate_factor(step: int, n_steps: int, warmup_fraction: float) -> float:
    """Linear warm-up, then linear decay to 0: the factor at `step` of 0 .. n_steps - 1."""
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
        rng: draws the order; sorting happens only inside a megabatch, then batches are shuffled.
    """
    shuffled = rng.permutation(rows)[: len(rows) // batch_size * batch_size]
    batches: list[Any] = []
    for start in range(0, len(shuffled), MEGABATCH * batch_size):
        mega = shuffled[start : start + MEGABATCH * batch_size]
        mega = mega[np.argsort(length[mega], kind="stable")]
        batches += np.split(mega, len(mega) // batch_size)
    return [batches[i] for i in rng.permutation(len(batches))]


def all_batches(spec: RunSpec, rows: Any, length: Any) -> list[Any]:
    """The batches of every epoch of a run, in order, drawn by its stream; see `epoch_batches`."""
    tag = 4 if spec.kind == "reader" else 1  # what continues a reader meets its texts in new order
    rng, size = np.random.default_rng([*spec.stream, tag]), spec.recipe.batch_size
    return [
        batch
        for _ in range(spec.recipe.epochs)
        for batch in epoch_batches(rows, length, batch_size=size, rng=rng)
    ]


def adapted(
    spec: RunSpec,
    table: TaskTable,
    *,
    causal_lm: bool = False,
    start: Path | None = None,
    trunk: bool = True,
) -> tuple[Any, Inputs, int, Any]:
    """The adapted top of a run's backbone, drawn from torch's global generator, which it seeds.

    Args:
        spec: a run with `method="finetune"`.
        table: the texts.
        causal_lm: load the language-modelling head as well.
        start: a folder of adapters to start from, in place of fresh ones.
        trunk: see `build`.

    Returns:
        Before its first step: the peft model of the adapted blocks, and of those under them where
        there is no trunk; what enters its first block; that block's number in the whole model; the
        whole model's language-modelling head, where it was asked for.
    """
    config = models.load_config(spec.name, spec.revision)
    depth = spec.depth or config.num_hidden_layers
    n_top = spec.lora.n_adapted(depth)
    boundary = trunk_depth(spec, table, config, n_top) if trunk else 0
    # Filling a trunk loads the model too: before it is loaded here, not beside it.
    inputs = inputs_at(spec, table, boundary)
    free_gpu()
    backbone = models.load_backbone(spec, causal_lm=causal_lm)
    words = None
    if causal_lm:
        words = capped(backbone.get_output_embeddings(), backbone.config)
        backbone = backbone.base_model
    torch.manual_seed(int(np.random.SeedSequence([*spec.stream, 0]).generate_state(1)[0]))
    top = add_lora(keep_blocks(backbone, boundary, depth), spec, n_top=n_top)
    if start:
        load_adapters(top, boundary, start)
    return top, inputs, boundary, words


def build(
    spec: RunSpec, table: TaskTable, *, start: Path | None = None, trunk: bool = True
) -> Finetuned:
    """The model of a run before its first step: backbone, adapters, head, drawn by the spec's seed.

    Args:
        spec: a run with `method="finetune"`.
        table: the task's texts.
        start: a folder of adapters to start from, in place of fresh ones.
        trunk: share the frozen blocks' states where that is exact and affordable. False computes
            them anew in every pass; the logits agree within bf16's tolerance.
    """
    with torch.random.fork_rng():
        top, inputs, boundary, _ = adapted(spec, table, start=start, trunk=trunk)
        model = Classifier(top, comparison=table.texts_a_row == 2)
    return Finetuned(spec, model.to(spec.device), inputs, boundary)


def fit(spec: RunSpec, data: Data, *, trunk: bool = True) -> Finetuned:
    """Finetunes `spec.model` on soft labels.

    Args:
        spec: a run with `method="finetune"`.
        data: rows and labels.
        trunk: see `build`.

    Raises:
        TrainingError: out of memory, or a loss that is not finite; the message says at which step
            and what to change.
        SpecError: fewer rows than one batch.
    """
    rows, batch_size = np.asarray(data.rows), spec.recipe.batch_size
    if len(rows) < batch_size or len(rows) != len(data.labels):
        said = f"one label a row, and at least one batch of {batch_size}"
        raise SpecError(f"{len(rows)} rows and {len(data.labels)} labels: need {said}")
    with explained_out_of_memory(spec):
        fitted = build(spec, data.table, start=data.adapters, trunk=trunk)
        model, inputs = fitted.model, fitted.inputs
        label_of = np.full(len(inputs.length), np.nan, dtype=np.float32)
        label_of[rows] = np.asarray(data.labels, dtype=np.float32)

        def loss_of(batch: Any, done: float) -> Tensor:
            logits = model(*inputs.batch(batch))
            soft_label = torch.from_numpy(label_of[batch]).to(logits.device)
            return spec.loss.loss(logits, soft_label, done)

        fitted.notes = optimise(model, spec, rows, inputs.length, loss_of)
    return fitted


def load(spec: RunSpec, data: Data) -> Finetuned:
    """The finetuned classifier that a transfer starts from, to be asked about the transfer's task.

    Args:
        spec: a run with `method="transfer"`.
        data: its task, and the adapters and the head.
    """
    assert data.adapters is not None
    fitted = build(spec, data.table, start=data.adapters)
    fitted.model.head.load_state_dict(load_file(data.adapters / "head.safetensors"))
    return fitted


@contextlib.contextmanager
def explained_out_of_memory(spec: RunSpec) -> Iterator[None]:
    """Turns running out of memory into an `OutOfMemory` that says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        less = f"recipe.batch_size below {spec.recipe.batch_size}, or lora.blocks below"
        said = f"out of memory while training {spec.model}: set {less} {spec.lora.blocks}"
        raise OutOfMemory(said) from error


def optimise(
    model: Any, spec: RunSpec, rows: Any, length: Any, loss_of: Callable[[Any, float], Tensor]
) -> dict[str, Any]:
    """One step a batch on what of `model` requires a gradient.

    AdamW steps on float32 copies of the trained parameters, which may themselves be bf16.

    Args:
        model: what trains, with the peft model as its `backbone`.
        spec: gives the recipe.
        rows: what `loss_of` takes batches of, one a step; see `all_batches`.
        length: see `epoch_batches`.
        loss_of: (batch, share of training done in [0, 1)) -> the loss, a scalar.

    Returns:
        What provenance says of it: see `checkpoint_where_needed`.

    Raises:
        TrainingError: a loss that is not finite.
    """
    recipe, batches = spec.recipe, all_batches(spec, rows, length)
    longest, n_steps = rows[np.argsort(length[rows])][-recipe.batch_size :], len(batches)
    notes = checkpoint_where_needed(model, model.backbone, lambda: loss_of(longest, 0.0))
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    masters = [p.detach().float().clone().requires_grad_() for p in parameters]
    optimiser = torch.optim.AdamW(masters, weight_decay=recipe.weight_decay)
    bar = tqdm(batches, desc=f"train {spec.model}", unit="step", leave=False, disable=None)
    for step, batch in enumerate(bar):
        loss = loss_of(batch, step / n_steps)
        if not torch.isfinite(loss):
            where = f"the loss is {loss.item()} at step {step + 1} of {n_steps}"
            advice = f"try a lower recipe.learning_rate than {recipe.learning_rate}"
            raise TrainingError(f"{where}: {advice}")
        loss.backward()  # type: ignore[no-untyped-call]
        for master, parameter in zip(masters, parameters, strict=True):
            assert parameter.grad is not None
            master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, recipe.max_grad_norm)
        factor = learning_rate_factor(step, n_steps, recipe.warmup_fraction)
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * factor
        optimiser.step()
        with torch.no_grad():
            for master, parameter in zip(masters, parameters, strict=True):
                parameter.copy_(master)
    return notes
