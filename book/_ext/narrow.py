"""A chart for a phone, made of the chart for a desk: as wide as its box, nothing beside its rows.

Names and numbers stand above their rows; panels and legends come one under another.
"""

import copy
import json
import re
import textwrap

WIDTH = 340
"""Pixels of a drawing that no script fits to its box: the text column of a phone 390 wide."""
CHARACTER, LINE = 6.8, 15
"""Pixels of a character and of a line of 12-pixel text."""
NAMES = re.compile(r"(\[.*\])\[datum\.value\]", re.S)
"""The labels of an axis that names its places: `name_axis` of w2s_lib.figures.charts."""
GROUPS = ("concat", "hconcat", "vconcat")
BARE = {"ticks": False, "domain": False, "labelLimit": 0, "labelPadding": 0, "zindex": 1}
ABOVE = BARE | {"labelBaseline": "line-bottom", "labelOffset": -13}
BESIDE = 11, 19
"""Pixels of a row, above and below its middle, that its name leaves free."""
STROKE = {"strokeDash": [4, 3], "strokeWidth": 1.5}
"""Of a rule as short as that."""
BANDS, BAND = {"type": "band", "paddingInner": 0.5, "paddingOuter": 0.4}, 56


def narrow(spec, width=WIDTH):
    """The chart `width` pixels wide. One that says so in its `usermeta` is narrow by itself."""
    if spec.get("usermeta", {}).get("narrow"):
        return spec
    small = copy.deepcopy({key: spec[key] for key in spec if key not in ("datasets", "config")})
    aside, panels = _taken_out(small, "margin", spec), [small]
    small.pop("padding", None)
    for group in set(GROUPS) & set(small):
        panels = small.pop(group)
        small.pop("columns", None)
        small["vconcat"] = panels
    for panel in panels:
        _fit(panel, width if panels == [small] else width - 75, spec.get("datasets", {}))
    _wrap_title(small, width, aside)
    if panels == [small]:
        small["autosize"] = {"type": "fit-x", "contains": "padding"}
    return small | {key: spec[key] for key in ("datasets", "config") if key in spec}


def changes(old, new):
    """What makes one spec of another, for `charts.js`: None where the new one has nothing."""
    if isinstance(old, list) and isinstance(new, list) and len(old) >= len(new):
        old, new = ({"length": len(parts), **_places(parts, len(new))} for parts in (old, new))
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    if any(new[key] is None and old[key] is not None for key in old.keys() & new.keys()):
        raise ValueError(f"None says that nothing is left, so it cannot be new: {new}")
    gone = dict.fromkeys(old.keys() - new.keys())
    kept = {key: part for key, part in new.items() if key not in old or old[key] != part}
    return gone | {
        key: changes(old[key], part) if key in old else part for key, part in kept.items()
    }


def _places(parts, n):
    return {str(i): part for i, part in enumerate(parts[:n])}


def _channels(panel):
    """The channels of a panel and of its layers."""
    for unit in [panel, *panel.get("layer", [])]:
        yield from unit.get("encoding", {}).items()


def _fit(panel, width, datasets):
    """Makes a panel narrow, with its layers."""
    panel["width"] = width
    for name, channel in _channels(panel):
        if not isinstance(channel, dict) or "field" not in channel:
            continue
        if name in ("x", "y"):
            _wrap_axis(panel, name, channel, width, datasets)
        elif name in ("color", "shape", "size"):
            _stack_legend(channel, width)
    _cut_rules(panel)
    _wrap_title(panel, width)


def _wrap_axis(panel, name, channel, width, datasets):
    axis, title = channel.get("axis", {}), channel.get("title")
    if name == "x" and isinstance(title, str):
        channel["title"] = _wrapped(title, width)
    if axis is None:
        return
    if name == "x" and "tickCount" in axis:
        axis["tickCount"] = 4
    if listed := NAMES.fullmatch(axis.get("labelExpr", "")):
        names = [" ".join(lines) for lines in json.loads(listed[1])]
        if name == "y":
            texts = [_wrapped(name, 0.53 * width, lines=True) for name in names]
            most = max(map(len, texts))
            texts = [[""] * (most - len(text)) + text for text in texts]  # all end on one line
            axis |= ABOVE | {"labelAlign": axis.get("orient", "left")}
            axis["labelOffset"] -= LINE * (most - 1)
            for other, same in _channels(panel):  # layers share it
                if other == "y" and "domain" in same.get("scale", {}):
                    same["scale"]["domain"] = [-0.75, len(names) - 0.5]
            step = 36 + LINE * most
            panel["height"] = max(panel["height"], (len(names) + 0.25) * step)
        else:
            room = (width - 60) / len(names)
            words = max(len(word) for text in names for word in text.split() or [""])
            if words * CHARACTER > room:
                axis |= {"labelAngle": -40, "labelAlign": "right"}
                room = 16 * CHARACTER
            texts = [_wrapped(text, room, lines=True) for text in names]
        axis["labelExpr"] = f"{json.dumps(texts)}[datum.value]"
    elif name == "y" and channel["type"] in ("nominal", "ordinal"):
        channel["axis"] = axis | ABOVE | {"labelAlign": "left", "labelOffset": -16}
        channel["scale"] = channel.get("scale", {}) | BANDS
        rows = [row for rows in datasets.values() for row in rows]
        listed = channel.get("sort") or ()  # a field that the chart computes has no rows
        bands = len({row[channel["field"]] for row in rows if channel["field"] in row} or listed)
        panel["height"] = BAND * (bands - BANDS["paddingInner"] + 2 * BANDS["paddingOuter"])


def _cut_rules(panel):
    """Of a rule across all rows leaves what is beside their marks: between them stand their names."""
    shared = [channel for name, channel in _channels(panel) if name == "y" and "axis" in channel]
    listed = [(y, NAMES.fullmatch((y["axis"] or {}).get("labelExpr", ""))) for y in shared]
    for same, names in [pair for pair in listed if pair[1]][:1]:
        n = len(json.loads(names[1]))
        above, below = (pixels * (n + 0.25) / panel["height"] for pixels in BESIDE)
        cut = [{"calculate": f"sequence({n})", "as": "row"}, {"flatten": ["row"]}]
        cut.append({"calculate": f"datum.row - {above:.4f}", "as": "from"})
        cut.append({"calculate": f"datum.row + {below:.4f}", "as": "to"})
        y = {"field": "from", "type": "quantitative", "scale": same["scale"], "axis": None}
        for unit in panel["layer"]:
            across = unit["mark"]["type"] == "rule" and not unit["encoding"].keys() & {"x2", "y"}
            if across:
                unit |= {"transform": cut, "mark": unit["mark"] | STROKE}
                unit["encoding"] |= {"y": y, "y2": {"field": "to"}}


def _stack_legend(channel, width):
    names = channel.get("scale", {}) and channel["scale"].get("domain")
    legend = channel.get("legend", {})
    column = CHARACTER * max(map(len, names)) + 30 if names else width  # all are even
    if legend is not None and (not names or len(names) * column > width):
        channel["legend"] = legend | {"columns": max(1, int(width // column))}


def _taken_out(chart, style, spec):
    """Takes out the marks of a style and returns what those of text say."""
    layers = chart.get("layer", [])
    out = [layer for layer in layers if layer["mark"].get("style") == style]
    chart |= {"layer": [layer for layer in layers if layer not in out]} if out else {}
    rows = [row for layer in out for row in spec["datasets"][layer["data"]["name"]]]
    return list(dict.fromkeys(row["label"] for row in rows))


def _wrap_title(chart, width, aside=()):
    title = chart.get("title")
    title = title if isinstance(title, dict) else {"text": title or []}
    text = title["text"] if isinstance(title["text"], str) else " ".join(title["text"])
    if text:
        chart["title"] = title | {"text": textwrap.wrap(text, int(width / 8.8)), "anchor": "start"}
    if text and aside:
        chart["title"]["subtitle"] = _wrapped("Dashed: " + "; ".join(aside), width, lines=True)


def _wrapped(text, width, *, lines=False):
    """A text on lines; one that needs no second stays a text, unless `lines` are asked for."""
    found = textwrap.wrap(text, max(1, int(width / CHARACTER)))
    return found or [""] if lines or len(found) > 1 else text
