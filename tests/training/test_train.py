"""Training: schedules and batches as properties, what a fit changes, from where it starts, and what stops it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w2s_lib.models.classifier import Finetuned
from w2s_lib.models.machine import one_thread
from w2s_lib.runs.errors import SpecError, TrainingError
from w2s_lib.runs.losses import ConfidenceLoss
from w2s_lib.runs.spec import Lora, Recipe, RunSpec, Task
from w2s_lib.tasks.table import TaskTable, splits
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


# Fitting


def labels_of(table: TaskTable, rows: Any) -> Any:
    return table.frame["label"].to_numpy(np.float32)[rows]


def fitted_on_student_half(spec: RunSpec, table: TaskTable, **options: Any) -> Finetuned:
    rows = splits(table, spec.seed).student
    return fit(spec, Data(table, rows, labels_of(table, rows), **options))


EVERY = np.arange(300)


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
    with pytest.raises(TrainingError, match="smollm2-135m@3.*recipe.batch_size.*16"):
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
