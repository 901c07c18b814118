"""A record: what it is worth by split, what its digest covers, its labels for others; any one comes back, or is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs.test_store import SPEC, record
from w2s_lib.runs.errors import DamagedRecord, StoreError
from w2s_lib.runs.record import SPLITS, Record, accuracies, from_parquet, to_parquet
from w2s_lib.runs.store import write


def by_hand() -> Record:
    """Two rows of either class in test and in validation, two rows of a half. A tie, p = 1/2, says 0."""
    frame = pd.DataFrame(
        [
            (7, "test", 1, 0.9, 0),
            (3, "test", 0, 0.2, 1),
            (9, "validation", 1, 0.6, 2),
            (1, "validation", 0, 0.5, 3),
            (4, "supervisor", 1, 0.3, 4),
            (2, "supervisor", 0, 0.8, 5),
        ],
        columns=["row", "split", "label", "p", "group"],
    ).set_index("row")
    frame = frame.astype({"label": "int8", "group": "int32", "p": "float32"})
    return Record(SPEC, frame, accuracies(frame), {"task_digest": "ab" * 32}, "somewhere")


def test_accuracies_by_hand() -> None:
    """Both right in test, both in validation (a tie says 0), none in the half; no student half, so nothing of it."""
    assert by_hand().metrics == {
        "accuracy": 1.0,
        "validation_accuracy": 1.0,
        "supervisor_accuracy": 0.0,
    }


def test_labels_by_hand() -> None:
    """P(y = 1) in the order asked for; of the student half this run has said nothing."""
    assert by_hand().labels([2, 9, 4], task_digest="ab" * 32).tolist() == pytest.approx(
        [0.8, 0.6, 0.3]
    )
    with pytest.raises(StoreError, match=r"\b2\b.*\b5\b"):
        by_hand().labels([4, 5, 6], task_digest="ab" * 32)


# Joins


def test_labels_are_joined_by_row() -> None:
    one = record()
    rows = one.predictions.index.to_numpy()[[7, 3, 300]]
    found = one.labels(rows, task_digest="ab" * 32)
    assert found.tolist() == one.predictions["p"].to_numpy()[[7, 3, 300]].tolist()


def test_predictions_are_not_joined_across_tasks_or_rows_that_are_not_there() -> None:
    one = record()
    with pytest.raises(StoreError, match="abababababab.*cdcdcdcdcdcd"):
        one.labels(one.predictions.index[:3], task_digest="cd" * 32)
    absent = next(row for row in range(800) if row not in one.predictions.index)
    with pytest.raises(StoreError, match=rf"{SPEC.run_id}.*\b1\b.*\b{absent}\b"):
        one.labels([one.predictions.index[0], absent], task_digest="ab" * 32)


# What it holds


@pytest.mark.parametrize(
    "change",
    [
        lambda r: dataclasses.replace(r, spec=r.spec.with_seed(1)),
        lambda r: dataclasses.replace(r, metrics={**r.metrics, "accuracy": 0.76}),
        lambda r: dataclasses.replace(r, provenance={**r.provenance, "seconds": 2}),
        lambda r: dataclasses.replace(r, rules="ab" * 32),
        lambda r: dataclasses.replace(
            r, predictions=r.predictions.assign(p=np.nextafter(r.predictions["p"], np.float32(1)))
        ),
        lambda r: dataclasses.replace(
            r, predictions=r.predictions.assign(label=1 - r.predictions["label"])
        ),
        lambda r: dataclasses.replace(r, predictions=r.predictions.assign(group=0)),
        lambda r: dataclasses.replace(r, predictions=r.predictions.assign(split="test")),
        lambda r: dataclasses.replace(
            r, predictions=r.predictions.set_axis(r.predictions.index + 1)
        ),
        lambda r: dataclasses.replace(r, predictions=r.predictions.iloc[::-1]),
        lambda r: dataclasses.replace(r, predictions=r.predictions.iloc[1:]),
    ],
)
def test_the_digest_covers_everything(change: Callable[[Record], Record]) -> None:
    one = record()
    assert change(one).digest != one.digest
    assert dataclasses.replace(one, path="elsewhere").digest == one.digest


def test_a_record_holds_no_text_and_no_pickle(own_store: Path) -> None:
    table = pq.read_table(write(record()).path)
    assert table.column_names == ["row", "split", "label", "p", "group"]
    assert [str(kind).partition("<")[0] for kind in table.schema.types] == [
        "int32",
        "dictionary",
        "int8",
        "float",
        "int32",
    ]
    metadata = table.schema.metadata
    assert set(metadata) == {b"format", b"spec", b"metrics", b"provenance", b"rules", b"digest"}
    assert all(json.loads(metadata[key]) for key in (b"spec", b"metrics", b"provenance"))


# Any record

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
probabilities = st.floats(0, 1, width=32)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Rows in any order, any of the splits, any probabilities, any provenance."""
    rows = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12, unique=True))

    def column(values: st.SearchStrategy[Any]) -> Any:
        return np.array(draw(st.lists(values, min_size=len(rows), max_size=len(rows))))

    frame = pd.DataFrame(
        {
            "split": column(st.sampled_from(SPLITS)).astype(object),
            "label": column(st.integers(0, 1)).astype(np.int8),
            "p": column(probabilities).astype(np.float32),
            "group": column(st.integers(0, 2**31 - 1)).astype(np.int32),
        },
        index=pd.Index(rows, name="row"),
    )
    made = draw(st.dictionaries(st.text(max_size=5), json_values, max_size=3))
    rules = draw(st.sampled_from(["", "ab" * 32]))
    return Record(SPEC, frame, accuracies(frame), made, rules=rules)


@given(records())
def test_any_record_comes_back(one: Record) -> None:
    again = from_parquet(to_parquet(one), f"{SPEC.run_id}.parquet")
    assert again.digest == one.digest and again.rules == one.rules
    assert json.dumps(again.provenance) == json.dumps(one.provenance)
    pd.testing.assert_frame_equal(again.predictions, one.predictions, check_index_type=False)


@given(records(), json_values, st.sampled_from(["metrics", "provenance", "weights"]))
def test_any_other_metadata_is_damage_though_the_digest_is_right(
    one: Record, value: Any, what: str
) -> None:
    """Another program, or somebody, has written it."""
    given: dict[str, Any] = {"metrics": one.metrics, "provenance": one.provenance}
    given |= {"provenance": {"weights": value}} if what == "weights" else {what: value}
    other = Record(SPEC, one.predictions, **given)
    with contextlib.suppress(DamagedRecord):
        again = from_parquet(to_parquet(other), f"{SPEC.run_id}.parquet")
        assert isinstance(again.provenance, dict) and again.metrics == one.metrics
        assert again.provenance.get("weights", "") == ""
