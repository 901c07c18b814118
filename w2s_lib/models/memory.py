"""How much memory a training run takes, from its description and the model's configuration alone: no weights are needed.

An estimate, made to decide on gradient checkpointing and to plan; the rule for activations follows Korthikanti et al. 2022
(arXiv 2205.05198): what each linear layer reads and writes is kept for the backward pass, and so is what the norms read.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from w2s_lib.models.backbone import load_config
from w2s_lib.models.families import blocks_of, skeleton
from w2s_lib.runs.spec import NextToken, RunSpec

BYTES = {"bf16": 2, "fp32": 4}
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight in NF4 with double quantization: 4 bits, a byte for each 64 of them, and 4 bytes for each 256 of those."""


class Memory(NamedTuple):
    """Bytes of a run at its peak, by what they hold.

    Attributes:
        weights: the frozen model: while it is loaded whole, before the trunk takes over its lower blocks.
        adapters: LoRA's weights and gradients, and their float32 copies, gradients and two moments in AdamW.
        activations: what the forward pass keeps of one batch of the longest texts; with `NextToken`, the logits of its tokens
            and their gradients as well, in the model's precision and in float32.
    """

    weights: int
    adapters: int
    activations: int

    @property
    def total(self) -> int:
        """The sum."""
        return sum(self)


def training_memory(
    spec: RunSpec, config: Any, longest: int, *, texts_a_row: int = 1, checkpointing: bool = False
) -> Memory:
    """What a finetuning run takes.

    Args:
        spec: gives depth, quantization, precision, device, adapters and batch size.
        config: of the model, as `models.load_config` gives it.
        longest: tokens of the longest text, template included.
        texts_a_row: 2 for comparisons; a run that reads (`NextToken`) takes their texts one by one.
        checkpointing: only what enters each block is kept, and one block's activations at a time.
    """
    model = skeleton(config)
    depth = spec.depth or config.num_hidden_layers
    adapted = depth if spec.lora.blocks == "all" else min(depth, int(spec.lora.blocks))
    size = BYTES[spec.precision]
    block = blocks_of(model)[0]
    shapes = [shape for layer in block.modules() for shape in _shape(layer)]
    linear = sum(a * b for a, b in shapes)
    rest = sum(p.numel() for p in block.parameters()) - linear
    outside = sum(p.numel() for p in model.parameters()) - linear - rest
    packed = (
        NF4_BYTES if spec.quantization == "nf4" and spec.device == "cuda" else size
    )  # on a CPU it is unpacked once
    weights = depth * (linear * packed + rest * size) + outside * size

    trained = adapted * spec.lora.rank * sum(a + b for a, b in shapes)
    adapters = trained * (2 * size + 16)

    reads = isinstance(spec.labels, NextToken)
    tokens = spec.recipe.batch_size * (1 if reads else texts_a_row) * longest
    width = config.hidden_size
    kept = sum(a + b for a, b in shapes) * size + 2 * width * (4 + 4 + size)
    scores = 0.0
    if (
        spec.device == "cpu"
    ):  # eager: a score a pair of tokens in float32 and in the model's precision, twice
        scores = config.num_attention_heads * longest * (4 + 2 * size)
    through = adapted if not checkpointing else 1
    activations = tokens * (
        through * (kept + scores) + (adapted * width * size if checkpointing else 0)
    )
    logits = tokens * config.vocab_size * (2 * size + 3 * 4) if reads else 0
    return Memory(round(weights), round(adapters), round(activations + logits))


def training_bytes(
    spec: RunSpec, config: Any, longest: int, *, texts_a_row: int = 1, checkpointing: bool = False
) -> int:
    """The sum of `training_memory`. Same arguments."""
    return training_memory(
        spec, config, longest, texts_a_row=texts_a_row, checkpointing=checkpointing
    ).total


def checkpoint_where_needed(
    backbone: Any, spec: RunSpec, longest: int, *, texts_a_row: int = 1
) -> dict[str, Any]:
    """Turns gradient checkpointing on where a run on CUDA would not fit without it: slower, and the same gradients.

    Args:
        backbone: the peft model that is about to be trained.
        spec: see `training_memory`, as all that follow.
        longest: of the texts that it trains on.
        texts_a_row: 2 for comparisons.

    Returns:
        For the record's provenance: "training_bytes", the estimate of what is done, and "gradient_checkpointing"; nothing on
        a CPU, where nothing is changed.
    """
    if spec.device != "cuda":
        return {}
    config = load_config(spec.name, spec.revision)
    room = (
        torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    )  # the model is there already, and counts
    needed = training_bytes(spec, config, longest, texts_a_row=texts_a_row)
    if on := needed > room:
        needed = training_bytes(spec, config, longest, texts_a_row=texts_a_row, checkpointing=True)
        # Not by the public method, which also makes the embeddings' output need a gradient, through every frozen block.
        backbone.get_base_model()._set_gradient_checkpointing(
            True, functools.partial(checkpoint, use_reentrant=False)
        )
    return {"training_bytes": needed, "gradient_checkpointing": on}


def _shape(layer: nn.Module) -> list[tuple[int, int]]:
    """What a linear layer reads and writes, as a list; an empty one for any other module."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(layer, nn.Linear):
        return [(layer.in_features, layer.out_features)]
    return [(layer.nx, layer.nf)] if isinstance(layer, Conv1D) else []
