"""The CUDA path for real: `make gpu-check`, or `pytest -m gpu` on a box with a CUDA device.

What does not need the device itself is run on a CPU as well, wherever the tests are: that tries
the tests and not the GPU. What needs CUDA has not been executed yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t

import w2s_lib as w2s
from tests.conftest import killed_after_the_first, pinned
from w2s_lib.experiments.sweep import train_missing
from w2s_lib.models.backbone import load_backbone
from w2s_lib.models.classifier import Classifier, Finetuned
from w2s_lib.models.families import blocks_of
from w2s_lib.models.machine import one_thread
from w2s_lib.runs.errors import TrainingError
from w2s_lib.runs.spec import Lora, Recipe, RunSpec, Task
from w2s_lib.runs.store import find
from w2s_lib.tasks.table import load_table, splits
from w2s_lib.training import finetune as train
from w2s_lib.training.finetune import Data, fit

here = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore:.* are also among the"),
]
GIB = 2**30
EVERY = np.arange(300)


def gpu(test: Any) -> Any:
    """Marks a test that is about CUDA itself."""
    return pytest.mark.gpu(here(test))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, here])])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with one_thread(request.param):
        yield request.param


@pytest.fixture
def spec(small_task: Task, quick: dict[str, Any], device: str) -> RunSpec:
    return RunSpec(model="smollm2-135m@3", task=small_task, device=device, **quick)


@pytest.fixture
def whole(small_task: Task) -> RunSpec:
    """All 30 blocks, LoRA on all of them, on the GPU."""
    return w2s.ceiling(
        "smollm2-135m", small_task, device="cuda", lora=Lora(blocks="all"), recipe=Recipe(epochs=1)
    )


@pytest.fixture
def fresh_peak() -> Iterator[None]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def fitted(spec: RunSpec) -> Finetuned:
    table = load_table(spec.task)
    rows = splits(table, spec.seed).student
    return fit(spec, Data(table, rows, table.frame["label"].to_numpy(np.float32)[rows]))


# What is loaded


@gpu
def test_the_blocks_stay_in_four_bits(fresh_peak: None) -> None:
    """NF4 with double quantization: less than the same weights in bf16."""
    import bitsandbytes as bnb

    spec = RunSpec(model="smollm2-135m", device="cuda")
    before = torch.cuda.memory_allocated()
    model = load_backbone(spec)
    layers = [layer for layer in blocks_of(model).modules() if isinstance(layer, torch.nn.Linear)]
    assert len(layers) == 30 * 7
    for layer in layers:
        assert (
            isinstance(layer, bnb.nn.Linear4bit)
            and layer.weight.dtype == torch.uint8
            and layer.weight.is_cuda
        )
        state = layer.weight.quant_state
        assert state.quant_type == "nf4" and state.nested
    in_bf16 = sum(layer.in_features * layer.out_features * 2 for layer in layers)
    outside = model.embed_tokens.weight.nbytes
    assert torch.cuda.memory_allocated() - before - outside < 0.35 * in_bf16


def test_its_logits_are_those_of_the_cpu_but_for_rounding(spec: RunSpec) -> None:
    """Before the first step: the same NF4 values and the same head, drawn by the same seed."""
    table = load_table(spec.task)
    here, there = (
        train.build(dataclasses.replace(spec, device=device), table)
        for device in (spec.device, "cpu")
    )
    torch.testing.assert_close(here.model.head.weight.cpu(), there.model.head.weight)
    a, b = (f.logits(EVERY) for f in (here, there))
    assert a.std() > 0.05
    torch.testing.assert_close(a, b, atol=0.15, rtol=0)
    assert (a - b).abs().mean() < 0.02


def test_the_trunk_is_the_plain_path_but_for_rounding(spec: RunSpec) -> None:
    table = load_table(spec.task)
    for precision, tolerance in (("fp32", 1e-2), ("bf16", 0.15)):
        one = dataclasses.replace(spec, precision=precision)
        shared, plain = (train.build(one, table, trunk=use) for use in (True, False))
        assert (shared.boundary, plain.boundary) == (2, 0)
        a, b = (f.logits(EVERY) for f in (shared, plain))
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def test_padding_is_not_seen(spec: RunSpec) -> None:
    """A text alone and beside longer ones, under the attention that this device uses."""
    model = train.build(
        dataclasses.replace(spec, precision="fp32"), load_table(spec.task), trunk=False
    )
    model.model.eval()
    longest_last = model.inputs.by_length(EVERY)[[0, 1, -2, -1]]
    with torch.inference_mode():
        together = model.model(*model.inputs.batch(longest_last))
        alone = torch.cat(
            [model.model(*model.inputs.batch(longest_last[i : i + 1])) for i in range(4)]
        )
    torch.testing.assert_close(together, alone, atol=1e-2, rtol=0)


# What is trained


@gpu
def test_a_naive_student_is_as_good_as_on_a_cpu() -> None:
    """One seed here against the interval in which one more seed of the ten published ones would lie, 95%."""

    def naive(seed: int, device: str) -> RunSpec:
        settings = {"device": device, "seed": seed}
        return w2s.student(
            "smollm2-135m", w2s.supervisor("smollm2-135m@4", "movie", **settings), **settings
        )

    published = [find(naive(seed, "cpu")) for seed in range(300, 310)]
    accuracy = np.array([record.metrics["accuracy"] for record in published if record])
    assert len(accuracy) == 10
    half = student_t.ppf(0.975, 9) * accuracy.std(ddof=1) * np.sqrt(1 + 1 / 10)
    record = w2s.run(naive(300, "cuda"))
    found = record.metrics["accuracy"]
    print(
        f"cuda: {found:.3f}; CPU: {accuracy.mean():.3f}, one more seed {accuracy.mean() - half:.3f} to "
        f"{accuracy.mean() + half:.3f}"
    )
    assert record.provenance["device"] == "cuda"
    assert accuracy.mean() - half <= found <= accuracy.mean() + half


def test_runs_of_every_kind(
    small_task: Task, comparison_task: Task, quick: dict[str, Any], device: str
) -> None:
    """Each is recorded with its device; what learns the sentences from ground truth gets most of them right."""
    how = {"device": device}
    weak = w2s.supervisor("smollm2-135m@2", small_task, **quick, **how)
    reads = w2s.generative(
        "smollm2-135m@3", small_task, **how, lora=quick["lora"], recipe=Recipe(epochs=1)
    )
    learn = {
        "top": w2s.ceiling("smollm2-135m@3", small_task, **quick, **how),
        "dense": w2s.ceiling("smollm2-135m@3", small_task, **quick, **how, quantization="none"),
        "read first": w2s.ceiling("smollm2-135m@3", small_task, start=reads, **quick, **how),
        "probe": w2s.probe("smollm2-135m@3", small_task, **how),
        "pairs": w2s.ceiling("smollm2-135m@3", comparison_task, **quick, **how),
    }
    others = [
        w2s.student("smollm2-135m@3", weak, loss=w2s.ConfidenceLoss(), **quick, **how),
        w2s.zero_shot("smollm2-135m@3", small_task, **how),
    ]
    runs = w2s.sweep([*learn.values(), *others], workers=1).frame
    assert {record.provenance["device"] for record in runs["record"]} == {device}
    accuracy = dict(zip(runs["run_id"], runs["accuracy"], strict=True))
    found = {name: accuracy[spec.run_id] for name, spec in learn.items()}
    assert min(found.values()) > 0.7, found
    asked = w2s.run(w2s.transfer(learn["top"], "nyt"))  # another task, the same device
    assert asked.provenance["device"] == device


@pytest.mark.parametrize(
    "family",
    [
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "smollm3",
        "gpt_neox",
        "gpt2",
        "gemma",
        "gemma2",
        "gemma3",
    ],
)
def test_every_family_trains(family: str, tiny_models: Path, small_task: Task, device: str) -> None:
    spec = pinned(
        tiny_models / family,
        task=small_task,
        device=device,
        lora=Lora(rank=4, blocks=2),
        recipe=Recipe(epochs=1, batch_size=16),
    )
    model = fitted(spec)
    p = model.predict(EVERY[:50])
    assert np.isfinite(p).all() and p.std() > 0


# Memory


@gpu
def test_out_of_memory_says_what_to_change(
    whole: RunSpec, fresh_peak: None, own_store: Path
) -> None:
    """The process may take so much of the device as holds the model, and no batch beside it."""
    large = dataclasses.replace(whole, recipe=Recipe(epochs=1, batch_size=64))
    allow_bytes(held_by(large) + 0.05 * GIB)
    with pytest.raises(TrainingError, match="smollm2-135m.*recipe.batch_size below 64"):
        w2s.run(large)
    assert not list(own_store.glob("*.parquet"))


@gpu
def test_checkpointing_is_turned_on_where_a_step_does_not_fit(
    whole: RunSpec, fresh_peak: None
) -> None:
    """With room for three quarters of the step: it takes less, and learns the same."""
    longer = dataclasses.replace(whole, recipe=Recipe(epochs=1, batch_size=64))
    model = fitted(longer)
    step_bytes = model.notes["step_bytes"]
    assert not model.notes["gradient_checkpointing"]
    expected = model.predict(EVERY)
    base = held_by(longer)
    del model
    torch.cuda.empty_cache()
    allow_bytes(base + 0.75 * (step_bytes - base))
    model = fitted(longer)
    assert model.notes["gradient_checkpointing"] and model.notes["step_bytes"] < step_bytes
    assert np.abs(model.predict(EVERY) - expected).mean() < 0.05


def held_by(spec: RunSpec) -> int:
    """Bytes that the device holds of a model that is about to be trained."""
    model = train.build(spec, load_table(spec.task))
    held = torch.cuda.memory_allocated()
    del model
    torch.cuda.empty_cache()
    return held


def allow_bytes(n_bytes: float) -> None:
    """No more than so many for this process."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, n_bytes / total))


# Stopped and resumed


def test_a_killed_sweep_is_resumed_where_it_was(own_store: Path, spec: RunSpec) -> None:
    """Killed in the second of three runs: the first stays as it is, and only the other two are trained."""
    halves = (("supervisor", 0), ("student", 0), ("student", 1))
    runs = [dataclasses.replace(spec, half=half, seed=seed) for half, seed in halves]
    endless = dataclasses.replace(runs[1], recipe=dataclasses.replace(spec.recipe, epochs=4000))
    first = killed_after_the_first([runs[0], endless], own_store)
    written = first.stat().st_mtime_ns
    assert [path.name for path in own_store.glob("*.parquet")] == [first.name]
    assert train_missing(runs, workers=1) == {runs[1].run_id, runs[2].run_id}
    assert first.stat().st_mtime_ns == written
    assert train_missing(runs, workers=1) == set()


def test_its_classifier_is_on_the_device(spec: RunSpec) -> None:
    model = train.build(spec, load_table(spec.task)).model
    assert isinstance(model, Classifier)
    assert {p.device.type for p in model.parameters()} == {spec.device}
