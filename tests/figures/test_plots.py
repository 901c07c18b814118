"""Charts, their theme and what they leave in a notebook."""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from base64 import b64decode
from itertools import pairwise
from xml.etree import ElementTree

import altair as alt
import numpy as np
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from w2s_lib.figures.rows import accuracy_dots, pgr_ruler
from w2s_lib.figures.style import COLOURS, GREY, VEGALITE, deflated, spread, use_theme
from w2s_lib.measures.intervals import Interval

NO_PGR = Interval(math.nan, math.nan, math.nan, note="no gap to recover")


CELLS = {
    "four blocks teach thirty": {
        "weak": Interval(0.80, 0.79, 0.81),
        "student": Interval(0.83, 0.82, 0.84),
        "ceiling": Interval(0.87, 0.86, 0.88),
        "pgr": Interval(0.43, 0.31, 0.55),
    },
    "no gap": {
        "weak": Interval(0.88, 0.87, 0.89),
        "student": Interval(0.87, 0.86, 0.88),
        "ceiling": Interval(0.87, 0.85, 0.89),
        "pgr": NO_PGR,
    },
}


def ruler(**options):
    return pgr_ruler(CELLS, **{"title": "A finding"} | options)


def mime(chart):
    bundle = chart._repr_mimebundle_()
    return bundle[0] if isinstance(bundle, tuple) else bundle


def svg(chart, **params):
    """The drawing, with the sliders called `params` moved."""
    spec = chart.to_dict()
    for slider in spec.get("params", []):
        slider["value"] = params.get(slider["name"], slider["value"])
    return vl_convert.vegalite_to_svg(spec, vl_version=VEGALITE)


def texts(drawing):
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing)


def placed(drawing):
    """Every text and where it starts, in pixels from the left."""

    def walk(node, left):
        moved = re.match(r"translate\(([-\d.]+)", node.get("transform", ""))
        left += float(moved[1]) if moved else 0.0
        if node.tag.endswith("}text"):
            yield node.text, left
        for child in node:
            yield from walk(child, left)

    return list(walk(ElementTree.fromstring(drawing), 0.0))


def values(chart):
    """Every row of data in a chart."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


class TestTheme:
    def test_output_holds_the_spec_and_a_drawing(self):
        chart = ruler()
        found = mime(chart)
        assert set(found) == {"application/vnd.vegalite.v5+json", "image/png"}
        spec = found["application/vnd.vegalite.v5+json"]
        assert spec["description"] == "A finding" and "/v5" in spec["$schema"]
        assert b64decode(found["image/png"]).startswith(b"\x89PNG")
        drawing = svg(chart)
        assert "A finding" in texts(drawing) and "white" not in drawing and "#fff" not in drawing
        assert set(re.findall(r"https?://[^\"]*", drawing)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }

    def test_numbers_in_a_title_have_the_sign_of_the_charts_own(self):
        chart = ruler(title=f"A loss of {-0.004:+.3f} is weak-to-strong, too")
        spec = mime(chart)["application/vnd.vegalite.v5+json"]
        assert spec["description"] == "A loss of −0.004 is weak-to-strong, too"
        assert " ".join(spec["title"]["text"]) == spec["description"]

    def test_same_chart_same_bytes(self):
        one, two = (mime(ruler(seeds={"no gap": [0.86]})) for _ in range(2))
        assert json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)

    def test_theme_twice_is_theme_once(self):
        use_theme()
        use_theme()
        assert alt.theme.active == "w2s" and alt.renderers.active == "w2s"

    @pytest.mark.parametrize(("colour", "least"), [(GREY, 4), *((colour, 3) for colour in COLOURS)])
    def test_contrast_on_white_and_on_dark(self, colour, least):
        """WCAG 2.1: (L1 + .05) / (L2 + .05), L being the relative luminance."""

        def luminance(code):
            parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
            return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

        for page in ("#ffffff", "#121212"):
            low, high = sorted((luminance(colour), luminance(page)))
            assert (high + 0.05) / (low + 0.05) >= least

    @given(st.lists(st.floats(0, 300), min_size=1, max_size=8))
    def test_spread_keeps_apart_and_in_order(self, places):
        moved = spread(places, 15)
        order = sorted(range(len(places)), key=lambda i: places[i])
        assert all(moved[b] - moved[a] >= 15 - 1e-6 for a, b in pairwise(order))
        if all(places[b] - places[a] >= 15 for a, b in pairwise(order)):
            assert moved == pytest.approx(places)


class TestRuler:
    def test_shows_every_interval_seed_and_reference(self):
        """PGR stands at the right, in words where there is no gap."""
        chart = ruler(seeds={"no gap": [0.861, 0.879]}, references={"no gap": {"zero-shot": 0.645}})
        rows = values(chart)
        shown = {(row.get("low"), row.get("high")) for row in rows}
        for cell in CELLS.values():
            for role in ("weak", "student", "ceiling"):
                assert (cell[role].low, cell[role].high) in shown
        assert {0.861, 0.879, 0.645} <= {row.get("value") for row in rows}
        drawing = svg(chart)
        said = texts(drawing) + re.findall(r"<tspan[^>]*>([^<]*)</tspan>", drawing)
        assert {"PGR 0.43 [0.31,\xa00.55]", "no gap to recover", "no gap"} <= set(said)
        assert "NaN" not in drawing and not any("undefined" in text for text in said)

    def test_fits_the_page(self):
        drawing = svg(ruler(title="long " * 40))
        assert float(re.search(r'<svg[^>]* width="([\d.]+)"', drawing)[1]) <= 660


class TestAccuracyDots:
    intervals = {
        "soft labels": Interval(0.80, 0.78, 0.82),
        'the "hard" ones': Interval(0.81, 0.79, 0.83),
        "none": NO_PGR,
    }

    def test_labels(self):
        chart = accuracy_dots(
            self.intervals,
            title="t",
            seeds={"soft labels": [0.79, 0.81]},
            references={"ceiling": 0.88},
        )
        drawing = svg(chart)
        assert {"soft labels", "ceiling", "0.80 [0.78,\xa00.82]", "no gap to recover"} <= set(
            texts(drawing)
        )
        assert any("hard" in text for text in texts(drawing)) and "NaN" not in drawing
        assert {0.79, 0.81} <= {row.get("value") for row in values(chart)}

    def test_long_names_are_wrapped_not_cut(self):
        name = "the student of a supervisor whose errors were dealt out at random"
        drawing = svg(accuracy_dots({name: Interval(0.8, 0.7, 0.9)}, title="t"))
        lines = re.findall(r"<tspan[^>]*>([^<]*)</tspan>", drawing)
        assert " ".join(lines) == name and len(lines) == 3 and "…" not in drawing

    @pytest.mark.parametrize("references", [None, {"no difference": 0.0}])
    def test_where_no_row_has_a_value_each_says_why(self, references):
        drawing = svg(accuracy_dots({"none": NO_PGR}, title="t", references=references))
        assert NO_PGR.note in texts(drawing) and "NaN" not in drawing

    def test_seeds_of_no_row(self):
        with pytest.raises(ValueError, match="hard labels"):
            accuracy_dots(self.intervals, title="t", seeds={"hard labels": [0.8]})


def pixels(png):
    """RGBA of a picture as vl-convert or we write one: (height, width, 4)."""
    chunks, at = {}, 8
    while at < len(png):
        (size,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        chunks[kind] = chunks.get(kind, b"") + png[at + 8 : at + 8 + size]
        at += 12 + size
    width, height, _, form = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    if form == 3:
        rgb = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
        alpha = np.frombuffer(chunks[b"tRNS"], np.uint8)[:, None]
        assert (rows[:, 0] == 0).all()
        return np.hstack([rgb, alpha])[rows[:, 1:]], form
    assert form == 6 and (rows[:, 0] == 1).all()
    return rows[:, 1:].reshape(height, width, 4).cumsum(axis=1, dtype=np.uint8), form


@pytest.mark.parametrize("n_colours", [5, 600])
def test_a_deflated_picture_is_the_same_pixel_by_pixel(n_colours):
    """With few colours a palette, with more as it was; smaller in either case."""
    bars = [
        {"x": i, "y": 1 + i % 7, "colour": f"#{i * 27941 % 2**24:06x}"} for i in range(n_colours)
    ]
    drawn = (
        alt.Chart(alt.InlineData(values=bars))
        .mark_bar(width=2)
        .encode(x="x:Q", y="y:Q", color=alt.Color("colour:N", scale=None))
        .properties(width=600)
    )
    png = vl_convert.vegalite_to_png(drawn.to_dict(), vl_version=VEGALITE, scale=1)
    small = deflated(png)
    (before, _), (after, form) = pixels(png), pixels(small)
    assert (before == after).all() and form == (3 if n_colours == 5 else 6)
    assert len(small) < len(png)
