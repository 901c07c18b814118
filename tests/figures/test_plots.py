"""Charts, their theme and what they leave in a notebook."""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode
from itertools import pairwise
from xml.etree import ElementTree

import altair as alt
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from tests.measures.test_metrics import CELLS, runs_frame
from w2s_lib.figures.charts import accuracy_dots
from w2s_lib.figures.pgr_plot import plot_pgr
from w2s_lib.figures.style import CHARACTER_WIDTH, COLOURS, GREY, VEGALITE, spread, use_theme
from w2s_lib.measures.metrics import Interval, pgr_table

NO_PGR = Interval(math.nan, math.nan, math.nan, note="no gap to recover")


@pytest.fixture(scope="module")
def runs():
    return runs_frame(CELLS)


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
    def test_output_holds_the_spec_and_a_drawing(self, runs):
        chart = plot_pgr(runs, title="A finding")
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

    def test_same_chart_same_bytes(self, runs):
        one, two = (
            mime(plot_pgr(runs, title="A finding", baselines={"zero-shot": 0.7})) for _ in range(2)
        )
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


class TestPlotPgr:
    def test_shows_every_interval_and_every_seed(self, runs):
        rows = values(plot_pgr(runs, title="t", baselines={"zero-shot": 0.7}))
        table = pgr_table(runs)
        shown = {(row.get("low"), row.get("high")) for row in rows}
        dots = {row["value"] for row in rows if "seed" in row}
        for cell in table.itertuples():
            for interval in (cell.student, cell.ceiling, cell.pgr):
                assert (interval.low, interval.high) in shown
            assert {a for _, a, _ in cell.seeds} | {share for _, _, share in cell.seeds} <= dots

    def test_labels(self, runs):
        found = texts(
            svg(
                plot_pgr(
                    runs, title="t", baselines={"zero-shot": 0.7}, names={"big@4": "four blocks"}
                )
            )
        )
        assert {"15", "30", "zero-shot: 0.70", "ceiling", "TF-IDF", "four blocks"} <= set(found)
        assert "big, 4 blocks" not in found and not any(
            "undefined" in text or "null" in text for text in found
        )

    def test_a_ladder_of_sizes_bears_the_models_names(self):
        """Whole models of a hub have no depth.

        They stand in the order of the frame, that is of the chapter's list.
        """
        models = [f"hf:me/smol-{size}" for size in ("small", "middle", "large")]
        cells = [("supervisor", models[0], None, "", 0.7)]
        for model, a in zip(models[1:], (0.8, 0.9), strict=True):
            cells += [
                ("ceiling", model, None, "", a),
                ("student", model, None, models[0], a - 0.05),
            ]
        found = texts(svg(plot_pgr(runs_frame(cells).astype({"depth": "Int64"}), title="t")))
        assert [text for text in found if text.startswith("smol-")][:2] == [
            "smol-middle",
            "smol-large",
        ]
        assert "student" in found and "student depth (blocks)" not in found

    def test_fits_the_page(self, runs):
        width = float(
            re.search(r'<svg[^>]* width="([\d.]+)"', svg(plot_pgr(runs, title="long " * 40)))[1]
        )
        assert width <= 660

    def test_says_where_there_is_no_gap(self):
        cells = [
            ("supervisor", "big@4", 4, "", 0.88),
            ("ceiling", "big", 30, "", 0.87),
            ("student", "big", 30, "big@4", 0.87),
        ]
        chart = plot_pgr(runs_frame(cells), title="t")
        drawing = svg(chart)
        assert texts(drawing).count("no gap to recover") == 1 and "NaN" not in drawing
        shares = chart.to_dict()["hconcat"][1]["layer"][0]["encoding"]["y"]["scale"]["domain"]
        assert shares == [-0.06, 1.06], "seeds of a share that is not shown stretch the axis"

    def test_margin_labels_keep_clear_of_the_right_panel(self, runs):
        """In pixels of the drawing, a character of 12-pixel text being about 6.6 wide."""
        drawing = svg(plot_pgr(runs, title="t", baselines={"zero-shot": 0.7}))
        end = max(
            place + CHARACTER_WIDTH * len(text)
            for text, place in placed(drawing)
            if re.search(r": 0\.\d\d$", text)
        )
        title = next(place for text, place in placed(drawing) if text.startswith("performance gap"))
        assert end + 20 <= title

    def test_too_many_supervisors(self):
        cells = [("ceiling", "big", 30, "", 0.9)]
        for depth in range(1, 6):
            cells += [
                ("supervisor", f"big@{depth}", depth, "", 0.7),
                ("student", "big", 30, f"big@{depth}", 0.8),
            ]
        with pytest.raises(ValueError, match="5 supervisors"):
            plot_pgr(runs_frame(cells, n_rows=100), title="t")


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

    def test_nothing_to_draw(self):
        with pytest.raises(ValueError, match="nothing to draw"):
            accuracy_dots({"none": NO_PGR}, title="t")

    def test_seeds_of_no_row(self):
        with pytest.raises(ValueError, match="hard labels"):
            accuracy_dots(self.intervals, title="t", seeds={"hard labels": [0.8]})
