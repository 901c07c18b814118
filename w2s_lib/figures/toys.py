"""Small charts with sliders, each for one idea of a chapter, computed by Vega in the page.

A part called `said` holds what follows from the sliders: once one has moved, the page says it to a
screen reader (`book/_static/charts.js`). Drawings are at most 340 pixels wide, so that a phone
shows them whole. Importing this module turns the book's theme on (`w2s_lib.figures.style`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import altair as alt
import numpy as np

from w2s_lib.figures.charts import chart, measure, scale
from w2s_lib.figures.sliders import slider
from w2s_lib.figures.style import COLOURS, GREY, STUDENT, SUPERVISOR, use_theme

WIDTH = 300
"""Of a panel, in pixels."""


def reward_explorer(*, reward_a: float, reward_b: float, soft_label: float) -> alt.VConcatChart:
    """Two rewards, who wins by them, and the loss under a supervisor's label.

    P(a beats b) = sigmoid(r_a - r_b), and its cross-entropy with the soft label, in nats, which is
    `xent_loss` of one pair. Chapter: `book/generative_supervision.md`.

    Args:
        reward_a: where the slider of a's reward starts, in [-3, 3].
        reward_b: the same of b's.
        soft_label: the supervisor's P(a beats b), in [0.05, 0.95].
    """
    sliders = [
        slider("reward_a", reward_a, (-3, 3, 0.1), "reward of a"),
        slider("reward_b", reward_b, (-3, 3, 0.1), "reward of b"),
        slider("soft_label", soft_label, (0.05, 0.95, 0.05), "supervisor's label"),
    ]

    def with_loss(rows: alt.Chart) -> Any:
        return rows.transform_calculate(p="1 / (1 + exp(-datum.difference))").transform_calculate(
            loss="-(soft_label * log(datum.p) + (1 - soft_label) * log(1 - datum.p))"
        )

    curve = with_loss(alt.Chart(alt.sequence(-6, 6.05, 0.1, as_="difference")))
    here = with_loss(chart([{}]).transform_calculate(difference="reward_a - reward_b"))
    here = here.transform_calculate(
        label="soft_label",
        said="'P(a beats b) = ' + format(datum.p, '.2f') + ', loss ' + format(datum.loss, '.3f')",
    )
    x = measure("reward of a − reward of b", (-6.0, 6.0), alt.X)("difference")
    p, loss = measure("P(a beats b)", (0.0, 1.0)), measure("loss, in nats", (0.0, 3.0))
    line, dot = {"color": GREY, "clip": True}, {"size": 120, "filled": True, "opacity": 1}
    panels = [
        (
            p,
            150,
            [here.mark_rule(color=SUPERVISOR, strokeWidth=2).encode(y=p("label")), said(here)],
        ),
        (loss, 90, []),
    ]
    return alt.vconcat(
        *(
            alt.layer(
                curve.mark_line(**line).encode(x=x, y=y(field)),
                *more,
                here.mark_point(color=STUDENT, clip=True, **dot).encode(x=x, y=y(field)),
                width=WIDTH - 20,
                height=height,
            )
            for field, (y, height, more) in zip(("p", "loss"), panels, strict=True)
        ),
        description=(
            "The probability that a beats b over the difference of their rewards, and the loss; "
            "sliders set both rewards and the supervisor's label"
        ),
    ).add_params(*sliders)


def agreement_explorer(shares: Mapping[str, float]) -> alt.LayerChart:
    """A square cut by who is right: two accuracies leave open which errors are shared.

    Columns: the teacher is right, or wrong; in each, the student right (below) or wrong. Areas are
    shares of the texts, and agreement is that of `agreement`. The third slider goes from as few
    shared errors as the two accuracies allow, at 0, to as many, at 1. Chapter: `book/imitation.md`.

    Args:
        shares: of "both right", "spoiled" by the student, "corrected" and "repeated" by it, where
            the sliders start, to a point. Their sum is 1.

    Raises:
        ValueError: shares that do not sum to 1; an accuracy out of [0.4, 0.99].
    """
    supervisor = round(shares["both right"] + shares["spoiled"], 2)
    student = round(shares["both right"] + shares["corrected"], 2)
    if abs(sum(shares.values()) - 1) > 1e-6 or not (
        0.4 <= min(supervisor, student) <= max(supervisor, student) <= 0.99
    ):
        raise ValueError(f"no square for {dict(shares)}")
    few, many = max(0.0, 1 - supervisor - student), min(1 - supervisor, 1 - student)
    shared = np.clip((shares["repeated"] - few) / (many - few), 0, 1)
    sliders = [
        slider("supervisor", supervisor, (0.4, 0.99, 0.01), "teacher right"),
        slider("student", student, (0.4, 0.99, 0.01), "student right"),
        slider("shared", round(float(shared), 2), (0, 1, 0.01), "errors shared"),
    ]
    side = 210
    x = bare("teacher: right on the left, else wrong", (0.0, 1.0), alt.X)
    y = bare("student: right below, else wrong", (0.0, 1.0))
    fewest = "max(0, 1 - supervisor - student)"
    repeated = f"{fewest} + shared * (min(1 - supervisor, 1 - student) - {fewest})"
    names = ["both right", "spoiled", "corrected", "repeated"]
    colour = scale(names, (GREY, COLOURS[2], STUDENT, SUPERVISOR))
    cells = (
        chart([{"name": name, "column": i // 2, "row": i % 2} for i, name in enumerate(names)])
        .transform_calculate(repeated=repeated)
        .transform_calculate(
            left="datum.column ? supervisor : 0",
            right="datum.column ? 1 : supervisor",
            cut="1 - (datum.column ? datum.repeated / (1 - supervisor)"
            " : (1 - student - datum.repeated) / supervisor)",
        )
        .transform_calculate(bottom="datum.row ? datum.cut : 0", top="datum.row ? 1 : datum.cut")
        .transform_calculate(
            middle="(datum.top + datum.bottom) / 2",
            text="datum.name + ' ' + format("
            "(datum.right - datum.left) * (datum.top - datum.bottom), '.1%')",
        )
    )
    spoken = (
        chart([{}])
        .transform_calculate(repeated=repeated)
        .transform_calculate(
            agreement="supervisor + student - 1 + 2 * datum.repeated",
            share="datum.repeated / (1 - supervisor)",
        )
        .transform_calculate(
            said="'agreement ' + format(datum.agreement, '.1%') + ', errors repeated '"
            " + format(datum.share, '.1%')",
            bounds="'agreement can be '"
            " + format(abs(supervisor + student - 1), '.0%') + ' to '"
            " + format(1 - abs(supervisor - student), '.0%')",
        )
    )
    return alt.layer(
        cells.mark_rect(opacity=0.5).encode(
            x=x("left"),
            x2="right:Q",
            y=y("bottom"),
            y2="top:Q",
            color=alt.Color("name:N", scale=colour, legend=None),
            tooltip="text:N",
        ),
        *(
            cells.transform_filter(f"datum.column == {column}")
            .mark_text(align="left")
            .encode(x=alt.value(place), y=y("middle"), text="text:N")
            for column, place in ((0, 8), (1, side + 8))
        ),
        said(spoken, -26),
        spoken.mark_text(align="left", baseline="bottom").encode(
            x=alt.value(0), y=alt.value(-8), text="bounds:N"
        ),
        width=side,
        height=side,
        usermeta={"narrow": True},
        padding={"left": 0, "top": 5, "bottom": 5, "right": 20},  # a browser's text may be wider
        description=(
            "A square cut by whether teacher and student are right: agreement and repeated errors "
            "follow from two accuracies and from how many errors are shared, each set by a slider"
        ),
    ).add_params(*sliders)


def bare(title: str, ends: tuple[float, float], channel: Any = alt.Y) -> Callable[[str], Any]:
    """`measure` without numbers."""
    of = measure(title, ends, channel)
    return lambda field: of(field).axis(labels=False, ticks=False, grid=False)


def said(rows: alt.Chart, y: int = -8) -> alt.Chart:
    """The field `said` as a line above the drawing."""
    line = rows.mark_text(align="left", baseline="bottom", fontSize=15)
    line = line.encode(x=alt.value(0), y=alt.value(y), text="said:N")
    return line.properties(name="said")


use_theme()
