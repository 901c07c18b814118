"""A record: what it was at a share of its training, what it is worth by split, and its labels for others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from w2s_lib.measures.metrics import contrast_interval
from w2s_lib.runs.errors import StoreError
from w2s_lib.runs.record import Record, accuracies, snapshot_column, snapshots_of
from w2s_lib.runs.spec import RunSpec

SPEC = RunSpec(model="smollm2-135m@4", half="supervisor", snapshots=(0.25, 0.5))
NAN = np.nan


def by_hand() -> Record:
    """Two rows of either class in test and in validation, two rows of a half. A tie, p = 1/2, says 0."""
    frame = pd.DataFrame(
        [
            (7, "test", 1, 0.9, 0, 0.4, 0.6),
            (3, "test", 0, 0.2, 1, 0.6, 0.5),
            (9, "validation", 1, 0.6, 2, 0.2, 0.1),
            (1, "validation", 0, 0.5, 3, 0.1, 0.7),
            (4, "supervisor", 1, 0.3, 4, NAN, NAN),
            (2, "supervisor", 0, 0.8, 5, NAN, NAN),
        ],
        columns=["row", "split", "label", "p", "group", "p@0.25", "p@0.5"],
    ).set_index("row")
    frame = frame.astype(
        {"label": "int8", "group": "int32"} | dict.fromkeys(("p", "p@0.25", "p@0.5"), "float32")
    )
    return Record(SPEC, frame, accuracies(frame), {"task_digest": "ab" * 32}, "somewhere")


def test_accuracies_by_hand() -> None:
    """Both right in test, both in validation (a tie says 0), none in the half; no student half, so nothing of it."""
    assert by_hand().metrics == {
        "accuracy": 1.0,
        "validation_accuracy": 1.0,
        "supervisor_accuracy": 0.0,
    }


def test_a_run_as_it_was_by_hand() -> None:
    """After a quarter: test 0 of 2, validation 1 of 2. After half: test 2 of 2 (0.6 and a tie), validation 0 of 2."""
    early, later = (by_hand().at(share) for share in (0.25, 0.5))
    assert early.metrics == {"accuracy": 0.0, "validation_accuracy": 0.5}
    assert later.metrics == {"accuracy": 1.0, "validation_accuracy": 0.0}
    assert early.predictions.index.to_list() == [7, 3, 9, 1]
    assert early.predictions["p"].to_list() == pytest.approx([0.4, 0.6, 0.2, 0.1])
    assert (
        list(early.predictions.columns) == ["split", "label", "p", "group"]
        and early.predictions["p"].dtype == np.float32
    )
    assert early.spec == SPEC and early.path == "" and early.digest != later.digest
    assert by_hand().predictions.shape == (6, 6)  # it is left as it was


def test_an_early_run_is_measured_as_any_other() -> None:
    record = by_hand()
    assert contrast_interval([(1, [record.at(0.25)])]).value == 0
    assert contrast_interval([(1, [record]), (-1, [record.at(0.25)])]).value == 1


@pytest.mark.parametrize("share", [0.3, 0.0, 1.0])
def test_a_share_that_was_not_asked_for_is_an_error_that_says_what_there_is(share: float) -> None:
    with pytest.raises(
        StoreError,
        match=rf"record {SPEC.run_id} has no snapshot at {share}: it has .*p@0.25.*p@0.5",
    ):
        by_hand().at(share)


def test_answers_at_their_median_by_hand() -> None:
    """Two rows of test, of validation and of a half: the larger p of each says 1, whatever it is. Equal ones are a tie."""
    even = by_hand().at_median
    assert even.predictions["p"].to_list() == [0.75, 0.25, 0.75, 0.25, 0.25, 0.75]
    assert even.metrics == {"accuracy": 1.0, "validation_accuracy": 1.0, "supervisor_accuracy": 0.0}
    biased = dataclasses.replace(
        by_hand(), predictions=by_hand().predictions.assign(p=lambda rows: rows["p"] / 2)
    )
    assert (
        accuracies(biased.predictions)["accuracy"] == 0.5
        and biased.at_median.metrics == even.metrics
    )
    same = dataclasses.replace(
        by_hand(), predictions=by_hand().predictions.assign(p=np.float32(0.7))
    ).at_median
    assert set(same.predictions["p"]) == {0.5} and list(same.predictions) == [
        "split",
        "label",
        "p",
        "group",
    ]
    assert contrast_interval([(1, [even])]).value == 1  # it is measured as any other


def test_an_early_run_labels_nobody() -> None:
    """It has no predictions of a half, and its labels would be those of another spec."""
    with pytest.raises(StoreError, match="has no prediction for 2 rows, the first is 2"):
        by_hand().at(0.25).labels([4, 2], task_digest="ab" * 32)


def test_two_shares_that_are_near_each_other_are_two_snapshots() -> None:
    shares = (0.3333331, 0.3333334, 1e-9, 0.1, 0.10000001)
    assert len({snapshot_column(share) for share in shares}) == len(shares)
    assert snapshot_column(0.5) == "p@0.5" and snapshot_column(0) == "p@0"


def test_snapshots_are_the_columns_of_that_form() -> None:
    record = by_hand()
    assert snapshots_of(record.predictions) == ["p@0.25", "p@0.5"]
    assert snapshots_of(record.at(0.5).predictions) == []
    assert (
        dataclasses.replace(
            record, predictions=record.predictions.drop(columns=["p@0.25", "p@0.5"])
        ).digest
        != record.digest
    )
