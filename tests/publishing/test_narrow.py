"""The form of a chart for a phone: made of the spec alone, whoever built the chart."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import altair as alt
import pandas as pd
import pytest
import vl_convert

import w2s_lib as w2s
from tests.figures.test_plots import CELLS, placed, texts
from w2s_lib.figures.rows import pgr_ruler
from w2s_lib.figures.style import VEGALITE
from w2s_lib.figures.toys import confidence_explorer

FILE = Path(__file__).parents[2] / "book" / "_ext" / "narrow.py"
found = importlib.util.spec_from_file_location("narrow", FILE)
narrow = importlib.util.module_from_spec(found)
found.loader.exec_module(narrow)

HALF = w2s.Interval(0.5, 0.4, 0.6)
LONG = "the student of a supervisor whose errors were dealt out at random"
FRAME = pd.DataFrame({"way": ["slow", "fast"], "seconds": [300.0, 70.0]})
PANEL = alt.Chart(FRAME).mark_point().encode(x="seconds:Q", y="seconds:Q", color="way:N")
CHARTS = {
    "dots": w2s.accuracy_dots({LONG: HALF, "b": HALF}, title=LONG, references={"a": 0.5}),
    "bars": w2s.bars({"knows": HALF}, {"knows": "student"}, title=LONG),
    "ruler": pgr_ruler(CELLS, title=LONG),
    "curves": w2s.curves(
        {LONG: {"one": HALF, "two": HALF}},
        title=LONG,
        x_title=LONG,
        y_title="",
        references={"r": 0.45},
    ),
    "sliders": confidence_explorer([0.9, 0.2], [0.7, 0.3]),
    "panels": alt.concat(PANEL, PANEL, columns=2, title=LONG),
    "a chapter's": alt.Chart(FRAME).mark_bar().encode(x="seconds:Q", y="way:N"),
}


def small(chart):
    """The drawing of the narrow form."""
    spec = chart.to_dict()
    before = json.dumps(spec)
    whole = {
        key: value for key, value in {**spec, **narrow.narrow(spec)}.items() if value is not None
    }
    assert json.dumps(spec) == before
    return vl_convert.vegalite_to_svg(whole, vl_version=VEGALITE)


@pytest.mark.parametrize("name", CHARTS)
def test_fits_a_phone_and_loses_no_mark(name):
    drawn, wide = small(CHARTS[name]), vl_convert.vegalite_to_svg(CHARTS[name].to_dict(), VEGALITE)
    assert float(re.search(r'<svg[^>]* width="([\d.]+)"', drawn)[1]) <= 341
    for kind in ("point", "circle", "bar", "line mark"):
        count = f'aria-roledescription="{kind}"'
        assert drawn.count(count) == wide.count(count)
    assert "…" not in drawn and "undefined" not in drawn


def test_names_and_numbers_stand_above_their_rows():
    at = dict(placed(small(CHARTS["ruler"])))
    assert at["four blocks teach thirty"] < 10 and "PGR 0.43 [0.31,\xa00.55]" in at


def test_rows_of_a_computed_field_have_room():
    """No row of data has that field."""
    panel = narrow.narrow(w2s.probe_explorer(accuracy=0.8).to_dict())["vconcat"][1]
    assert panel["height"] > narrow.BAND * 2


def test_what_stood_in_the_margin_stands_under_the_title():
    assert "Dashed: r: 0.45" in texts(small(CHARTS["curves"]))
    assert "Dashed" not in small(CHARTS["dots"])


def test_panels_come_one_under_another():
    assert narrow.narrow(CHARTS["panels"].to_dict())["concat"] is None
