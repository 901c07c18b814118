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
from w2s_lib.figures.style import FONT, VEGALITE
from w2s_lib.figures.toys import confidence_explorer


def extension(name):
    """A file of `book/_ext`."""
    file = Path(__file__).parents[2] / "book" / "_ext" / f"{name}.py"
    found = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


narrow, drawing = extension("narrow"), extension("drawing")
UNLIKE = """async (drawings) => {
  const pixels = await Promise.all(drawings.map(async (svg) => {
    const image = Object.assign(new Image(), { src: `data:image/svg+xml,${encodeURIComponent(svg)}` });
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
    canvas.drawImage(image, 0, 0);
    return canvas.getImageData(0, 0, image.width, image.height).data;
  }));
  const sum = (values) => values.reduce((all, value) => all + value, 0);
  return sum([...pixels[0]].map((value, i) => Math.abs(value - pixels[1][i]))) / sum(pixels[0]);
}"""
"""How unlike two drawings are, as a share of the first one's ink."""

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
    whole = narrow.narrow(spec)
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


def test_a_reference_is_drawn_beside_the_marks_and_through_no_words():
    """In two rows it is two strokes; names and numbers stand between them."""
    drawn = small(CHARTS["dots"])
    place = r'transform="translate\(([-\d.]+),([-\d.]+)\)"'
    strokes = re.findall(rf'<line [^>]*{place} x2="0" y2="([-\d.]+)"[^>]*stroke-dasharray', drawn)
    spans = sorted(sorted([float(y), float(y) + float(dy)]) for _, y, dy in strokes)
    assert len(spans) == 2 and spans[0][1] < spans[1][0]
    middles = re.findall(rf'aria-roledescription="point"[^>]*{place}', drawn)
    assert len(middles) == 2
    for (top, bottom), middle in zip(spans, sorted(float(y) for _, y in middles), strict=True):
        assert middle - narrow.BESIDE[0] - 1 < top < middle < bottom < middle + narrow.BESIDE[1] + 1


def test_rows_of_a_computed_field_have_room():
    """No row of data has that field."""
    panel = narrow.narrow(w2s.probe_explorer(accuracy=0.8).to_dict())["vconcat"][1]
    assert panel["height"] > narrow.BAND * 2


def test_what_stood_in_the_margin_stands_under_the_title():
    assert "Dashed: r: 0.45" in texts(small(CHARTS["curves"]))
    assert "Dashed" not in small(CHARTS["dots"])


def test_panels_come_one_under_another():
    small = narrow.narrow(CHARTS["panels"].to_dict())
    assert len(small["vconcat"]) == 2 and "concat" not in small


def test_only_what_changes_is_said_again():
    """Here: what is left out, put in or exchanged, in lists too, and that two layers are gone."""
    old = {"a": 1, "b": [{"c": 2, "d": 3}, 4, 5, 6], "e": "f", "g": [1]}
    new = {"a": 1, "b": [{"c": 2, "d": 7}, 4], "g": [1, 2], "h": {"i": None}}
    told = {"b": {"0": {"d": 7}, "length": 2}, "e": None, "g": [1, 2], "h": {"i": None}}
    assert narrow.changes(old, new) == told and narrow.changes(old, old) == {}
    with pytest.raises(ValueError, match="nothing is left"):
        narrow.changes({"a": 1}, {"a": None})


def test_a_light_drawing_looks_the_same(browser):
    """To a tenth of a pixel at the edges, with the font that the page's style sheet gives it."""
    page = browser.new_page()
    for name, chart in CHARTS.items():
        heavy = vl_convert.vegalite_to_svg(chart.to_dict(), VEGALITE)
        slight = drawing.light(heavy)
        assert len(slight) < 0.7 * len(heavy), name
        dressed = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="{FONT}" '
        unlike = page.evaluate(UNLIKE, [heavy, slight.replace("<svg ", dressed, 1)])
        assert unlike < 0.04 and texts(slight) == texts(heavy), name
    page.close()
