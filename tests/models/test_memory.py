"""The memory of a run, estimated without weights: it grows with what it should, and is about what is measured."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import pinned
from w2s_lib.models.backbone import load_backbone, load_config
from w2s_lib.models.classifier import Classifier
from w2s_lib.models.lora import add_lora
from w2s_lib.models.memory import (
    NF4_BYTES,
    Memory,
    checkpoint_where_needed,
    training_bytes,
    training_memory,
)
from w2s_lib.runs.spec import Lora, NextToken, Recipe, RunSpec

REPO = Path(__file__).parents[2]
GIB = 2**30


def llama(depth: int = 4, width: int = 64) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=depth,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1000,
    )


def test_by_hand() -> None:
    """A block: q 64x64, k and v 64x32, o 64x64, three of 64x128: 36,864 weights in linear layers, 128 in norms."""
    spec = RunSpec(
        model="hf:a/b@3", device="cuda", lora=Lora(rank=2, blocks=2), recipe=Recipe(batch_size=4)
    )
    found = training_memory(spec, llama(), 10)
    outside = 1000 * 64 + 64
    assert found.weights == round(3 * (36_864 * NF4_BYTES + 128 * 2) + outside * 2)
    ends = 2 * 128 + 2 * 96 + 3 * 192
    assert found.adapters == 2 * 2 * ends * (2 * 2 + 16)
    assert found.activations == 4 * 10 * 2 * (ends * 2 + 2 * 64 * 10)
    assert found.total == sum(found) == training_bytes(spec, llama(), 10)
    less = training_memory(spec, llama(), 10, checkpointing=True)
    assert (
        less.activations == 4 * 10 * ((ends * 2 + 2 * 64 * 10) + 2 * 64 * 2)
        and less[:2] == found[:2]
    )
    assert training_memory(
        dataclasses.replace(spec, quantization="none"), llama(), 10
    ).weights == 2 * (3 * (36_864 + 128) + outside)


def test_a_run_that_reads_has_logits_as_well() -> None:
    """40 tokens, a vocabulary of 1,000: logits and gradient in bf16; in float32 logits, softmax and gradient."""
    plain = RunSpec(
        model="hf:a/b@3", device="cuda", lora=Lora(blocks=2), recipe=Recipe(batch_size=4)
    )
    reads = dataclasses.replace(plain, labels=NextToken())
    more = (
        training_memory(reads, llama(), 10).activations
        - training_memory(plain, llama(), 10).activations
    )
    assert more == 40 * 1000 * (2 + 2 + 4 + 4 + 4)
    assert training_memory(reads, llama(), 10, texts_a_row=2) == training_memory(
        reads, llama(), 10
    )  # a text at a time


@given(
    st.sampled_from(["cpu", "cuda"]),
    st.booleans(),
    st.integers(2, 64),
    st.integers(1, 500),
    st.integers(1, 4),
)
def test_more_of_anything_takes_more(
    device: str, checkpointing: bool, batch_size: int, longest: int, blocks: int
) -> None:
    def total(longest: int = longest, depth: int = 4, width: int = 64, **changes: Any) -> Memory:
        settings = {
            "lora": Lora(blocks=blocks),
            "recipe": Recipe(batch_size=batch_size),
            "device": device,
        } | changes
        return training_memory(
            RunSpec(model="hf:a/b", **settings),
            llama(depth, width),
            longest,
            checkpointing=checkpointing,
        )

    before = total()
    more = [
        total(longest=longest + 1),
        total(depth=5),
        total(width=128),
        total(recipe=Recipe(batch_size=batch_size + 1)),
        total(lora=Lora(blocks=blocks, rank=17)),
        total(precision="fp32"),
        *([total(lora=Lora(blocks=blocks + 1))] if blocks < 4 else []),
    ]
    assert all(after.total > before.total for after in more)
    assert all(one >= other for after in more for one, other in zip(after, before, strict=True))


@given(st.integers(2, 4), st.integers(1, 500))
def test_checkpointing_takes_less_from_two_blocks_on(blocks: int, longest: int) -> None:
    spec = RunSpec(model="hf:a/b", device="cuda", lora=Lora(blocks=blocks))
    with_it, without = (
        training_bytes(spec, llama(), longest, checkpointing=on) for on in (True, False)
    )
    assert with_it < without


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "gpt_neox", "gemma3", "smollm3", "qwen2_window"]
)
def test_weights_are_counted_as_they_are_loaded(
    family: str, tiny_models: Path, own_cache: Path
) -> None:
    """In float32 without quantization: four bytes a parameter, for each depth; adapters: 24 bytes a trained one."""
    for depth in (1, 3):
        spec = pinned(
            f"{tiny_models}/{family}@{depth}",
            precision="fp32",
            quantization="none",
            lora=Lora(rank=3),
        )
        found = training_memory(spec, load_config(spec.name, spec.revision), 10)
        model = load_backbone(spec)
        assert found.weights == 4 * sum(p.numel() for p in model.parameters())
        trained = sum(
            p.numel() for p in add_lora(model, spec, n_top=depth).parameters() if p.requires_grad
        )
        assert found.adapters == 24 * trained


MEASURE = """
import re, sys, torch
import numpy as np
import torch, transformers, peft, bitsandbytes
from w2s_lib.models.lora import add_lora
from w2s_lib.models.classifier import Classifier
from w2s_lib.models.memory import training_memory
from w2s_lib.models.backbone import load_backbone, load_config
from w2s_lib.runs.spec import Lora, Recipe, RunSpec
from w2s_lib.training.finetune import _MasterWeights
torch.set_num_threads(1)
def peak():  # of this program alone: what `getrusage` says begins with the memory of the process that started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
def step(spec, longest):
    model = Classifier(add_lora(load_backbone(spec), spec, n_top=spec.depth)).train()
    optimiser = _MasterWeights([p for p in model.parameters() if p.requires_grad], spec)
    n = spec.recipe.batch_size
    model(torch.randint(0, 5000, (n, longest)), torch.full((n,), longest)).sum().backward()
    optimiser.step(1.0, 1.0, 1e-3)
one = RunSpec(model="smollm2-135m@1", quantization="none", recipe=Recipe(batch_size=2), lora=Lora(blocks="all"))
step(one, 8)  # what libraries keep for themselves
small = training_memory(one, load_config("smollm2-135m"), 8)
before = peak()
spec = RunSpec(model="smollm2-135m@6", quantization="none", recipe=Recipe(batch_size=8), lora=Lora(blocks="all"))
step(spec, 160)
print(peak() - before, *training_memory(spec, load_config("smollm2-135m"), 160), small.weights)
"""


def test_the_estimate_is_about_what_is_measured(own_cache: Path) -> None:
    """The peak of a process that makes one step of the embedded model's first six blocks, most of it activations."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=REPO, capture_output=True, text=True, check=True
    )
    grown, weights, adapters, activations, there = map(int, done.stdout.split()[-5:])
    expected = weights - there + adapters + activations
    print(f"measured {grown:,}, expected {expected:,}")
    assert activations > 2 * weights
    assert expected / 2 < grown < expected * 2


# Gradient checkpointing


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "smollm3"])
def test_checkpointing_is_on_where_a_run_would_not_fit_and_changes_no_gradient(
    family: str, tiny_models: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's free memory is made up; the model computes on the CPU."""
    spec = pinned(tiny_models / family, precision="fp32", quantization="none", lora=Lora(rank=2))
    on_cuda = dataclasses.replace(spec, device="cuda")
    needed = training_bytes(on_cuda, load_config(spec.name, spec.revision), 8)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 1000)
    gradients, ran = [], []
    for room in (needed - 1000, needed - 1001):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda room=room: (room, 80 * GIB))
        torch.manual_seed(0)
        model = Classifier(add_lora(load_backbone(spec), spec, n_top=3)).train()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        notes = checkpoint_where_needed(model.backbone, on_cuda, 8)
        assert notes["gradient_checkpointing"] == (room < needed - 1000)
        assert notes["training_bytes"] == training_bytes(
            on_cuda,
            load_config(spec.name, spec.revision),
            8,
            checkpointing=notes["gradient_checkpointing"],
        )
        calls: list[int] = []
        base = model.backbone.get_base_model()
        blocks = base.layers if hasattr(base, "layers") else base.h
        blocks[1].mlp.register_forward_pre_hook(lambda *args, calls=calls: calls.append(1))
        ids = torch.randint(0, 5000, (2, 8), generator=torch.Generator().manual_seed(0))
        (model(ids, torch.tensor([8, 5]))[:, 1] * torch.tensor([1.0, -2.0])).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
        ran.append(len(calls))
    assert ran == [1, 2]  # a checkpointed block runs again in the backward pass
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_nothing_is_asked_or_changed_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: 1 / 0)
    assert checkpoint_where_needed(None, RunSpec(model="smollm2-135m@3"), 10**9) == {}


def test_what_one_large_gpu_is_enough_for() -> None:
    """What README and `load_backbone` say, with the published shapes of Llama 3 70B and of Llama 2 13B."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    spec = RunSpec(model="hf:a/b", device="cuda")
    without, with_it = (
        training_bytes(spec, config, 512, checkpointing=on) / GIB for on in (False, True)
    )
    assert (without, with_it) == (pytest.approx(73, abs=1), pytest.approx(40, abs=1))
    assert without * GIB < 80e9
    assert (
        training_bytes(
            dataclasses.replace(spec, quantization="none"), config, 512, checkpointing=True
        )
        > 80e9
    )
    small = LlamaConfig(
        hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
    )
    assert (
        training_bytes(spec, small, 512, checkpointing=True)
        < 24e9
        < training_bytes(spec, small, 512)
    )
