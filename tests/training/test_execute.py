"""What a run learns from: its teacher's record, joined by row."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import w2s_lib as w2s
from w2s_lib.runs.record import accuracies
from w2s_lib.runs.spec import Task
from w2s_lib.runs.store import find, write
from w2s_lib.tasks.labels import training_labels
from w2s_lib.tasks.table import load_table, splits
from w2s_lib.training.execute import execute


def test_a_tie_at_one_half_is_hardened_to_0(
    small_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a teacher that says 1/2 + 2^-16, 1/2 and 1/2 - 2^-16 in turn, only the first is a 1."""
    weak = w2s.supervisor("tfidf", small_task)
    execute(weak)
    made = find(weak)
    assert made is not None
    p = np.resize(np.float32([0.5 + 2**-16, 0.5, 0.5 - 2**-16]), len(made.predictions))
    predictions = made.predictions.assign(p=p)
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "ties"))
    write(dataclasses.replace(made, predictions=predictions, metrics=accuracies(predictions)))
    table = load_table(small_task)
    rows = splits(table, 0).student
    soft, hard = (
        training_labels(w2s.student("tfidf", teacher), table, rows, half=rows)
        for teacher in (weak, w2s.Hard(run=weak))
    )
    assert soft.tolist() == predictions["p"].loc[rows].tolist()
    assert hard.tolist() == [float(value > 0.5) for value in soft]
    assert {float(value) for value in hard[soft == 0.5]} == {0.0}
