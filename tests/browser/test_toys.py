"""Every toy on a page of a phone's width: sliders by keyboard, and what a screen reader is told.

The page is made by the book's own extension and scripts, so chapters that wait for their records
are tested too.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest

import w2s_lib as w2s
from tests.browser.conftest import MINUTE, all_live
from tests.figures.test_toys import TOYS
from w2s_lib.figures.style import SCHEMA

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("toys")  # which share one page
SHARES = [
    {"seeds": seeds, "bar": "at 1/2", "worse": seeds / 100, "better": 1 - seeds / 100}
    for seeds in (5, 10)
]
ALL = TOYS | {
    "pgr": w2s.pgr_calculator,
    "confidence": lambda: w2s.confidence_explorer([0.9, 0.2, 0.3], [0.6, 0.4, 0.8]),
    "shares": lambda: w2s.shares_explorer(
        SHARES,
        sliders={"seeds": "seeds"},
        start={"seeds": 5},
        colours={"worse": "#0072B2", "better": "#009E73"},
    ),
}

CURVES = w2s.curves(
    {"a": {"one": w2s.Interval(0.5, 0.4, 0.6), "two": w2s.Interval(0.6, 0.5, 0.7)}},
    title="Two curves would be too many for a title on a single line of a telephone",
    x_title="x",
    y_title="y",
    references={"in the margin": 0.45},
)
BACK = "(e, start) => { e.value = start; e.dispatchEvent(new Event('input', {bubbles: true})); }"
SEEN = """(names) => Object.fromEntries(names.map((name) => {
  const toy = document.getElementById(name), said = toy.querySelectorAll('g[class*=" said_"] > :is(text, path)');
  const words = [...said].map((part) => part.textContent || part.getAttribute('aria-label')).join('; ');
  const told = toy.querySelector('[aria-live=polite]').textContent;
  return [name, [toy.querySelector('svg.marks').innerHTML, told === words ? told : '']];
}))"""
"""What is drawn of each toy, and what is told of it, once that is what the drawing says."""


@pytest.fixture(scope="module")
def extension():
    """`book/_ext/vega_charts.py`."""
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    try:
        import vega_charts
    finally:
        sys.path.pop(0)
    return vega_charts


@pytest.fixture(scope="module")
def page(tmp_path_factory, browser, extension):
    """All toys on one page, live, 390 pixels wide; what goes wrong is in its list `wrong`."""
    site = tmp_path_factory.mktemp("site")
    for name in ("charts.js", "book.css"):
        shutil.copy(ROOT / "book" / "_static" / name, site)
    site.joinpath("vega.js").write_text(extension.bundle(), encoding="utf-8")
    charts = {name: make() for name, make in ALL.items()} | {"curves": CURVES}
    figures = {n: extension.figure(c.to_dict() | {"$schema": SCHEMA}) for n, c in charts.items()}
    boxes = "".join(f'<div id="{name}">{figure}</div>' for name, figure in figures.items())
    site.joinpath("toys.html").write_text(
        '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>Toys</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="book.css">'
        f'<script src="charts.js"></script><body style="margin: 16px">{boxes}',
        encoding="utf-8",
    )
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.set_default_timeout(MINUTE)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    loud = ("error", "warning")
    page.on("console", lambda m: page.wrong.append(m.text) if m.type in loud else None)
    page.goto(site.joinpath("toys.html").as_uri())
    all_live(page)
    yield page
    page.close()


def test_every_slider_changes_its_toy_and_what_is_said_of_it(page):
    """The first sliders of all toys together, then the second ones, each to its two ends."""
    sliders = {name: page.locator(f"#{name} input[type=range]").all() for name in ALL}
    assert all(sliders.values())
    for i in range(max(map(len, sliders.values()))):
        moved = {name: own[i] for name, own in sliders.items() if i < len(own)}
        start = {name: float(slider.input_value()) for name, slider in moved.items()}
        low = {name: float(slider.get_attribute("min")) for name, slider in moved.items()}
        states = [page.evaluate(SEEN, [*moved])]
        for at_low, elsewhere in (("End", "Home"), ("Home", "End")):
            for name, slider in moved.items():
                slider.press(at_low if start[name] == low[name] else elsewhere)
            states.append(at_rest(page, states[-1]))
        for name, slider in moved.items():
            (drawn, told), (other, other_told) = (state[name] for state in states[1:])
            assert drawn != other and told != other_told, f"slider {i} of {name}: {told}"
            slider.evaluate(BACK, start[name])
    assert page.wrong == []


def at_rest(page, before):
    """What is seen once every toy is another drawing and is told: a moment after its slider rests."""
    for _ in range(MINUTE // 250):
        seen = page.evaluate(SEEN, [*before])
        waiting = [name for name in seen if not seen[name][1] or seen[name][0] == before[name][0]]
        if not waiting:
            return seen
        page.wait_for_timeout(250)
    pytest.fail(f"nothing changed, or nothing was told, of {waiting}")


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_is_no_wider_than_a_phone(page, name):
    box = page.locator(f"#{name} .w2s-chart")
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth && box.clientWidth <= 358")
    assert float(box.locator("svg.marks").get_attribute("width")) <= 358


def test_in_a_narrow_box_stands_what_the_build_has_drawn(page, extension):
    """The build's drawing, and the one that the page makes of the changes to the wide spec."""
    built = extension.still(extension.narrow(CURVES.to_dict()), "n", "")
    seen = """(svg) => [svg.getAttribute('height'), ...[...svg.querySelectorAll('text')].map((t) => t.textContent)]"""
    live = page.locator("#curves svg.marks").evaluate(seen)
    page.evaluate("svg => document.body.insertAdjacentHTML('beforeend', svg)", built)
    assert (
        page.locator("body > svg").evaluate(seen) == live and "Dashed: in the margin: 0.45" in live
    )
    page.evaluate("document.querySelector('body > svg').remove()")


def test_a_toy_that_cannot_be_heard_or_needs_a_mouse_fails_the_build(extension, monkeypatch):
    said = []
    monkeypatch.setattr(extension.LOG, "warning", lambda text, *args: said.append(text % args))
    spec = w2s.pgr_calculator().to_dict()
    extension.figure(spec)
    assert said == []
    for layer in spec["layer"]:
        layer.pop("name", None)
    spec["params"].append({"name": "brush", "select": "interval", "views": ["view_1"]})
    spec["layer"][0]["name"] = "view_1"
    extension.figure(spec)
    assert [re.search("mouse alone|be heard", text)[0] for text in said] == [
        "mouse alone",
        "be heard",
    ]
