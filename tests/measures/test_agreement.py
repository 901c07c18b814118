"""Agreement and contrasts of several arms: by hand, at their ends, and against a world whose truth is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import t

from tests.benchmarks import yardsticks
from tests.measures.test_metrics import accuracy_interval, arm, bits, difference_interval
from w2s_lib.measures import agreement as measures
from w2s_lib.measures.metrics import accuracy, agreement, contrast_interval, pgr, scores


def of_arms(measure):
    """A measure, of arms of records."""
    return lambda *arms: measure(*scores("accuracy", **{f"arm {i}": a for i, a in enumerate(arms)}))


agreement_difference_interval = of_arms(measures.agreement_difference)
agreement_interval = of_arms(measures.agreement_by_supervisor)
asymmetry_interval = of_arms(measures.asymmetry)
gain_by_misfit_interval = of_arms(measures.gain_by_misfit)
error_correlation_interval = of_arms(measures.error_correlation)
transmitted_errors_interval = of_arms(measures.transmitted_errors)


def excess_agreement_interval(student, ceilings, supervisor):
    return of_arms(measures.excess_agreement)(student, *ceilings, supervisor)


WEAK = [[1, 1, 1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 1, 1, 1]]
STUDENT = [[1, 1, 0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 1, 1, 1, 1]]


def test_contrast_by_hand():
    """(6/8 - 5/8) - (5/8 - 5/8) in seed 0; 6/8 - 5/8 in seed 1: differences of differences are sums with signs."""
    a, b = arm(STUDENT), arm(WEAK)
    assert contrast_interval([(1, a), (-1, b)]) == difference_interval(a, b)
    assert contrast_interval([(1, a)]).value == accuracy_interval(a).value
    assert contrast_interval([(1, a), (-1, b), (-1, a), (1, b)]).value == 0
    assert contrast_interval([(2, a), (-1, b)]).value == pytest.approx(
        2 * accuracy_interval(a).value - accuracy_interval(b).value
    )


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
    weak, *ceilings = (arm(x) for x in knowing(0.2, 0.6, 1.6))
    for ceiling in ceilings:
        found = excess_agreement_interval(ceiling, ceilings, weak)
        assert found.value == pytest.approx(0, abs=1e-12) and found.note == ""


def test_the_weights_of_the_ceilings_are_not_taken_as_known():
    """The interval is the first-order one of value(mean): here worked out with the derivatives, for one seed.

    value = r0 - q r1 - (1 - q) r2 with q = (a0 - a2) / (a1 - a2) and r = repeated errors / errors. Of a row:
    z = (d0 - q d1 - (1 - q) d2) - (r1 - r2) (a0-part) ..., whose standard error times t is the half-width.
    """
    x = np.array([row[0] for row in knowing(0.9, 0.6, 1.6, 0.2)], dtype=float)
    student, one, other, weak = x
    wrong, a = 1 - weak, x.mean(axis=1)
    r = [float(((1 - row) * wrong).sum() / wrong.sum()) for row in (student, one, other)]
    q = (a[0] - a[2]) / (a[1] - a[2])
    dq = (student - other - q * (one - other)) / (a[1] - a[2])  # of q, by row
    dr = [
        ((1 - row) * wrong - value * wrong) / wrong.mean()
        for row, value in zip(x[:3], r, strict=True)
    ]
    z = dr[0] - q * dr[1] - (1 - q) * dr[2] - (r[1] - r[2]) * dq
    n = len(student)
    found = excess_agreement_interval(*(arm([student]), [arm([one]), arm([other])], arm([weak])))
    assert found.value == pytest.approx(r[0] - q * r[1] - (1 - q) * r[2])
    half = t.ppf(0.975, n - 1) * z.std(ddof=1) / math.sqrt(n)
    assert found.high - found.value == pytest.approx(half, rel=1e-3)


def knowing(*skills, rows=1500, seeds=4):
    """Correctness, (seeds, rows), of models of these skills: all find the same rows hard, and nobody copies."""
    rng = np.random.default_rng(0)
    ease = rng.normal(0, 1, rows)
    return [(rng.normal(0, 1, (seeds, rows)) < ease + skill).astype(int) for skill in skills]


def test_a_student_beyond_the_ceilings_is_said_to_be():
    weak = arm([[1, 1, 0, 0, 1, 0]])
    ceilings = [arm([[1, 0, 0, 0, 1, 0]]), arm([[1, 1, 1, 0, 1, 0]])]
    best = excess_agreement_interval(arm([[1, 1, 1, 1, 1, 1]]), ceilings, weak)
    assert "extrapolated" in best.note
    with pytest.raises(ValueError, match="not 1"):
        excess_agreement_interval(weak, ceilings[:1], weak)


def test_transmitted_errors_by_hand():
    """Two seeds on four rows. Supervisors err on rows 0 1 and rows 0 2, students on 0 1 and 0 3: e w is 1 on two and one.

    Own teacher: (2 + 1) / 4 of the four errors are repeated. Another's: the first student on rows 0 2, the second on 0 1,
    one each: 2 / 4. So 1 / 4.
    """
    weak, student = arm([[0, 0, 1, 1], [0, 1, 0, 1]]), arm([[0, 0, 1, 1], [0, 1, 1, 0]])
    x = np.array([[[0, 0, 1, 1], [0, 1, 1, 0]], [[0, 0, 1, 1], [0, 1, 0, 1]]], dtype=float)
    found = transmitted_errors_interval(*(arm(np.tile(layer, 200)) for layer in x))
    assert found.value == pytest.approx(1 / 4)
    assert transmitted_errors_interval(student, weak).n_seeds == 2
    alone = transmitted_errors_interval(student[:1], weak[:1])
    assert math.isnan(alone.value) and "another seed" in alone.note


def test_transmitted_errors_are_the_difference_of_own_and_other_teachers():
    """The covariance is the mean over pairs of seeds, said in the docstring's first form."""
    student, weak = knowing(0.9, 0.2)
    e, w = 1 - student, 1 - weak
    own = np.mean([(e[s] * w[s]).mean() for s in range(4)])
    other = np.mean([(e[s] * w[u]).mean() for s in range(4) for u in range(4) if s != u])
    found = transmitted_errors_interval(arm(student), arm(weak))
    assert found.value == pytest.approx((own - other) / w.mean())
    copy = transmitted_errors_interval(arm(weak), arm(weak))
    assert copy.value > 0.2 and found.low < 0 < found.high


def test_asymmetry_by_hand():
    """The supervisor is right on rows 0 to 3, wrong on 4 to 7. b agrees on all of the first, on three of the second.

    a agrees on three of the first and on one of the second: (1 - 3) / 4 - (3 - 4) / 4 = -1/4.
    """
    weak = arm([[1, 1, 1, 1, 0, 0, 0, 0]])
    b, a = arm([[1, 1, 1, 1, 0, 0, 0, 1]]), arm([[1, 1, 1, 0, 0, 1, 1, 1]])
    assert asymmetry_interval(a, b, weak).value == pytest.approx(-1 / 4)
    assert asymmetry_interval(b, a, weak).value == pytest.approx(1 / 4)
    assert asymmetry_interval(a, a, weak).value == 0


@pytest.mark.parametrize("copied", [0.0, 0.3])
def test_yardsticks_in_a_world_whose_truth_is_known(copied):
    """300 worlds of 5 seeds: each interval covers; where nothing is transmitted the first edition's yardstick is misled.

    The whole table: `tests/benchmarks/coverage.py`.
    """
    large = yardsticks.world(np.random.default_rng(99), seeds=100, rows=10_000, copied=copied)
    truth = {name: found.value for name, found in yardsticks.measured(large).items()}
    found = yardsticks.simulated(copied, seeds=5, n=300, rows=800)
    shares = {name: yardsticks.share_with(truth[name], all_) for name, all_ in found.items()}
    assert {name: share for name, share in shares.items() if share < 0.9} == {}
    zero = {name: yardsticks.share_with(0.0, all_) for name, all_ in found.items()}
    if copied:
        assert zero["another seed's supervisor"] < 0.05 and zero["ceilings with label noise"] < 0.05
    else:
        assert zero["another seed's supervisor"] > 0.9 and zero["ceilings with label noise"] > 0.9
        assert zero["hardly and fully trained"] < 0.3 and truth["hardly and fully trained"] > 0.05


def test_error_correlation_by_hand():
    """Errors on rows (0 1) and (1 2) of four: means 1/2, covariance 1/4 - 1/4 = 0, so phi = 0; with itself 1, opposed -1."""
    a, b = arm([[0, 0, 1, 1]]), arm([[1, 0, 0, 1]])
    assert error_correlation_interval(a, b).value == pytest.approx(0, abs=1e-12)
    assert error_correlation_interval(a, a).value == pytest.approx(1)
    assert error_correlation_interval(a, arm([[1, 1, 0, 0]])).value == pytest.approx(-1)
    with pytest.raises(ValueError, match="correlate with nothing"):
        error_correlation_interval(a, arm([[1, 1, 1, 1]]))


def test_error_correlation_is_that_of_numpy():
    student, weak = knowing(0.9, 0.2)
    phi = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(student, weak, strict=True)])
    assert error_correlation_interval(arm(student), arm(weak)).value == pytest.approx(phi)


def test_every_contrast_joins_by_seed_and_row():
    """Records in another order give the same answer; other seeds are refused."""
    student, one, other, weak = (arm(x) for x in knowing(0.9, 0.6, 1.6, 0.2, rows=200))
    assert agreement_interval(student[::-1], weak) == agreement_interval(student, weak)
    assert transmitted_errors_interval(student[::-1], weak) == transmitted_errors_interval(
        student, weak
    )
    for found in (
        excess_agreement_interval(student, [one, other], weak),
        excess_agreement_interval(student[::-1], [one[::-1], other], weak[::-1]),
    ):
        assert found == excess_agreement_interval(student, [one, other], weak)
    with pytest.raises(ValueError, match="seeds"):
        agreement_interval(student[1:], weak)


class TestAgreement:
    def test_by_hand(self):
        """Five rows. Where the supervisor is right, the first three, the student repeats it twice: 2/3; where it is
        wrong, the last two, once: 1/2; overall 3/5."""
        found = agreement([1, 0, 0, 1, 0], [1, 0, 1, 1, 1], [1, 0, 1, 0, 0])
        assert dataclasses.astuple(found) == pytest.approx((3 / 5, 2 / 3, 1 / 2))

    def test_no_rows_of_a_kind(self):
        assert math.isnan(agreement([1, 0], [1, 1], [1, 1]).supervisor_wrong)
        assert math.isnan(agreement([1, 0], [0, 0], [1, 1]).supervisor_right)

    @given(bits, bits)
    def test_full_agreement_means_pgr_zero(self, supervisor, label):
        assert agreement(supervisor, supervisor, label).overall == 1
        weak = accuracy(supervisor, label)
        if weak < 1:
            assert pgr(weak=weak, student=accuracy(supervisor, label), ceiling=1.0) == 0

    @given(bits, bits, bits)
    def test_the_parts_make_the_whole_and_the_accuracy(self, student, supervisor, label):
        found = agreement(student, supervisor, label)
        weak = accuracy(supervisor, label)
        right, wrong = (
            0 if math.isnan(v) else v for v in (found.supervisor_right, found.supervisor_wrong)
        )
        assert found.overall == pytest.approx(weak * right + (1 - weak) * wrong)
        assert accuracy(student, label) == pytest.approx(
            weak * right + (1 - weak) * (1 - wrong)
        )  # binary labels

    @pytest.mark.parametrize(
        "bad",
        [
            ([1], [1, 0], [1, 0]),
            ([0.3, 1], [1, 0], [1, 0]),
            ([2, 1], [1, 0], [1, 0]),
            ([], [], []),
            ([1, 0], [1, np.nan], [1, 0]),
        ],
    )
    def test_bad_input(self, bad):
        with pytest.raises(ValueError):
            agreement(*bad)


def test_gain_by_misfit_by_hand():
    """The line through (changed, gained): (2/8, 2/8), (4/8, 0), (1/8, -1/8)."""
    weak = [[1, 1, 1, 1, 0, 0, 0, 0]]
    students = [[1, 1, 1, 1, 1, 1, 0, 0]], [[0, 0, 1, 1, 1, 1, 0, 0]], [[0, 1, 1, 1, 0, 0, 0, 0]]
    found = gain_by_misfit_interval(*map(arm, students), arm(weak))
    slope = np.polyfit([0.25, 0.5, 0.125], [0.25, 0, -0.125], 1)[0]
    assert found.value == pytest.approx(slope)
    with pytest.raises(ValueError, match="three students"):
        gain_by_misfit_interval(*map(arm, students[:2]), arm(weak))


def test_the_interval_of_gain_by_misfit_covers_a_known_slope():
    """Where six of ten changed answers are right, whoever changes them, a further one gains .2.

    Students change .1, .15, .2 and .3 of answers, of seeds and rows that are all alike.
    """
    rng, hits, n_worlds = np.random.default_rng(0), 0, 200
    for _ in range(n_worlds):
        weak = (rng.random((5, 400)) < 0.7).astype(float)
        moved = [rng.random(weak.shape) < share for share in (0.1, 0.15, 0.2, 0.3)]
        # to be right on 60% of what is changed, wrong answers are changed more often than right ones
        odds = np.where(weak == 1, 0.4 / 0.7, 0.6 / 0.3)
        flips = [changed & (rng.random(weak.shape) < odds / 2) for changed in moved]
        x = np.stack([*(np.where(f, 1 - weak, weak) for f in flips), weak])
        found = measures.gain_by_misfit(x, np.arange(400))
        hits += found.low <= 0.2 <= found.high
    assert 0.91 * n_worlds <= hits <= 0.99 * n_worlds
