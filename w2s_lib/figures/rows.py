"""Charts in rows, a name at the left and a number at the right: dots, bars, PGR as a ruler."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import altair as alt

from w2s_lib.figures import style
from w2s_lib.figures.charts import DASHED, Row, chart, estimate, extent, measure, name_axis, scale
from w2s_lib.figures.style import INTERVAL_TIP, VALUE_TIP
from w2s_lib.measures.intervals import Interval, minus

Who: TypeAlias = Literal["supervisor", "student", "ceiling", "rival"]
WHO = style.MEANING | {"rival": style.RIVAL}
"""The colour of each; "ceiling" is also the ground truth's."""
ROLES = {"weak": "weak supervisor", "student": "strong student", "ceiling": "strong ceiling"}
ROLE_COLOURS = scale(list(ROLES.values()), list(style.MEANING.values()))


def in_rows(
    layers: Sequence[alt.Chart],
    names: Sequence[str],
    texts: Sequence[str],
    *,
    step: int,
    title: str,
    behind: Sequence[alt.Chart] = (),
) -> alt.LayerChart:
    """Marks in rows, each with its name at the left and a text at the right.

    The page of a narrow screen writes both above the row.

    Args:
        layers: two at least, whose data have the field `row`: 0 for the first name, and so on.
        names: of the rows, from top to bottom.
        texts: what stands at the right of each.
        step: pixels from one row to the next.
        title: the finding, in a sentence.
        behind: layers of all rows together.
    """
    scale = alt.Scale(domain=[-0.5, len(names) - 0.5], reverse=True, nice=False)
    bare: Row = {"title": None, "domain": False}
    left, right = name_axis(names, width=28, **bare), name_axis(texts, orient="right", **bare)
    return alt.layer(
        *behind,
        *(
            layer.encode(y=alt.Y("row:Q", axis={0: left, 1: right}.get(i), scale=scale))
            for i, layer in enumerate(layers)
        ),
        width=330,
        height=step * len(names),
        title=style.wrapped(title),
        description=title,
        resolve=alt.Resolve(axis={"y": "independent"}),
    )


def _estimates(
    rows: alt.Chart, x: Callable[[str], Any], colour: Any, tip: Sequence[Any], *, size: int
) -> list[alt.Chart]:
    """Each row's interval, and its point."""
    point = rows.mark_point(size=size, filled=True, opacity=1)
    return [
        rows.mark_rule(strokeWidth=2).encode(x=x("low"), x2="high:Q", color=colour),
        point.encode(x=x("value"), color=colour, tooltip=tip),
    ]


def accuracy_dots(
    intervals: Mapping[str, Interval],
    *,
    title: str,
    x_title: str = "test accuracy",
    seeds: Mapping[str, Sequence[float]] | None = None,
    references: Mapping[str, float] | None = None,
    number: str = ".2f",
) -> alt.LayerChart:
    """A row a name: the estimate, its 95% interval, its seeds.

    For accuracies, PGR and differences (reference 0).

    Args:
        intervals: name -> estimate, from top to bottom. One without a value shows its note instead.
        title: the finding, in a sentence.
        x_title: what is measured.
        seeds: name -> a value a seed, drawn as small dots.
        references: label -> value, drawn as lines labelled at the top.
        number: format of the numbers at the right.

    Raises:
        ValueError: `seeds` names a row that is not there.
    """
    order, known = list(intervals), references or {}
    marks = [
        {"row": i, "name": name, **estimate(intervals[name], number)}
        for i, name in enumerate(order)
    ]
    dots: list[Row] = [
        {"row": order.index(name) + 0.24, "name": name, "value": float(value)}
        for name, values in (seeds or {}).items()
        for value in values
    ]
    domain = style.padded_domain([*extent(marks + dots), *known.values()])
    x, blue, every = measure(x_title, domain, alt.X), alt.value(style.STUDENT), chart(marks)
    behind: list[alt.Chart] = []
    for i, (label, value) in enumerate(known.items()):
        at = chart([{"value": value, "label": label}]).encode(x=x("value"))
        behind.append(at.mark_rule(color=style.GREY, strokeDash=DASHED))
        above = alt.value(-4 - style.LABEL_HEIGHT * i)
        share = (value - domain[0]) / (domain[1] - domain[0])  # a label near an end keeps inside
        align = "left" if share < 0.3 else "right" if share > 0.7 else "center"
        behind.append(at.mark_text(baseline="bottom", align=align).encode(y=above, text="label:N"))
    rule, point = _estimates(every, x, blue, ["name:N", INTERVAL_TIP], size=60)
    small = chart(dots).mark_circle(size=16, opacity=0.65)
    seen = small.encode(x=x("value"), color=blue, tooltip=["name:N", VALUE_TIP])
    texts = [mark["interval"] for mark in marks]
    return in_rows([rule, seen, point], order, texts, step=34, title=title, behind=behind)


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
    ends = style.padded_domain([start, *extent(marks + others)])
    x = measure(x_title, (start, ends[1]), alt.X)
    shown = [minus(format(interval.value, number)) for interval in intervals.values()]
    colour, every = alt.Color("colour:N", scale=None), chart(marks)
    tip_of_tick = ["name:N", "what:N", alt.Tooltip("value:Q", format=number)]
    layers = [
        every.mark_bar(size=20, opacity=0.4).encode(
            x=x("start"), x2="value:Q", color=colour, tooltip=["name:N", INTERVAL_TIP]
        ),
        *_estimates(every, x, colour, ["name:N", INTERVAL_TIP], size=50),
        chart(others)
        .mark_tick(color=style.GREY, thickness=3, size=24)
        .encode(x=x("value"), tooltip=tip_of_tick),
    ]
    return in_rows(layers, order, shown, step=38, title=title)


def pgr_ruler(
    cells: Mapping[str, Mapping[str, Interval]],
    *,
    title: str,
    seeds: Mapping[str, Sequence[float]] | None = None,
    references: Mapping[str, Mapping[str, float]] | None = None,
    x_title: str = "test accuracy",
) -> alt.LayerChart:
    """A row a cell: how far the student has come from its supervisor towards the ceiling.

    The thin line is the gap, the thick one what the student recovers of it; the bar through the
    student is its 95% interval, a small dot is one seed. At the right stands PGR. Chapter: PGR.

    Args:
        cells: name -> "weak", "student", "ceiling" and "pgr".
        title: the finding, in a sentence.
        seeds: name -> the student's value a seed.
        references: name -> label -> value of another model in that row, drawn as a tick.
        x_title: what is measured.
    """
    marks, reach, dots, ticks = list[Row](), list[Row](), list[Row](), list[Row]()
    for i, (name, cell) in enumerate(cells.items()):
        ends = {key: cell[key].value for key in ROLES}
        row: Row = {"row": i, "cell": name}
        reach.append({**row, "role": "PGR", **ends, **estimate(cell["pgr"])})
        for key, role in ROLES.items():
            marks.append({**row, "role": role, **estimate(cell[key], ".3f")})
        for value in (seeds or {}).get(name, ()):
            dots.append({**row, "row": i + 0.27, "value": float(value)})
        for label, value in (references or {}).get(name, {}).items():
            ticks.append({**row, "role": label, "value": value})
    domain = style.padded_domain(extent(marks + dots + ticks))
    x = measure(x_title, domain, alt.X)
    above = alt.Legend(title=None, orient="top")
    colour = alt.Color("role:N", scale=ROLE_COLOURS, legend=above)
    tip = ["cell:N", "role:N", INTERVAL_TIP]
    gaps, every = chart(reach), chart(marks)
    layers = [
        gaps.mark_rule(color=style.GREY, opacity=0.6).encode(x=x("weak"), x2="ceiling:Q"),
        gaps.mark_rule(color=style.STUDENT, strokeWidth=7, opacity=0.3).encode(
            x=x("weak"), x2="student:Q", tooltip=tip
        ),
        chart(ticks)
        .mark_tick(color=style.GREY, thickness=2, size=16)
        .encode(x=x("value"), tooltip=["cell:N", "role:N", VALUE_TIP]),
        chart(dots)
        .mark_circle(size=14, opacity=0.6, color=style.STUDENT)
        .encode(x=x("value"), tooltip=["cell:N", VALUE_TIP]),
        *_estimates(every, x, colour, tip, size=90),
    ]
    texts = ["PGR " * (row["value"] == row["value"]) + row["interval"] for row in reach]
    return in_rows(layers, list(cells), texts, step=46, title=title)
