"""Performance gap recovered as a ruler: supervisor, student and ceiling on one line.

Importing this module turns the book's theme on (`w2s_lib.figures.style`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt

from w2s_lib.figures.charts import Row, chart, estimate, extent, measure, name_axis, scale
from w2s_lib.figures.style import GREY, STUDENT, SUPERVISOR, padded_domain, use_theme, wrapped
from w2s_lib.measures.intervals import Interval

ROLES = {"weak": "weak supervisor", "student": "strong student", "ceiling": "strong ceiling"}


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
    order, marks, dots, ticks = list(cells), list[Row](), list[Row](), list[Row]()
    for i, (name, cell) in enumerate(cells.items()):
        start, end = cell["weak"].value, cell["ceiling"].value
        for key, role in ROLES.items():
            of_cell = {"row": i, "cell": name, "key": key, "role": role}
            marks.append(of_cell | {"start": start, "end": end} | estimate(cell[key], ".3f"))
        dots += [{"row": i + 0.27, "value": float(value)} for value in (seeds or {}).get(name, ())]
        ticks += [
            {"row": i, "cell": name, "role": label, "value": value, "interval": f"{value:.3f}"}
            for label, value in (references or {}).get(name, {}).items()
        ]
    domain = padded_domain([*extent(marks), *(row["value"] for row in [*dots, *ticks])])
    x = measure(x_title, domain, alt.X)
    rows = alt.Scale(domain=[-0.5, len(order) - 0.5], reverse=True, nice=False)
    y = alt.Y("row:Q", axis=None, scale=rows)
    shares = [format(cell["pgr"], ".2f") for cell in cells.values()]
    left = y.axis(name_axis(order, title=None, domain=False, width=24))
    right = y.axis(
        name_axis(shares, title="PGR", orient="right", domain=False, titleAngle=0)
        if len(order) == 1
        else name_axis(shares, title="PGR", orient="right", domain=False)
    )
    colour = alt.Color(
        "role:N",
        scale=scale(list(ROLES.values()), (SUPERVISOR, STUDENT, GREY)),
        legend=alt.Legend(title=None, orient="top"),
    )
    tip = ["cell:N", "role:N", alt.Tooltip("interval:N", title="95% interval")]
    every, students = chart(marks), chart([mark for mark in marks if mark["key"] == "student"])
    return alt.layer(
        students.mark_rule(color=GREY, opacity=0.6).encode(x=x("start"), x2="end:Q", y=left),
        students.mark_rule(color=STUDENT, strokeWidth=7, opacity=0.3).encode(
            x=x("start"), x2="value:Q", y=y
        ),
        chart(ticks)
        .mark_tick(color=GREY, thickness=2, size=16)
        .encode(x=x("value"), y=y, tooltip=tip),
        chart(dots)
        .mark_circle(size=14, opacity=0.6, color=STUDENT)
        .encode(x=x("value"), y=y, tooltip=[alt.Tooltip("value:Q", format=".3f")]),
        every.mark_rule(strokeWidth=2).encode(x=x("low"), x2="high:Q", y=y, color=colour),
        every.mark_point(size=90, filled=True, opacity=1).encode(
            x=x("value"), y=right, color=colour, tooltip=tip
        ),
        width=330,
        height=46 * len(order),
        title=wrapped(title),
        description=title,
        resolve=alt.Resolve(axis={"y": "independent"}),
    )


use_theme()
