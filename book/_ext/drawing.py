"""A drawing that weighs as little as it can and looks the same: for the still pictures of charts.

Vega writes at each mark what all marks of a group share, the whole outline of each dot, and empty
groups around all of it. The style sheet knows the font, and names some of the groups by their class.
"""

import re
from collections import Counter
from xml.etree import ElementTree

SPACE = ' xmlns="http://www.w3.org/2000/svg"'
LEAVES = ("path", "use", "line", "rect", "text")
SHARED = ("fill", "stroke", "stroke-width", "stroke-dasharray", "fill-opacity", "stroke-opacity")
SHARED += ("font-size", "font-weight", "text-anchor")
"""What a mark takes over from the group that it is in."""
STYLED = re.compile(r"\brole-(?:axis-(?:label|domain|tick|grid)|title-subtitle)\b")
"""The classes of `chart_colours.css` and `book.css`."""
UNSEEN = {"font-weight": "normal", "opacity": "1", "stroke-width": "1", "x2": "0", "y2": "0"}
UNSEEN |= {"transform": "translate(0,0)", "version": "1.1"}
"""What is so anyhow."""
PLACES, LONG = ("d", "transform", "x1", "x2", "y1", "y2"), re.compile(r"-?\d+\.\d+")
"""Where a mark is, in pixels, of which a tenth is enough."""
MOVED = re.compile(r"translate\(([^,]+),([^,]+)\)")


def light(svg):
    """The same drawing in fewer bytes, to stand in a page whose style sheet names its font."""
    root = ElementTree.fromstring(svg.replace(SPACE, "", 1))  # noqa: S314 - Vega wrote it
    shapes = {}
    for group in [*root.iter("g")]:
        if "mark-symbol" in group.get("class", ""):
            _draw_once(group, shapes)
    for part in [*root.iter()][1:]:
        _say_less(part)
    _flatten(root)
    for group in root.iter("g"):
        _share(group)
    if shapes:
        root.insert(0, ElementTree.Element("defs"))
        for outline, key in shapes.items():
            root[0].append(ElementTree.Element("path", {"id": key, "d": _rounded(outline)}))
    return ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")


def _draw_once(group, shapes):
    """A shape that a group draws more than twice is drawn once, and used."""
    often = Counter(part.get("d") for part in group)
    for part in group:
        moved = MOVED.fullmatch(part.get("transform", ""))
        if moved and often[part.get("d")] > 2:
            del part.attrib["transform"]
            part.tag, key = "use", shapes.setdefault(part.attrib.pop("d"), f"s{len(shapes)}")
            places = zip("xy", map(_rounded, moved.groups()), strict=True)
            part.attrib |= {"href": f"#{key}", **dict(places)}


def _say_less(part):
    """Drops what is not seen: a picture is read as a whole, by its own label."""
    said, styled = part.attrib, STYLED.search(part.attrib.pop("class", ""))
    unsaid = {"role", "pointer-events", "font-family", "aria-hidden"}
    kept = {key: value for key, value in said.items() if UNSEEN.get(key) != value}
    kept = {key: value for key, value in kept.items() if key not in unsaid and "aria-" not in key}
    if part.tag in LEAVES and "stroke" not in kept:
        kept.pop("stroke-width", None)
    if part.tag in LEAVES[:-1] and "opacity" in kept and ("fill" in kept) != ("stroke" in kept):
        kept[f"{'fill' if 'fill' in kept else 'stroke'}-opacity"] = kept.pop("opacity")
    said.clear()
    said |= {key: _rounded(value) if key in PLACES else value for key, value in kept.items()}
    said |= {"class": styled[0]} if styled else {}


def _flatten(part):
    """Takes out what draws nothing, and groups that say nothing of what is in them."""
    kept = []
    for child in part:
        _flatten(child)
        plain = child.tag == "path" and not {"fill", "stroke", "id"} & child.attrib.keys()
        if child.get("display") == "none" or (plain and part.tag != "clipPath"):
            continue
        if child.tag == "g" and not (len(child) and child.attrib):
            kept += child
        else:
            kept.append(child)
    part[:] = kept


def _share(group):
    """Says of a group what most of its marks say of themselves, if all of them say anything."""
    if len(group) > 1 and all(child.tag in LEAVES for child in group):
        for key in SHARED:
            values = [child.get(key) for child in group]
            if None not in values:
                group.set(key, Counter(values).most_common(1)[0][0])
                for child in group:
                    if child.get(key) == group.get(key):
                        del child.attrib[key]


def _rounded(text):
    return LONG.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), text)
