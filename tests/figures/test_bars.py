"""Bars of shares: each begins at the start, in the colour of who answers."""

from __future__ import annotations

import math

import pytest

import w2s_lib as w2s
from w2s_lib.figures.style import GREY, RIVAL, STUDENT, SUPERVISOR

SHARES = {
    "knows": w2s.Interval(0.84, 0.82, 0.86),
    "says": w2s.Interval(0.66, 0.61, 0.71),
    "its teacher": w2s.Interval(0.62, 0.60, 0.64),
    "a probe": w2s.Interval(0.65, 0.62, 0.68),
}
WHO = {"knows": "ceiling", "says": "student", "its teacher": "supervisor", "a probe": "rival"}


def layers(**options):
    """The layers, each with its rows."""
    spec = w2s.bars(SHARES, WHO, title="It knows more than it says", **options).to_dict()
    return [layer | {"rows": spec["datasets"][layer["data"]["name"]]} for layer in spec["layer"]]


def test_bars_run_from_the_start_to_their_share_in_the_colour_of_who_answers():
    bar = layers(start=0.5)[0]
    rows = bar["rows"]
    assert [row["colour"] for row in rows] == [GREY, STUDENT, SUPERVISOR, RIVAL]
    assert [(row["start"], row["value"]) for row in rows] == [
        (0.5, share.value) for share in SHARES.values()
    ]
    assert bar["encoding"]["x"]["scale"]["domain"][0] == 0.5
    assert bar["encoding"]["x"]["scale"]["domain"][1] > 0.86  # the longest interval is inside


def test_the_numbers_stand_at_the_right_and_ticks_in_their_rows():
    drawn = layers(ticks={"says": 0.7}, tick_title="another", number=".1%")
    assert '"66.0%"' in drawn[1]["encoding"]["y"]["axis"]["labelExpr"]
    assert drawn[-1]["rows"] == [{"row": 1, "name": "says", "value": 0.7, "what": "another"}]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="no bar without a value"):
        w2s.bars({"knows": w2s.Interval(math.nan, math.nan, math.nan)}, WHO, title="")
    with pytest.raises(ValueError, match="no such row"):
        layers(ticks={"thinks": 0.7})
