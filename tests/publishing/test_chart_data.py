"""The rows that a page takes out of a chart, for its alternative, its table and its file."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import altair as alt
import pandas as pd

import w2s_lib as w2s
from w2s_lib.figures.toys import pgr_calculator, shares_explorer

FILE = Path(__file__).parents[2] / "book" / "_ext" / "chart_data.py"
found = importlib.util.spec_from_file_location("chart_data", FILE)
chart_data = importlib.util.module_from_spec(found)
found.loader.exec_module(chart_data)

HALF = w2s.Interval(0.5, 0.4, 0.6)
NONE = w2s.Interval(math.nan, math.nan, math.nan, note="no gap to recover")


def test_estimates_seeds_and_notes_of_a_chart():
    chart = w2s.accuracy_dots({"a": HALF, "b": NONE}, title="Half", seeds={"a": [0.45, 0.45]})
    rows = chart_data.chart_rows(chart.to_dict())
    assert {"name": "a", "value": 0.5, "low": 0.4, "high": 0.6}.items() <= rows[-2].items()
    assert [row["value"] for row in rows[:2]] == [0.45, 0.45]  # equal seeds are two seeds
    assert (
        chart_data.alternative(chart.to_dict())
        == "Half. a: 0.50 [0.40, 0.60]; b: no gap to recover"
    )
    table = chart_data.data_tables(chart.to_dict())
    means, seeds = re.findall("<table>.*?</table>", table)
    heads = [re.findall('<th scope="col">(.*?)</th>', part) for part in (means, seeds)]
    assert heads == [["name", "95% interval"], ["name", "value"]]
    assert table.count("<tr>") == 2 + len(rows) and "<td>no gap to recover</td>" in means


def test_a_column_of_a_table_has_even_digits_or_is_left_out():
    """Three digits of the largest, fewer where that loses nothing; zero has no sign."""
    assert chart_data.evenly([0.8307, 0.82, None]) == ["0.831", "0.820", ""]
    assert chart_data.evenly([300.0, 70.0]) == ["300", "70"]
    assert chart_data.evenly([-0.0131, 0.00001]) == ["−0.0131", "0.0000"]
    table = chart_data.html_table([{"a": "x", "b": None}, {"a": "y", "b": ""}])
    assert "<th" in table and ">b<" not in table


def test_curves_say_where_each_estimate_stands():
    chart = w2s.curves({"up": {1: HALF, 2: HALF}}, title="Flat", x_title="epochs", y_title="share")
    assert (
        chart_data.chart_rows(chart.to_dict())[0].items() >= {"epochs": 1.0, "value": 0.5}.items()
    )
    assert "up: 1: 0.50 [0.40, 0.60]; up: 2:" in chart_data.alternative(chart.to_dict())


def test_a_chart_that_a_chapter_builds_is_read_once_however_many_marks_it_has():
    frame = pd.DataFrame({"way": ["<slow>", "fast"], "seconds": [300.0, 70.0]})
    base = alt.Chart(frame).encode(x="seconds:Q", y="way:N")
    spec = alt.hconcat(base.mark_bar() + base.mark_text().encode(text="seconds:Q")).to_dict()
    assert chart_data.chart_rows(spec) == frame.to_dict("records")
    assert "<td>&lt;slow&gt;</td><td>300</td>" in chart_data.data_tables(spec)


def test_behind_sliders_the_rows_are_what_the_page_begins_with():
    spec = pgr_calculator().to_dict()
    assert chart_data.chart_rows(spec) == [] and chart_data.data_tables(spec) == ""
    grid = [{"n": n, "bar": "one", "yes": n / 4, "no": 1 - n / 4} for n in (1, 2)]
    spec = shares_explorer(
        grid, sliders={"n": "seeds"}, start={"n": 1}, colours={"yes": "blue", "no": "grey"}
    ).to_dict()
    assert [row["yes"] for row in chart_data.chart_rows(spec)] == [0.25, 0.5]
    assert chart_data.alternative(spec) == spec["description"]


def test_of_many_rows_a_reader_hears_how_many_there_are():
    points = [{"x": i / 9, "y": 0.1, "kind": "one", "name": f"run {i}"} for i in range(101)]
    named = {"title": "Flat", "x_title": "x", "y_title": "y", "slopes": {}}
    few, many = (w2s.scatter(points[:n], {"one": "#0072B2"}, **named).to_dict() for n in (2, 101))
    assert chart_data.alternative(few).startswith("Flat. run 0: one: 0: 0.1; run 1: one")
    assert chart_data.alternative(many) == "Flat. 101 rows of data, in the file under the figure"
