"""What a step keeps, and gradient checkpointing where it does not fit."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.conftest import pinned
from w2s_lib.models.backbone import load_backbone
from w2s_lib.models.classifier import Classifier
from w2s_lib.models.lora import add_lora
from w2s_lib.models.machine import checkpoint_where_needed, kept_bytes
from w2s_lib.runs.spec import Lora


class Square(nn.Module):
    """Keeps what it squares."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).square().sum()


def test_by_hand() -> None:
    """x (16, 8) for the product's gradient and x W (16, 4) for the square's, in float32; W is its own."""
    x = torch.randn(16, 8)
    assert kept_bytes(model := Square(), lambda: model(x)) == 4 * (16 * 8 + 16 * 4)


def step(model: Classifier, length: int) -> Tensor:
    ids = torch.arange(2 * length).reshape(2, length) % 500
    logits: Tensor = model(ids, torch.full((2,), length))
    return logits.square().sum()


@pytest.fixture
def model(tiny_models: Path) -> Classifier:
    spec = pinned(f"{tiny_models}/llama", lora=Lora(rank=4, blocks="all"), precision="fp32")
    torch.manual_seed(0)
    return Classifier(add_lora(load_backbone(spec), spec, n_top=3), last_only=False).train()


def gradients(model: Classifier) -> list[Any]:
    step(model, 12).backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


def test_checkpointing_keeps_less_and_changes_no_gradient(model: Classifier) -> None:
    """By the very switch that a run on CUDA turns on."""
    whole, before = kept_bytes(model, lambda: step(model, 64)), gradients(model)
    recompute = functools.partial(checkpoint, use_reentrant=False)
    model.backbone.get_base_model()._set_gradient_checkpointing(True, recompute)
    assert kept_bytes(model, lambda: step(model, 64)) < 0.5 * whole
    after = gradients(model)
    assert len(before) > 20 and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_on_a_cpu_nothing_is_tried(model: Classifier) -> None:
    def never() -> Tensor:
        raise AssertionError

    assert checkpoint_where_needed(model, model.backbone, never) == {}
