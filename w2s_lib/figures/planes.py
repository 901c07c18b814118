"""Planes under sliders: texts as points with what a student or a probe makes of them, and as areas."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import altair as alt
import numpy as np
from scipy.special import ndtri

from w2s_lib.figures.charts import DASHED, chart, measure, rays, scale
from w2s_lib.figures.style import COLOURS, GREY, RIVAL, STUDENT, SUPERVISOR
from w2s_lib.figures.toys import WIDTH, bare, chosen, line, said, slider, sliders_of, within, words
from w2s_lib.measures.intervals import Interval

HEIGHT, ACROSS, UPWARDS = 225, (-4.0, 4.0), (-3.0, 3.0)
"""Of a plane, where one unit is as long either way."""
N_TEXTS = 320
"""Of `noise_explorer`."""
HIDDEN = 20
"""Numbers of a text that say nothing, beside the two that are drawn."""
CONCEPT = 50.0
"""Degrees from the horizontal: where the concept of `probe_explorer` lies."""
LOUD = 2.0
"""How far its texts scatter across the concept, in standard deviations along it."""


def noise_explorer(cell: Mapping[str, Interval]) -> alt.VConcatChart:
    """Where labels are wrong, and what a student makes of them. Chapter: `book/robustness.md`.

    A text is a vector x, of class y = -1 or 1. Its first number shows the concept, x_1 = y m + noise;
    the second and `HIDDEN` others, not drawn, are noise. Patterned errors are the labels of the
    texts whose second number contradicts their class most; the others are dealt out at random. The
    student takes one step of gradient descent on the logistic loss, so w = mean(label x). On
    endless new texts it is right on Phi(m w_1 / |w|), where the hidden numbers add about
    HIDDEN / (number of texts) to w's square. m is such that true labels give the ceiling.

    Args:
        cell: accuracies of an experiment. "weak", or 0.5 where it is below, is where the slider of
            wrong labels starts, with no pattern; "student" is drawn as a tick; "ceiling", or the
            nearest in [0.51, 0.99], is what the true labels of all texts give.
    """
    weak = within(cell["weak"].value, 0.5, 1)
    ceiling = within(cell["ceiling"].value, 0.51, 0.99)
    z, blur = float(ndtri(ceiling)), HIDDEN / N_TEXTS
    shift = float(np.sqrt((z**2 + np.sqrt(z**4 + 4 * z**2 * blur)) / 2))

    def reads(along: str, across: str) -> str:
        length = f"sqrt({along} * {along} + {across} * {across} + {HIDDEN} / texts)"
        return f"cumulativeNormal({shift} * {along} / {length})"

    sliders = [
        slider("wrong", round(1 - weak, 2), (0, 0.5, 0.01), "labels wrong"),
        slider("patterned", 0, (0, 1, 0.05), "of them, by a pattern"),
        slider("texts", N_TEXTS, (16, N_TEXTS, 16), "texts to learn from"),
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
        student=reads("datum.along", "datum.across"),
        ceiling=reads(f"{shift}", "0"),
        said=words("labels {datum.labels:.1%} right, student {datum.student:.1%}"),
        x="20 * datum.across",
        y="-20 * datum.along",
        x2="-20 * datum.across",
        y2="20 * datum.along",
    )
    x = bare("what shows the concept", ACROSS, alt.X)
    y = bare("what misleads the teacher", UPWARDS)
    colour = alt.condition("datum.right", alt.value(GREY), alt.value(SUPERVISOR))
    plane = alt.layer(
        _dots(labelled).encode(x=x("x"), y=y("y"), color=colour),
        learned.mark_rule(clip=True, color=STUDENT, strokeWidth=3).encode(
            x=x("x"), y=y("y"), x2="x2:Q", y2="y2:Q"
        ),
        said(learned),
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
        chart([{"role": "student", "accuracy": cell["student"].value, "what": "our student"}])
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
        usermeta={"narrow": True},
    ).add_params(*sliders)


def probe_explorer(*, accuracy: float, direction: int = 125) -> alt.VConcatChart:
    """Texts of two classes as points, and a probe that reads them along one direction.

    The classes part along the concept, which lies at `CONCEPT` degrees, and scatter more across it.
    A probe says yes where a point's coordinate along its direction is above zero. The accuracy is
    that of these points, as `accuracy` of their coordinates. Chapter: `book/saliency.md`.

    Args:
        accuracy: of the best probe at first, or the nearest in [0.5, 0.99]; it sets how far apart
            the classes are.
        direction: where the slider of the probe's direction starts, in degrees.
    """
    salience = round(float(ndtri(within(accuracy, 0.5, 0.99))), 2)
    sliders = [
        slider("direction", direction, (0, 180, 5), "direction, degrees"),
        slider("salience", salience, (0, 3, 0.01), "salience"),
    ]
    points = [
        {"truth": y, "along": round(a, 3), "across": round(LOUD * b, 3)}
        for y, a, b, _ in _texts(200)
    ]
    turn, bow = CONCEPT * np.pi / 180, "direction * PI / 180"
    sine, cosine = np.sin(turn).round(6), np.cos(turn).round(6)
    texts = chart(points).transform_calculate(
        at="datum.along + salience * datum.truth",
        x=f"{cosine} * datum.at - {sine} * datum.across",
        y=f"{sine} * datum.at + {cosine} * datum.across",
        read=f"datum.x * cos({bow}) + datum.y * sin({bow})",
        right="datum.read * datum.truth > 0 ? 1 : 0",
        label="datum.truth > 0 ? 'yes' : 'no'",
    )
    counted = texts.transform_aggregate(right="mean(right)").transform_calculate(
        said=words("the probe reads {datum.right:.1%} rightly")
    )
    arrow = chart([{}]).transform_calculate(
        x=f"2.6 * cos({bow})", y=f"2.6 * sin({bow})", x2=f"20 * sin({bow})", y2=f"-20 * cos({bow})"
    )
    arrow = arrow.transform_calculate(zero="0", x1="-datum.x2", y1="-datum.y2")
    x, y = bare("one number of a state", ACROSS, alt.X), bare("another one", UPWARDS)
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
            said(counted),
            width=WIDTH,
            height=HEIGHT,
        ),
        alt.layer(
            texts.mark_tick(thickness=1.5, opacity=0.7, clip=True).encode(
                x=measure("what the probe reads", (-6.0, 6.0), alt.X)("read"),
                y=alt.Y("label:N", title=None, sort=["yes", "no"]),
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


def agreement_explorer(shares: Mapping[str, float]) -> alt.LayerChart:
    """A square cut by who is right: two accuracies leave open which errors are shared.

    Columns: the teacher is right, or wrong; in each, the student right (below) or wrong. Areas are
    shares of the texts, and agreement is that of `agreement`. The third slider goes from as few
    shared errors as the two accuracies allow, at 0, to as many, at 1. Chapter: `book/imitation.md`.

    Args:
        shares: of "both right", "spoiled" by the student, "corrected" and "repeated" by it. The
            sliders start there, to a point, or as near as they reach: accuracies of 0.4 to 0.99.

    Raises:
        ValueError: shares that do not sum to 1.
    """
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"no square for {dict(shares)}")
    supervisor = round(within(shares["both right"] + shares["spoiled"], 0.4, 0.99), 2)
    student = round(within(shares["both right"] + shares["corrected"], 0.4, 0.99), 2)
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
    cells = chart(
        [{"name": name, "column": i // 2, "row": i % 2} for i, name in enumerate(names)]
    ).transform_calculate(
        repeated=repeated,
        left="datum.column ? supervisor : 0",
        right="datum.column ? 1 : supervisor",
        cut="1 - (datum.column ? datum.repeated / (1 - supervisor)"
        " : (1 - student - datum.repeated) / supervisor)",
        bottom="datum.row ? datum.cut : 0",
        top="datum.row ? 1 : datum.cut",
        middle="(datum.top + datum.bottom) / 2",
        text=words("{datum.name} {(datum.right - datum.left) * (datum.top - datum.bottom):.1%}"),
    )
    spoken = chart([{}]).transform_calculate(
        repeated=repeated,
        agreement="supervisor + student - 1 + 2 * datum.repeated",
        share="datum.repeated / (1 - supervisor)",
        said=words("agreement {datum.agreement:.1%}, errors repeated {datum.share:.1%}"),
        bounds=words(
            "agreement can be {abs(supervisor + student - 1):.0%}"
            " to {1 - abs(supervisor - student):.0%}"
        ),
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
        line(spoken, "bounds:N", -8),
        width=side,
        height=side,
        usermeta={"narrow": True},
        padding={"left": 0, "top": 5, "bottom": 5, "right": 20},  # a browser's text may be wider
        description=(
            "A square cut by whether teacher and student are right: agreement and repeated errors "
            "follow from two accuracies and from how many errors are shared, each set by a slider"
        ),
    ).add_params(*sliders)


def misfit_explorer(
    rows: Sequence[Mapping[str, float]], *, start: Mapping[str, float]
) -> alt.LayerChart:
    """Gain over misfit of linear students, computed beforehand for a grid: sliders choose the point.

    The dashed line is gain = misfit, where the theorem puts a student of its class; small dots are
    students of all numbers of features under the other settings. Chapter: `book/foretelling.md`.

    Args:
        rows: a row a point of the grid: `features`, `texts` and `noise`, each evenly spaced, with
            `gain` and `misfit`.
        start: where the three sliders start.
    """
    labels = ("student's features", "texts to learn from", "noise in labels")
    fields = dict(zip(("features", "texts", "noise"), labels, strict=True))
    wide = 1.05 * max(row["misfit"] for row in rows)
    upwards = min(0.0, *(row["gain"] for row in rows)) - 0.05 * wide, wide
    x, y = measure("misfit", (0.0, wide), alt.X), measure("gain", upwards)
    path = chart([{name: round(number, 4) for name, number in row.items()} for row in rows])
    path = path.transform_filter(chosen(["texts", "noise"]))
    here = path.transform_filter(chosen(["features"])).transform_calculate(
        said=words("gain {datum.gain:.3f}, misfit {datum.misfit:.3f}")
    )
    point = here.mark_point(size=130, filled=True, opacity=1, color=STUDENT)
    return alt.layer(
        *rays({"gain = misfit": 1.0}, wide, upwards, x, y),
        path.mark_circle(size=22, color=GREY).encode(x=x("misfit"), y=y("gain")),
        point.encode(x=x("misfit"), y=y("gain"), tooltip=[f"{name}:Q" for name in fields]),
        said(here).add_params(*sliders_of(rows, fields, start)),
        width=WIDTH - 50,
        height=HEIGHT,
        usermeta={"narrow": True},
        description=(
            "A linear student's gain over its misfit; sliders set its features, the texts that it "
            "learns from and the noise in its teacher's labels"
        ),
    )


def _texts(n: int) -> Iterator[tuple[int, float, float, float]]:
    """Class, two standard normal coordinates and a place in a random order, of each of n texts.

    Four at a time: a text of either class, each with its mirror image beside it in the order. So
    any first texts, and any first ones of the order, scatter about as endless texts would. The seed
    is the first under which the concept's direction is the one that reads most.
    """
    rng, m = np.random.default_rng(2), n // 4
    sizes = np.tile(ndtri(0.5 + (np.arange(m) + 0.5) / (2 * m)), (2, 1))
    a, b = (rng.permuted(sizes, axis=1) * rng.choice([-1, 1], (2, m)) for _ in range(2))
    order = rng.permuted(np.tile(np.arange(m), (2, 1)), axis=1)
    for i in range(m):
        for place, (k, side) in enumerate(product((0, 1), (1, -1))):
            at = side * float(a[k, i]), side * float(b[k, i])
            yield 1 - 2 * k, *at, 4 * int(order[k, i]) + place


def _dots(texts: alt.Chart) -> alt.Chart:
    """Texts as points: filled circles are of class yes, crosses of class no."""
    shape = alt.condition("datum.truth > 0", alt.value("circle"), alt.value("cross"))
    return texts.mark_point(size=22, filled=True, opacity=0.9, clip=True).encode(shape=shape)
