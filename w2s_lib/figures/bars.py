"""Shares as bars, each in the colour of who gives the answer.

Importing this module turns the book's theme on (`w2s_lib.figures.style`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import altair as alt

from w2s_lib.figures.charts import INTERVAL_TIP, Row, chart, estimate, extent, in_rows, measure
from w2s_lib.figures.style import GREY, MEANING, RIVAL, padded_domain, use_theme
from w2s_lib.measures.intervals import Interval

Who: TypeAlias = Literal["supervisor", "student", "ceiling", "rival"]
WHO = MEANING | {"rival": RIVAL}
"""The colour of each; "ceiling" is also the ground truth's."""


def bars(
    intervals: Mapping[str, Interval],
    who: Mapping[str, Who],
    *,
    title: str,
    start: float = 0.0,
    x_title: str = "share of test texts",
    ticks: Mapping[str, float] | None = None,
    tick_title: str = "",
    number: str = ".0%",
) -> alt.LayerChart:
    """A row a name: a bar as long as its share, with its 95% interval and its number.

    Chapters: imitation, saliency.

    Args:
        intervals: name -> share, from top to bottom. Each has a value.
        who: name -> whose colour the bar has.
        title: the finding, in a sentence.
        start: where bars begin, such as 0.5 for the accuracy of a coin.
        x_title: what is measured.
        ticks: name -> another share, to be compared with the bar's.
        tick_title: what the ticks are.
        number: format of the numbers at the right.

    Raises:
        ValueError: an estimate without a value; `ticks` names a row that is not there.
    """
    order = list(intervals)
    marks: list[Row] = [
        {"row": i, "name": name, "start": start, "colour": WHO[who[name]]}
        | estimate(intervals[name], number)
        for i, name in enumerate(order)
    ]
    if silent := [mark["name"] for mark in marks if math.isnan(mark["value"])]:
        raise ValueError(f"no bar without a value: {silent}")
    if unknown := [name for name in ticks or {} if name not in order]:
        raise ValueError(f"ticks at {unknown}, but there is no such row: {order}")
    others: list[Row] = [
        {"row": order.index(name), "name": name, "value": value, "what": tick_title}
        for name, value in (ticks or {}).items()
    ]
    ends = padded_domain([start, *extent(marks), *(row["value"] for row in others)])
    x = measure(x_title, (start, ends[1]), alt.X)
    shown = [format(interval.value, number) for interval in intervals.values()]
    colour, every = alt.Color("colour:N", scale=None), chart(marks)
    tip_of_tick = ["name:N", "what:N", alt.Tooltip("value:Q", format=number)]
    layers = [
        every.mark_bar(size=20, opacity=0.4).encode(
            x=x("start"), x2="value:Q", color=colour, tooltip=["name:N", INTERVAL_TIP]
        ),
        every.mark_rule(strokeWidth=2).encode(x=x("low"), x2="high:Q", color=colour),
        every.mark_point(size=50, filled=True, opacity=1).encode(
            x=x("value"), color=colour, tooltip=["name:N", INTERVAL_TIP]
        ),
        chart(others)
        .mark_tick(color=GREY, thickness=3, size=24)
        .encode(x=x("value"), tooltip=tip_of_tick),
    ]
    return in_rows(layers, order, shown, step=38, title=title)


use_theme()
