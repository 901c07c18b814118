"""Comparisons: pairs of snippets from ratings, a user's own pairs, and models for which the order of two texts is nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import w2s_lib as w2s
from tests.conftest import pinned
from tests.tasks.test_tasks import write
from w2s_lib.measures.metrics import contrast_interval
from w2s_lib.models import backbone as models
from w2s_lib.models.classifier import Classifier
from w2s_lib.models.inputs import Inputs
from w2s_lib.models.machine import one_thread
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.spec import RunSpec, Task
from w2s_lib.tasks import table as tasks
from w2s_lib.tasks.embedded import EMBEDDED, preferences, read_embedded
from w2s_lib.tasks.table import TaskTable, default_task, load_table, splits
from w2s_lib.training import finetune as train
from w2s_lib.training.baselines import fit_probe, fit_tfidf, fit_zero_shot
from w2s_lib.training.finetune import Data

# From ratings


def check_pairs(pairs: pd.DataFrame, snippets: pd.DataFrame, min_gap: float) -> None:
    """What every table of comparisons must be, each pair looked up in the snippets by its two ids."""
    by = snippets.set_index("id")
    first, second = (by.loc[[name.split("-")[side] for name in pairs["id"]]] for side in (0, 1))
    assert (pairs["text"].to_numpy() == first["text"].to_numpy()).all()
    assert (pairs["text_b"].to_numpy() == second["text"].to_numpy()).all()
    gap = first["rating"].to_numpy() - second["rating"].to_numpy()
    assert (
        (pairs["rating"].to_numpy() == gap).all()
        and (np.abs(gap) >= min_gap).all()
        and (gap != 0).all()
    )
    assert ((pairs["label"] == 1).to_numpy() == (gap > 0)).all()
    used = [*first.index, *second.index]
    assert len(set(used)) == len(used)
    assert (pairs["group"] == pairs["id"]).all() and (pairs["split"] == "").all()


ratings = st.lists(st.floats(-4, 4).map(lambda r: round(r, 1)), min_size=2, max_size=60)


@settings(max_examples=100)
@given(ratings, st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_pairs_of_rated_snippets(rating: list[float], min_gap: float) -> None:
    """Two ends that are always far enough apart; equal ratings are a tie at any gap."""
    rating = [-5.0, 5.0, *rating]
    snippets = pd.DataFrame(
        {
            "id": [f"s{i}" for i in range(len(rating))],
            "text": [f"text {i}" for i in range(len(rating))],
            "rating": rating,
        }
    )
    pairs = preferences(snippets, min_gap=min_gap)
    assert 1 <= len(pairs) <= len(snippets) // 2
    check_pairs(pairs, snippets, min_gap)
    pd.testing.assert_frame_equal(pairs, preferences(snippets, min_gap=min_gap))


def test_the_embedded_comparisons() -> None:
    """Nearly half as many pairs as there are snippets; the better one stands first in half of them, wherever it was rated."""
    snippets = read_embedded(EMBEDDED["movie-preference"], min_rating=-1.0)
    table = load_table(default_task("movie-preference"))
    frame = table.frame
    assert default_task("movie-preference").min_rating == 1.0
    check_pairs(frame, snippets, 1.0)
    assert len(frame) > 0.47 * len(snippets) and frame.index.to_list() == list(range(len(frame)))
    assert abs(frame["label"].mean() - 0.5) < 1 / np.sqrt(len(frame))  # two standard errors
    assert (
        table.texts == [*frame["text"], *frame["text_b"]]
        and table.texts_a_row == 2
        and table.ratings == ()
    )
    assert (
        not pd.Series(table.texts).str.casefold().duplicated().any()
    )  # so no text crosses a split
    assert table.positions([3, 0]).tolist() == [3, 0, len(frame) + 3, len(frame)]
    tasks._load.cache_clear()
    assert load_table(table.task).digest == table.digest and load_table(table.task).frame.equals(
        frame
    )


def test_the_gap_is_a_parameter() -> None:
    wide = load_table(default_task("movie-preference", min_rating=3.0))
    assert (wide.frame["rating"].abs() >= 3).all() and wide.digest != load_table(
        default_task("movie-preference")
    ).digest
    with pytest.raises(SpecError, match="movie-preference"):
        splits(
            load_table(default_task("movie-preference", min_rating=9.0)), 0
        )  # ratings are -4 to 4


# A user's own


def pairs(n: int, **columns: object) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "chosen": [f"Good {i}." for i in range(n)],
            "rejected": [f"Bad {i}." for i in range(n)],
            **columns,
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_chosen_text_is_the_first_one_where_the_label_says_so(
    tmp_path: Path, suffix: str
) -> None:
    """In every file kind the same table; about half of the rows are turned."""
    raw = pairs(200, id=[f"x{i}" for i in range(200)])
    table = load_table(default_task(write(raw, tmp_path / f"own{suffix}")))
    frame = table.frame
    chosen = frame["text"].where(frame["label"] == 1, frame["text_b"])
    rejected = frame["text_b"].where(frame["label"] == 1, frame["text"])
    assert (
        chosen.to_list() == raw["chosen"].to_list()
        and rejected.to_list() == raw["rejected"].to_list()
    )
    assert frame["id"].to_list() == raw["id"].to_list() and frame["label"].dtype == np.int8
    assert 80 <= frame["label"].sum() <= 120
    assert table.digest == load_table(default_task(write(raw, tmp_path / "as.csv"))).digest


def test_the_digest_covers_the_second_text_too(tmp_path: Path) -> None:
    """Row 0's rejected text, and row 0 turned round: three tables."""
    raw = pairs(6)
    other = raw.assign(rejected=["Worse.", *raw["rejected"][1:]])
    turned = raw.assign(
        chosen=[raw["rejected"][0], *raw["chosen"][1:]],
        rejected=[raw["chosen"][0], *raw["rejected"][1:]],
    )
    names = [write(frame, tmp_path / f"{i}.csv") for i, frame in enumerate((raw, other, turned))]
    assert len({load_table(default_task(name)).digest for name in names}) == 3


@pytest.mark.parametrize(
    "frame, message",
    [
        (pairs(4).drop(columns="rejected"), r"no column 'rejected'; its columns are 'chosen'"),
        (pairs(4).drop(columns="chosen"), r"no column 'chosen'; its columns are 'rejected'"),
        (pairs(4, rejected=["a", " ", "c", "d"]), r"row 1 .* one side of the comparison is empty"),
        (
            pairs(4, chosen=["a", "b", "", ""]),
            r"row 2 .* one side of the comparison is empty \(and in 1 more\)",
        ),
        (
            pairs(4, chosen=["a", "b", "c", "Same  text"], rejected=["x", "y", "z", "same text "]),
            r"row 3 .* a text is compared with itself: 'Same text'",
        ),
        (
            pairs(4, chosen=["a", "b", "c", "D"], rejected=["d", "x", "y", "a"]),
            r"the same pair is preferred both ways, a tie, in rows 0, 3 .* 2 rows in all",
        ),
        (
            pairs(4, group=list("aabb"), split=["train", "test", "test", "test"]),
            r"row 1 .* group 'a' is in another split",
        ),
    ],
)
def test_pairs_that_are_none_are_refused_with_their_row(
    tmp_path: Path, frame: pd.DataFrame, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        load_table(default_task(write(frame, tmp_path / "own.csv")))


def test_a_pair_that_stands_twice_the_same_way_is_kept_once(tmp_path: Path) -> None:
    """Case and spacing being the same; a pair that shares one of its texts with another is another pair."""
    frame = pairs(5, chosen=["a b", "c", "A  b", "a b", "e"], rejected=["x", "y", "X", "z", "w"])
    with pytest.warns(UserWarning, match="1 of 5 rows repeat a text and are left out"):
        table = load_table(default_task(write(frame, tmp_path / "own.csv")))
    assert table.frame["id"].to_list() == ["0", "1", "3", "4"] and table.n_dropped == 1


# Models: what they say of two texts, turned round, is the same verdict


@pytest.fixture(scope="module")
def task(comparison_task: Task) -> Task:
    return comparison_task


@pytest.fixture(scope="module")
def table(task: Task) -> TaskTable:
    return load_table(task)


@pytest.fixture(scope="module")
def both_ways(table: TaskTable) -> TaskTable:
    """The table, and below it every row turned round: row i + 300 is row i with its texts exchanged."""
    turned = table.frame.assign(
        text=table.frame["text_b"], text_b=table.frame["text"], label=1 - table.frame["label"]
    )
    return dataclasses.replace(
        table, frame=pd.concat([table.frame, turned], ignore_index=True), digest="ab" * 32
    )


def is_antisymmetric(p: Any, n: int, tolerance: float = 1e-4) -> None:
    """P(first is better) and P(second is better), asked with the two exchanged, add up to one; and it says something."""
    assert np.std(p) > 0.01 and len(p) == 2 * n
    assert p[n:] == pytest.approx(1 - p[:n], abs=tolerance)


@pytest.mark.parametrize("model", ["llama", "mistral", "smollm2-135m@2"])
def test_exchanging_the_texts_of_a_row_negates_its_log_odds(
    model: str, tiny_models: Path, own_cache: Path
) -> None:
    """One reward a text, the head one number: the logit is r(first) - r(second), whatever the head's bias."""
    name = model if "@" in model else f"{tiny_models}/{model}"
    torch.manual_seed(0)
    classifier = Classifier(
        models.load_backbone(pinned(name, precision="fp32", quantization="none")), comparison=True
    )
    assert classifier.head.weight.shape[0] == 1
    ids = torch.tensor(
        [[504, 21, 436, 50, 30], [504, 14, 7, 0, 0], [30, 8, 0, 0, 0], [9, 9, 9, 9, 0]]
    )
    length = torch.tensor([5, 3, 2, 4])
    with torch.inference_mode():
        logits, turned = (
            classifier(ids, length),
            classifier(ids[[2, 3, 0, 1]], length[[2, 3, 0, 1]]),
        )
        odds, other = (each[:, 1] - each[:, 0] for each in (logits, turned))
        reward = torch.stack(
            [
                (classifier(ids[[i, 2]], length[[i, 2]]) @ torch.tensor([-1.0, 1.0]))[0]
                for i in (0, 1, 3)
            ]
        )
    assert logits.shape == (2, 2) and odds.abs().min() > 1e-3
    torch.testing.assert_close(other, -odds)
    torch.testing.assert_close(
        odds, torch.stack([reward[0], reward[1] - reward[2]]), atol=1e-4, rtol=1e-4
    )


def test_a_finetuned_comparison(
    task: Task, table: TaskTable, quick: dict[str, Any], own_cache: Path
) -> None:
    """A run as any other: record, accuracies, intervals; its student learns from it; the sentences can be told apart."""
    recipe = dataclasses.replace(quick["recipe"], epochs=4)
    weak = w2s.supervisor("smollm2-135m@2", task, **quick | {"recipe": recipe})
    record, student = (w2s.run(spec) for spec in (weak, w2s.student("tfidf", weak)))
    assert record.metrics["accuracy"] > 0.8 and student.metrics["accuracy"] > 0.8
    assert contrast_interval([(1, [record])]).value == pytest.approx(record.metrics["accuracy"])
    assert contrast_interval([(1, [record]), (-1, [student])]).value == pytest.approx(
        record.metrics["accuracy"] - student.metrics["accuracy"]
    )
    parts = splits(table, 0)
    assert record.predictions.query("split == 'test'").index.to_list() == parts.test.tolist()
    assert (
        record.predictions["label"].to_numpy()
        == table.frame["label"].to_numpy()[record.predictions.index]
    ).all()


def test_a_finetuned_model_says_the_same_both_ways(
    task: Task, table: TaskTable, both_ways: TaskTable, quick: dict[str, Any], own_cache: Path
) -> None:
    """Fitted on some rows, asked for others and for the same turned round."""
    recipe = dataclasses.replace(quick["recipe"], epochs=2)
    spec = RunSpec(
        model="smollm2-135m@2", task=task, precision="fp32", **quick | {"recipe": recipe}
    )
    rows = splits(table, 0).student
    with one_thread("cpu"):
        fitted = train.fit(
            spec, Data(both_ways, rows, table.frame["label"].to_numpy(np.float32)[rows])
        )
        asked = splits(table, 0).test
        p = fitted.predict(np.concatenate([asked, asked + len(table.frame)]))
    is_antisymmetric(p, len(asked))


@pytest.mark.parametrize(
    "method, tolerance", [("tfidf", 1e-4), ("probe", 1e-3), ("zero_shot", 1e-4)]
)
def test_a_baseline_says_the_same_both_ways(
    method: str,
    tolerance: float,
    task: Task,
    table: TaskTable,
    both_ways: TaskTable,
    own_cache: Path,
) -> None:
    """Each subtracts what it finds in the two texts, so it can have no liking for the first place; bf16 aside."""
    parts, truth = splits(table, 0), table.frame["label"].to_numpy(np.float32)
    asked, rows, labels = (
        np.concatenate([parts.test, parts.test + len(table.frame)]),
        parts.student,
        truth[parts.student],
    )
    with one_thread("cpu"):
        if method == "tfidf":
            fitted = fit_tfidf(RunSpec(model="tfidf"), Data(both_ways, rows, labels))
        elif method == "probe":
            spec = RunSpec(model="smollm2-135m@1", task=task, method="probe")
            fitted = fit_probe(
                spec,
                Data(
                    both_ways,
                    rows,
                    labels,
                    validation=parts.validation,
                    validation_labels=truth[parts.validation],
                ),
            )
        else:
            spec = RunSpec(model="smollm2-135m@1", task=task, method="zero_shot")
            fitted = fit_zero_shot(spec, Data(both_ways, rows, None, asked=asked))
    p = fitted.predict(asked)
    if method != "zero_shot":
        assert ((p > 0.5) == np.concatenate([truth, 1 - truth])[asked]).mean() > 0.8
    is_antisymmetric(p, len(parts.test), tolerance)


def test_zero_shot_is_the_difference_of_the_two_texts_own_odds(
    task: Task, table: TaskTable, own_cache: Path
) -> None:
    """ln P(great)/P(terrible) of the first text minus that of the second, each from a table of single texts.

    Those are calibrated, which takes nothing from a difference and keeps them where rounding does not show.
    """
    spec = RunSpec(model="smollm2-135m@1", task=task, method="zero_shot", precision="fp32")
    rows = np.arange(30)
    singles = dataclasses.replace(
        table, frame=pd.DataFrame({"text": table.texts, "label": 0}), digest="cd" * 32
    )
    every = singles.frame.index.to_numpy()
    with one_thread("cpu"):
        p = fit_zero_shot(spec, Data(table, rows, None)).predict(rows).astype(float)
        each = fit_zero_shot(spec, Data(singles, every, None)).predict(every).astype(float)
    odds = np.log(each / (1 - each))
    assert np.log(p / (1 - p)) == pytest.approx(odds[:30] - odds[300:330], abs=2e-3)


def test_a_row_is_as_long_as_its_longer_text(task: Task, table: TaskTable) -> None:
    inputs = Inputs(RunSpec(model="smollm2-135m@1", task=task), table)
    assert len(inputs.ids) == 2 * len(table.frame)
    n = len(table.frame)
    assert inputs.length.tolist() == [
        max(len(inputs.ids[i]), len(inputs.ids[n + i])) for i in range(n)
    ]
    batch, length = inputs.batch(np.array([4, 9]))
    assert length.tolist() == [
        len(inputs.ids[i]) for i in (4, 9, n + 4, n + 9)
    ] and batch.shape == (4, length.max())
    assert batch[3, : length[3]].tolist() == inputs.ids[n + 9]
