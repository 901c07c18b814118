"""What the book's figures are put together from: rows of data, axes, means with bars and seeds, labels beside a panel."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from w2s_lib.figures.style import GREY, LABEL_HEIGHT, spread
from w2s_lib.measures.intervals import Interval

Row = dict[str, Any]
DASHED, DOTTED = [6, 4], [2, 3]


def estimate(interval: Interval, number: str = ".2f") -> Row:
    """The fields `value`, `low`, `high` and, as text, `interval`: the numbers or, without them, the note."""
    text = format(interval, number)
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "interval": text if math.isnan(interval.value) else minus(text),
    }


def minus(number: str) -> str:
    """A number as Vega writes it, with the minus sign instead of the hyphen."""
    return number.replace("-", "−")


def chart(rows: Sequence[Row]) -> alt.Chart:
    """A chart of rows that its spec holds; NaN becomes null, and the field `seeds` is left out."""
    values = [
        {
            k: None if isinstance(v, float) and math.isnan(v) else v
            for k, v in row.items()
            if k != "seeds"
        }
        for row in rows
    ]
    return alt.Chart(alt.InlineData(values=values))


def extent(marks: Sequence[Row]) -> Iterator[float]:
    """Every number that marks show: the ends of their intervals and their seeds. One without a value shows none."""
    for mark in marks:
        if not math.isnan(mark["value"]):
            yield from (mark["low"], mark["high"])
            yield from (
                dot["value"] for dot in mark.get("seeds", []) if not math.isnan(dot["value"])
            )


def scale(domain: Sequence[str], values: Sequence[str]) -> alt.Scale:
    """The first of `values` (colours, shapes) for the first name, and so on."""
    return alt.Scale(domain=list(domain), range=list(values[: len(domain)]))


def measure(title: str, domain: tuple[float, float], channel: Any = alt.Y) -> Callable[[str], Any]:
    """One quantitative axis for several fields: layers whose titles and scales are equal share it."""
    shared = alt.Scale(domain=list(domain), nice=False, zero=False)
    return lambda field: channel(
        f"{field}:Q", title=title, scale=shared, axis=alt.Axis(tickCount=6)
    )


def name_axis(names: Sequence[str], *, width: int = 32, **style: Any) -> alt.Axis:
    """An axis that shows `names[i]` at i, on lines of at most `width` characters."""
    lines = [textwrap.wrap(name, max(width, 1)) or [""] for name in names]
    return alt.Axis(
        values=list(range(len(names))),
        labelExpr=f"{json.dumps(lines)}[datum.value]",
        grid=False,
        labelLimit=0,
        labelLineHeight=LABEL_HEIGHT,
        labelOverlap=False,
        ticks=False,
        labelPadding=6,
        **style,
    )


def series(
    marks: Sequence[Row],
    y: Callable[[str], Any],
    style: Row,
    *,
    beside: float,
    tips: Sequence[Any] = (),
    **line: Any,
) -> list[alt.Chart]:
    """Means joined by a line, with bars; beside each mean, a dot a seed. The line breaks where there is no value.

    Args:
        marks: fields of `estimate`, `x`, `seeds` (rows with a `value`, perhaps a `seed`) and those that `style` encodes.
        y: makes the vertical channel of a field (see `measure`).
        style: channels `x`, `color` and `shape`.
        beside: how far to the right of the mean the seeds are, in units of x.
        tips: what a tooltip says before the number.
        **line: how the line is drawn.
    """
    shown = [mark for mark in marks if not math.isnan(mark["value"])]
    dots = [
        {**mark, **dot, "x": mark["x"] + beside}
        for mark in shown
        for dot in mark["seeds"]
        if not math.isnan(dot["value"])
    ]
    flat = {key: style[key] for key in ("x", "color")}
    of_dot = [
        *tips,
        *(["seed:N"] if any("seed" in dot for dot in dots) else []),
        alt.Tooltip("value:Q", format=".3f"),
    ]
    return [
        chart(marks).mark_line(strokeWidth=1.5, opacity=0.7, **line).encode(y=y("value"), **flat),
        chart(shown).mark_rule(strokeWidth=2).encode(y=y("low"), y2="high:Q", **flat),
        chart(dots).mark_circle(size=14, opacity=0.65).encode(y=y("value"), tooltip=of_dot, **flat),
        chart(shown)
        .mark_point(size=60, filled=True, opacity=1)
        .encode(
            y=y("value"), tooltip=[*tips, alt.Tooltip("interval:N", title="95% interval")], **style
        ),
    ]


def notes(marks: Sequence[Row], style: Row, *, height: int, gap: float) -> list[alt.Chart]:
    """Where a mark has no value, its note, written upwards from the panel's foot over a hollow mark; `gap` apart."""
    silent = [mark for mark in marks if math.isnan(mark["value"])]
    moved = spread([mark["x"] for mark in silent], gap)
    noted = chart([{**mark, "x": x} for mark, x in zip(silent, moved, strict=True)])
    return (
        [
            noted.mark_point(size=40, filled=False, opacity=1).encode(
                y=alt.value(height - 7), **style
            ),
            noted.mark_text(angle=270, align="left", dx=15).encode(
                x=style["x"], y=alt.value(height), text="interval:N"
            ),
        ]
        if silent
        else []
    )


def margin_labels(
    labels: Mapping[str, float], domain: tuple[float, float], *, width: int, height: int
) -> list[alt.Chart]:
    """Names of horizontal lines at the right edge of a panel, kept apart, each tied to its line."""
    pixels = height / (domain[1] - domain[0])
    places = [(domain[1] - value) * pixels for value in labels.values()]
    layers = []
    for label, place, moved in zip(labels, places, spread(places, LABEL_HEIGHT), strict=True):
        one = chart([{"label": label}])
        layers += [
            one.mark_rule(color=GREY, opacity=0.6).encode(
                x=alt.value(width), x2=alt.value(width + 9), y=alt.value(place), y2=alt.value(moved)
            ),
            one.mark_text(align="left").encode(
                x=alt.value(width + 12), y=alt.value(moved), text="label:N"
            ),
        ]
    return layers
