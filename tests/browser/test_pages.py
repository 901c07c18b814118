"""Every page of the built book in a browser: light and dark, wide and narrow.

Needs a built book (`make book`) and Chromium; without them these tests are skipped, unless
W2S_REQUIRE_BROWSER is set, as it is in `.ci/run`, which runs them once more after `make book`.
W2S_SITE names another folder of built pages.
"""

import re

import pytest

from tests.browser.conftest import PAGES, ROOT, SITE, all_live
from w2s_lib.publishing.chapters import chapters


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


def test_a_first_visit_is_quiet_and_as_the_system_is(opened):
    page, wrong = opened("pgr", theme=None)
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            "scheme => document.documentElement.dataset.theme === scheme", arg=scheme
        )
    all_live(page)
    assert wrong == []


@pytest.mark.parametrize("name", ["index", "pgr", "bootstrapping"])
def test_a_drawn_figure_is_dark_on_a_dark_page_and_can_be_read_on_a_phone(opened, name):
    page, wrong = opened(name, width=390)
    figure = page.locator(".bd-article img[src$='.svg']")
    figure.scroll_into_view_if_needed()
    shots = set()
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        page.wait_for_timeout(300)
        assert figure.evaluate("image => getComputedStyle(image).colorScheme") == theme
        assert figure.evaluate("image => getComputedStyle(image).filter") == "none"
        shots.add(figure.screenshot())
    shrunk = figure.evaluate("image => image.width / image.naturalWidth")
    drawing = page.request.get(figure.evaluate("image => image.src")).text()
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", drawing)]
    assert len(shots) == 2 and min(sizes) * shrunk > 11 and wrong == []


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
