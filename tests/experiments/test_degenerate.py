"""Runs that can teach nothing: a named error that costs them alone, or a record that is marked, and no PGR."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import w2s_lib as w2s
from tests.conftest import pinned
from w2s_lib.runs.errors import TrainingError
from w2s_lib.runs.record import accuracies
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import Hard, RunSpec, Task
from w2s_lib.runs.store import find, write
from w2s_lib.tasks.table import default_task, resolve_task

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def one_sided(small_task: Task) -> RunSpec:
    """A supervisor with a record that says yes to every text."""
    weak = w2s.supervisor("tfidf", small_task, seed=1)
    true = w2s.run(weak)
    Path(true.path).unlink()
    frame = true.predictions.assign(p=np.float32(0.75))
    write(dataclasses.replace(true, predictions=frame, metrics=accuracies(frame)))
    return weak


@pytest.fixture
def tiny(tiny_models: Path, small_task: Task) -> dict[str, Any]:
    """A small model that is finetuned in eight steps."""
    recipe = w2s.Recipe(epochs=2, batch_size=16, learning_rate=1e-2)
    own = {"recipe": recipe, "lora": w2s.Lora(rank=4, blocks=1), "task": small_task}
    return own | {"model": tiny_models / "llama", "precision": "fp32", "quantization": "none"}


def test_one_class_to_count_words_of_costs_its_own_run_alone(one_sided: RunSpec) -> None:
    taught, other = (
        w2s.student("tfidf", Hard(run=one_sided)),
        w2s.supervisor("tfidf", one_sided.task),
    )
    with pytest.raises(TrainingError, match="every label is 1: nothing to tell apart"):
        w2s.sweep([taught, other], workers=1, progress=False)
    assert find(taught) is None and find(other) is not None


def test_one_class_to_finetune_on_is_marked(one_sided: RunSpec, tiny: dict[str, Any]) -> None:
    """It learns to say yes. Its accuracy is no better than a coin's, and its record says that it collapsed."""
    taught = pinned(**tiny, labels=Hard(run=one_sided), seed=1)
    runs = w2s.sweep([taught], workers=1, progress=False)
    assert w2s.collapsed(runs.records(taught)[0]) and runs.collapsed(taught) == [1]
    assert runs.metrics({"taught": taught})["collapsed"].tolist() == ["1 of 1 (1)"]


def test_equal_predictions_are_marked_and_have_no_pgr(tmp_path: Path) -> None:
    """No word of any text is in another one: who counts words says the same of all."""
    rows = pd.DataFrame({"text": [f"word{number}" for number in range(300)], "label": [0, 1] * 150})
    rows.to_csv(path := tmp_path / "own.csv", index=False)
    task = resolve_task(default_task(str(path), n_train=64, n_validation=40, n_test=80))
    weak, top = w2s.supervisor("tfidf", task), w2s.ceiling("tfidf", task)
    naive = w2s.student("tfidf", weak)
    runs = w2s.sweep([weak, top, naive], seeds=[0, 1], workers=1, progress=False)
    test = runs.records(top)[0].predictions.query("split == 'test'")
    assert test["p"].nunique() == 1
    assert all(w2s.collapsed(record) for record in runs.all_records)
    found = runs.pgr(weak=weak, student=naive, ceiling=top)
    assert math.isnan(found.value) and str(found) == "no gap to recover"


@pytest.mark.parametrize("labels", [w2s.GroundTruth(), NextToken()])
@pytest.mark.parametrize(("epochs", "said"), [(1, "the predictions of .*"), (2, "the loss is nan")])
def test_what_explodes_is_a_named_error(
    labels: Any, epochs: int, said: str, tiny: dict[str, Any], own_store: Path
) -> None:
    """At the last step, after which no loss is taken, or before it."""
    recipe = w2s.Recipe(epochs=epochs, batch_size=64, learning_rate=1e30)
    with pytest.raises(TrainingError, match=rf"{said}.*recipe\.learning_rate than 1e\+30"):
        w2s.run(pinned(**tiny | {"recipe": recipe}, labels=labels))
    assert list(own_store.iterdir()) == []
