"""What a run learns from: its teacher's record, joined by row; and where its own is to go."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import w2s_lib as w2s
from w2s_lib.models.pins import pin
from w2s_lib.runs.errors import StoreUnavailable
from w2s_lib.runs.record import accuracies
from w2s_lib.runs.spec import Task
from w2s_lib.runs.store import find, read, write
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


@pytest.mark.parametrize("n_refused, written", [(1, True), (10_000, False)])
def test_a_trained_run_outlives_a_store_that_is_away(
    n_refused: int,
    written: bool,
    small_task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is trained once, and tried again for as long as it has taken; then it is kept, and sent later."""
    monkeypatch.setenv("W2S_STORE", "memory://away")
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))
    spec, memory = pin(w2s.supervisor("tfidf", small_task)), fsspec.filesystem("memory")
    put, tries = memory.pipe_file, list[str]()

    def away(path: str, value: bytes, **options: Any) -> Any:
        tries.append(path)
        if len(tries) <= n_refused:
            raise ConnectionResetError("away")
        return put(path, value, **options)

    monkeypatch.setattr(memory, "pipe_file", away)
    if written:
        execute(spec)
    else:
        with pytest.raises(StoreUnavailable, match="away.*cache/unsent"):
            execute(spec)
    assert len(tries) == 2 and (find(spec) is not None) == written
    kept = [*(tmp_path / "cache" / "unsent").rglob(f"{spec.run_id}.parquet")]
    assert len(kept) == (not written) and "tried again" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("W2S_STORE", "memory://away")
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))
    if not written:
        digest = read(kept[0]).digest
        execute(spec)
        record = find(spec)
        assert record is not None and record.digest == digest and not kept[0].exists()
    memory.store.clear()
