"""Training: schedules and batches as properties, the shared trunk against the plain path, and what a step changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w2s_lib.models import backbone as models
from w2s_lib.models import trunk
from w2s_lib.models.classifier import Finetuned
from w2s_lib.models.inputs import Inputs
from w2s_lib.models.machine import one_thread
from w2s_lib.models.trunk import Trunk
from w2s_lib.runs.errors import SpecError, TrainingError
from w2s_lib.runs.losses import ConfidenceLoss
from w2s_lib.runs.spec import Lora, Recipe, RunSpec, Task
from w2s_lib.tasks.table import TaskTable, default_task, load_table, splits
from w2s_lib.training import finetune as train
from w2s_lib.training.finetune import Data, epoch_batches, fit, learning_rate_factor

pytestmark = pytest.mark.usefixtures("one_thread")
fractions = st.floats(0, 1)


# Schedules


@given(st.integers(1, 400), fractions)
def test_the_learning_rate_rises_and_falls_without_a_jump(
    n_steps: int, warmup_fraction: float
) -> None:
    """From step to step it moves by 1 / (steps of warm-up), then by 1 / (steps left); it reaches 1, and 0 after the last."""
    factor = [learning_rate_factor(step, n_steps, warmup_fraction) for step in range(n_steps)]
    warmup = round(warmup_fraction * n_steps)
    up, down = 1 / max(1, warmup), 1 / max(1, n_steps - warmup)
    moves = np.diff([0.0, *factor] if warmup else factor)
    assert max(factor) == pytest.approx(1) and min(factor) > 0
    assert np.allclose(moves[:warmup], up)
    assert np.allclose(moves[warmup + 1 :] if warmup else moves, -down)
    assert factor[-1] <= max(up, down) + 1e-9 or warmup == n_steps


# Batches


@given(st.integers(1, 300), st.integers(2, 33), st.integers(0, 5))
def test_batches_of_an_epoch(n_rows: int, batch_size: int, seed: int) -> None:
    """Each row at most once, whole batches only, all that fit in whole batches, the same for the same seed."""
    rows = np.random.default_rng(99).permutation(1000)[:n_rows]
    length = np.arange(1000) % 50
    batches = epoch_batches(rows, length, batch_size=batch_size, rng=np.random.default_rng(seed))
    again = epoch_batches(rows, length, batch_size=batch_size, rng=np.random.default_rng(seed))
    assert len(batches) == n_rows // batch_size and all(
        len(batch) == batch_size for batch in batches
    )
    seen = [int(row) for batch in batches for row in batch]
    assert len(set(seen)) == len(seen) and set(seen) <= set(rows.tolist())
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]


def test_batches_are_random_draws_of_similar_length() -> None:
    """Another epoch, other batches and other rows left out; little padding; and neither the order of batches nor who
    is in one follows the length over the whole epoch."""
    rng, length = np.random.default_rng(0), np.random.default_rng(1).integers(5, 60, 1000)
    first, second = (
        epoch_batches(np.arange(1000), length, batch_size=24, rng=rng) for _ in range(2)
    )
    assert {frozenset(b.tolist()) for b in first}.isdisjoint(frozenset(b.tolist()) for b in second)
    assert set(np.concatenate(first)) != set(np.concatenate(second))
    spread = np.mean([np.ptp(length[batch]) for batch in first])
    assert spread < np.ptp(length) / 3
    order = np.corrcoef(np.arange(len(first)), [length[batch].mean() for batch in first])[0, 1]
    assert abs(order) < 0.5


# The trunk, on the real model's first blocks


@pytest.fixture(scope="module")
def table(small_task: Task) -> TaskTable:
    return load_table(small_task)


@pytest.fixture
def spec(small_task: Task, quick: dict[str, Any]) -> RunSpec:
    return RunSpec(model="smollm2-135m@3", task=small_task, **quick)


def labels_of(table: TaskTable, rows: Any) -> Any:
    return table.frame["label"].to_numpy(np.float32)[rows]


def fitted_on_student_half(spec: RunSpec, table: TaskTable, **options: Any) -> Finetuned:
    rows = splits(table, spec.seed).student
    return fit(spec, Data(table, rows, labels_of(table, rows), **options))


EVERY = np.arange(300)


def test_the_trunk_is_the_plain_path_but_for_rounding(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    """Trained alike, with adapters that do something: in float32 the logits are one, in bf16 within its rounding."""
    for precision, tolerance in (("fp32", 2e-4), ("bf16", 0.15)):
        one = dataclasses.replace(spec, precision=precision)
        shared, plain = (train.build(one, table, trunk=use) for use in (True, False))
        assert (shared.boundary, plain.boundary) == (2, 0)
        assert isinstance(shared.inputs, Trunk) and type(plain.inputs) is Inputs
        mine, theirs = (dict(f.model.named_parameters()) for f in (shared, plain))
        torch.manual_seed(1)
        for name, parameter in mine.items():
            if parameter.requires_grad:
                other = theirs[name.replace("layers.0", "layers.2")]
                assert torch.equal(parameter, other)  # drawn alike by the seed
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.05)
                    other.data.copy_(parameter)
        a, b = (f.logits(EVERY[:100]) for f in (shared, plain))
        assert a.std() > 0.05
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)
        assert (a - b).abs().mean() < tolerance / 10


def test_a_trunk_that_would_be_too_large_is_not_kept(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    """Of the widest model whose states fit: one number more a token, or four bytes each, and all blocks are run; a probe keeps last tokens alone."""
    widest = trunk.MOST_BYTES // (2 * int(Inputs(spec, table).text_length.sum()))
    for width, precision, fits in (
        (widest, "bf16", True),
        (widest + 1, "bf16", False),
        (widest, "fp32", False),
    ):
        config = models.load_config(spec.name, spec.revision)
        config.hidden_size = width
        one = dataclasses.replace(spec, precision=precision)
        assert trunk.trunk_depth(one, table, config, n_top=1) == (2 if fits else 0)
        assert trunk.only_last(one, table, config) != fits


def test_a_probe_on_a_gpu_keeps_last_tokens_alone(spec: RunSpec, table: TaskTable) -> None:
    config = models.load_config(spec.name, spec.revision)
    on_gpu = dataclasses.replace(spec, device="cuda")
    assert not trunk.only_last(spec, table, config) and trunk.only_last(on_gpu, table, config)


def test_last_tokens_alone_are_those_of_the_whole_trunk(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    whole, last = (Trunk(spec, table, 2, last=alone) for alone in (False, True))
    assert np.array_equal(whole.last_states(EVERY), last.last_states(EVERY))
    assert sum(chunk.nbytes for chunk in last.chunks) == 300 * 576 * 2


def test_two_trunks_have_the_same_bits_however_they_came_about(
    spec: RunSpec,
    table: TaskTable,
    tmp_path: Path,
    make_cache: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the tokens, again from the tokens, and from a lower trunk's states."""
    found = []
    for name in ("one", "again", "lower first"):
        monkeypatch.setenv("W2S_CACHE", str(make_cache(tmp_path / name)))
        if name == "lower first":
            assert Trunk(spec, table, 1).seconds > 0
        states = Trunk(spec, table, 2)
        assert states.seconds > 0 and len(states.files) == 1
        assert Trunk(spec, table, 2).seconds == 0  # kept
        found.append(torch.cat([states.part(row) for row in range(300)]))
        assert not list((tmp_path / name).rglob("*.tmp"))
    assert found[0].dtype == torch.bfloat16 and found[0].shape == (int(states.length.sum()), 576)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> TaskTable:
    """1,200 short texts, three chunks of a trunk."""
    path = tmp_path_factory.mktemp("large") / "texts.csv"
    texts = [(f"number {i} is {'good' if i % 2 else 'bad'}", i % 2) for i in range(1200)]
    pd.DataFrame(texts, columns=["text", "label"]).to_csv(path, index=False)
    return load_table(default_task(str(path)))


def test_a_damaged_chunk_of_a_trunk_is_computed_again(
    spec: RunSpec,
    large: TaskTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_cache: Callable[[Path], Path],
) -> None:
    """One bit of one chunk: it is said, and the states are those of before."""
    monkeypatch.setenv("W2S_CACHE", str(make_cache(tmp_path / "cache")))
    file = Trunk(spec, large, 1).files[1]
    before = {path: path.read_bytes() for path in file.parent.iterdir()}
    content = bytearray(before[file])
    content[5000] ^= 1
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=file.name):
        assert Trunk(spec, large, 1).seconds > 0
    assert {path: path.read_bytes() for path in file.parent.iterdir()} == before


def test_a_trunk_goes_on_from_a_lower_one_that_somebody_has_begun(
    spec: RunSpec,
    large: TaskTable,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_cache: Callable[[Path], Path],
) -> None:
    """It finishes that one first, and the bits are those of a trunk made in one go."""
    monkeypatch.setenv("W2S_CACHE", str(make_cache(tmp_path / "whole")))
    whole = Trunk(spec, large, 2)
    monkeypatch.setenv("W2S_CACHE", str(make_cache(tmp_path / "begun")))
    lower = Trunk(spec, large, 1)
    assert len(lower.files) == 3
    lower.files[1].unlink()
    upper = Trunk(spec, large, 2)
    assert lower.files[1].is_file()
    for a, b in zip(whole.chunks, upper.chunks, strict=True):
        assert np.array_equal(a, b)


def test_trunks_are_kept_apart_by_all_that_changes_them(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    def folder(spec: RunSpec, boundary: int = 2, table: TaskTable = table) -> Path:
        return Trunk(spec, table, boundary).files[0].parent

    template = dataclasses.replace(
        spec, task=dataclasses.replace(spec.task, template="{text} So it was")
    )
    cuts = [dataclasses.replace(spec.task, max_tokens=20, cut=cut) for cut in ("end", "start")]
    folders = [
        folder(spec),
        folder(spec, 1),
        folder(template),
        *(folder(dataclasses.replace(spec, task=cut)) for cut in cuts),
        folder(dataclasses.replace(spec, precision="fp32")),
        folder(dataclasses.replace(spec, quantization="none")),
        folder(spec, table=dataclasses.replace(table, digest="ab" * 32)),
    ]
    assert len(set(folders)) == len(folders)
    for same in (
        dataclasses.replace(spec, model="smollm2-135m@9"),
        spec.with_seed(5),
        dataclasses.replace(spec, lora=Lora()),
    ):
        assert folder(same) == folders[0]


@pytest.mark.parametrize(("cut", "kept"), [("end", "startword and then"), ("start", "and endword")])
def test_long_texts_lose_one_end_and_the_template_stays_whole(
    spec: RunSpec, table: TaskTable, capfd: pytest.CaptureFixture[str], cut: str, kept: str
) -> None:
    frame = table.frame.copy()
    frame.loc[7, "text"] = "startword and then " + "word " * 50 + "and endword"
    long = dataclasses.replace(table, frame=frame)
    whole = Inputs(spec, long)
    budget = max(length for row, length in enumerate(whole.text_length) if row != 7)
    task = dataclasses.replace(spec.task, max_tokens=int(budget), cut=cut)
    short = Inputs(dataclasses.replace(spec, task=task), long)
    assert (
        f"1 of {len(frame):,} texts have more than max_tokens = {budget} for smollm2-135m: their {cut} is cut off"
        in capfd.readouterr().err
    )
    assert [row for row, ids in enumerate(short.ids) if ids != whole.ids[row]] == [7]
    text = models.load_tokenizer("smollm2-135m").decode(short.ids[7])
    assert budget - 1 <= len(short.ids[7]) <= budget and kept in text
    assert text.endswith(spec.task.template.removeprefix("{text}"))
    assert ("endword" in text) == (cut == "start") and ("startword" in text) == (cut == "end")


def test_a_budget_that_cannot_be_met_is_refused(spec: RunSpec, table: TaskTable) -> None:
    for budget, message in (
        (10_000, "max_tokens is 10000, more than the 8192 that smollm2-135m reads"),
        (2, r"max_tokens is 2, and the template alone, '\{text\} It was', is as long"),
    ):
        task = dataclasses.replace(spec.task, max_tokens=budget)
        with pytest.raises(SpecError, match=message):
            Inputs(dataclasses.replace(spec, task=task), table)


def test_a_text_longer_than_the_model_reads_is_refused(spec: RunSpec, table: TaskTable) -> None:
    long = table.frame.copy()
    long.loc[7, "text"] = "so " * 9000
    with pytest.raises(SpecError, match="text 7.*8192.*smollm2-135m"):
        Inputs(spec, dataclasses.replace(table, frame=long))


# Fitting


@pytest.fixture(scope="module")
def trained(
    small_task: Task, quick: dict[str, Any], table: TaskTable, session_cache: Path
) -> Finetuned:
    """32 steps on the last of three blocks, on ground truth."""
    with pytest.MonkeyPatch.context() as patch, one_thread("cpu"):
        patch.setenv("W2S_CACHE", str(session_cache))
        return fitted_on_student_half(
            RunSpec(model="smollm2-135m@3", task=small_task, **quick), table
        )


def test_training_changes_the_adapters_and_the_head_and_nothing_else(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    fresh = train.build(spec, table).model.state_dict()
    after = fitted_on_student_half(spec, table).model.state_dict()
    assert fresh.keys() == after.keys()
    changed = {name for name in fresh if not torch.equal(fresh[name], after[name])}
    expected = {name for name in fresh if ".lora_" in name or name.startswith("head.")}
    assert changed == expected and len(expected) == 2 * 7 + 2


def test_it_learns(trained: Finetuned, table: TaskTable, own_cache: Path) -> None:
    """The sentences are told apart by one of ten words, and three blocks are enough for that."""
    parts = splits(table, 0)
    for rows in (parts.student, parts.test):
        assert ((trained.predict(rows) > 0.5) == labels_of(table, rows)).mean() > 0.8


def test_the_same_spec_gives_the_same_bits(
    trained: Finetuned, table: TaskTable, own_cache: Path
) -> None:
    again = fitted_on_student_half(trained.spec, table)
    other = fitted_on_student_half(trained.spec.with_seed(1), table)
    assert torch.equal(again.logits(EVERY), trained.logits(EVERY))
    assert not torch.equal(other.logits(EVERY), trained.logits(EVERY))


def test_fitting_leaves_the_callers_random_numbers_and_threads_alone(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch.set_num_threads(2)
    with one_thread("cpu"):
        assert torch.get_num_threads() == 1
        fitted_on_student_half(spec, table)
    assert torch.get_num_threads() == 2 and torch.equal(torch.rand(3), expected)


def test_alpha_0_is_naive_finetuning_to_the_bit_in_training(
    spec: RunSpec, table: TaskTable, own_cache: Path, trained: Finetuned
) -> None:
    nothing = fitted_on_student_half(
        dataclasses.replace(spec, loss=ConfidenceLoss(alpha_max=0.0)), table
    )
    something = fitted_on_student_half(
        dataclasses.replace(spec, loss=ConfidenceLoss(alpha_max=1.0)), table
    )
    assert torch.equal(nothing.logits(EVERY), trained.logits(EVERY))
    assert not torch.equal(something.logits(EVERY), trained.logits(EVERY))


# Adapters to start from


def test_a_fit_that_starts_from_adapters_goes_on_from_them(
    spec: RunSpec, table: TaskTable, own_cache: Path, trained: Finetuned, tmp_path: Path
) -> None:
    """At a rate of next to nothing they stay what they were, and a fresh head alone is not what predicts."""
    trained.save(tmp_path)
    still = dataclasses.replace(spec, recipe=Recipe(epochs=1, batch_size=16, learning_rate=1e-12))
    on, fresh = (fitted_on_student_half(still, table, adapters=start) for start in (tmp_path, None))
    mine, theirs, drawn = (dict(f.model.named_parameters()) for f in (on, trained, fresh))
    names = [name for name in mine if ".lora_" in name]
    assert len(names) == 14 and all(torch.equal(mine[name], theirs[name]) for name in names)
    assert not any(torch.equal(drawn[name], theirs[name]) for name in names)
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(mine[name], drawn[name])


# What stops it


def test_a_loss_that_is_no_number_is_an_error(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    wild = dataclasses.replace(spec, recipe=Recipe(epochs=2, batch_size=16, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"nan.* of 8.*recipe\.learning_rate.*1e\+30"):
        fitted_on_student_half(wild, table)


def test_out_of_memory_is_an_error_that_says_what_to_change(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    """Adapters of 10^12 rows: no machine has the address space, so the allocator itself refuses."""
    huge = dataclasses.replace(spec, lora=Lora(rank=10**12, blocks=1))
    with pytest.raises(TrainingError, match="smollm2-135m@3.*recipe.batch_size below 16"):
        fitted_on_student_half(huge, table)


def test_rows_and_labels_that_do_not_fit_are_refused(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    for rows, labels in ((EVERY[:8], EVERY[:8]), (EVERY[:32], EVERY[:31])):
        with pytest.raises(SpecError, match="16"):
            fit(spec, Data(table, rows, labels))


def test_errors_of_other_kinds_are_not_called_out_of_memory(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    with pytest.raises(IndexError):
        fit(spec, Data(table, np.arange(290, 306), np.ones(16, dtype=np.float32)))


def test_threads_of_a_caller_are_restored_after_an_error() -> None:
    torch.set_num_threads(2)
    with pytest.raises(ValueError), one_thread("cpu"):
        raise ValueError
    assert torch.get_num_threads() == 2
