"""`Results`: arms found whatever their seed and pins, seeds paired, thresholds, tables that escape their text."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

import w2s_lib as w2s
from tests.measures.test_agreement import (
    asymmetry_interval,
    excess_agreement_interval,
    transmitted_errors_interval,
)
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.record import Record, accuracies

TASK = w2s.default_task("movie", n_train=64)
WEAK = w2s.supervisor("smollm2-135m@4", TASK)
TOP = w2s.ceiling("smollm2-135m", TASK)
NAIVE = w2s.student("smollm2-135m", WEAK)
CONFIDENT = w2s.student("smollm2-135m", WEAK, loss=w2s.ConfidenceLoss(alpha_max=0.5))
SKILL = {"supervisor": 0.2, "ceiling": 1.5, "student": 0.8}


def record(spec, *, rows=400, shift=0.0):
    """A record whose test answers are right by a skill of its role; `shift` moves all P(y = 1)."""
    rng = np.random.default_rng([spec.seed, len(spec.role), int(1000 * shift)])
    label = np.arange(rows) % 2
    logit = (2 * label - 1) * SKILL[spec.role] + rng.normal(0, 1, rows) + shift
    frame = pd.DataFrame(
        {
            "split": np.where(np.arange(rows) < rows // 4, "validation", "test"),
            "label": label.astype(np.int8),
            "p": (1 / (1 + np.exp(-logit))).astype(np.float32),
            "group": np.arange(rows, dtype=np.int32),
        }
    )
    return Record(spec, frame, accuracies(frame), {"seconds": 1.0})


def records(spec, seeds, **options):
    return [record(spec.with_seed(seed), **options) for seed in seeds]


@pytest.fixture
def runs():
    """Five seeds of supervisor, student and ceiling; three of the student with the confidence loss."""
    five = [r for spec in (WEAK, NAIVE, TOP) for r in records(spec, range(5))]
    return w2s.Results([*five, *records(CONFIDENT, (0, 2, 4), shift=0.5)])


def test_an_arm_is_found_whatever_its_seed(runs):
    for spec in (NAIVE, NAIVE.with_seed(7)):
        assert [r.spec.seed for r in runs.records(spec)] == [0, 1, 2, 3, 4]
    at_half = runs.contrast([(1, NAIVE)], metric="accuracy_at_half").value
    assert at_half == pytest.approx(np.mean([r.metrics["accuracy"] for r in runs.records(NAIVE)]))


def test_an_arm_that_is_not_pinned_yet_finds_its_runs():
    """A record's spec says which file it was; the arm as a chapter writes it does not. Two files: it is not clear which."""
    bare = w2s.ceiling("smollm2-135m", dataclasses.replace(TASK, name="a.csv"))
    pinned = [
        dataclasses.replace(bare, task=dataclasses.replace(bare.task, sha256=digit * 64))
        for digit in "ab"
    ]
    one, both = w2s.Results([record(pinned[0])]), w2s.Results(map(record, pinned))
    assert one.records(bare)[0].spec == both.records(pinned[0])[0].spec == pinned[0]
    with pytest.raises(SpecError, match="several revisions"):
        both.records(bare)


def test_what_is_not_there_is_named(runs):
    with pytest.raises(SpecError, match=r"smollm2-135m@8.*smollm2-135m@4"):
        runs.accuracy(w2s.supervisor("smollm2-135m@8", TASK))
    with pytest.raises(ValueError, match="'acc'.*accuracy"):
        runs.difference(NAIVE, WEAK, metric="acc")


def test_seeds_are_paired_over_those_that_both_have(runs):
    """The confidence loss has seeds 0, 2, 4: the difference takes these of the other arm too, and says so."""
    found = runs.difference(CONFIDENT, NAIVE, metric="accuracy_at_half")
    means = [
        np.mean([r.metrics["accuracy"] for r in runs.with_seeds([0, 2, 4]).records(arm)])
        for arm in (CONFIDENT, NAIVE)
    ]
    assert found.value == pytest.approx(means[0] - means[1])
    assert found.n_seeds == 3 and "0, 2, 4" in found.note
    assert list(runs.by_seed("difference", CONFIDENT, NAIVE)) == [0, 2, 4]
    odd = w2s.Results([*records(WEAK, (0, 1)), *records(NAIVE, (2,))])
    with pytest.raises(SpecError, match=r"\[2\].*\[0, 1\]"):
        odd.difference(NAIVE, WEAK)


def test_pgr_refuses_to_compare_unlike_with_like(runs):
    of_means = w2s.pgr(
        weak=runs.accuracy(WEAK).value,
        student=runs.accuracy(NAIVE).value,
        ceiling=runs.accuracy(TOP).value,
    )
    assert runs.pgr(weak=WEAK, student=NAIVE, ceiling=TOP).value == pytest.approx(of_means)
    assert math.isnan(runs.pgr(weak=TOP, student=NAIVE, ceiling=TOP).value)
    for field, value in {
        "lora": w2s.Lora(blocks="all"),
        "recipe": w2s.Recipe(epochs=1),
        "quantization": "none",
        "precision": "fp32",
    }.items():
        other = w2s.ceiling("smollm2-135m", TASK, **{field: value})
        more = w2s.Results([*runs.all_records, *records(other, range(5))])
        with pytest.raises(SpecError, match=field):
            more.pgr(weak=WEAK, student=NAIVE, ceiling=other)


def test_what_is_right_is_told_text_by_text(runs):
    """By hand, at the median of the validation texts; its mean is the accuracy."""
    found = runs.right(CONFIDENT)
    assert list(found.columns) == [0, 2, 4]
    for one in runs.records(CONFIDENT):
        own = one.predictions
        test, held = (own[own["split"] == split] for split in ("test", "validation"))
        by_hand = (test["p"] > held["p"].median()) == (test["label"] == 1)
        assert found.index.equals(test.index) and found[one.spec.seed].eq(by_hand).all()
    assert found.to_numpy().mean() == pytest.approx(runs.accuracy(CONFIDENT).value)


def test_a_shift_of_all_answers_is_taken_out_by_the_medians():
    """P moved towards yes: at one half accuracy falls; at the validation median it is as without the shift."""
    plain = w2s.Results(records(TOP, [0]))
    shifted = [
        dataclasses.replace(r, predictions=r.predictions.assign(p=r.predictions["p"] ** 0.2))
        for r in plain.records(TOP)
    ]
    moved = w2s.Results(shifted)
    a, b = (r.contrast([(1, TOP)], metric="accuracy_at_half").value for r in (plain, moved))
    assert b < a - 0.05
    assert abs(moved.accuracy(TOP).value - plain.accuracy(TOP).value) < 0.01
    assert moved.auc(TOP).value == pytest.approx(plain.auc(TOP).value)


def test_metrics_of_arms_and_those_that_collapsed(runs):
    """A row an arm, a column a metric; an arm that says yes to nearly all under seeds 1 and 2 is marked there."""
    one_sided = [
        record(CONFIDENT.with_seed(1), shift=9.0),
        record(CONFIDENT.with_seed(2), shift=9.0),
    ]
    more = w2s.Results([*runs.all_records, *one_sided, record(CONFIDENT.with_seed(3))])
    assert more.collapsed(CONFIDENT) == [1, 2] and runs.collapsed(NAIVE) == []
    table = more.metrics({"naive": NAIVE, "confident": CONFIDENT}).set_index("arm")
    names = ["accuracy", "AUC", "accuracy at 1/2", "log-loss", "Brier score", "collapsed"]
    assert list(table) == names
    assert table["AUC"]["naive"] == more.auc(NAIVE)
    assert table["collapsed"].to_dict() == {"naive": "0 of 5", "confident": "2 of 5 (1, 2)"}


def test_yardsticks_are_asked_by_arm(runs):
    """As the measures of records say, over the seeds that all arms have."""
    noisy = [w2s.ceiling("smollm2-135m", TASK, noise=noise) for noise in (0.1, 0.4)]
    more = w2s.Results(
        [
            *runs.all_records,
            *(r for k, arm in enumerate(noisy) for r in records(arm, range(4), shift=k / 5)),
        ]
    )
    naive, weak, confident = (more.records(arm) for arm in (NAIVE, WEAK, CONFIDENT))
    own = more.transmitted_errors(NAIVE, WEAK)
    assert own == transmitted_errors_interval(naive, weak) and own.n_seeds == 5
    found = more.excess_agreement(NAIVE, ceilings=noisy, supervisor=WEAK)
    expected = excess_agreement_interval(naive[:4], [more.records(arm) for arm in noisy], weak[:4])
    assert (found.value, found.low, found.n_seeds) == (expected.value, expected.low, 4)
    assert "0, 1, 2, 3" in found.note
    three = [[r for r in arm if r.spec.seed in (0, 2, 4)] for arm in (naive, weak)]
    found = more.asymmetry(CONFIDENT, NAIVE, WEAK)
    assert found.value == asymmetry_interval(confident, *three).value and found.n_seeds == 3


def test_comparisons_and_results_show_themselves_with_their_text_escaped(runs):
    table = runs.compare({"<script>x</script>": (NAIVE, WEAK), "top": (TOP, NAIVE)})
    assert table["top"] == runs.difference(TOP, NAIVE)
    assert "<script>" not in table._repr_html_() and "&lt;script&gt;" in table._repr_html_()
    assert list(table.frame["comparison"]) == ["<script>x</script>", "top"]
    assert f"{runs.accuracy(TOP):.3f}" in runs._repr_html_().replace("&nbsp;", "\xa0")
    assert "0, 2, 4" in repr(runs)
    assert table.plot(title="Two differences").to_dict()["layer"]


def test_a_rank_says_which_other_ranks_are_open():
    """The ceiling is clearly first and the supervisor clearly last; two students alike share the middle."""
    arms = {"weak": WEAK, "naive": NAIVE, "confident": CONFIDENT, "top": TOP}
    found = w2s.Results([r for spec in arms.values() for r in records(spec, range(5), rows=2000)])
    board = found.leaderboard(arms, weak=WEAK, ceiling=TOP).set_index("method")
    assert [*board["rank"]] == [1, 2, 3, 4]
    assert [*board.loc["top", ["rank", "best", "worst"]]] == [1, 1, 1]
    assert [*board.loc["weak", ["rank", "best", "worst"]]] == [4, 4, 4]
    for name in ("naive", "confident"):
        assert [*board.loc[name, ["best", "worst"]]] == [2, 3]
        assert board.loc[name, "accuracy"] == found.accuracy(arms[name])
        pgr = found.pgr(weak=WEAK, student=arms[name], ceiling=TOP)
        assert board.loc[name, "PGR"].value == pgr.value
    assert board.loc["top", "PGR"].value == pytest.approx(1)


def test_a_board_counts_the_seconds_of_the_students_in_between():
    """A second each: a chain of three has two beyond the supervisor."""
    middle = w2s.student("smollm2-135m@8", WEAK, predict_halves=True)
    last = w2s.student("smollm2-135m", middle)
    arms = {"chain": last, "direct": NAIVE}
    found = w2s.Results([record(spec) for spec in (WEAK, middle, last, NAIVE, TOP)])
    board = found.leaderboard(arms, weak=WEAK, ceiling=TOP).set_index("method")
    assert dict(board["seconds"]) == {"chain": 2.0, "direct": 1.0}
    lacking = w2s.Results([record(spec) for spec in (WEAK, last, NAIVE, TOP)])
    with pytest.raises(w2s.SpecError, match="no run of student smollm2-135m@8"):
        lacking.leaderboard(arms, weak=WEAK, ceiling=TOP)


def test_ranks_are_open_as_often_as_they_say():
    """Of four arms that are equally good each can be first and last, but for one rank in twenty."""
    arms = {
        a: w2s.student("smollm2-135m", WEAK, loss=w2s.ConfidenceLoss(alpha_max=a))
        for a in (0.1, 0.2, 0.3, 0.4)
    }
    n_boards, closed = 40, 0
    for board in range(n_boards):
        seeds = range(100 * board, 100 * board + 3)
        ours = [record(arm.with_seed(s), shift=a / 1000) for a, arm in arms.items() for s in seeds]
        others = [record(arm.with_seed(s)) for arm in (WEAK, TOP) for s in seeds]
        found = w2s.Results([*ours, *others]).leaderboard(arms, weak=WEAK, ceiling=TOP)
        closed += int(((found["best"] > 1) | (found["worst"] < 4)).sum())
    assert closed <= 0.1 * 4 * n_boards
