"""Curves over numbers and categories, and the charts with sliders."""

from __future__ import annotations

import math
import re

import pytest
import torch

from tests.figures.test_plots import NO_PGR, placed, svg, texts, values
from w2s_lib.figures.charts import curves, scatter
from w2s_lib.figures.toys import confidence_explorer, pgr_calculator, shares_explorer
from w2s_lib.measures.intervals import Interval
from w2s_lib.runs.losses import confidence_loss, xent_loss

UP = {
    0.25: Interval(0.71, 0.69, 0.73),
    0.5: Interval(0.75, 0.72, 0.78),
    0.75: Interval(0.80, 0.79, 0.81),
}
DOWN = {0.25: Interval(0.70, 0.66, 0.74), 0.5: NO_PGR, 0.75: Interval(0.60, 0.55, 0.65)}
LONG = "the student of a supervisor whose errors were dealt out at random"
TITLES = {"title": "A finding", "x_title": "largest alpha", "y_title": "test accuracy"}


def by_name(points):
    return {str(x): interval for x, interval in points.items()}


def lines_of(drawing, name):
    """The paths of a line: one that is broken moves its pen (M) more than once."""
    found = re.findall(
        r'<path aria-label="([^"]*)"[^>]*aria-roledescription="line mark"[^>]* d="([^"]*)"', drawing
    )
    return [path for label, path in found if f"line: {name}" in label]


class TestCurves:
    def test_shows_every_interval_and_every_seed(self):
        chart = curves(
            {"up": UP, "down": DOWN}, **TITLES, seeds={"up": {0.5: [0.74, 0.76], 0.75: [0.93]}}
        )
        rows = values(chart)
        for interval in (*UP.values(), DOWN[0.25], DOWN[0.75]):
            assert (interval.low, interval.high) in {
                (row.get("low"), row.get("high")) for row in rows
            }
        assert {0.74, 0.76, 0.93} <= {row.get("value") for row in rows}
        low, high = chart.to_dict()["layer"][1]["encoding"]["y"]["scale"]["domain"]
        assert low < 0.55 and high > 0.93

    def test_labels(self):
        drawing = svg(
            curves(
                {"up": UP, "down": DOWN}, **TITLES, references={"zero-shot": -0.5, "ceiling": 0.876}
            )
        )
        assert {
            "0.25",
            "0.5",
            "0.75",
            "up",
            "down",
            "A finding",
            "largest alpha",
            "test accuracy",
            "zero-shot: −0.50",
            "ceiling: 0.88",
        } <= set(texts(drawing))
        assert "NaN" not in drawing and "undefined" not in drawing

    @pytest.mark.parametrize(
        ("xs", "expected"),
        [
            ((2, 4, 13, 30), ["2", "4", "13", "30"]),
            ((0.05, 0.5, 1), ["0.05", "0.5", "1"]),
            ((0.1, 0.1 + 0.2), ["0.1", "0.3"]),
            ((64, 1024, 123456), ["123456"]),
        ],
    )
    def test_ticks_stand_at_the_estimates_and_say_their_numbers(self, xs, expected):
        drawing = svg(curves({"up": dict.fromkeys(xs, UP[0.5])}, **TITLES))
        assert set(expected) <= set(texts(drawing))

    def test_many_numbers_get_few_ticks(self):
        drawing = svg(curves({"up": {3 * k: UP[0.5] for k in range(1, 21)}}, **TITLES))
        assert 4 <= sum(text in map(str, range(61)) for text in texts(drawing)) <= 12

    def test_categories_come_in_the_order_of_first_appearance(self):
        first, second = (
            {"naive": UP[0.25], "whole": UP[0.5]},
            {"by chain": UP[0.5], "whole": UP[0.75], "also": UP[0.5]},
        )
        found = placed(svg(curves({"one": first, "two": second}, **TITLES)))
        at = {
            text: place for text, place in found if text in ("naive", "whole", "by chain", "also")
        }
        assert sorted(at, key=lambda text: at[text]) == ["naive", "whole", "by chain", "also"]

    def test_lines_stand_beside_one_another(self):
        chart = curves({name: UP for name in "abcd"}, **TITLES)
        places = sorted({row["x"] for row in values(chart) if row.get("at") == 0.5})
        assert len(places) == 4 and sum(places) / 4 == pytest.approx(0.5)
        assert max(places) < 0.75 - (max(places) - 0.5), (
            "the marks of one x come among those of the next"
        )

    def test_one_line_stands_on_its_x(self):
        assert {
            row["x"] for row in values(curves({"up": UP}, **TITLES)) if "interval" in row
        } == set(UP)

    @pytest.mark.parametrize("points", [DOWN, by_name(DOWN)])
    def test_says_where_there_is_no_value(self, points):
        drawing = svg(curves({"up": dict.fromkeys(points, UP[0.5]), "down": points}, **TITLES))
        assert texts(drawing).count("no gap to recover") == 1 and "NaN" not in drawing
        assert [path.count("M") for path in lines_of(drawing, "down")] == [2], (
            "the line passes over the missing value"
        )
        assert [path.count("M") for path in lines_of(drawing, "up")] == [1]

    def test_nothing_has_a_value(self):
        drawing = svg(curves({"a": {"x": NO_PGR, "y": NO_PGR}, "b": {"x": NO_PGR}}, **TITLES))
        assert texts(drawing).count("no gap to recover") == 3 and "NaN" not in drawing

    def test_long_names_are_not_cut_and_fit_the_page(self):
        points = {f"{LONG} {i}": UP[0.5] for i in range(5)}
        drawing = svg(
            curves(
                {LONG: points, LONG[:-1]: points, "c": points},
                **TITLES,
                references={LONG[:44]: 0.7},
            )
        )
        assert LONG in texts(drawing) and "…" not in drawing
        assert float(re.search(r'<svg[^>]* width="([\d.]+)"', drawing)[1]) <= 660

    def test_one_point(self):
        assert "5" in texts(svg(curves({"only": {5: UP[0.5]}}, **TITLES)))

    @pytest.mark.parametrize(
        ("lines", "seeds", "message"),
        [
            ({}, None, "no line"),
            ({"a": {}, "b": UP}, None, "without an estimate"),
            ({name: UP for name in "abcde"}, None, "5 lines, but only 4"),
            ({"a": {1: UP[0.5], "two": UP[0.5]}}, None, "numbers everywhere or strings"),
            ({"a": UP, "b": by_name(UP)}, None, "numbers everywhere or strings"),
            ({"a": {math.nan: UP[0.5]}}, None, "finite"),
            ({"a": UP}, {"b": {0.5: [0.7]}}, "seeds of 'b'"),
            ({"a": UP}, {"a": {0.6: [0.7]}}, r"seeds of 'a' at \[0.6\]"),
        ],
    )
    def test_bad_input(self, lines, seeds, message):
        with pytest.raises(ValueError, match=message):
            curves(lines, **TITLES, seeds=seeds)


class TestCalculator:
    @pytest.mark.parametrize(
        ("sliders", "answer"),
        [
            ({}, "PGR = 0.43"),
            ({"student": 0.88}, "PGR = 1.00"),
            ({"student": 0.67}, "PGR = −0.50"),
            ({"ceiling": 0.74}, "no gap to recover"),
            ({"weak": 0.9}, "no gap to recover"),
        ],
    )
    def test_the_page_computes(self, sliders, answer):
        """(.80 - .74) / (.88 - .74) = .43; (.67 - .74) / .14 = -.5."""
        assert answer in texts(svg(pgr_calculator(), **sliders))

    def test_has_three_sliders_and_words_for_a_screen_reader(self):
        spec = pgr_calculator(weak=0.6).to_dict()
        assert [p["bind"]["input"] for p in spec["params"]] == ["range"] * 3 and spec["params"][0][
            "value"
        ] == 0.6
        assert spec["description"]


class TestExplorer:
    predictions, labels = [0.9, 0.62, 0.35, 0.55, 0.08, 0.5], [0.7, 0.3, 0.45, 0.8, 0.0, 1.0]

    def loss(self, alpha, threshold):
        logits = torch.stack([torch.zeros(6), torch.logit(torch.tensor(self.predictions))], dim=1)
        return float(confidence_loss(logits, torch.tensor(self.labels), alpha, threshold))

    @pytest.mark.parametrize(
        "sliders",
        [
            {},
            {"alpha": 0.0},
            {"alpha": 1.0},
            {"alpha": 0.75, "threshold": 0.6},
            {"threshold": 0.05},
            {"threshold": 0.95},
            {"alpha": 0.25, "threshold": 0.35},
        ],
    )
    def test_the_page_computes_what_the_library_does(self, sliders):
        found = texts(svg(confidence_explorer(self.predictions, self.labels), **sliders))
        shown = next(
            re.fullmatch(r"loss = ([\d.]+) nats", text)[1]
            for text in found
            if text.startswith("loss =")
        )
        assert float(shown) == pytest.approx(
            self.loss(sliders.get("alpha", 0.5), sliders.get("threshold", 0.5)), abs=0.00051
        )

    def test_alpha_0_is_naive_finetuning(self):
        logits = torch.stack([torch.zeros(6), torch.logit(torch.tensor(self.predictions))], dim=1)
        found = texts(svg(confidence_explorer(self.predictions, self.labels, alpha=0)))
        assert f"loss = {xent_loss(logits, torch.tensor(self.labels)):.3f} nats" in found

    def test_targets_by_hand(self):
        """alpha = .75, t = .6: .25 x .7 + .75 = .925; .25 x .3 + .75 = .825.

        .25 x .45 = .1125; .25 x .8 = .2; 0; .25.
        """
        drawing = svg(confidence_explorer(self.predictions, self.labels), alpha=0.75, threshold=0.6)
        points = re.findall(
            r'aria-label="P\(y = 1\): ([\d.]+);[^"]*what: (target|hardened prediction)', drawing
        )
        assert [float(value) for value, what in points if what == "target"] == pytest.approx(
            [0.925, 0.825, 0.1125, 0.2, 0, 0.25]
        )
        assert [float(value) for value, what in points if what != "target"] == [1, 1, 0, 0, 0, 0]

    def test_has_two_sliders_and_words_for_a_screen_reader(self):
        spec = confidence_explorer(
            self.predictions, self.labels, alpha=0.2, threshold=0.3
        ).to_dict()
        assert [(p["name"], p["value"], p["bind"]["input"]) for p in spec["params"]] == [
            ("alpha", 0.2, "range"),
            ("threshold", 0.3, "range"),
        ]
        assert spec["description"]

    def test_as_many_labels_as_predictions(self):
        with pytest.raises(ValueError, match="zip"):
            confidence_explorer([0.5], [0.5, 0.6])


class TestShares:
    colours = {"worse": "#0072B2", "undecided": "#767676", "better": "#009E73"}
    sliders = {"seeds": "seeds", "drift": "drift of B"}

    def rows(self):
        """With five seeds a tenth is worse, plus a fifth for each unit of drift; ten seeds: twice."""
        for seeds in (5, 10):
            for drift in (0.0, 0.5, 1.0):
                worse = round((0.1 + 0.2 * drift) * seeds / 5, 3)
                shares = {"worse": worse, "undecided": 0.9 - worse, "better": 0.1}
                yield {"seeds": seeds, "drift": drift, "bar": "threshold 1/2", **shares}

    def drawn(self, **start):
        start = {"seeds": 5, "drift": 0.0} | start
        return shares_explorer(
            list(self.rows()), sliders=self.sliders, start=start, colours=self.colours
        )

    @pytest.mark.parametrize(
        ("moved", "said", "shares"),
        [
            ({}, "seeds 5, drift of B 0", {"10%", "80%"}),
            ({"drift": 0.5}, "seeds 5, drift of B 0.5", {"20%", "70%", "10%"}),
            ({"seeds": 10, "drift": 1}, "seeds 10, drift of B 1", {"60%", "30%", "10%"}),
        ],
    )
    def test_the_sliders_choose_the_row(self, moved, said, shares):
        found = texts(svg(self.drawn(), **moved))
        assert said in found and shares <= set(found)

    def test_bars_are_stacked_in_the_order_of_the_colours(self):
        labels = re.findall(
            r'aria-label="([^"]*)"[^>]*aria-roledescription="bar"', svg(self.drawn())
        )
        assert labels == [
            "threshold 1/2, worse: 10%",
            "threshold 1/2, undecided: 80%",
            "threshold 1/2, better: 10%",
        ]

    def test_a_small_share_has_no_number(self):
        rows = [{"seeds": 5, "bar": "one", "worse": 0.02, "undecided": 0.98, "better": 0.0}]
        one = shares_explorer(
            rows, sliders={"seeds": "seeds"}, start={"seeds": 5}, colours=self.colours
        )
        assert "98%" in texts(svg(one)) and "2%" not in texts(svg(one))

    def test_has_a_slider_a_field_and_words_for_a_screen_reader(self):
        spec = self.drawn(drift=0.5).to_dict()
        bound = [(p["name"], p["value"], p["bind"]["step"]) for p in spec["params"]]
        assert (
            bound == [("seeds", 5, 5), ("drift", 0.5, 0.5)] and "drift of B" in spec["description"]
        )

    def test_starts_at_a_row(self):
        with pytest.raises(ValueError, match="no row at"):
            self.drawn(drift=0.3)


def test_a_scatter_has_a_mark_a_run_and_lines_that_end_at_its_edge():
    """x up to 0.4 and y from -0.1 to 0.2, each with 6% more: y = x leaves at the top, y = -x below.

    There, 22.5 of 270 pixels more are free of marks.
    """
    points = [
        {"x": x, "y": y, "kind": kind, "name": "a run"}
        for x, y, kind in ((0.1, 0.05, "one"), (0.4, 0.2, "two"), (0.2, -0.1, "one"))
    ]
    chart = scatter(
        points,
        {"one": "#0072B2", "two": "#767676"},
        slopes={"all": 1, "none": 0, "lost": -1},
        title="A finding",
        x_title="moved",
        y_title="gain",
    )
    rows = values(chart)
    assert sum(row.get("name") == "a run" for row in rows) == 3
    ends = {row["label"]: (row["x"], row["y"]) for row in rows if "label" in row}
    top, bottom, right = 0.2 + 0.06 * 0.3, -0.1 - 0.06 * 0.3, 0.4 * 1.06
    bottom -= (top - bottom) * 22.5 / 270
    assert ends["all"] == pytest.approx((top, top))
    assert ends["lost"] == pytest.approx((-bottom, bottom))
    assert ends["none"] == pytest.approx((right, 0))
    assert {"all", "none", "lost", "one", "two", "moved", "gain"} <= set(texts(svg(chart)))
