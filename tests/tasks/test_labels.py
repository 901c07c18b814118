"""Truth by a panel of raters, and errors of people, words and lengths at a supervisor's rates."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest

import w2s_lib as w2s
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.record import Record, accuracies
from w2s_lib.runs.spec import Erring, LengthErrors, ModelErrors, RaterErrors, RunSpec, Taught
from w2s_lib.runs.store import write
from w2s_lib.tasks.labels import dissent, training_labels
from w2s_lib.tasks.table import default_task, load_table, recorded_rows, splits

SIZES = {"n_train": 800, "n_validation": 100, "n_test": 200}
JUDGED = default_task("movie", panel=3, max_rating=2.0, **SIZES)
WEAK = w2s.supervisor("tfidf", JUDGED, seed=990_001)  # a seed that nobody publishes


def test_a_panel_says_what_is_true_and_the_others_are_left() -> None:
    all_of_them = load_table(default_task("movie", min_rating=0.0))
    judged = load_table(JUDGED)
    before = dict(zip(all_of_them.frame["id"], all_of_them.ratings, strict=True))
    frame = judged.frame
    for key, rating, label, others in zip(
        frame["id"], frame["rating"], frame["label"], judged.ratings, strict=True
    ):
        votes = before[key] if key in before else None
        if votes is not None:  # the mean of all may be 0 where the panel's is not
            assert len(others) == len(votes) - 3
            assert sum(votes) - sum(others) == pytest.approx(3 * rating)
        assert label == (rating > 0)
    assert judged.digest != all_of_them.digest
    assert frame["rating"].abs().between(0, 2, inclusive="right").all()
    clear = load_table(default_task("movie", panel=3, **SIZES))
    assert dissent(judged).mean() > 1.2 * dissent(clear).mean()


@pytest.mark.parametrize("name", ["movie", "nyt"])
def test_no_test_row_of_a_panel_is_one_of_the_task_without(name: str) -> None:
    base, sizes = load_table(default_task(name)), {"n_train": 200, "n_validation": 50, "n_test": 60}
    judged = load_table(default_task(name, panel=5, **sizes))
    ids = judged.frame["id"].iloc[splits(judged, 0).test]
    assert not set(ids) & set(base.frame["id"].iloc[splits(base, 0).test])


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (default_task("amazon", panel=20), r"Task.panel is 20, .* has 20 raters"),
        (default_task("movie-preference", panel=5), "'movie-preference' have none"),
        (default_task("movie-preference", max_rating=1.0), "'movie-preference' have none"),
    ],
)
def test_what_raters_cannot_give_is_refused(task: w2s.Task, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        load_table(task)


def teach(spec: RunSpec, share: float = 0.15) -> Record:
    """The record of a made-up supervisor who prefers label 1, wrong on a share of the rows at its median."""
    table, rng = load_table(spec.task), np.random.default_rng(0)
    held = recorded_rows(spec, table, splits(table, spec.seed))
    wrong = rng.random(len(held)) < share
    p = 0.4 + 0.4 * (held["label"] != wrong) + 0.1 * rng.random(len(held))
    held = held.assign(p=p.astype(np.float32))[["split", "label", "p", "group"]]
    return write(Record(spec, held, accuracies(held), {"task_digest": table.digest}))


def learned(kind: type[Taught]) -> tuple[RunSpec, np.ndarray, np.ndarray]:
    """A student of errors of a kind, the rows of its half, and the labels that it learns."""
    spec = w2s.student("tfidf", kind(run=WEAK))
    table = load_table(spec.task)
    rows = splits(table, spec.seed).student
    return spec, rows, training_labels(spec, table, rows, half=rows)


@pytest.mark.parametrize("kind", get_args(Erring))
def test_each_kind_has_as_many_errors_as_the_supervisor_in_either_class(kind: type[Taught]) -> None:
    teach(WEAK)
    spec, rows, labels = learned(kind)
    truth = load_table(spec.task).frame["label"].to_numpy()[rows]
    model = learned(ModelErrors)[2]
    for value in (0, 1):
        of_class = truth == value
        assert (model != truth)[of_class].sum() == (labels != truth)[of_class].sum() > 20
        if (
            kind != ModelErrors
        ):  # and of other rows as large a share, whatever the model says of them
            others = splits(load_table(spec.task), spec.seed).validation
            told = training_labels(spec, load_table(spec.task), others, half=rows)
            beside = load_table(spec.task).frame["label"].to_numpy()[others]
            share = (labels != truth)[of_class].mean()
            assert (told != beside)[beside == value].sum() == round(share * (beside == value).sum())
    assert (labels != model).any() == (kind != ModelErrors)
    assert learned(kind)[2].tolist() == labels.tolist()


def test_what_a_run_was_told_beside_what_it_says() -> None:
    """Of a student, row by row of the half that it learned from: truth, label, own answer."""
    teach(WEAK)
    spec, rows, labels = learned(RaterErrors)
    with pytest.raises(SpecError, match=f"{spec.run_id} answers no texts"):
        w2s.own_texts(teach(spec))
    own = w2s.own_texts(student := teach(dataclasses.replace(spec, predict_halves=True)))
    frame, p = load_table(spec.task).frame, student.predictions
    median = p.loc[p["split"] == "validation", "p"].median()
    assert own.index.tolist() == rows.tolist() and own["told"].tolist() == labels.tolist()
    assert own["truth"].tolist() == frame["label"].iloc[rows].tolist()
    assert own["said"].tolist() == (p["p"].loc[rows] > median).astype(int).tolist()
    assert 0.05 < (own["said"] != own["truth"]).mean() < 0.3


def test_where_errors_of_a_kind_stand() -> None:
    teach(WEAK)
    spec, rows, by_length = learned(LengthErrors)
    frame = load_table(spec.task).frame.iloc[rows]
    share, length = dissent(load_table(spec.task))[rows], frame["text"].str.len().to_numpy()
    for value in (0, 1):
        of_class = frame["label"].to_numpy() == value
        wrong = by_length != frame["label"].to_numpy()
        assert length[of_class & wrong].min() >= length[of_class & ~wrong].max()
    wrong = learned(RaterErrors)[2] != frame["label"].to_numpy()
    assert share[wrong].min() > 0
    assert share[wrong].mean() > share[~wrong & (share > 0)].mean()


def test_arms_that_cannot_be_matched_are_refused() -> None:
    """More errors than there are texts that a rater contradicts; and no panel."""
    apart = dataclasses.replace(WEAK, task=default_task("movie", **SIZES))
    for spec, said in ((WEAK, "the arms cannot be matched"), (apart, "raters who are on no panel")):
        teach(spec, share=0.35)
        with pytest.raises(SpecError, match=said):
            w2s.run(w2s.student("tfidf", RaterErrors(run=spec)))
