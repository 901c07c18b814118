"""Every page of the built book in a browser: light and dark, wide and narrow.

Needs a built book (`make book`) and Chromium; without them these tests are skipped, unless
W2S_REQUIRE_BROWSER is set, as it is in `.ci/run`, which runs them once more after `make book`.
W2S_SITE names another folder of built pages.
"""

import functools
import http.server
import os
import re
import threading
from pathlib import Path

import pytest

from w2s_lib.publishing.chapters import chapters

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("W2S_SITE", ROOT / "_build" / "html"))
PAGES = sorted(path.stem for path in SITE.glob("*.html") if path.stem != "search")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(need):
    """The address of the built book."""
    need(PAGES, f"no built book in {SITE}: run `make book`")
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def opened(browser, site):
    """Opens a page and returns it with a list that fills with what goes wrong on it."""
    contexts = []

    def open_page(name, *, theme="light", width=1280, javascript=True):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, java_script_enabled=javascript
        )
        contexts.append(context)
        context.add_init_script(
            f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')"
        )
        page, wrong = context.new_page(), []
        page.on(
            "console",
            lambda message: wrong.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((site, "data:")) else wrong.append(request.url)
            ),
        )
        page.goto(f"{site}/{name}.html", wait_until="load")
        return page, wrong

    yield open_page
    for context in contexts:
        context.close()


def all_live(page):
    """Touches every chart, as a pointer does, and waits until it is live."""
    page.evaluate(
        "document.querySelectorAll('.w2s-chart').forEach(box => box.dispatchEvent(new Event('pointerenter')))"
    )
    for box in page.query_selector_all(".w2s-chart:not([data-live=yes])"):
        box.scroll_into_view_if_needed()  # one with sliders waits for this alone
    page.wait_for_function(
        "[...document.querySelectorAll('.w2s-chart')].every(chart => chart.dataset.live === 'yes')",
        timeout=20_000,
    )


def test_every_page_in_the_contents_is_built(site):
    assert {chapter.name for chapter in chapters(ROOT)} <= set(PAGES)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES or ["none"])
def test_a_page_is_whole(opened, name, theme, width):
    page, wrong = opened(name, theme=theme, width=width)
    all_live(page)
    assert wrong == []
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in page.query_selector_all(".w2s-chart svg.marks"):
        assert chart.get_attribute("role") == "img" and chart.get_attribute("aria-label")
        assert chart.bounding_box()["width"] > 100
    for formula in page.query_selector_all("math"):
        assert formula.bounding_box()["height"] > 5


@pytest.mark.parametrize("name", PAGES or ["none"])
def test_charts_follow_the_theme_and_have_a_still_form(opened, name):
    still, _ = opened(name, javascript=False)
    charts = still.locator(".w2s-chart-view > .w2s-wide > svg[role=img]:visible").count()
    assert charts == still.locator(".w2s-chart").count()
    if charts == 0:
        pytest.skip("no chart on this page")
    page, wrong = opened(name)
    label = page.locator(
        ".w2s-chart svg text[fill='#767676']"
    ).first  # of an axis, else in the drawing
    colours = [
        ["rgb(87, 96, 106)", "rgb(158, 167, 176)"],
        ["rgb(31, 35, 40)", "rgb(206, 214, 221)"],
    ]

    def colour():
        return label.evaluate("node => getComputedStyle(node).fill")

    def in_both_themes():
        seen = []
        for theme in ("light", "dark"):
            page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
            seen.append(colour())
        return seen

    still_colours = in_both_themes()
    all_live(page)
    assert in_both_themes() == still_colours and still_colours in colours
    page.emulate_media(media="print")
    assert colour() == still_colours[0]  # the page is dark, the paper is not
    assert page.locator(".w2s-chart svg.marks").count() == charts and wrong == []


@pytest.mark.parametrize(
    "name", [n for n in PAGES if '"bind"' in (SITE / f"{n}.html").read_text()] or ["none"]
)
def test_a_slider_changes_its_chart(opened, name):
    page, wrong = opened(name)
    all_live(page)
    chart = page.locator(".w2s-chart:has(input[type=range])").first
    slider = chart.locator("input[type=range]").first
    drawing = chart.locator("svg.marks")
    before = drawing.inner_html()
    for key in ("Home", "End"):
        slider.press(key)
        page.wait_for_timeout(200)
    assert re.sub(r"\s", "", drawing.inner_html()) != re.sub(r"\s", "", before) and wrong == []
