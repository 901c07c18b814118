"""The look of every chart in the book, and the output that a chart leaves in a notebook.

The output holds the Vega-Lite spec, which JupyterLab and the page draw live, and a PNG of the same
chart for all else. The background is transparent, and the one grey is legible on white and on dark.
"""

import textwrap
import zlib
from base64 import b64encode
from collections.abc import Collection, Sequence
from struct import pack, unpack
from typing import Any

import altair as alt
import numpy as np
from scipy.optimize import isotonic_regression

from w2s_lib.measures.intervals import minus

VEGALITE = "5.21"
"""Of the versions that JupyterLab 4 draws live (none of 6), the one that vl-convert compiles."""
MIME = "application/vnd.vegalite.v5+json"
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
"""No finer: JupyterLab draws with 5.6 and warns of a spec of a later one."""
GREY = "#767676"  # contrast 4.5:1 on white and 4.1:1 on #121212; no grey has 4.5:1 on both
RULE = "#8c8c8c55"  # see-through, so that it stays faint on either
SUPERVISOR, STUDENT, RIVAL = "#D55E00", "#0072B2", "#009E73"
"""What a colour means on every page; truth and ceiling are grey. Of Okabe & Ito (2008)."""
COLOURS = (STUDENT, RIVAL, "#CC79A7", SUPERVISOR)
"""Of lines that are told apart by nothing else; each has a contrast of 3:1 on white and on dark."""
MEANING = {"supervisor": SUPERVISOR, "student": STUDENT, "ceiling": GREY}
"""Of lines that are called so."""
SHAPES = ("circle", "square", "triangle-up", "diamond")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
LABEL_HEIGHT = 15
"""Pixels from one line of 12-pixel text to the next."""
CHARACTER_WIDTH = 6.6
"""Pixels, about, of a character of 12-pixel text."""
INTERVAL_TIP = alt.Tooltip("interval:N", title="95% interval")
VALUE_TIP = alt.Tooltip("value:Q", format=".3f")


def use_theme() -> None:
    """Makes the book's theme and renderer those of every Altair chart.

    Calling it again changes nothing.
    """
    alt.theme.register("w2s", enable=True)(_theme)
    alt.renderers.register("w2s", _mime_bundle)
    alt.renderers.enable("w2s")


def line_colours(names: Collection[str]) -> dict[str, str]:
    """A colour a line: what its name means, else the next of `COLOURS` that is not taken."""
    free = [colour for colour in COLOURS if colour not in map(MEANING.get, names)]
    return {name: MEANING.get(name) or free.pop(0) for name in names}


def wrapped(title: str, width: int = 78) -> alt.TitleParams:
    """A title on as many lines as it needs."""
    return alt.TitleParams(textwrap.wrap(title, width), anchor="start")


def padded_domain(values: Sequence[float], padding: float = 0.06) -> tuple[float, float]:
    """The range of the values, and a share of it more on either side; of no value, that of 0 to 1."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    more = padding * ((high - low) or 1.0)
    return low - more, high + more


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Places moved as little as can be (least squares) so that neighbours are `gap` apart.

    Their order stays.
    """
    order, room = np.argsort(places, kind="stable"), gap * np.arange(len(places))
    moved = np.empty(len(places))
    moved[order] = room + isotonic_regression(np.asarray(places, float)[order] - room).x
    return [float(place) for place in moved]


def _theme() -> alt.theme.ThemeConfig:
    text: Any = {"labelColor": GREY, "titleColor": GREY, "labelFontSize": 12, "titleFontSize": 12}
    text["titleFontWeight"] = "normal"
    axis = text | {"domainColor": GREY, "tickColor": GREY, "gridColor": RULE, "titlePadding": 8}
    axis |= {"labelSeparation": 4, "labelFlush": False}  # flush, two labels at an end touch
    legend = text | {"labelLimit": 240, "titleLimit": 400, "symbolSize": 80}
    legend |= {"orient": "bottom", "symbolOpacity": 1, "columnPadding": 24}
    title: Any = {"color": GREY, "fontSize": 14, "fontWeight": 600, "anchor": "start", "offset": 14}
    title |= {"subtitleColor": GREY, "subtitleFontSize": 12}
    return {
        "config": {
            "font": FONT,
            "background": "transparent",
            "view": {"stroke": "transparent"},
            "axis": axis,
            "legend": legend,
            "title": title,
            "text": {"color": GREY, "fontSize": 12},
            "range": {"category": list(COLOURS)},
        }
    }


def _mime_bundle(spec: dict[str, Any], **_: Any) -> dict[str, Any]:
    import vl_convert  # only drawing needs it, and only the book's extra installs it

    said = {key: _said(spec[key]) for key in spec.keys() & {"title", "description"}}
    spec = {**spec, **said, "$schema": SCHEMA}
    png = vl_convert.vegalite_to_png(spec, vl_version=VEGALITE, scale=1)
    return {MIME: spec, "image/png": b64encode(deflated(png)).decode()}


def _said(words: Any) -> Any:
    """A title or a description, its numbers with the sign that the chart's own have."""
    if isinstance(words, dict):
        return words | {"text": _said(words["text"])}
    return minus(words) if isinstance(words, str) else [minus(line) for line in words]


def deflated(png: bytes) -> bytes:
    """The same picture in an eighth of the bytes: vl-convert hardly compresses what it draws.

    Few charts have more than 256 colours. Those that have not are stored as a palette and a byte a pixel.
    """
    chunks, at = dict[bytes, bytes](), 8
    while at < len(png):
        (size,), kind = unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        chunks[kind] = chunks.get(kind, b"") + png[at + 8 : at + 8 + size]
        at += 12 + size
    width, height, *form = unpack(">IIBBBBB", chunks[b"IHDR"])
    pixels = zlib.decompress(chunks[b"IDAT"])
    rows = np.frombuffer(pixels, np.uint8).reshape(height, -1)
    if form == [8, 6, 0, 0, 0] and (rows[:, 0] == 1).all():  # RGBA less that of the pixel before
        rgba = rows[:, 1:].reshape(height, width, 4).cumsum(axis=1, dtype=np.uint8)
        colours, places = np.unique(rgba.view(np.uint32).ravel(), return_inverse=True)
        if len(colours) <= 256:
            palette = colours.view(np.uint8).reshape(-1, 4)
            plain = np.pad(places.reshape(height, width), ((0, 0), (1, 0)))
            pixels = plain.astype(np.uint8).tobytes()  # a row begins with 0: bytes as they are
            chunks[b"IHDR"] = pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
            colour = {b"PLTE": palette[:, :3].tobytes(), b"tRNS": palette[:, 3].tobytes()}
            chunks = {b"IHDR": chunks.pop(b"IHDR"), **colour, **chunks}
    chunks[b"IDAT"] = zlib.compress(pixels, 9)
    return png[:8] + b"".join(_chunk(*chunk) for chunk in chunks.items())


def _chunk(kind: bytes, body: bytes) -> bytes:
    return pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body))
