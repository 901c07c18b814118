"""Altair charts in the built pages, with no network.

A chart's output holds its Vega-Lite spec. The page gets it for `charts.js`, which draws the chart
live in the colours of the page's theme, and an SVG drawing of it for a reader without JavaScript;
both for a desk and, as `narrow` makes it, for a phone.
"""

import html
import json
import re
from pathlib import Path

import nbformat
import vl_convert
from chart_data import alternative, parts
from drawing import light
from narrow import changes, narrow
from sphinx.util import logging

from w2s_lib.figures.style import MIME, VEGALITE
from w2s_lib.publishing.pages import chart_id

LOG = logging.getLogger(__name__)
WARNS = "console.warn(`The compiled spec uses Vega "
"""vega-embed's word at every chart: Vega-Lite 5 says that it compiles for Vega 5, and vl-convert bundles
Vega 6 with it, which draws the same. It has no option that would silence this alone."""
HEARD = '<p class="visually-hidden" aria-live="polite"></p>'
"""Where `charts.js` says what a slider has changed."""


def still(spec, name, text):
    """An SVG drawing, with what it says to a reader who does not see it."""
    svg = light(vl_convert.vegalite_to_svg(spec, vl_version=VEGALITE))
    # Ids are unique in a page, not in a drawing: two charts may both hold "clip0".
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg[svg.index("<svg") :])
    return svg.replace("<svg ", f'<svg role="img" aria-label="{text}" ', 1)


def figure(spec):
    """The HTML of one chart."""
    name, text, knobs = chart_id(spec), html.escape(alternative(spec)), spec.get("params", [])
    if any("select" in knob for knob in knobs):
        LOG.warning("A chart is worked with a mouse alone, bind sliders instead: %s", text)
    if knobs and not any(part.get("name", "").startswith("said") for part in parts(spec)):
        LOG.warning("No part of a chart with sliders is called `said`, to be heard: %s", text)
    if not text:
        LOG.warning(
            "A chart has neither a description nor a title; a screen reader has nothing to read."
        )
    small, label = narrow(spec), f'data-chart="{name}" data-label="{text}"'
    drawings = f"<div>{still(spec, f'c{name}', text)}</div>"
    if small != spec:
        drawings = drawings.replace("<div>", '<div class="w2s-wide">', 1)
        drawings += f'<div class="w2s-narrow">{still(small, f"n{name}", text)}</div>'
    # No "<": the words "<!--<script>" in it would hide its end from the page.
    data = json.dumps(
        short([spec, changes(spec, small)]),
        ensure_ascii=False,
        separators=(",", ":"),
        sort_keys=True,
    ).replace("<", "\\u003c")
    return (
        f'<div class="w2s-chart" {label}><div class="w2s-chart-view">{drawings}</div>'
        f'<script type="application/json">{data}</script>{HEARD if knobs else ""}</div>'
    )


def short(node):
    """A spec with numbers of six digits, of which a drawing shows four."""
    if isinstance(node, dict):
        return {key: short(value) for key, value in node.items()}
    if isinstance(node, list):
        return [short(value) for value in node]
    return float(f"{node:.6g}") if isinstance(node, float) else node


def read_notebook(text):
    """An executed notebook with its charts as HTML: myst-nb's reader for `.ipynb`."""
    notebook = nbformat.reads(text, as_version=4)
    for output in (out for cell in notebook.cells for out in cell.get("outputs", [])):
        if MIME in output.get("data", {}):
            output["data"] = nbformat.from_dict({"text/html": figure(output["data"][MIME])})
    return notebook


def bundle():
    """The script. Wrapped, since its top-level names would clash with those of the theme's scripts."""
    script = vl_convert.javascript_bundle(vl_version=VEGALITE)
    if WARNS not in script:
        raise ValueError(f"vega-embed no longer has {WARNS!r}: let it speak again")
    return f"(() => {{\n{script.replace(WARNS, WARNS.replace('console.warn', 'String'))}\n}})();\n"


def write_bundle(app, error):
    """Writes Vega, Vega-Lite and vega-embed beside `charts.js`, which loads them."""
    if error is None and app.builder.format == "html":
        Path(app.outdir, "_static", "vega.js").write_text(bundle(), encoding="utf-8")


def setup(app):
    """Registers the extension."""
    app.connect("build-finished", write_bundle)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
