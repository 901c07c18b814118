"""Performance gap recovered as a ruler: supervisor, student and ceiling on one line.

Importing this module turns the book's theme on (`w2s_lib.figures.style`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt

from w2s_lib.figures.charts import (
    INTERVAL_TIP,
    Row,
    chart,
    estimate,
    extent,
    in_rows,
    measure,
    scale,
)
from w2s_lib.figures.style import GREY, STUDENT, SUPERVISOR, padded_domain, use_theme
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
    marks, reach, dots, ticks = list[Row](), list[Row](), list[Row](), list[Row]()
    for i, (name, cell) in enumerate(cells.items()):
        ends = {key: cell[key].value for key in ROLES}
        reach.append({"row": i, "cell": name, "role": "PGR", **ends, **estimate(cell["pgr"])})
        for key, role in ROLES.items():
            marks.append({"row": i, "cell": name, "role": role, **estimate(cell[key], ".3f")})
        dots += [
            {"row": i + 0.27, "cell": name, "value": float(value)}
            for value in (seeds or {}).get(name, ())
        ]
        ticks += [
            {"row": i, "cell": name, "role": label, "value": value, "interval": f"{value:.3f}"}
            for label, value in (references or {}).get(name, {}).items()
        ]
    domain = padded_domain([*extent(marks), *(row["value"] for row in [*dots, *ticks])])
    x = measure(x_title, domain, alt.X)
    colour = alt.Color(
        "role:N",
        scale=scale(list(ROLES.values()), (SUPERVISOR, STUDENT, GREY)),
        legend=alt.Legend(title=None, orient="top"),
    )
    tip = ["cell:N", "role:N", INTERVAL_TIP]
    gaps, every = chart(reach), chart(marks)
    layers = [
        gaps.mark_rule(color=GREY, opacity=0.6).encode(x=x("weak"), x2="ceiling:Q"),
        gaps.mark_rule(color=STUDENT, strokeWidth=7, opacity=0.3).encode(
            x=x("weak"), x2="student:Q", tooltip=tip
        ),
        chart(ticks).mark_tick(color=GREY, thickness=2, size=16).encode(x=x("value"), tooltip=tip),
        chart(dots)
        .mark_circle(size=14, opacity=0.6, color=STUDENT)
        .encode(x=x("value"), tooltip=["cell:N", alt.Tooltip("value:Q", format=".3f")]),
        every.mark_rule(strokeWidth=2).encode(x=x("low"), x2="high:Q", color=colour),
        every.mark_point(size=90, filled=True, opacity=1).encode(
            x=x("value"), color=colour, tooltip=tip
        ),
    ]
    texts = ["PGR " * (row["value"] == row["value"]) + row["interval"] for row in reach]
    return in_rows(layers, list(cells), texts, step=46, title=title)


use_theme()
