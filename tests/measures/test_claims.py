"""Rules worked out by hand: what an interval makes of a claim, and what many claims at once cost."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import t, ttest_1samp

from w2s_lib.measures.claims import FAILS, HOLDS, NO_DIFFERENCE, UNDECIDED, Rule, holm
from w2s_lib.measures.intervals import NO_GAP, Interval, mean_interval, smallest_level

HIGHER, LOWER = (Rule(expects=sign, margin=0.02) for sign in "><")
ABOVE_HALF = Rule(expects=">", against=0.5, margin=0.2)
NONE = Interval(math.nan, math.nan, math.nan, note=NO_GAP)


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high)


def of_t(values: list[float]) -> Interval:
    """Seeds that differ, rows that do not: the interval is that of the t-test over seeds."""
    return mean_interval(np.repeat(np.array(values)[:, None], 4, axis=1), np.arange(4))


@pytest.mark.parametrize(("low", "high", "if_higher", "if_lower"), [
    (0.01, 0.05, HOLDS, FAILS),
    (-0.05, -0.01, FAILS, HOLDS),
    (-0.01, 0.05, UNDECIDED, UNDECIDED),
    (0.0, 0.05, UNDECIDED, UNDECIDED),  # > 0, and 0 is not
    (-0.05, 0.0, UNDECIDED, UNDECIDED),
    (-0.02, 0.01, UNDECIDED, UNDECIDED),  # the margin itself is a difference worth having
    (-0.019, 0.019, NO_DIFFERENCE, NO_DIFFERENCE),
    (0.001, 0.019, NO_DIFFERENCE, NO_DIFFERENCE),  # there is one, and it is not worth having
    (0.001, 0.02, HOLDS, FAILS),
    (-math.inf, math.inf, UNDECIDED, UNDECIDED),
])  # fmt: skip
def test_every_outcome(low: float, high: float, if_higher: str, if_lower: str) -> None:
    found = Interval(0.0, low, high)
    assert (HIGHER.outcome(found), LOWER.outcome(found)) == (if_higher, if_lower)


@pytest.mark.parametrize(("low", "high", "outcome"), [
    (0.6, 0.9, HOLDS),
    (0.1, 0.4, FAILS),
    (0.4, 0.9, UNDECIDED),
    (0.31, 0.69, NO_DIFFERENCE),
    (0.5, 0.9, UNDECIDED),
])  # fmt: skip
def test_a_number_to_hold_against_moves_the_margin_with_it(
    low: float, high: float, outcome: str
) -> None:
    assert ABOVE_HALF.outcome(interval(low, high)) == outcome


def test_without_a_gap_nothing_is_decided_at_any_level() -> None:
    assert ABOVE_HALF.outcome(NONE) == NO_GAP and ABOVE_HALF.level(NONE) == 1


def test_the_smallest_level_is_the_p_value_of_a_t_test() -> None:
    """Five seeds, rows that are all alike, so the rows' part is 0: it decides "above 0" at scipy's p-value."""
    values = [0.03, 0.05, 0.02, 0.06, 0.04]
    found = of_t(values)
    expected = ttest_1samp(values, 0).pvalue
    assert smallest_level(found, lambda at: at.low > 0) == pytest.approx(expected, rel=1e-4)
    assert HIGHER.level(found) == LOWER.level(found) == pytest.approx(expected, rel=1e-4)
    at = found.at(1 - 1.001 * expected)
    assert (at.low > 0) and not found.at(1 - 0.999 * expected).low > 0
    assert (found.at(0.95).low, found.at(0.95).high) == pytest.approx((found.low, found.high))


def test_the_smallest_level_of_no_difference_by_hand() -> None:
    """Mean .001 of five seeds: inside (-.02, .02) once the upper bound is below .02, t = (.02 - .001) / se."""
    values = [0.011, -0.009, 0.006, -0.004, 0.001]
    error = np.std(values, ddof=1) / math.sqrt(5)
    expected = 2 * t.sf((0.02 - 0.001) / error, 4)
    assert HIGHER.outcome(of_t(values)) == NO_DIFFERENCE
    assert HIGHER.level(of_t(values)) == pytest.approx(expected, rel=1e-4)


def test_an_interval_of_unknown_bounds_decides_nothing_beyond_its_own() -> None:
    assert HIGHER.outcome(interval(0.01, 0.05)) == HOLDS and HIGHER.level(interval(0.01, 0.05)) == 1


def test_holm_by_hand() -> None:
    """Four claims at .010, .005, .030, .040. .005 <= .05 / 4; .010 <= .05 / 3; .030 > .05 / 2, and there it ends:

    .040 <= .05 / 1 does not count.
    """
    alphas = holm({"a": 0.01, "b": 0.005, "c": 0.03, "d": 0.04})
    assert alphas == pytest.approx({"a": 0.05 / 3, "b": 0.05 / 4, "c": 0, "d": 0})
    assert holm({"a": 0.05}) == pytest.approx({"a": 0.05}) and holm({"a": 0.051}) == {"a": 0}
    assert holm({}) == {}


def test_what_decides_at_its_level_decides_at_the_alpha_that_holm_leaves() -> None:
    found = of_t([0.03, 0.05, 0.02, 0.06, 0.04])
    alpha = holm({"one": HIGHER.level(found), "other": 1.0})["one"]
    assert alpha == pytest.approx(0.025) and HIGHER.outcome(found.at(1 - alpha)) == HOLDS


def test_what_holm_does_not_promise() -> None:
    """Thirteen claims whose truth is the margin: "no difference worth having" is false of each.

    All read at .05 / 13, one is read so in 5% of editions at most. By Holm's method, in far more: it frees the last
    ones from the correction because the others were decided, and so can these be, falsely.
    """
    rng, error, n, false = np.random.default_rng(0), 0.0043, 13, {"Holm": 0, "Bonferroni": 0}
    for _ in range(200):
        found = {}
        for i, x in enumerate(HIGHER.margin + error * rng.normal(size=n)):

            def bounds(level: float, x: float = x) -> tuple[float, float]:
                half = -error * NormalDist().inv_cdf((1 - level) / 2)
                return x - half, x + half

            found[str(i)] = Interval(x, *bounds(0.95), bounds=bounds)
        alphas = holm({name: HIGHER.level(one) for name, one in found.items()})
        for method, read in (("Holm", alphas), ("Bonferroni", dict.fromkeys(found, 0.05 / n))):
            said = [HIGHER.outcome(one.at(1 - read[name])) for name, one in found.items()]
            false[method] += NO_DIFFERENCE in said
    assert false["Bonferroni"] <= 0.05 * 200 and false["Holm"] > 0.2 * 200


@pytest.mark.parametrize("changed", [
    {"expects": "=>"}, {"against": "0"}, {"against": math.nan}, {"margin": 0.0}, {"than": 1},
])  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changed))):
        Rule.model_validate({"expects": ">", "margin": 0.02} | changed)
