"""Agreement and contrasts of several arms: by hand, at their ends, and against a world whose truth is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.measures.test_metrics import accuracy_interval, arm, difference_interval
from w2s_lib.measures.agreement import (
    agreement_difference_interval,
    agreement_interval,
    error_correlation_interval,
    excess_agreement_difference_interval,
    excess_agreement_interval,
    stop_early,
)
from w2s_lib.measures.metrics import agreement, contrast_interval

WEAK = [[1, 1, 1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 1, 1, 1]]
STUDENT = [[1, 1, 0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 1, 1, 1, 1]]


def world(seed=0, *, seeds=5, rows=4000, copies=0.0):
    """Rows differ in how hard they are; ceilings know more as they train; the student copies a share of the labels it saw.

    Without copying it is a ceiling of middling training, so its excess agreement is 0 by construction.
    """
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 1, rows)

    def knows(skill):
        return (rng.normal(0, 1, (seeds, rows)) < ease + skill).astype(int)

    weak, ladder, middling = knows(0.2), [knows(skill) for skill in (0.0, 0.6, 1.6)], knows(0.9)
    student = np.where(rng.random((seeds, rows)) < copies, weak, middling)
    return arm(student), [arm(x) for x in ladder], arm(weak)


def test_contrast_by_hand():
    """(6/8 - 5/8) - (5/8 - 5/8) in seed 0; 6/8 - 5/8 in seed 1: differences of differences are sums with signs."""
    a, b = arm(STUDENT), arm(WEAK)
    assert contrast_interval([(1, a), (-1, b)]) == difference_interval(a, b)
    assert contrast_interval([(1, a)]).value == accuracy_interval(a).value
    assert contrast_interval([(1, a), (-1, b), (-1, a), (1, b)]).value == 0
    assert contrast_interval([(2, a), (-1, b)]).value == pytest.approx(
        2 * accuracy_interval(a).value - accuracy_interval(b).value
    )


def validated(*seeds):
    """An arm of which only the answers on four validation rows count, given as P(y = 1)."""
    rows = {"split": ["test", *["validation"] * 4], "label": 1, "group": 0}
    task = SimpleNamespace(name="movie", sha256="")
    return [
        SimpleNamespace(
            spec=SimpleNamespace(seed=seed, task=task),
            predictions=pd.DataFrame(rows | {"p": [0.9, *p]}, index=[9, 2, 4, 6, 8]),
        )
        for seed, p in enumerate(seeds)
    ]


def test_early_stopping_on_weak_labels_by_hand():
    """Seed 0: the supervisor says 1 1 0 0, the student 1 0 1 0 (2 of 4), then 1 1 0 1 and 1 1 1 0 (3 of 4: the earlier).

    Seed 1: all moments say the same, so the first is kept. A tie, p = 1/2, says 0. Test rows do not count.
    """
    weak = validated([0.9, 0.6, 0.1, 0.5], [0.1, 0.2, 0.3, 0.4])
    same = [0.9, 0.1, 0.9, 0.1]
    moments = {
        0.1: validated([0.9, 0.4, 0.8, 0.2], same),
        0.5: validated([0.6, 0.7, 0.1, 0.9], same),
        1.0: validated([0.6, 0.7, 0.8, 0.1], same),
    }
    found = stop_early(moments, weak)
    assert [share for share, _ in found] == [0.5, 0.1]
    assert [record for _, record in found] == [moments[0.5][0], moments[0.1][1]]
    assert stop_early(moments, weak[::-1]) == found  # in the order of the seeds
    with pytest.raises(ValueError, match="seeds"):
        stop_early(moments, weak[:1])
    moments[1.0][0].predictions = moments[1.0][0].predictions.drop(index=4)
    with pytest.raises(ValueError, match="after 100%, seed 0: its validation rows"):
        stop_early(moments, weak)


def test_agreement_by_hand():
    """Seed 0: equal on rows 0 1 3 6 7 of 8. Of its supervisor's errors (rows 3 4 5) it repeats one.

    Seed 1: equal on rows 0 2 3 5 6 7; of the errors (rows 2 3 4) it repeats two. So 11 of 16, and 3 of 6 on errors.
    """
    student, weak = arm(STUDENT), arm(WEAK)
    found = agreement_interval(student, weak)
    assert found.overall.value == 11 / 16
    assert found.supervisor_wrong.value == pytest.approx(3 / 6)
    assert found.supervisor_right.value == pytest.approx(8 / 10)
    one = agreement(STUDENT[0], WEAK[0], [1] * 8)
    many = [arm([np.tile(x[0], 50)]) for x in (STUDENT, WEAK)]
    assert one.supervisor_wrong == pytest.approx(agreement_interval(*many).supervisor_wrong.value)
    few = agreement_interval(arm(STUDENT[:1]), arm(WEAK[:1]))
    assert format(few.supervisor_wrong) == "too few such rows"


def test_agreement_at_its_ends():
    """A copy agrees everywhere, its opposite nowhere; and a difference of an arm with itself is 0, exactly."""
    student, weak, opposite = arm(STUDENT), arm(WEAK), arm(1 - np.array(WEAK))
    for value, found in (
        (1, agreement_interval(weak, weak)),
        (0, agreement_interval(opposite, weak)),
        (0, agreement_difference_interval(student, student, weak)),
        (1, agreement_difference_interval(weak, opposite, weak)),
    ):
        assert [(x.value, x.low, x.high) for x in vars(found).values()] == [(value,) * 3] * 3


def test_excess_is_the_students_own_distance_from_a_mixture_of_ceilings():
    """One seed, 8 rows. The supervisor errs on rows 4 to 7. The student, right on 6 of 8, repeats one error of four.

    Ceilings right on 4 (rows 0 1 2 3: repeats all four errors) and on 8 (repeats none): at 6 of 8 the even mixture repeats
    two. So the excess is (1 - 2) / 4.
    """
    weak = arm([[1, 1, 1, 1, 0, 0, 0, 0]])
    student = arm([[1, 1, 1, 0, 0, 1, 1, 1]])
    ceilings = [arm([[1, 1, 1, 1, 0, 0, 0, 0]]), arm([[1] * 8])]
    assert excess_agreement_interval(student, ceilings, weak).value == pytest.approx(-1 / 4)
    assert excess_agreement_interval(student, ceilings[::-1], weak).value == pytest.approx(
        -1 / 4
    )  # in any order


def test_a_ceiling_has_no_excess_over_itself():
    student, ladder, weak = world()
    for rung in ladder:
        assert excess_agreement_interval(rung, ladder, weak).value == pytest.approx(0, abs=1e-12)
    both = excess_agreement_difference_interval((student, ladder), (student, ladder), weak)
    assert (both.value, both.low, both.high) == (0, 0, 0)


def test_accuracy_alone_makes_no_excess_and_copying_does():
    """Agreement on errors falls with accuracy in a world where nobody copies; the excess stays at 0, and copying lifts it."""
    honest, ladder, weak = world()
    raw = [agreement_interval(rung, weak).supervisor_wrong.value for rung in ladder]
    assert raw[0] > raw[1] > raw[2] + 0.1
    fair = excess_agreement_interval(honest, ladder, weak)
    assert abs(fair.value) < 0.015 and fair.high - fair.low < 0.03
    copying, ladder, weak = world(copies=0.3)
    assert excess_agreement_interval(copying, ladder, weak).low > 0.1


def test_inverse_scaling_beyond_accuracy_is_told_from_arithmetic():
    """Two students that know equally little of the supervisor: no difference. One that copies less: below 0."""
    large, ladder, weak = world()
    copying, _, _ = world(copies=0.4)
    assert excess_agreement_difference_interval((large, ladder), (copying, ladder), weak).high < 0
    same = excess_agreement_difference_interval((large, ladder), (ladder[1], ladder), weak)
    assert abs(same.value) < 0.015


def test_a_student_beyond_the_ceilings_is_said_to_be():
    weak = arm([[1, 1, 0, 0, 1, 0]])
    ceilings = [arm([[1, 0, 0, 0, 1, 0]]), arm([[1, 1, 1, 0, 1, 0]])]
    best = excess_agreement_interval(arm([[1, 1, 1, 1, 1, 1]]), ceilings, weak)
    assert "beyond that of the ceilings in 1 case" in best.note
    with pytest.raises(ValueError, match="at least two ceilings"):
        excess_agreement_interval(weak, ceilings[:1], weak)


def test_error_correlation_by_hand():
    """Errors on rows (0 1) and (1 2) of four: means 1/2, covariance 1/4 - 1/4 = 0, so phi = 0; with itself 1, opposed -1."""
    a, b = arm([[0, 0, 1, 1]]), arm([[1, 0, 0, 1]])
    assert error_correlation_interval(a, b).value == pytest.approx(0, abs=1e-12)
    assert error_correlation_interval(a, a).value == pytest.approx(1)
    assert error_correlation_interval(a, arm([[1, 1, 0, 0]])).value == pytest.approx(-1)
    with pytest.raises(ValueError, match="correlate with nothing"):
        error_correlation_interval(a, arm([[1, 1, 1, 1]]))


def test_error_correlation_is_that_of_numpy():
    student, _, weak = world(copies=0.2)

    def right(records):
        return [
            r.predictions.query("split == 'test'").eval("(p > 0.5) == (label == 1)").to_numpy()
            for r in records
        ]

    by_numpy = np.mean(
        [np.corrcoef(a, b)[0, 1] for a, b in zip(right(student), right(weak), strict=True)]
    )
    assert error_correlation_interval(student, weak).value == pytest.approx(by_numpy)


def test_every_contrast_joins_by_seed_and_row():
    """Records in another order give the same answer; other seeds are refused."""
    student, ladder, weak = world(rows=200)
    assert agreement_interval(student[::-1], weak) == agreement_interval(student, weak)
    assert not math.isnan(excess_agreement_interval(student[::-1], ladder, weak[::-1]).value)
    with pytest.raises(ValueError, match="seeds"):
        agreement_interval(student[1:], weak)
