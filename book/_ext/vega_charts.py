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
from narrow import narrow
from sphinx.util import logging

from w2s_lib.figures.style import MIME, VEGALITE
from w2s_lib.publishing.pages import chart_id

LOG = logging.getLogger(__name__)
WARNS = "console.warn(`The compiled spec uses Vega "
"""vega-embed's word at every chart: Vega-Lite 5 says that it compiles for Vega 5, and vl-convert bundles
Vega 6 with it, which draws the same. It has no option that would silence this alone."""
HEARD = '<p class="visually-hidden" aria-live="polite"></p>'
"""Where `charts.js` says what a slider has changed."""
INSIDE = re.compile(
    r'(?: aria-label="[^"]*")? role="graphics-\w+" aria-roledescription="[^"]*"'
    r'| font-family="[^"]*"| opacity="1"|(?<=fill="#[0-9A-Fa-f]{6}") stroke-width="\d+"'
)
"""Weight alone: what marks say of themselves in a picture that is read as a whole, the font that the
style sheet says, what is so anyhow, how wide the line would be that they do not have."""
PLACE, LONG = re.compile(r' (?:d|transform|[xy][12])="[^"]*"'), re.compile(r"\d+\.\d{2,}")
"""Where a mark is, in pixels, of which a tenth is enough."""


def still(spec, name, text):
    """An SVG drawing, with what it says to a reader who does not see it."""
    svg = INSIDE.sub("", vl_convert.vegalite_to_svg(spec, vl_version=VEGALITE))
    svg = PLACE.sub(lambda place: LONG.sub(lambda x: f"{float(x[0]):.1f}", place[0]), svg)
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
    changes = narrow(spec)
    small = {key: value for key, value in {**spec, **changes}.items() if value is not None}
    # No "<": the words "<!--<script>" in it would hide its end from the page.
    data = json.dumps([spec, changes], sort_keys=True).replace("<", "\\u003c")
    return (
        f'<div class="w2s-chart" data-chart="{name}" data-label="{text}"><div class="w2s-chart-view">'
        f'<div class="w2s-wide">{still(spec, f"c{name}", text)}</div>'
        f'<div class="w2s-narrow">{still(small, f"n{name}", text)}</div></div>'
        f'<script type="application/json">{data}</script>{HEARD if knobs else ""}</div>'
    )


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
