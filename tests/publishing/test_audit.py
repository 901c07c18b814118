"""Published runs trained again: equal ones, one that was edited, one that is not published."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

import w2s_lib as w2s
from w2s_lib.publishing.tables import train_again
from w2s_lib.runs.spec import Task
from w2s_lib.runs.store import read, write

pytestmark = pytest.mark.usefixtures("own_cache")


def test_runs_are_trained_again_with_their_teachers_and_compared(
    own_store: Path, tmp_path: Path, small_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    weak = w2s.supervisor("tfidf", small_task)
    taught = w2s.student("tfidf", weak)
    made = w2s.run(taught)
    results = shutil.copytree(own_store, tmp_path / "published")
    shutil.rmtree(own_store)
    (results / f"{taught.run_id}.parquet").unlink()
    other = made.predictions.assign(p=0.25 + made.predictions["p"] / 2)  # the same answers
    write(dataclasses.replace(made, predictions=other), store=results)

    table = train_again([taught], results, workers=1).set_index("run_id")
    assert table["equal"].to_dict() == {weak.run_id: True, taught.run_id: False}
    assert table["farthest"][weak.run_id] == 0 < table["farthest"][taught.run_id]
    assert read(own_store / f"{taught.run_id}.parquet").predictions.equals(made.predictions)
