"""The book's figures: charts of records that show every interval and every seed.

Importing this module turns the book's theme on (`w2s_lib.theme`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from .intervals import NO_GAP, Interval
from .metrics import pgr_table
from .theme import COLOURS, GREY, LABEL_HEIGHT, SHAPES, levels, padded_domain, spread, use_theme, wrapped

__all__ = ["accuracy_dots", "pgr_calculator", "plot_pgr", "use_theme"]

Row = dict[str, Any]
PANEL: dict[str, Any] = {"width": 200, "height": 270}
DASHED, DOTTED = [6, 4], [2, 3]


def plot_pgr(runs: pd.DataFrame, *, title: str, baselines: Mapping[str, float] | None = None,
             names: Mapping[str, str] | None = None) -> alt.HConcatChart:
    """Test accuracy and PGR against student depth, a line a supervisor, in the manner of Burns et al. 2023, figure 3.

    Large marks with bars are means with 95% intervals over seeds and test rows; the small dots beside them are the
    seeds. Dashed: the ceiling. Dotted, in a supervisor's colour: that supervisor's own accuracy. Where the gap is not
    above 0 with 95% confidence there is no PGR, and the panel says so. Nothing is clipped. Chapter: `book/pgr.md`.

    Args:
        runs: a sweep's tidy frame with one student a supervisor, model and seed (see `pgr_table`).
        title: the finding, in a sentence.
        baselines: accuracies drawn as labelled lines, e.g. `{"zero-shot": 0.71}`.
        names: what to call a supervisor's model; by default "depth 4" for `smollm2-135m@4`, "TF-IDF" for `tfidf`.

    Raises:
        ValueError: see `pgr_table`; or more supervisors than colours that can be told apart.
    """
    table = pgr_table(runs)
    weak = dict(sorted(zip(table["supervisor"], table["weak"], strict=True), key=lambda pair: pair[1].value))
    if len(weak) > len(COLOURS):
        raise ValueError(f"{len(weak)} supervisors, but only {len(COLOURS)} colours that can be told apart")
    named = {model: (names or {}).get(model) or _name(model) for model in weak}
    rungs = sorted(set(table["depth"]))
    tops: dict[str, Row] = {}
    students, shares = [], []
    for cell in table.to_dict("records"):
        beside = 0.16 * (list(weak).index(cell["supervisor"]) - (len(weak) - 1) / 2)
        at = {"x": rungs.index(cell["depth"]) + beside, "supervisor": named[cell["supervisor"]]}
        students.append({**at, **_estimate(cell["student"]), "seeds": [(seed, a) for seed, a, _ in cell["seeds"]]})
        shares.append({**at, **_estimate(cell["pgr"]), "seeds": [(seed, share) for seed, _, share in cell["seeds"]]})
        own = runs[(runs["role"] == "ceiling") & (runs["model"] == cell["model"])]
        tops[cell["model"]] = {"x": rungs.index(cell["depth"]), **_estimate(cell["ceiling"]),
                               "seeds": list(zip(own["seed"], own["accuracy"], strict=True))}
    lines = [{"value": interval.value, "supervisor": named[model]} for model, interval in weak.items()]
    legend: Row = {"title": "supervisor (dotted: its own accuracy; dashed: the ceiling)",
                   "legend": alt.Legend(orient="bottom", symbolOpacity=1)}
    style: Row = {
        "x": alt.X("x:Q", axis=_name_axis([str(rung) for rung in rungs], title="student depth (blocks)"),
                   scale=alt.Scale(domain=[-0.5, len(rungs) - 0.5], nice=False)),
        "color": alt.Color("supervisor:N", scale=_scale(named, COLOURS), **legend),
        "shape": alt.Shape("supervisor:N", scale=_scale(named, SHAPES), **legend)}
    plain = {"x": style["x"], "color": alt.value(GREY), "shape": alt.value("circle")}
    top = list(tops.values())
    known = {**(baselines or {}), **{line["supervisor"]: line["value"] for line in lines}}
    domain = padded_domain([*_extent(students + top), *known.values()])
    y = _measure("test accuracy", domain)
    labels = {f"{name}: {v:.2f}": v for name, v in known.items()}
    labels["ceiling"] = max(top, key=lambda mark: mark["x"])["value"]
    left = alt.layer(
        _chart([{"value": v} for v in (baselines or {}).values()])
        .mark_rule(color=GREY, opacity=0.6).encode(y=y("value")),
        _chart(lines).mark_rule(strokeDash=DOTTED, strokeWidth=2).encode(y=y("value"), color=style["color"]),
        *_series(top, y, plain, strokeDash=DASHED, color=GREY), *_series(students, y, style),
        *_margin_labels(labels, domain), **PANEL)
    shown = [mark for mark in shares if not math.isnan(mark["value"])]
    silent = [mark for mark in shares if math.isnan(mark["value"])]
    y = _measure("performance gap recovered (PGR)", padded_domain([0.0, 1.0, *_extent(shown)]))
    right = alt.layer(
        *(_chart([{"value": share}]).mark_rule(strokeDash=dash, strokeWidth=1.5, color=GREY).encode(y=y("value"))
          for share, dash in ((0.0, DOTTED), (1.0, DASHED))),
        *_series(shown, y, style),
        _chart([{**_bare(mark), "value": 0.0} for mark in silent])
        .mark_text(text=NO_GAP, angle=270, align="left", dx=6).encode(x=style["x"], y=y("value")), **PANEL)
    return alt.hconcat(left, right, spacing=10, title=wrapped(title), description=title,
                       resolve=alt.Resolve(scale={"color": "shared", "shape": "shared"}))


def accuracy_dots(intervals: Mapping[str, Interval], *, title: str, x_title: str = "test accuracy",
                  seeds: Mapping[str, Sequence[float]] | None = None, references: Mapping[str, float] | None = None,
                  number: str = ".2f") -> alt.LayerChart:
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
    marks = [{"row": order.index(name), "name": name, **_estimate(intervals[name], number)} for name in order]
    shown = [mark for mark in marks if not math.isnan(mark["value"])]
    if not shown:
        raise ValueError("no interval has a value: there is nothing to draw")
    dots: list[Row] = [{"row": order.index(name) + 0.24, "name": name, "value": float(value)}
            for name, values in (seeds or {}).items() for value in values]
    known, width = references or {}, 330
    domain = padded_domain([*_extent(shown), *(dot["value"] for dot in dots), *known.values()])
    stacked = levels(known, width / (domain[1] - domain[0]))
    lines: list[Row] = [{"value": value, "label": label} for label, value in known.items()]
    tops = [alt.value(-4 - LABEL_HEIGHT * level) for level in stacked]
    x, blue = _measure(x_title, domain, alt.X), alt.value(COLOURS[1])
    y = alt.Y("row:Q", axis=None, scale=alt.Scale(domain=[-0.5, len(order) - 0.5], reverse=True, nice=False))
    left, right = _name_axis(order, title=None), _name_axis(
        [mark["interval"] for mark in marks], title=None, orient="right", domain=False)
    return alt.layer(
        _chart(lines).mark_rule(color=GREY, strokeDash=DASHED).encode(x=x("value")),
        *(_chart([line]).mark_text(baseline="bottom").encode(x=x("value"), y=top, text="label:N")
          for line, top in zip(lines, tops, strict=True)),
        _chart(shown).mark_rule(strokeWidth=2).encode(x=x("low"), x2="high:Q", y=y.axis(left), color=blue),
        _chart(dots).mark_circle(size=16, opacity=0.65).encode(
            x=x("value"), y=y, color=blue, tooltip=["name:N", alt.Tooltip("value:Q", format=".3f")]),
        _chart(shown).mark_point(size=60, filled=True, opacity=1).encode(
            x=x("value"), y=y.axis(right), color=blue, tooltip=["name:N", "interval:N"]),
        width=width, height=34 * len(order), title=wrapped(title), description=title,
        resolve=alt.Resolve(axis={"y": "independent"}))


def pgr_calculator(*, weak: float = 0.74, student: float = 0.80, ceiling: float = 0.88) -> alt.LayerChart:
    """Three sliders for three accuracies, and the PGR that follows: the page computes it, with no Python behind it.

    Args:
        weak: where the slider of the weak supervisor's accuracy starts, in [0.4, 1].
        student: the same of the student's accuracy.
        ceiling: the same of the ceiling's accuracy.
    """
    words = {"weak": "weak supervisor", "student": "strong student", "ceiling": "strong ceiling"}
    starts = {"weak": weak, "student": student, "ceiling": ceiling}
    sliders = [alt.param(name=key, value=starts[key], bind=alt.binding_range(min=0.4, max=1, step=0.01, name=word))
               for key, word in words.items()]
    rows = _chart([{"key": key, "role": word} for key, word in words.items()]).transform_calculate(
        value="datum.key == 'weak' ? weak : datum.key == 'student' ? student : ceiling", start="weak")
    x = _measure("accuracy", (0.4, 1.0), alt.X)
    y = alt.Y("role:N", title=None, sort=list(words.values()), axis=alt.Axis(ticks=False, domain=False, labelPadding=6))
    colour = alt.Color("role:N", legend=None, scale=_scale(words, (COLOURS[0], COLOURS[1], GREY)))
    text = _chart([{}]).transform_calculate(
        pgr=f"ceiling <= weak ? '{NO_GAP}' : 'PGR = ' + format((student - weak) / (ceiling - weak), '.2f')",
        sum="'(' + format(student, '.2f') + ' − ' + format(weak, '.2f') + ') / ('"
            " + format(ceiling, '.2f') + ' − ' + format(weak, '.2f') + ')'")
    return alt.layer(
        rows.transform_filter("datum.key != 'student'").mark_rule(strokeDash=DASHED).encode(
            x=x("value"), color=colour),
        rows.transform_filter("datum.key != 'weak'").mark_rule(strokeWidth=6, opacity=0.4).encode(
            x=x("start"), x2="value:Q", y=y, color=colour),
        rows.mark_point(size=110, filled=True, opacity=1).encode(x=x("value"), y=y, color=colour),
        text.mark_text(align="left", baseline="bottom", fontSize=22).encode(
            x=alt.value(0), y=alt.value(-30), text="pgr:N"),
        text.mark_text(align="left", baseline="bottom").add_params(*sliders).encode(
            x=alt.value(0), y=alt.value(-10), text="sum:N"),
        width=380, height=120, description=(
            "A calculator: three sliders set the accuracies of supervisor, student and ceiling, and the PGR follows"))


def _name(model: str) -> str:
    depth = model.partition("@")[2]
    return f"depth {depth}" if depth else {"tfidf": "TF-IDF"}.get(model, model)


def _estimate(interval: Interval, number: str = ".2f") -> Row:
    text = format(interval, number).replace("-", "−")
    return {"value": interval.value, "low": interval.low, "high": interval.high, "interval": text}


def _bare(mark: Row) -> Row:
    return {key: value for key, value in mark.items() if key != "seeds"}


def _chart(rows: Sequence[Row]) -> alt.Chart:
    values = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
    return alt.Chart(alt.InlineData(values=values))


def _extent(marks: Sequence[Row]) -> Iterator[float]:
    for mark in marks:
        yield from (mark["low"], mark["high"], *(value for _, value in mark.get("seeds", []) if not math.isnan(value)))


def _scale(domain: Mapping[str, str], values: Sequence[str]) -> alt.Scale:
    return alt.Scale(domain=list(domain.values()), range=list(values[: len(domain)]))


def _measure(title: str, domain: tuple[float, float], channel: Any = alt.Y) -> Callable[[str], Any]:
    """One quantitative axis for several fields: layers whose titles and scales are equal share it."""
    scale = alt.Scale(domain=list(domain), nice=False, zero=False)
    return lambda field: channel(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(tickCount=6))


def _name_axis(names: Sequence[str], **style: Any) -> alt.Axis:
    return alt.Axis(values=list(range(len(names))), labelExpr=f"{json.dumps(list(names))}[datum.value]", grid=False,
                    labelLimit=200, labelOverlap=False, ticks=False, labelPadding=6, **style)


def _series(marks: Sequence[Row], y: Callable[[str], Any], style: Row, **line: Any) -> list[alt.Chart]:
    """Means joined by a line, with bars; beside each mean, a dot a seed."""
    dots = [{**_bare(mark), "x": mark["x"] + 0.06, "value": float(value), "seed": int(seed)}
            for mark in marks for seed, value in mark["seeds"] if not math.isnan(value)]
    chart, flat = _chart([_bare(mark) for mark in marks]), {key: style[key] for key in ("x", "color")}
    tips: list[Any] = ["supervisor:N"] if marks and "supervisor" in marks[0] else []
    tips += [alt.Tooltip("interval:N", title="95% interval")]
    return [chart.mark_line(strokeWidth=1.5, opacity=0.7, **line).encode(y=y("value"), **flat),
            chart.mark_rule(strokeWidth=2).encode(y=y("low"), y2="high:Q", **flat),
            _chart(dots).mark_circle(size=14, opacity=0.65).encode(
                y=y("value"), tooltip=["seed:N", alt.Tooltip("value:Q", format=".3f")], **flat),
            chart.mark_point(size=60, filled=True, opacity=1).encode(y=y("value"), tooltip=tips, **style)]


def _margin_labels(labels: Mapping[str, float], domain: tuple[float, float]) -> list[alt.Chart]:
    """Names of horizontal lines at the panel's right edge, kept apart, each tied to its line."""
    scale = PANEL["height"] / (domain[1] - domain[0])
    places = [(domain[1] - value) * scale for value in labels.values()]
    layers = []
    for label, place, moved in zip(labels, places, spread(places, LABEL_HEIGHT), strict=True):
        one, edge = _chart([{"label": label}]), PANEL["width"]
        layers += [one.mark_rule(color=GREY, opacity=0.6).encode(
                       x=alt.value(edge), x2=alt.value(edge + 9), y=alt.value(place), y2=alt.value(moved)),
                   one.mark_text(align="left").encode(x=alt.value(edge + 12), y=alt.value(moved), text="label:N")]
    return layers


use_theme()
