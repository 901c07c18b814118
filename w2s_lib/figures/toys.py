"""Charts with sliders, each for one idea of a chapter: Vega computes what they show, in the page.

A part called `said` holds what follows from the sliders: once one has moved, the page says it to a
screen reader (`book/_static/charts.js`). Drawings are narrow, so that a phone shows them whole.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from string import Formatter
from typing import Any

import altair as alt

from w2s_lib.figures.charts import DASHED, Row, chart, measure, scale
from w2s_lib.figures.rows import ROLE_COLOURS, ROLES
from w2s_lib.figures.style import COLOURS, GREY, RIVAL, SHAPES, STUDENT, SUPERVISOR
from w2s_lib.measures.intervals import NO_GAP

WIDTH = 300
"""Of a panel, in pixels."""


def pgr_calculator(
    *, weak: float = 0.74, student: float = 0.80, ceiling: float = 0.88
) -> alt.LayerChart:
    """Three sliders for three accuracies, and the PGR that follows. Chapter: `book/pgr.md`.

    Args:
        weak: where the slider of the weak supervisor's accuracy starts, in [0.4, 1].
        student: the same of the student's accuracy.
        ceiling: the same of the ceiling's accuracy.
    """
    starts = {"weak": weak, "student": student, "ceiling": ceiling}
    sliders = [slider(key, starts[key], (0.4, 1, 0.01), word) for key, word in ROLES.items()]
    rows = chart([{"key": key, "role": word} for key, word in ROLES.items()]).transform_calculate(
        value="datum.key == 'weak' ? weak : datum.key == 'student' ? student : ceiling",
        start="weak",
    )
    x = measure("accuracy", (0.4, 1.0), alt.X)
    axis = alt.Axis(ticks=False, domain=False, labelPadding=6)
    y = alt.Y("role:N", title=None, sort=list(ROLES.values()), axis=axis)
    colour = alt.Color("role:N", legend=None, scale=ROLE_COLOURS)
    recovered = words("PGR = {(student - weak) / (ceiling - weak):.2f}")
    text = chart([{}]).transform_calculate(
        pgr=f"ceiling <= weak ? '{NO_GAP}' : {recovered}",
        sum=words("({student:.2f} − {weak:.2f}) / ({ceiling:.2f} − {weak:.2f})"),
    )
    return alt.layer(
        rows.transform_filter("datum.key != 'student'")
        .mark_rule(strokeDash=DASHED)
        .encode(x=x("value"), color=colour),
        rows.transform_filter("datum.key != 'weak'")
        .mark_rule(strokeWidth=6, opacity=0.4)
        .encode(x=x("start"), x2="value:Q", y=y, color=colour),
        rows.mark_point(size=110, filled=True, opacity=1).encode(x=x("value"), y=y, color=colour),
        said(text, -30, field="pgr:N", size=22),
        line(text, "sum:N", -10).add_params(*sliders),
        width=380,
        height=120,
        description=(
            "A calculator: three sliders set the accuracies of supervisor, student and ceiling, "
            "and the PGR follows"
        ),
    )


def confidence_explorer(
    predictions: Sequence[float],
    soft_labels: Sequence[float],
    *,
    alpha: float = 0.5,
    threshold: float = 0.5,
) -> alt.LayerChart:
    """The confidence loss of a few texts, under sliders for alpha and the threshold t.

    Chapter: `book/confidence_loss.md`.

    A row a text, in the order given: the student's prediction f, the soft label f_w, the hardened
    prediction I[f > t] and the target (1 - alpha) f_w + alpha I[f > t]; at the right the target and
    the text's cross-entropy. Their mean, in nats, is `confidence_loss` with a fixed threshold.

    Args:
        predictions: the student's P(y = 1), each in (0, 1).
        soft_labels: the supervisor's P(y = 1), each in [0, 1]; as many.
        alpha: where the slider of the student's own weight starts, in [0, 1].
        threshold: where the slider of t starts, in [0.05, 0.95].

    Raises:
        ValueError: not as many of one as of the other.
    """
    fields = {
        "label": "soft label",
        "prediction": "student's prediction",
        "hard": "hardened prediction",
        "target": "target",
    }
    order = [f"text {i}" for i in range(1, len(predictions) + 1)]
    sliders = [
        slider("alpha", alpha, (0, 1, 0.05), "alpha"),
        slider("threshold", threshold, (0.05, 0.95, 0.05), "threshold t"),
    ]
    texts = [
        {"text": text, "prediction": float(p), "label": float(label)}
        for text, p, label in zip(order, predictions, soft_labels, strict=True)
    ]
    rows = chart(texts).transform_calculate(
        hard="datum.prediction > threshold ? 1 : 0",
        target="(1 - alpha) * datum.label + alpha * datum.hard",
        loss="-(datum.target * log(datum.prediction)"
        " + (1 - datum.target) * log(1 - datum.prediction))",
    )
    mean = rows.transform_aggregate(loss="mean(loss)").transform_calculate(
        said=words("loss = {datum.loss:.3f} nats"),
        target=words(
            "target = {1 - alpha:.2f} × label + {alpha:.2f} × [prediction > {threshold:.2f}]"
        ),
    )
    names = list(fields.values())
    x = measure("P(y = 1)", (0.0, 1.0), alt.X)
    axis = alt.Axis(ticks=False, domain=False, labelPadding=14, grid=True)
    y = alt.Y("text:N", title=None, sort=order, axis=axis)
    legend = {"title": None, "legend": alt.Legend(symbolStrokeWidth=2)}
    sizes = alt.Scale(type="ordinal", domain=names, range=[200, 50, 90, 110])
    marks = rows.transform_fold(list(fields), as_=["key", "value"]).transform_calculate(
        what=f"{json.dumps(fields)}[datum.key]"
    )
    numbers, heads = list[alt.Chart](), list[alt.Chart]()
    for field, beside in (("target", 50), ("loss", 105)):
        place = alt.value(alt.expr(f"width + {beside}"))
        number = alt.Text(f"{field}:Q", format=".2f")
        numbers.append(rows.mark_text(align="right").encode(x=place, y=y, text=number))
        head = chart([{"head": field}]).mark_text(align="right", baseline="bottom")
        heads.append(head.encode(x=place, y=alt.value(-2), text="head:N"))
    return alt.layer(
        chart([{}])
        .transform_calculate(t="threshold")
        .mark_rule(strokeDash=DASHED, color=GREY)
        .encode(x=x("t")),
        rows.mark_rule(strokeWidth=6, opacity=0.35, color=COLOURS[2]).encode(
            x=x("label"), x2="target:Q", y=y
        ),
        marks.mark_point(filled=False, opacity=1, strokeWidth=2).encode(
            x=x("value"),
            y=y,
            tooltip=["text:N", "what:N", alt.Tooltip("value:Q", format=".2f")],
            color=alt.Color(
                "what:N", scale=scale(names, (SUPERVISOR, STUDENT, RIVAL, COLOURS[2])), **legend
            ),
            shape=alt.Shape("what:N", scale=scale(names, SHAPES), **legend),
            size=alt.Size("what:N", sort=names, scale=sizes, **legend),
        ),
        *numbers,
        *heads,
        said(mean, -44, size=22),
        line(mean, "target:N", -24).add_params(*sliders),
        width=330,
        height=30 * len(order),
        description=(
            "The confidence loss of a few texts: sliders set alpha and the threshold, "
            "and targets and loss follow"
        ),
    )


def shares_explorer(
    rows: Sequence[Row],
    *,
    sliders: Mapping[str, str],
    start: Mapping[str, float],
    colours: Mapping[str, str],
    x_title: str = "share of repetitions",
) -> alt.LayerChart:
    """Bars of shares, computed beforehand for a grid of settings: sliders choose the point of it.

    Chapters: `book/leaderboard.md`, `book/lessons.md`, `book/people.md`.

    Args:
        rows: a row a bar and point of the grid: the field `bar` (its name), a number for each
            slider, and a share in [0, 1] for each of `colours`, which sum to 1.
        sliders: field -> what stands beside its slider. The values of a field are evenly spaced.
        start: field -> where its slider starts.
        colours: what a share is of -> its colour, from left to right.
        x_title: what all shares are of.

    Raises:
        ValueError: a slider starts where there is no row.
    """
    if not any(all(row[field] == start[field] for field in sliders) for row in rows):
        raise ValueError(f"there is no row at {dict(start)}, where the sliders start")
    bound = sliders_of(rows, sliders, start)
    names, bars = list(colours), list(dict.fromkeys(row["bar"] for row in rows))
    shown = (
        chart(rows)
        .transform_filter(chosen(sliders))
        .transform_fold(names, as_=["verdict", "share"])
        .transform_calculate(order=f"indexof({json.dumps(names)}, datum.verdict)")
    )
    x = alt.X(
        "share:Q",
        title=x_title,
        stack="zero",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", grid=False, tickCount=5),
    )
    axis = alt.Axis(ticks=False, domain=False, labelPadding=6, labelLimit=0)
    y = alt.Y("bar:N", title=None, sort=bars, axis=axis)
    order = alt.Order("order:Q")
    colour = alt.Color("verdict:N", scale=scale(names, list(colours.values())), title=None)
    at = " + ', ' + ".join(
        f"{json.dumps(label + ' ')} + format({field}, '.10~r')" for field, label in sliders.items()
    )
    return alt.layer(
        shown.transform_calculate(spoken=words("{datum.bar}, {datum.verdict}: {datum.share:.0%}"))
        .mark_bar()
        .encode(
            x=x,
            y=y,
            order=order,
            color=colour,
            tooltip=["bar:N", "verdict:N", alt.Tooltip("share:Q", format=".0%")],
            description="spoken:N",
        )
        .properties(name="said"),
        shown.transform_calculate(said="datum.share < 0.06 ? '' : format(datum.share, '.0%')")
        .mark_text(color="white", fontWeight="bold")
        .encode(
            x=alt.X("share:Q", stack="zero", bandPosition=0.5), y=y, order=order, text="said:N"
        ),
        line(chart([{}]).transform_calculate(said=at), "said:N", -8).add_params(*bound),
        width=380,
        height=50 * len(bars),
        description=(
            f"Shares of {', '.join(names)} for {' and '.join(bars)}; sliders set "
            f"{', '.join(sliders.values())}"
        ),
    )


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
    follows = {
        "p": "1 / (1 + exp(-datum.difference))",
        "loss": "-(soft_label * log(datum.p) + (1 - soft_label) * log(1 - datum.p))",
    }
    differences = alt.Chart(alt.sequence(-6, 6.05, 0.1, as_="difference"))
    curve = differences.transform_calculate(**follows)
    here = chart([{}]).transform_calculate(
        difference="reward_a - reward_b",
        **follows,
        label="soft_label",
        said=words("P(a beats b) = {datum.p:.2f}, loss {datum.loss:.3f}"),
    )
    x = measure("reward of a − reward of b", (-6.0, 6.0), alt.X)("difference")
    p, loss = measure("P(a beats b)", (0.0, 1.0)), measure("loss, in nats", (0.0, 3.0))
    curved = curve.mark_line(color=GREY, clip=True)
    dot = here.mark_point(color=STUDENT, clip=True, size=120, filled=True, opacity=1)
    label = here.mark_rule(color=SUPERVISOR, strokeWidth=2).encode(y=p("label"))

    def panel(y: alt.Y, height: int, *more: alt.Chart) -> alt.LayerChart:
        layers = curved.encode(x=x, y=y), *more, dot.encode(x=x, y=y)
        return alt.layer(*layers, width=WIDTH - 20, height=height)

    return alt.vconcat(
        panel(p("p"), 150, label, said(here)),
        panel(loss("loss"), 90),
        description=(
            "The probability that a beats b over the difference of their rewards, and the loss; "
            "sliders set both rewards and the supervisor's label"
        ),
    ).add_params(*sliders)


def within(value: float, low: float, high: float) -> float:
    """The nearest number in a range: where a slider can start, however an experiment came out."""
    return min(max(low, value), high)


def slider(name: str, value: float, ends: tuple[float, float, float], label: str) -> alt.Parameter:
    """A parameter of a chart, with a slider from, to and by `ends`.

    A number that was single precision is shown as it was meant: 0.9, and not 0.8999999761581421.
    """
    low, high, step = ends
    bound = alt.binding_range(min=low, max=high, step=step, name=label)
    return alt.param(name=name, value=round(value, 6), bind=bound)


def sliders_of(
    rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str], start: Mapping[str, float]
) -> list[alt.Parameter]:
    """A slider for each field of a grid that `labels` names; its values are evenly spaced."""
    sliders = []
    for field, label in labels.items():
        values = sorted({row[field] for row in rows})
        step = min((round(b - a, 6) for a, b in pairwise(values)), default=1)
        sliders.append(slider(field, start[field], (values[0], values[-1], step), label))
    return sliders


def chosen(fields: Iterable[str]) -> str:
    """Whether a row of a grid is where the sliders of these fields are."""
    return " && ".join(f"abs(datum.{field} - {field}) < 1e-6" for field in fields)


def words(template: str) -> str:
    """A text whose fields, such as `{datum.loss:.3f}`, Vega computes in the page."""
    parts = []
    for text, field, form, _ in Formatter().parse(template):
        if text:
            parts.append(repr(text))
        if field:
            parts.append(f"format({field}, '{form}')" if form else field)
    return " + ".join(parts)


def bare(title: str, ends: tuple[float, float], channel: Any = alt.Y) -> Callable[[str], Any]:
    """`measure` without numbers."""
    of = measure(title, ends, channel)
    return lambda field: of(field).axis(labels=False, ticks=False, grid=False)


def line(rows: alt.Chart, field: str, y: int, **style: Any) -> alt.Chart:
    """A field as a line of text, `y` pixels below the drawing's upper edge."""
    text = rows.mark_text(align="left", baseline="bottom", **style)
    return text.encode(x=alt.value(0), y=alt.value(y), text=field)


def said(rows: alt.Chart, y: int = -8, *, field: str = "said:N", size: int = 15) -> alt.Chart:
    """The line that is told to a screen reader."""
    return line(rows, field, y, fontSize=size).properties(name="said")
