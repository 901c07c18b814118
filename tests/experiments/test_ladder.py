"""A small chapter's runs on a ladder by size: whole models of different families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import w2s_lib as w2s
from w2s_lib.runs.spec import Task


@pytest.mark.usefixtures("own_cache")
def test_weak_strong_and_naive_on_a_ladder_by_size(
    tiny_models: Path, small_task: Task, quick: dict[str, Any]
) -> None:
    """Two folders with three random blocks each; the student learns from the other family's labels."""
    weak = w2s.supervisor(f"{tiny_models}/llama", small_task, **quick)
    naive = w2s.student(f"{tiny_models}/qwen3", weak, **quick)
    top = w2s.ceiling(f"{tiny_models}/qwen3", small_task, **quick)
    runs = w2s.sweep([weak, naive, top], seeds=[0, 1], workers=1)
    assert sorted(runs.frame["role"]) == sorted(["supervisor", "student", "ceiling"] * 2)
    accuracy = [runs.accuracy(arm).value for arm in (weak, naive, top)]
    assert all(0.3 < value <= 1 for value in accuracy)
    recovered = runs.pgr(weak=weak, student=naive, ceiling=top)
    expected = (accuracy[1] - accuracy[0]) / (accuracy[2] - accuracy[0])
    if np.isfinite(recovered.value):
        assert recovered.value == pytest.approx(expected)
    again = w2s.sweep([weak, naive, top], seeds=[0, 1], workers=1)
    assert list(again.frame["run_id"]) == list(runs.frame["run_id"])
