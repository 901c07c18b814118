"""The figure of the book: test accuracy and PGR of students, a line a supervisor.

Importing this module turns the book's theme on (`w2s_lib.figures.style`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from w2s_lib.figures import charts
from w2s_lib.figures.style import (
    CHARACTER_WIDTH,
    GREY,
    LABEL_HEIGHT,
    SHAPES,
    STUDENTS,
    SUPERVISOR,
    padded_domain,
    wrapped,
)
from w2s_lib.measures.metrics import pgr_table
from w2s_lib.runs.model_names import short_name, split_model

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
    """Test accuracy and PGR of students against their depth, or size.

    In the manner of Burns et al. 2023, figure 3.

    Large marks with bars are means with 95% intervals over seeds and test rows; the small dots
    beside them are the seeds. Blue: students, a shape a supervisor. Orange, dotted: the
    supervisors' own accuracy. Grey,
    dashed: the ceiling. Where the gap is not above 0 with 95% confidence there is no PGR, and the
        panel says
    so. Nothing is clipped. Chapter: `book/pgr.md`.

    Args:
        runs: a sweep's tidy frame with one student a supervisor, model and seed (see `pgr_table`).
        title: the finding, in a sentence.
        baselines: accuracies drawn as labelled lines, e.g. `{"zero-shot": 0.71}`.
        names: what to call a supervisor's model; by default its `short_name`.

    Raises:
        ValueError: see `pgr_table`; or more supervisors than colours that can be told apart.
    """
    table = pgr_table(runs)
    pairs = zip(table["supervisor"], table["weak"], strict=True)
    weak = dict(sorted(pairs, key=lambda pair: pair[1].value))
    if len(weak) > len(STUDENTS):
        raise ValueError(f"{len(weak)} supervisors, but only {len(STUDENTS)} colours to tell apart")
    named = {model: (names or {}).get(model) or short_name(model) for model in weak}
    rungs = list(table["model"].unique())
    # Sizes, unless all are one model, cut.
    sizes = len({split_model(rung)[0] for rung in rungs}) > 1 or table["depth"].isna().any()
    depths = dict(table[["model", "depth"]].values)
    ticks = [short_name(model) if sizes else str(depth) for model, depth in depths.items()]
    students, shares, tops = _marks(runs, table, rungs, named)

    lines = {named[model]: interval.value for model, interval in weak.items()}
    legend = {"title": "student of", "legend": alt.Legend()}
    axis = charts.name_axis(ticks, title="student" if sizes else "student depth (blocks)")
    steps = alt.Scale(domain=[-0.5, len(rungs) - 0.5], nice=False)
    style: charts.Row = {
        "x": alt.X("x:Q", axis=axis, scale=steps),
        "color": alt.Color("supervisor:N", scale=charts.scale(list(lines), STUDENTS), **legend),
        "shape": alt.Shape("supervisor:N", scale=charts.scale(list(lines), SHAPES), **legend),
    }
    plain = {"x": style["x"], "color": alt.value(GREY), "shape": alt.value("circle")}
    known = {**(baselines or {}), **lines}
    labels = {f"{name}: {value:.2f}": value for name, value in known.items()}
    labels["ceiling"] = max(tops, key=lambda mark: mark["x"])["value"]
    wider = max(0.0, CHARACTER_WIDTH * (max(map(len, labels)) - LABEL))
    panel = PANEL | {"width": round(max(120, PANEL["width"] - wider / 2))}
    domain = padded_domain([*charts.extent(students + tops), *known.values()])
    y = charts.measure("test accuracy", domain)
    base = charts.chart([{"value": value} for value in (baselines or {}).values()])
    own = charts.chart([{"value": value, "supervisor": name} for name, value in lines.items()])
    left = alt.layer(
        base.mark_rule(color=GREY, opacity=0.6).encode(y=y("value")),
        own.mark_rule(strokeDash=charts.DOTTED, strokeWidth=2, color=SUPERVISOR).encode(
            y=y("value")
        ),
        *charts.series(tops, y, plain, beside=BESIDE, strokeDash=charts.DASHED, color=GREY),
        *charts.series(students, y, style, beside=BESIDE, tips=["supervisor:N"]),
        *charts.margin_labels(labels, domain, **panel),
        **panel,
    )
    y = charts.measure(
        "performance gap recovered (PGR)", padded_domain([0.0, 1.0, *charts.extent(shares)])
    )
    gap = LABEL_HEIGHT * len(rungs) / panel["width"]
    ends = [
        charts.chart([{"value": share}])
        .mark_rule(strokeDash=dash, strokeWidth=1.5, color=colour)
        .encode(y=y("value"))
        for share, dash, colour in ((0.0, charts.DOTTED, SUPERVISOR), (1.0, charts.DASHED, GREY))
    ]
    right = alt.layer(
        *ends,
        *charts.series(shares, y, style, beside=BESIDE, tips=["supervisor:N"]),
        *charts.notes(shares, style, height=panel["height"], gap=gap),
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


def _marks(
    runs: pd.DataFrame, table: pd.DataFrame, rungs: list[str], named: Mapping[str, str]
) -> tuple[list[charts.Row], list[charts.Row], list[charts.Row]]:
    """What is drawn of students, of their PGR and of the ceilings."""
    students, shares, order = [], [], list(named)
    tops: dict[str, charts.Row] = {}
    for cell in table.to_dict("records"):
        rung = rungs.index(cell["model"])
        beside = 0.16 * (order.index(cell["supervisor"]) - (len(order) - 1) / 2)
        at = {"x": rung + beside, "supervisor": named[cell["supervisor"]]}
        accuracies = [_seed(seed, accuracy) for seed, accuracy, _ in cell["seeds"]]
        recovered = [_seed(seed, share) for seed, _, share in cell["seeds"]]
        students.append({**at, **charts.estimate(cell["student"]), "seeds": accuracies})
        shares.append({**at, **charts.estimate(cell["pgr"]), "seeds": recovered})
        own = runs[(runs["role"] == "ceiling") & (runs["model"] == cell["model"])]
        dots = [_seed(*pair) for pair in zip(own["seed"], own["accuracy"], strict=True)]
        tops[cell["model"]] = {"x": rung, **charts.estimate(cell["ceiling"]), "seeds": dots}
    return students, shares, list(tops.values())


def _seed(seed: int, value: float) -> charts.Row:
    return {"seed": int(seed), "value": float(value)}
