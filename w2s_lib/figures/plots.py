"""The book's figures: charts of records that show every interval and every seed.

Importing this module turns the book's theme on (`w2s_lib.figures.style`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from w2s_lib.figures.marks import (
    DASHED,
    DOTTED,
    Row,
    chart,
    estimate,
    extent,
    margin_labels,
    measure,
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
    levels,
    padded_domain,
    use_theme,
    wrapped,
)
from w2s_lib.measures.intervals import Interval
from w2s_lib.measures.metrics import pgr_table
from w2s_lib.runs.model_names import short_name, split_model

__all__ = ["accuracy_dots", "plot_pgr"]

PANEL: dict[str, Any] = {"width": 200, "height": 270}
LABEL = 17
"""Characters of a label between the panels before they have to make room for it."""
BESIDE = 0.06
"""How far to the right of its mean a seed is drawn, in steps from one depth to the next."""


def plot_pgr(
    runs: pd.DataFrame,
    *,
    title: str,
    baselines: Mapping[str, float] | None = None,
    names: Mapping[str, str] | None = None,
) -> alt.HConcatChart:
    """Test accuracy and PGR against student depth, or size, a line a supervisor, in the manner of Burns et al. 2023, figure 3.

    Large marks with bars are means with 95% intervals over seeds and test rows; the small dots beside them are the
    seeds. Dashed: the ceiling. Dotted, in a supervisor's colour: that supervisor's own accuracy. Where the gap is not
    above 0 with 95% confidence there is no PGR, and the panel says so. Nothing is clipped. Chapter: `book/pgr.md`.

    Args:
        runs: a sweep's tidy frame with one student a supervisor, model and seed (see `pgr_table`).
        title: the finding, in a sentence.
        baselines: accuracies drawn as labelled lines, e.g. `{"zero-shot": 0.71}`.
        names: what to call a supervisor's model; by default its `short_name`.

    Raises:
        ValueError: see `pgr_table`; or more supervisors than colours that can be told apart.
    """
    table = pgr_table(runs)
    weak = dict(
        sorted(zip(table["supervisor"], table["weak"], strict=True), key=lambda pair: pair[1].value)
    )
    if len(weak) > len(COLOURS):
        raise ValueError(
            f"{len(weak)} supervisors, but only {len(COLOURS)} colours that can be told apart"
        )
    named = {model: (names or {}).get(model) or short_name(model) for model in weak}
    rungs = list(table["model"].unique())
    sizes = (
        len({split_model(model)[0] for model in rungs}) > 1 or table["depth"].isna().any()
    )  # not one model, cut
    ticks = [
        short_name(model) if sizes else str(depth)
        for model, depth in dict(table[["model", "depth"]].values).items()
    ]
    tops: dict[str, Row] = {}
    students, shares = [], []
    for cell in table.to_dict("records"):
        beside = 0.16 * (list(weak).index(cell["supervisor"]) - (len(weak) - 1) / 2)
        at = {"x": rungs.index(cell["model"]) + beside, "supervisor": named[cell["supervisor"]]}
        students.append(
            {
                **at,
                **estimate(cell["student"]),
                "seeds": [_seed(seed, a) for seed, a, _ in cell["seeds"]],
            }
        )
        shares.append(
            {
                **at,
                **estimate(cell["pgr"]),
                "seeds": [_seed(seed, share) for seed, _, share in cell["seeds"]],
            }
        )
        own = runs[(runs["role"] == "ceiling") & (runs["model"] == cell["model"])]
        tops[cell["model"]] = {
            "x": rungs.index(cell["model"]),
            **estimate(cell["ceiling"]),
            "seeds": [_seed(*pair) for pair in zip(own["seed"], own["accuracy"], strict=True)],
        }
    lines = [
        {"value": interval.value, "supervisor": named[model]} for model, interval in weak.items()
    ]
    legend: Row = {
        "title": "supervisor (dotted: its own accuracy; dashed: the ceiling)",
        "legend": alt.Legend(orient="bottom", symbolOpacity=1),
    }
    style: Row = {
        "x": alt.X(
            "x:Q",
            axis=name_axis(ticks, title="student" if sizes else "student depth (blocks)"),
            scale=alt.Scale(domain=[-0.5, len(rungs) - 0.5], nice=False),
        ),
        "color": alt.Color("supervisor:N", scale=scale(list(named.values()), COLOURS), **legend),
        "shape": alt.Shape("supervisor:N", scale=scale(list(named.values()), SHAPES), **legend),
    }
    plain = {"x": style["x"], "color": alt.value(GREY), "shape": alt.value("circle")}
    top = list(tops.values())
    known = {**(baselines or {}), **{line["supervisor"]: line["value"] for line in lines}}
    domain = padded_domain([*extent(students + top), *known.values()])
    y = measure("test accuracy", domain)
    labels = {f"{name}: {v:.2f}": v for name, v in known.items()}
    labels["ceiling"] = max(top, key=lambda mark: mark["x"])["value"]
    wider = max(0.0, CHARACTER_WIDTH * (max(map(len, labels)) - LABEL))
    panel = PANEL | {"width": round(max(120, PANEL["width"] - wider / 2))}
    left = alt.layer(
        chart([{"value": v} for v in (baselines or {}).values()])
        .mark_rule(color=GREY, opacity=0.6)
        .encode(y=y("value")),
        chart(lines)
        .mark_rule(strokeDash=DOTTED, strokeWidth=2)
        .encode(y=y("value"), color=style["color"]),
        *series(top, y, plain, beside=BESIDE, strokeDash=DASHED, color=GREY),
        *series(students, y, style, beside=BESIDE, tips=["supervisor:N"]),
        *margin_labels(labels, domain, **panel),
        **panel,
    )
    y = measure("performance gap recovered (PGR)", padded_domain([0.0, 1.0, *extent(shares)]))
    right = alt.layer(
        *(
            chart([{"value": share}])
            .mark_rule(strokeDash=dash, strokeWidth=1.5, color=GREY)
            .encode(y=y("value"))
            for share, dash in ((0.0, DOTTED), (1.0, DASHED))
        ),
        *series(shares, y, style, beside=BESIDE, tips=["supervisor:N"]),
        *notes(
            shares, style, height=panel["height"], gap=LABEL_HEIGHT * len(rungs) / panel["width"]
        ),
        **panel,
    )
    return alt.hconcat(
        left,
        right,
        spacing=30 + wider,
        title=wrapped(title),
        description=title,
        resolve=alt.Resolve(scale={"color": "shared", "shape": "shared"}),
    )


def accuracy_dots(
    intervals: Mapping[str, Interval],
    *,
    title: str,
    x_title: str = "test accuracy",
    seeds: Mapping[str, Sequence[float]] | None = None,
    references: Mapping[str, float] | None = None,
    number: str = ".2f",
) -> alt.LayerChart:
    """A row a name: the estimate, its 95% interval, its seeds. For accuracies, PGR and differences (reference 0).

    Args:
        intervals: name -> estimate, from top to bottom. One without a value shows its note instead.
        title: the finding, in a sentence.
        x_title: what is measured.
        seeds: name -> a value a seed, drawn as small dots.
        references: label -> value, drawn as lines labelled at the top.
        number: format of the numbers at the right.

    Raises:
        ValueError: no interval has a value; `seeds` names a row that is not there.
    """
    order = list(intervals)
    if unknown := set(seeds or {}) - set(order):
        raise ValueError(f"seeds of {sorted(unknown)}, but the rows are {order}")
    marks = [
        {"row": order.index(name), "name": name, **estimate(intervals[name], number)}
        for name in order
    ]
    shown = [mark for mark in marks if not math.isnan(mark["value"])]
    if not shown:
        raise ValueError("no interval has a value: there is nothing to draw")
    dots: list[Row] = [
        {"row": order.index(name) + 0.24, "name": name, "value": float(value)}
        for name, values in (seeds or {}).items()
        for value in values
    ]
    known, width = references or {}, 330
    domain = padded_domain([*extent(shown), *(dot["value"] for dot in dots), *known.values()])
    stacked = levels(known, width / (domain[1] - domain[0]))
    lines: list[Row] = [{"value": value, "label": label} for label, value in known.items()]
    tops = [alt.value(-4 - LABEL_HEIGHT * level) for level in stacked]
    x, blue = measure(x_title, domain, alt.X), alt.value(COLOURS[1])
    y = alt.Y(
        "row:Q",
        axis=None,
        scale=alt.Scale(domain=[-0.5, len(order) - 0.5], reverse=True, nice=False),
    )
    left, right = (
        name_axis(order, title=None),
        name_axis([mark["interval"] for mark in marks], title=None, orient="right", domain=False),
    )
    return alt.layer(
        chart(lines).mark_rule(color=GREY, strokeDash=DASHED).encode(x=x("value")),
        *(
            chart([line]).mark_text(baseline="bottom").encode(x=x("value"), y=top, text="label:N")
            for line, top in zip(lines, tops, strict=True)
        ),
        chart(shown)
        .mark_rule(strokeWidth=2)
        .encode(x=x("low"), x2="high:Q", y=y.axis(left), color=blue),
        chart(dots)
        .mark_circle(size=16, opacity=0.65)
        .encode(
            x=x("value"), y=y, color=blue, tooltip=["name:N", alt.Tooltip("value:Q", format=".3f")]
        ),
        chart(shown)
        .mark_point(size=60, filled=True, opacity=1)
        .encode(x=x("value"), y=y.axis(right), color=blue, tooltip=["name:N", "interval:N"]),
        width=width,
        height=34 * len(order),
        title=wrapped(title),
        description=title,
        resolve=alt.Resolve(axis={"y": "independent"}),
    )


def _seed(seed: int, value: float) -> Row:
    return {"seed": int(seed), "value": float(value)}


use_theme()
