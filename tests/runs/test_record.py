"""A record: what it is worth by split, and its labels for others."""

from __future__ import annotations

import pandas as pd
import pytest

from w2s_lib.runs.errors import StoreError
from w2s_lib.runs.record import Record, accuracies
from w2s_lib.runs.spec import RunSpec

SPEC = RunSpec(model="smollm2-135m@4", half="supervisor", predict_halves=True)


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
    with pytest.raises(StoreError, match="2 rows, the first is 5"):
        by_hand().labels([4, 5, 6], task_digest="ab" * 32)
