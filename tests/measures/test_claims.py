"""Rules worked out by hand: what an interval makes of a claim."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from w2s_lib.measures.claims import FAILS, HOLDS, UNDECIDED, Rule, margin, verdict
from w2s_lib.measures.intervals import NO_GAP, Interval

HIGHER = {
    "holds": Rule.model_validate({"end": "low", "is": ">", "value": 0.0}),
    "fails": Rule.model_validate({"end": "high", "is": "<", "value": 0.0}),
}
LOWER = {"holds": HIGHER["fails"], "fails": HIGHER["holds"]}
ABOVE_HALF = {
    "holds": Rule.model_validate({"end": "low", "is": ">", "value": 0.5}),
    "fails": Rule.model_validate({"end": "high", "is": "<=", "value": 0.5}),
}
NONE = Interval(math.nan, math.nan, math.nan, note=NO_GAP)


def interval(low, high, more=0.0):
    """An interval around its middle whose corrected bounds lie `more` further out."""
    middle = (low + high) / 2
    return Interval(middle, low, high, strict_low=low - more, strict_high=high + more)


@pytest.mark.parametrize(("found", "word", "corrected"), [
    (interval(0.01, 0.05), HOLDS, HOLDS),
    (interval(0.01, 0.05, more=0.02), HOLDS, UNDECIDED),
    (interval(0.01, 0.05, more=math.inf), HOLDS, UNDECIDED),
    (interval(-0.05, -0.01), FAILS, FAILS),
    (interval(-0.05, -0.01, more=0.02), FAILS, UNDECIDED),
    (interval(-0.01, 0.05), UNDECIDED, UNDECIDED),
    (interval(0.0, 0.05), UNDECIDED, UNDECIDED),  # > 0, and 0 is not
    (interval(-0.05, 0.0), UNDECIDED, UNDECIDED),
])  # fmt: skip
def test_that_something_is_higher(found, word, corrected):
    assert verdict(found, **HIGHER, ratio=False) == word
    assert verdict(found, **HIGHER, ratio=False, strict=True) == corrected


def test_that_something_is_lower():
    for found, word in (
        (interval(-0.05, -0.01), HOLDS),
        (interval(0.01, 0.05), FAILS),
        (interval(-0.01, 0.05), UNDECIDED),
    ):
        assert verdict(found, **LOWER, ratio=False) == word


@pytest.mark.parametrize(("found", "word", "corrected"), [
    (NONE, NO_GAP, NO_GAP),
    (interval(0.6, 0.9), HOLDS, HOLDS),
    (interval(0.6, 0.9, more=math.inf), HOLDS, NO_GAP),  # the gap is above 0 with 95% confidence, not with more
    (interval(0.5, 0.9), UNDECIDED, UNDECIDED),
    (interval(0.1, 0.5), FAILS, FAILS),  # <= here
])  # fmt: skip
def test_a_pgr_needs_a_gap(found, word, corrected):
    assert verdict(found, **ABOVE_HALF, ratio=True) == word
    assert verdict(found, **ABOVE_HALF, ratio=True, strict=True) == corrected


def test_a_rule_on_the_value_is_the_same_after_correction():
    rules = {
        "holds": Rule.model_validate({"end": "value", "is": "<=", "value": 0.001}),
        "fails": Rule.model_validate({"end": "value", "is": ">", "value": 0.001}),
    }
    for value, word in ((0.001, HOLDS), (0.002, FAILS)):
        found = Interval(value, value, value)
        assert {verdict(found, **rules, ratio=True, strict=s) for s in (False, True)} == {word}
    assert margin(found, rules["holds"]) is None


def test_a_margin_is_turned_to_the_side_of_the_claim():
    """0.1 [0.05, 0.15] for "below 0.25": 0.15 [0.1, 0.2] beyond it. For "above": -0.15 [-0.2, -0.1]."""
    for end, is_, expected in (("high", "<", (0.15, 0.1, 0.2)), ("low", ">", (-0.15, -0.2, -0.1))):
        found = margin(
            interval(0.05, 0.15), Rule.model_validate({"end": end, "is": is_, "value": 0.25})
        )
        assert (found.value, found.low, found.high) == pytest.approx(expected)
    assert format(margin(NONE, HIGHER["holds"]), ".2f") == NO_GAP


def test_a_rule_that_makes_no_sense_is_refused():
    for changed in ({"end": "lwo"}, {"is": "=>"}, {"value": "0"}, {"value": math.nan}, {"than": 1}):
        with pytest.raises(ValidationError, match=next(iter(changed))):
            Rule.model_validate({"end": "low", "is": ">", "value": 0.0} | changed)
