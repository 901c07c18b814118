"""Small worlds with sliders that run in the page: each shows one idea of its chapter.

Vega computes what they show. A layer called `said` holds what follows from the sliders: the page
says it to a screen reader when a slider has moved (`book/_static/charts.js`). Drawings are at most
340 pixels wide. Importing this module turns the book's theme on (`w2s_lib.figures.style`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import altair as alt
import numpy as np
from scipy.special import ndtri

from w2s_lib.figures.charts import DASHED, chart, measure, scale
from w2s_lib.figures.sliders import slider
from w2s_lib.figures.style import COLOURS, GREY, RIVAL, STUDENT, SUPERVISOR, use_theme

WIDTH, HEIGHT = 300, 225
ACROSS, UPWARDS = (-4.0, 4.0), (-3.0, 3.0)
"""Of a plane of texts, where one unit is as long either way."""
CONCEPT = 50.0
"""Degrees from the horizontal: where the concept of `probe_explorer` lies."""
LOUD = 2.0
"""How far its texts scatter across the concept, in standard deviations along it."""
N_TEXTS = 300
"""Of `noise_explorer`."""


def noise_explorer(
    *, weak: float, student: float, ceiling: float, patterned: float = 0.0
) -> alt.VConcatChart:
    """Where labels are wrong, and what a student makes of them. Chapter: `book/robustness.md`.

    A text is a point x, of class y = -1 or 1, on a plane: its first coordinate shows the concept,
    x_1 = y m + noise, and the second is noise. Patterned errors are the labels of the texts whose
    second coordinate contradicts their class most; the others are dealt out at random. The student
    takes one step of gradient descent on the logistic loss, w = mean(label x), and its accuracy is
    that on endless new texts, Phi(m w_1 / |w|). With true labels it is Phi(m).

    Args:
        weak: accuracy of the published supervisor, in [0.55, 1]: where its slider starts.
        student: accuracy of the published student, drawn as a tick.
        ceiling: accuracy of the published ceiling, which sets m.
        patterned: which share of the errors follows the pattern at first.
    """
    shift = float(ndtri(ceiling))
    sliders = [
        slider("wrong", round(1 - weak, 2), (0, 0.45, 0.01), "labels wrong"),
        slider("patterned", patterned, (0, 1, 0.05), "of them, by a pattern"),
        slider("texts", N_TEXTS, (10, N_TEXTS, 10), "texts to learn from"),
    ]
    points = [
        {"x": round(y * shift + a, 3), "y": round(b, 3), "truth": y, "luck": luck, "i": i}
        for i, (y, a, b, luck) in enumerate(_texts(N_TEXTS))
    ]
    labelled = (
        chart(points)
        .transform_filter("datum.i < texts")
        .transform_calculate(fits="datum.truth * datum.y")
        .transform_window(rank="row_number()", sort=[alt.SortField("fits")])
        .transform_calculate(
            turn="datum.rank <= round(texts * wrong * patterned) ? -1 : datum.luck"
        )
        .transform_window(place="row_number()", sort=[alt.SortField("turn")])
        .transform_calculate(right="datum.place > round(texts * wrong) ? 1 : 0")
        .transform_calculate(label="datum.truth * (2 * datum.right - 1)")
        .transform_calculate(by_x="datum.label * datum.x", by_y="datum.label * datum.y")
    )
    learned = labelled.transform_aggregate(
        labels="mean(right)", along="mean(by_x)", across="mean(by_y)"
    ).transform_calculate(
        student=f"cumulativeNormal({shift} * datum.along / sqrt(datum.along * datum.along"
        " + datum.across * datum.across))",
        said="'labels ' + format(datum.labels, '.1%') + ' right, student '"
        " + format(datum.student, '.1%')",
        ceiling=f"{ceiling}",
        x="20 * datum.across",
        y="-20 * datum.along",
        x2="-20 * datum.across",
        y2="20 * datum.along",
    )
    x = _bare("what shows the concept", ACROSS, alt.X)
    y = _bare("what misleads the teacher", UPWARDS)
    colour = alt.condition("datum.right", alt.value(GREY), alt.value(SUPERVISOR))
    plane = alt.layer(
        _dots(labelled).encode(x=x("x"), y=y("y"), color=colour),
        learned.mark_rule(clip=True, color=STUDENT, strokeWidth=3).encode(
            x=x("x"), y=y("y"), x2="x2:Q", y2="y2:Q"
        ),
        _said(learned),
        width=WIDTH,
        height=HEIGHT,
    )
    roles = {"labels": "labels", "student": "student", "ceiling": "taught the truth"}
    rows = learned.transform_fold([*roles], as_=["role", "accuracy"]).transform_calculate(
        name=f"{roles}[datum.role]"
    )
    at = measure("accuracy", (0.4, 1.0), alt.X)("accuracy")
    at = at.scale(range=[110, WIDTH - 46], domain=[0.4, 1.0], clamp=True)
    of = alt.Y("role:N", axis=None, sort=[*roles])
    colours = scale([*roles], (SUPERVISOR, STUDENT, GREY))
    below = alt.layer(
        rows.mark_text(align="left").encode(x=alt.value(0), y=of, text="name:N"),
        rows.mark_point(size=90, filled=True, opacity=1).encode(
            x=at, y=of, color=alt.Color("role:N", scale=colours, legend=None)
        ),
        rows.mark_text(align="right").encode(
            x=alt.value(WIDTH), y=of, text=alt.Text("accuracy:Q", format=".1%")
        ),
        chart([{"role": "student", "accuracy": student, "what": "our student"}])
        .mark_tick(color=GREY, thickness=3, size=22)
        .encode(x=at, y=of, tooltip=["what:N", alt.Tooltip("accuracy:Q", format=".1%")]),
        width=WIDTH,
        height=75,
    )
    return alt.vconcat(
        plane,
        below,
        description=(
            "Texts on a plane, those with wrong labels marked, and the line that a student learns; "
            "sliders set how many labels are wrong, how many of these by a pattern, and the number "
            "of texts"
        ),
    ).add_params(*sliders)


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
            [here.mark_rule(color=SUPERVISOR, strokeWidth=2).encode(y=p("label")), _said(here)],
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


def agreement_explorer(*, supervisor: float, student: float, repeats: float) -> alt.LayerChart:
    """A square cut by who is right: two accuracies leave open which errors are shared.

    Columns: the supervisor is right, or wrong; in each, the student right (below) or wrong. Areas
    are shares of the texts, and agreement is that of `agreement`. Chapter: `book/imitation.md`.

    Args:
        supervisor: where the slider of its accuracy starts, in [0.5, 0.99].
        student: the same of the student's.
        repeats: the share of the supervisor's errors that the student repeats. It sets where the
            slider of shared errors starts, between none and all that both accuracies allow.

    Raises:
        ValueError: so good a student cannot repeat so many errors.
    """
    if repeats * (1 - supervisor) > 1 - student:
        raise ValueError(
            f"a student that is right on {student} of the texts cannot repeat {repeats} of the "
            f"errors of a supervisor that is right on {supervisor}"
        )
    supervisor, student = round(supervisor, 2), round(student, 2)
    shared = min(1.0, repeats * (1 - supervisor) / min(1 - supervisor, 1 - student))
    sliders = [
        slider("supervisor", supervisor, (0.5, 0.99, 0.01), "teacher right"),
        slider("student", student, (0.5, 0.99, 0.01), "student right"),
        slider("shared", round(shared, 2), (0, 1, 0.01), "errors shared"),
    ]
    side = 210
    x = _bare("teacher: right on the left, else wrong", (0.0, 1.0), alt.X)
    y = _bare("student: right below, else wrong", (0.0, 1.0))
    shares = chart([{}]).transform_calculate(repeated="shared * min(1 - supervisor, 1 - student)")
    names = ["both right", "spoiled", "corrected", "repeated"]
    colour = scale(names, (GREY, COLOURS[2], STUDENT, SUPERVISOR))
    cells = (
        chart([{"name": name, "column": i // 2, "row": i % 2} for i, name in enumerate(names)])
        .transform_calculate(repeated="shared * min(1 - supervisor, 1 - student)")
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
    said = shares.transform_calculate(
        said="'agreement ' + format(supervisor + student - 1 + 2 * datum.repeated, '.1%') + ', errors repeated '"
        " + format(datum.repeated / (1 - supervisor), '.1%')",
        bounds="'these accuracies allow an agreement of ' + format(supervisor + student - 1, '.0%')"
        " + ' to ' + format(1 - abs(supervisor - student), '.0%')",
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
        _said(said, -26),
        said.mark_text(align="left", baseline="bottom").encode(
            x=alt.value(0), y=alt.value(-8), text="bounds:N"
        ),
        width=side,
        height=side,
        description=(
            "A square cut by whether teacher and student are right: agreement and repeated errors "
            "follow from two accuracies and from how many errors are shared, each set by a slider"
        ),
    ).add_params(*sliders)


def probe_explorer(*, accuracy: float, direction: int = 140) -> alt.VConcatChart:
    """Texts of two classes as points, and a probe that reads them along one direction.

    The classes part along the concept, which lies at `CONCEPT` degrees, and scatter more across it.
    A probe says yes where a point's coordinate along its direction is above zero. The accuracy is
    that of these points, as `accuracy` of their coordinates. Chapter: `book/saliency.md`.

    Args:
        accuracy: of the best probe at first, in [0.5, 0.99]; it sets how far apart the classes are.
        direction: where the slider of the probe's direction starts, in degrees.
    """
    sliders = [
        slider("direction", direction, (0, 180, 5), "direction, degrees"),
        slider("salience", round(float(ndtri(accuracy)), 2), (0, 2.5, 0.01), "salience"),
    ]
    points = [
        {"truth": y, "along": round(a, 3), "across": round(LOUD * b, 3)}
        for y, a, b, _ in _texts(200)
    ]
    turn, bow = CONCEPT * np.pi / 180, "direction * PI / 180"
    sine, cosine = np.sin(turn).round(6), np.cos(turn).round(6)
    texts = (
        chart(points)
        .transform_calculate(at="datum.along + salience * datum.truth")
        .transform_calculate(
            x=f"{cosine} * datum.at - {sine} * datum.across",
            y=f"{sine} * datum.at + {cosine} * datum.across",
        )
        .transform_calculate(read=f"datum.x * cos({bow}) + datum.y * sin({bow})")
        .transform_calculate(
            right="datum.read * datum.truth > 0 ? 1 : 0", label="datum.truth > 0 ? 'yes' : 'no'"
        )
    )
    counted = texts.transform_aggregate(right="mean(right)").transform_calculate(
        said="'the probe reads ' + format(datum.right, '.1%') + ' rightly'"
    )
    arrow = chart([{}]).transform_calculate(
        x=f"2.6 * cos({bow})", y=f"2.6 * sin({bow})", x2=f"20 * sin({bow})", y2=f"-20 * cos({bow})"
    )
    arrow = arrow.transform_calculate(zero="0", x1="-datum.x2", y1="-datum.y2")
    x, y = _bare("one number of the state", ACROSS, alt.X), _bare("another", UPWARDS)
    colour = alt.condition("datum.right", alt.value(GREY), alt.value(COLOURS[2]))
    border = {"strokeDash": DASHED, "color": RIVAL}
    return alt.vconcat(
        alt.layer(
            _dots(texts).encode(x=x("x"), y=y("y"), color=colour),
            arrow.mark_rule(clip=True, **border).encode(x=x("x1"), y=y("y1"), x2="x2:Q", y2="y2:Q"),
            arrow.mark_rule(color=RIVAL, strokeWidth=4).encode(
                x=x("zero"), y=y("zero"), x2="x:Q", y2="y:Q"
            ),
            arrow.mark_point(color=RIVAL, size=120, filled=True, opacity=1).encode(
                x=x("x"), y=y("y")
            ),
            _said(counted),
            width=WIDTH,
            height=HEIGHT,
        ),
        alt.layer(
            texts.mark_tick(thickness=1.5, opacity=0.7, clip=True).encode(
                x=measure("what the probe reads", (-6.0, 6.0), alt.X)("read"),
                y=alt.Y("label:N", title="truth", sort=["yes", "no"]),
                color=colour,
            ),
            chart([{"zero": 0}]).mark_rule(**border).encode(x="zero:Q"),
            width=WIDTH,
            height=60,
        ),
        description=(
            "Two classes of texts as points on a plane, and below what a probe reads of each; "
            "sliders turn the probe's direction and set how far the classes are apart"
        ),
    ).add_params(*sliders)


def _texts(n: int) -> Iterator[tuple[int, float, float, float]]:
    """Class, two standard normal coordinates and a number in (0, 1), of each of n texts.

    In each class the numbers are quantiles, shuffled, so that shares come out as they should.
    """
    rng, share = np.random.default_rng(0), (np.arange(n // 2) + 0.5) / (n // 2)
    columns = (ndtri(share), ndtri(share), share)
    yes, no = ([rng.permutation(column) for column in columns] for _ in range(2))
    for rows in zip(zip(*yes, strict=True), zip(*no, strict=True), strict=True):
        for y, (a, b, luck) in zip((1, -1), rows, strict=True):
            yield y, float(a), float(b), float(luck)


def _bare(title: str, ends: tuple[float, float], channel: Any = alt.Y) -> Callable[[str], Any]:
    """`measure` without numbers."""
    of = measure(title, ends, channel)
    return lambda field: of(field).axis(labels=False, ticks=False, grid=False)


def _dots(texts: alt.Chart) -> alt.Chart:
    """Texts as points: filled circles are of class yes, crosses of class no."""
    shape = alt.condition("datum.truth > 0", alt.value("circle"), alt.value("cross"))
    return texts.mark_point(size=22, filled=True, opacity=0.8, clip=True).encode(shape=shape)


def _said(rows: alt.Chart, y: int = -8) -> alt.Chart:
    """The field `said` as a line above the drawing."""
    line = rows.mark_text(align="left", baseline="bottom", fontSize=15)
    line = line.encode(x=alt.value(0), y=alt.value(y), text="said:N")
    return line.properties(name="said")


use_theme()
