"""Lines over a quantity or over ordered categories, with every interval and every seed.

Importing this module turns the book's theme on (`w2s_lib.figures.style`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import TypeVar

import altair as alt

from w2s_lib.figures.marks import (
    DASHED,
    Row,
    chart,
    estimate,
    extent,
    margin_labels,
    measure,
    minus,
    name_axis,
    notes,
    scale,
    series,
)
from w2s_lib.figures.style import (
    CHARACTER_WIDTH,
    COLOURS,
    GREY,
    LABEL_HEIGHT,
    SHAPES,
    padded_domain,
    use_theme,
    wrapped,
)
from w2s_lib.measures.intervals import Interval

__all__ = ["curves"]

X = TypeVar("X", float, str)
HEIGHT, WIDEST, NARROWEST = 270, 440, 240
"""Of the panel, in pixels; long labels in the margin make it narrower."""
MARGIN = 570
"""Pixels for the panel and the labels to its right."""
APART = 14.0
"""Pixels between two lines' marks at one x, where there is room for it."""
MOST_TICKS = 9


def curves(
    lines: Mapping[str, Mapping[X, Interval]],
    *,
    title: str,
    x_title: str,
    y_title: str,
    seeds: Mapping[str, Mapping[X, Sequence[float]]] | None = None,
    references: Mapping[str, float] | None = None,
    number: str = ".2f",
    x_format: str = "",
) -> alt.LayerChart:
    """Means over x, a line a name, with 95% intervals and a small dot a seed beside its mean.

    The lines stand a little beside one another, so that no bar hides another. An estimate without a value breaks its line,
    and its note is written at the foot of the panel. Nothing is clipped. Chapters: bootstrapping, confidence loss, saliency.

    Args:
        lines: name -> x -> estimate, at most four. x is a number everywhere, and then drawn to scale, or a string
            everywhere: categories, in the order in which they first come up. Numbers that grow by factors read better
            as strings.
        title: the finding, in a sentence.
        x_title: what x is.
        y_title: what is measured.
        seeds: name -> x -> a value a seed.
        references: label -> value, drawn as dashed lines that are labelled, with the value, in the right margin.
        number: format of the measured numbers.
        x_format: d3 format of the numbers along x, e.g. `.0%`.

    Raises:
        ValueError: no line, a line without estimates, more than four lines; x of both kinds or not finite; seeds of a line
            or of an x that is not there.
    """
    numeric = _check(lines, seeds or {})
    xs: list[X] = list(dict.fromkeys(x for points in lines.values() for x in points))
    known: dict[str, float] = {
        f"{label}: {minus(format(value, number))}": value
        for label, value in (references or {}).items()
    }
    width = round(
        max(NARROWEST, min(WIDEST, MARGIN - CHARACTER_WIDTH * max(map(len, known), default=0)))
    )
    places = {x: float(x) if numeric else float(i) for i, x in enumerate(xs)}
    ends = padded_domain(list(places.values()), 0.09) if numeric else (-0.5, len(xs) - 0.5)
    pixels = width / (ends[1] - ends[0])
    room = min((b - a for a, b in pairwise(sorted(places.values()))), default=ends[1] - ends[0])
    step = min(APART / pixels, 0.8 * room / len(lines))
    marks: list[Row] = [
        _mark(name, x, interval, number)
        | {
            "x": places[x] + step * (i - (len(lines) - 1) / 2),
            "seeds": [{"value": float(value)} for value in (seeds or {}).get(name, {}).get(x, ())],
        }
        for i, (name, points) in enumerate(lines.items())
        for x, interval in points.items()
    ]
    domain = padded_domain([*extent(marks), *known.values()] or [0.0, 1.0])
    columns = max(1, min(len(lines), int(MARGIN // (CHARACTER_WIDTH * max(map(len, lines)) + 30))))
    legend: Row = {
        "title": None,
        "legend": alt.Legend(orient="bottom", symbolOpacity=1, labelLimit=0, columns=columns),
    }
    axis = (
        _number_axis(sorted(places.values()), x_format)
        if numeric
        else name_axis([str(x) for x in xs], width=int(pixels / CHARACTER_WIDTH))
    )
    style: Row = {
        "x": alt.X(
            "x:Q",
            title=x_title,
            axis=axis,
            scale=alt.Scale(domain=list(ends), nice=False, zero=False),
        ),
        "color": alt.Color("line:N", scale=scale(list(lines), COLOURS), **legend),
        "shape": alt.Shape("line:N", scale=scale(list(lines), SHAPES), **legend),
    }
    y = measure(y_title, domain)
    at = alt.Tooltip(
        "at:Q" if numeric else "at:N",
        title=x_title,
        **({"format": x_format} if numeric and x_format else {}),
    )
    return alt.layer(
        chart([{"value": value} for value in known.values()])
        .mark_rule(strokeDash=DASHED, color=GREY)
        .encode(y=y("value")),
        *series(marks, y, style, beside=0.42 * step, tips=[alt.Tooltip("line:N", title=" "), at]),
        *notes(marks, style, height=HEIGHT, gap=LABEL_HEIGHT / pixels),
        *margin_labels(known, domain, width=width, height=HEIGHT),
        width=width,
        height=HEIGHT,
        title=wrapped(title),
        description=title,
    )


def _check(
    lines: Mapping[str, Mapping[X, Interval]], seeds: Mapping[str, Mapping[X, Sequence[float]]]
) -> bool:
    """Whether x is a number."""
    if not lines or not all(lines.values()):
        raise ValueError(
            "nothing to draw: "
            + (f"no estimate in {[n for n in lines if not lines[n]]}" if lines else "no line")
        )
    if len(lines) > len(COLOURS):
        raise ValueError(
            f"{len(lines)} lines, but only {len(COLOURS)} colours that can be told apart"
        )
    xs = [x for points in lines.values() for x in points]
    numeric = all(isinstance(x, Real) and math.isfinite(x) for x in xs)
    if not numeric and not all(isinstance(x, str) for x in xs):
        raise ValueError(f"x must be finite numbers everywhere or strings everywhere, not {xs}")
    for name, points in seeds.items():
        if name not in lines:
            raise ValueError(f"seeds of {name!r}, but the lines are {list(lines)}")
        if unknown := [x for x in points if x not in lines[name]]:
            raise ValueError(
                f"seeds of {name!r} at {unknown}, but that line has estimates at {list(lines[name])}"
            )
    return numeric


def _mark(name: str, x: float | str, interval: Interval, number: str) -> Row:
    return {"line": name, "at": x if isinstance(x, str) else float(x), **estimate(interval, number)}


def _number_axis(xs: Sequence[float], x_format: str) -> alt.Axis:
    """Ticks where there are estimates, if these are few; labels that would touch are left out."""
    label = f"format(datum.value, {json.dumps(x_format or '.10~r')})"  # an axis's own `format` would round 13 to 10
    where = {"values": list(xs)} if len(xs) <= MOST_TICKS else {"tickCount": 6}
    return alt.Axis(grid=False, labelExpr=label, labelOverlap="greedy", labelSeparation=4, **where)


use_theme()
