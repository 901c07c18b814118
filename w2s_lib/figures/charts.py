"""The book's charts, and what they are put together from.

Means with 95% intervals, and beside each a dot a seed.

Importing this module turns the book's theme on (`w2s_lib.figures.style`).
"""

import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, TypeVar

import altair as alt

from w2s_lib.figures import style
from w2s_lib.measures.intervals import Interval, minus

Row = dict[str, Any]
X = TypeVar("X", float, str)
DASHED = [6, 4]
HEIGHT, WIDEST, NARROWEST = 270, 440, 240
"""Of the panel of curves, in pixels; long labels in the margin make it narrower."""
MARGIN = 570
"""Pixels for the panel and the labels to its right."""
MARGINAL = "margin"
"""The style of what stands in the margin; a narrow page writes its labels under the title."""
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
) -> alt.LayerChart:
    """Means over x, a line a name, with 95% intervals and a small dot a seed beside its mean.

    The lines stand a little beside one another, so that no bar hides another. An estimate without a
    value breaks its line, and its note is written at the foot of the panel. Nothing is clipped.
    Chapters: bootstrapping, imitation, people, robustness.

    Args:
        lines: name -> x -> estimate, at most four. x is a number everywhere, and then drawn to
            scale, or a string everywhere: categories, in the order in which they first come up.
            Numbers that grow by factors read better as strings.
        title: the finding, in a sentence.
        x_title: what x is.
        y_title: what is measured.
        seeds: name -> x -> a value a seed.
        references: label -> value, drawn as dashed lines that are labelled, with the value, in the
            margin.
        number: format of the measured numbers.

    Raises:
        ValueError: no line, a line without estimates, more than four lines; x of both kinds or not
            finite; seeds of a line or of an x that is not there.
    """
    given = seeds or {}
    numeric = _check(lines, given)
    xs: list[X] = list(dict.fromkeys(x for points in lines.values() for x in points))
    known: dict[str, float] = {
        f"{label}: {minus(format(value, number))}": value
        for label, value in (references or {}).items()
    }
    room = MARGIN - style.CHARACTER_WIDTH * max(map(len, known), default=0)
    width = round(max(NARROWEST, min(WIDEST, room)))
    places = {x: float(x) if numeric else float(i) for i, x in enumerate(xs)}
    sites = sorted(places.values())
    ends = style.padded_domain(sites, 0.09) if numeric else (-0.5, len(xs) - 0.5)
    pixels = width / (ends[1] - ends[0])
    nearest = min((b - a for a, b in pairwise(sites)), default=ends[1] - ends[0])
    step = min(APART / pixels, 0.8 * nearest / len(lines))
    marks: list[Row] = []
    dots: list[Row] = []
    for i, (name, points) in enumerate(lines.items()):
        for x, interval in points.items():
            place = places[x] + step * (i - (len(lines) - 1) / 2)
            mark = {"line": name, "at": x if isinstance(x, str) else float(x), "x": place}
            marks.append(mark | estimate(interval, number))
            dots += [
                mark | {"x": place + 0.42 * step, "value": float(value)}
                for value in given.get(name, {}).get(x, ())
                if not math.isnan(interval.value) and not math.isnan(value)
            ]
    domain = style.padded_domain([*extent(marks + dots), *known.values()])
    labels = int(pixels / style.CHARACTER_WIDTH)
    axis = _number_axis(sites) if numeric else name_axis(list(map(str, xs)), width=labels)
    channels = {"x": measure(x_title, ends, alt.X)("x").axis(axis)}
    channels |= told_apart("line", style.line_colours(lines), style.SHAPES)
    y = measure(y_title, domain)
    at = alt.Tooltip("at:Q" if numeric else "at:N", title=x_title)
    tips = [alt.Tooltip("line:N", title=" "), at]
    rules = chart([{"value": value} for value in known.values()])
    return alt.layer(
        rules.mark_rule(strokeDash=DASHED, color=style.GREY).encode(y=y("value")),
        *series(marks, dots, y, channels, tips),
        *notes(marks, channels, gap=style.LABEL_HEIGHT / pixels),
        *margin_labels(known, domain, width=width),
        width=width,
        height=HEIGHT,
        title=style.wrapped(title),
        description=title,
    )


def scatter(
    points: Sequence[Row],
    colours: Mapping[str, str],
    *,
    title: str,
    x_title: str,
    y_title: str,
    slopes: Mapping[str, float],
) -> alt.LayerChart:
    """A point a run, told apart by kind, and dashed lines through the origin.

    Chapters: foretelling, leaderboard.

    Args:
        points: fields `x` (0 or more), `y`, `kind` and, for the tooltip, `name`.
        colours: kind -> its colour; at most four, each with a shape of its own.
        title: the finding, in a sentence.
        x_title: what x is.
        y_title: what y is.
        slopes: what stands at the end of a line -> its slope.
    """
    wide = style.padded_domain([0.0, *(point["x"] for point in points)])[1]
    low, high = style.padded_domain([0.0, *(point["y"] for point in points)])
    if any(slope < 0 for slope in slopes.values()):
        low -= (high - low) * 1.5 * style.LABEL_HEIGHT / HEIGHT  # a line of text below the marks
    x, y = measure(x_title, (0.0, wide), alt.X), measure(y_title, (low, high))
    shapes = ("square", "triangle-up", "diamond", "circle")  # a circle's path is the longest
    named = {"x": x_title, "y": y_title}
    numbers = [alt.Tooltip(f"{axis}:Q", title=named[axis], format=".3f") for axis in named]
    size = 30 if len(points) > 100 else 50
    marks = chart(points).mark_point(size=size, filled=True, opacity=0.7)
    return alt.layer(
        *rays(slopes, wide, (low, high), x, y),
        marks.encode(
            x=x("x"),
            y=y("y"),
            tooltip=["name:N", "kind:N", *numbers],
            **told_apart("kind", colours, shapes),
        ),
        width=WIDEST,
        height=HEIGHT,
        title=style.wrapped(title),
        description=title,
    )


def rays(
    slopes: Mapping[str, float], wide: float, upwards: tuple[float, float], x: Any, y: Any
) -> list[alt.Chart]:
    """Dashed lines from the origin to the edge of a panel, each with its label.

    The label stands outside the panel, where no mark is: above it or at its right. That of a line
    that ends at a corner, or below where the axis is, stands inside.

    Args:
        slopes: label -> slope.
        wide: where the panel ends on the right.
        upwards: where it ends below and above.
        x: makes the horizontal channel of a field (see `measure`).
        y: the vertical one.
    """
    lines, texts = [], []
    for label, slope in slopes.items():
        end = min(wide, max(edge / slope for edge in upwards)) if slope else wide
        line = chart([{"label": label, "zero": 0.0, "x": end, "y": slope * end}])
        lines.append(line.mark_rule(strokeDash=DASHED, color=style.GREY))
        share, at_top = end / wide, math.isclose(slope * end, upwards[1])
        where: Row = {"baseline": "middle", "dx": 6, "align": "left"}
        if at_top and share > 0.7:
            where = {"baseline": "top", "dy": 4, "dx": -24, "align": "right"}
        elif at_top:
            where = {"baseline": "bottom", "dy": -4, "align": "left" if share < 0.3 else "center"}
        elif share < 1:
            where = {"baseline": "bottom", "dy": -2, "dx": 8 if share < 0.3 else -8}
            where["align"] = "left" if share < 0.3 else "right"
        texts.append(line.mark_text(**where).encode(x=x("x"), y=y("y"), text="label:N"))
    ends = {"x": x("zero"), "y": y("zero"), "x2": "x:Q", "y2": "y:Q"}
    return [*(line.encode(**ends) for line in lines), *texts]


def estimate(interval: Interval, number: str = ".2f") -> Row:
    """The fields `value`, `low`, `high` and, as text, `interval`.

    The numbers or, without them, the note.
    """
    text = format(interval, number)
    return {"value": interval.value, "low": interval.low, "high": interval.high, "interval": text}


def chart(rows: Sequence[Row]) -> alt.Chart:
    """A chart of rows that its spec holds; NaN becomes null."""
    values = [
        {key: None if isinstance(x, float) and math.isnan(x) else x for key, x in row.items()}
        for row in rows
    ]
    return alt.Chart(alt.InlineData(values=values))


def extent(marks: Sequence[Row]) -> list[float]:
    """Every number that marks show: the ends of their intervals, or a value that has none.

    A mark without a value shows none.
    """
    shown = [mark for mark in marks if not math.isnan(mark["value"])]
    return [mark[end if end in mark else "value"] for mark in shown for end in ("low", "high")]


def scale(domain: Sequence[str], values: Sequence[str]) -> alt.Scale:
    """The first of `values` (colours, shapes) for the first name, and so on."""
    return alt.Scale(domain=list(domain), range=list(values[: len(domain)]))


def told_apart(field: str, colours: Mapping[str, str], shapes: Sequence[str]) -> Row:
    """The channels that tell names apart: a colour and a shape each, in one legend.

    The legend has as many names a row as there is room for.
    """
    names = list(colours)
    columns = int(MARGIN // (style.CHARACTER_WIDTH * max(map(len, names)) + 30))
    legend = alt.Legend(title=None, labelLimit=0, columns=max(1, min(len(names), columns)))
    in_colours, in_shapes = scale(names, list(colours.values())), scale(names, shapes)
    return {
        "color": alt.Color(f"{field}:N", scale=in_colours, legend=legend),
        "shape": alt.Shape(f"{field}:N", scale=in_shapes, legend=legend),
    }


def measure(title: str, domain: tuple[float, float], channel: Any = alt.Y) -> Callable[[str], Any]:
    """One quantitative axis for several fields.

    Layers whose titles and scales are equal share it.
    """
    shared = {
        "title": title,
        "scale": alt.Scale(domain=list(domain), nice=False, zero=False),
        "axis": alt.Axis(tickCount=6),
    }
    return lambda field: channel(f"{field}:Q", **shared)


def name_axis(names: Sequence[str], *, width: int = 32, **options: Any) -> alt.Axis:
    """An axis that shows `names[i]` at i, on lines of at most `width` characters."""
    lines = [textwrap.wrap(name, max(width, 1)) or [""] for name in names]
    return alt.Axis(
        values=list(range(len(names))),
        labelExpr=f"{json.dumps(lines)}[datum.value]",
        grid=False,
        labelLimit=0,
        labelLineHeight=style.LABEL_HEIGHT,
        labelOverlap=False,
        ticks=False,
        labelPadding=6,
        **options,
    )


def series(
    marks: Sequence[Row],
    dots: Sequence[Row],
    y: Callable[[str], Any],
    channels: Row,
    tips: Sequence[alt.Tooltip],
) -> list[alt.Chart]:
    """Means joined by a line, with bars, and a dot a seed.

    The line breaks where there is no value.

    Args:
        marks: fields of `estimate`, and those that `channels` encodes.
        dots: the seeds: `value`, and those that `channels` encodes.
        y: makes the vertical channel of a field (see `measure`).
        channels: `x`, `color` and `shape`.
        tips: what a tooltip says before the number.
    """
    shown = [mark for mark in marks if not math.isnan(mark["value"])]
    flat = {key: channels[key] for key in ("x", "color")}
    lines = chart(marks).mark_line(strokeWidth=1.5, opacity=0.7)
    bars = chart(shown).mark_rule(strokeWidth=2)
    small = chart(dots).mark_circle(size=14, opacity=0.65)
    large = chart(shown).mark_point(size=60, filled=True, opacity=1)
    return [
        lines.encode(y=y("value"), **flat),
        bars.encode(y=y("low"), y2="high:Q", **flat),
        small.encode(y=y("value"), tooltip=[*tips, style.VALUE_TIP], **flat),
        large.encode(y=y("value"), tooltip=[*tips, style.INTERVAL_TIP], **channels),
    ]


def notes(marks: Sequence[Row], channels: Row, *, gap: float) -> list[alt.Chart]:
    """Where a mark has no value, its note, upwards from the panel's foot; notes are `gap` apart."""
    silent = [mark for mark in marks if math.isnan(mark["value"])]
    if not silent:
        return []
    moved = style.spread([mark["x"] for mark in silent], gap)
    noted = chart([{**mark, "x": x} for mark, x in zip(silent, moved, strict=True)])
    hollow = noted.mark_point(size=40, filled=False, opacity=1)
    text = noted.mark_text(angle=270, align="left", dx=15)
    return [
        hollow.encode(y=alt.value(HEIGHT - 7), **channels),
        text.encode(x=channels["x"], y=alt.value(HEIGHT), text="interval:N"),
    ]


def margin_labels(
    labels: Mapping[str, float], domain: tuple[float, float], *, width: int
) -> list[alt.Chart]:
    """Names of horizontal lines at the right edge of a panel, kept apart, each tied to its line."""
    pixels = HEIGHT / (domain[1] - domain[0])
    places = [(domain[1] - value) * pixels for value in labels.values()]
    at, layers = [alt.value(width + more) for more in (0, 9, 12)], []
    apart = style.spread(places, style.LABEL_HEIGHT)
    for label, place, moved in zip(labels, places, apart, strict=True):
        one, y = chart([{"label": label}]), alt.value(moved)
        tie = one.mark_rule(color=style.GREY, opacity=0.6, style=MARGINAL)
        layers.append(tie.encode(x=at[0], x2=at[1], y=alt.value(place), y2=y))
        text = one.mark_text(align="left", style=MARGINAL)
        layers.append(text.encode(x=at[2], y=y, text="label:N"))
    return layers


def _check(
    lines: Mapping[str, Mapping[X, Interval]], seeds: Mapping[str, Mapping[X, Sequence[float]]]
) -> bool:
    """Whether x is a number."""
    if not lines or not all(lines.values()):
        raise ValueError(f"nothing to draw: no line, or one without an estimate, in {[*lines]}")
    if len(lines) > len(style.COLOURS):
        raise ValueError(f"{len(lines)} lines, but only {len(style.COLOURS)} colours for them")
    xs = [x for points in lines.values() for x in points]
    numeric = all(isinstance(x, Real) and math.isfinite(x) for x in xs)
    if not numeric and not all(isinstance(x, str) for x in xs):
        raise ValueError(f"x must be finite numbers everywhere or strings everywhere, not {xs}")
    for name, points in seeds.items():
        if unknown := [x for x in points if x not in lines.get(name, {})]:
            raise ValueError(f"seeds of {name!r} at {unknown}, where the lines have no estimate")
    return numeric


def _number_axis(xs: Sequence[float]) -> alt.Axis:
    """Ticks where there are estimates, if these are few; labels that would touch are left out."""
    label = 'format(datum.value, ".10~r")'  # an axis's own `format` would round 13 to 10
    where = {"values": list(xs)} if len(xs) <= MOST_TICKS else {"tickCount": 6}
    return alt.Axis(grid=False, labelExpr=label, labelOverlap="greedy", labelSeparation=4, **where)


style.use_theme()
