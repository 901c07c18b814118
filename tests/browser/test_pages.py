"""Every page of the built book in a browser: light and dark, at three widths, without a script.

Needs a built book (`make book`) and Chromium; without them these tests are skipped, unless
W2S_REQUIRE_BROWSER is set, as it is in `.ci/run`, which runs them once more after `make book`.
W2S_SITE names another folder of built pages.
"""

import re

import pytest
from axe_playwright_python.base import AXE_FILE_PATH

from tests.browser.conftest import PAGES, ROOT, all_live, comes_to, with_part
from w2s_lib.publishing.chapters import chapters

WIDTHS = (390, 820, 1440)
WITH_CHARTS = with_part('class="w2s-chart"')
CHAPTERS = [
    name
    for name in with_part("<strong>In short.</strong>")
    if name not in ("scorecard", "performance", "reliability")
]
MIDDLE = "icon => { const box = icon.getBoundingClientRect(); return box.y + box.height / 2; }"
SMALLEST = 10  # CSS pixels of a chart's text
WIDER = """() => {
  document.querySelectorAll('.w2s-behind details').forEach((fold) => (fold.open = true));
  const found = [], article = document.querySelector('.bd-article') ?? document.body;
  const name = (e) => `${e.tagName}.${e.getAttribute('class')}: ${e.textContent.trim().slice(0, 40)}`;
  const bare = (e) => getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)';
  const right = article.getBoundingClientRect().right;
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page');
  for (const e of article.querySelectorAll('*')) {
    if (e.closest('svg, .visually-hidden, thead, .bd-sidebar') || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), more = {X: e.scrollWidth > e.clientWidth + 1, Y: e.scrollHeight > e.clientHeight + 1};
    const scrolls = Object.keys(more).some((way) => more[way] && /auto|scroll/.test(style[`overflow${way}`]));
    const shaded = style.backgroundImage.split('gradient').length > 8 && [...e.querySelectorAll('table, tr, th, td')].every(bare);
    if (scrolls && e !== article && (e.tabIndex < 0 || !shaded)) found.push(`unmarked ${name(e)}`);
    let box = e.parentElement;
    while (box !== article && !/auto|scroll|hidden/.test(getComputedStyle(box).overflowX)) box = box.parentElement;
    if (box === article && e.getBoundingClientRect().right > right + 1) found.push(`wide ${name(e)}`);
  }
  return found;
}"""
TEXTS = """(smallest) => [...document.querySelectorAll('.w2s-chart svg')].filter((svg) => svg.getClientRects().length).flatMap((svg) => {
  const frame = svg.getBoundingClientRect(), shrunk = frame.width / svg.getAttribute('width');
  return [...svg.querySelectorAll('text')].filter((t) => t.textContent.trim() && t.getAttribute('opacity') !== '0').flatMap((text) => {
    const box = text.getBoundingClientRect(), size = parseFloat(getComputedStyle(text).fontSize) * shrunk;
    const cut = box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
    return cut || size < smallest ? [`${text.textContent} ${cut ? 'is cut' : size}`] : [];
  });
})"""
UNFIT = """() => [...document.querySelectorAll('.w2s-chart')].filter((box) => {
  const fits = ['0', String(box.clientWidth)].includes(box.dataset.drawn) && box.scrollWidth <= box.clientWidth;
  const drawing = box.querySelector('svg.marks[role=img][aria-label]');
  return !fits || !drawing || drawing.getBoundingClientRect().width < 100;
}).map((box) => box.dataset.label)"""
UNDRAWN = """() => [
  ...[...document.querySelectorAll('math')].filter((one) => one.getBoundingClientRect().height < 5),
  ...[...document.querySelectorAll('[class*="fa-"]')].filter(
    (icon) => !getComputedStyle(icon, '::before').maskImage.startsWith('url("data:image/svg+xml')),
].map((part) => part.outerHTML.slice(0, 80))"""
AXE = """async () => (await axe.run({resultTypes: ['violations'], preload: false})).violations
  .filter(({impact}) => impact !== 'minor')
  .flatMap(({id, nodes}) => nodes.map(({target}) => `${id}: ${target}`))"""


def test_every_page_in_the_contents_is_built(site):
    assert {chapter.name for chapter in chapters(ROOT)} <= set(PAGES)


@pytest.mark.parametrize(("theme", "width"), [("light", 390), ("dark", 1440)])
@pytest.mark.parametrize("name", [*PAGES, "search"] if PAGES else ["none"])
def test_a_page_is_whole_at_every_width(opened, name, theme, width):
    """Opened on a phone by day and on a desk by night, then turned to the other widths.

    Nothing is wider than its place: charts are drawn anew to fit without being scrolled or shrunk,
    what must scroll is a box that a keyboard reaches, with shades at its edges that no row hides.
    No text of a drawing is cut. Formulas and icons are drawn. axe-core finds nothing but what is minor.
    """
    page, wrong = opened(name, theme=theme, width=width, query="?q=gap" if name == "search" else "")
    if name == "search":
        page.locator("#search-results .context").first.wait_for()
    all_live(page)
    page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.locator("[class*='fa-']").count() > 5
    for each in sorted(WIDTHS, reverse=width == max(WIDTHS)):
        page.set_viewport_size({"width": each, "height": 900})
        comes_to(page, "() => innerWidth", each)
        comes_to(page, UNFIT, [])
        comes_to(page, WIDER, [])  # the theme marks its own scroll boxes a moment later
        assert page.evaluate(TEXTS, SMALLEST) == []
        assert page.evaluate(UNDRAWN) == []
        comes_to(page, AXE, [])  # nor are boxes stops of the keyboard at once
    assert wrong == []


@pytest.mark.parametrize("name", WITH_CHARTS or ["none"])
def test_without_a_script_a_chart_is_a_still_that_fits(opened, name):
    page, _ = opened(name, width=390, java_script_enabled=False)
    charts = page.locator(".w2s-chart").count()
    for width, other in ((390, "wide"), (1440, "narrow")):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.locator(".w2s-chart-view svg[role=img]:visible").count() == charts > 0
        assert page.locator(f".w2s-{other} > svg:visible").count() == 0
        assert width == 1440 or page.evaluate(TEXTS, SMALLEST) == []


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


@pytest.mark.parametrize("name", CHAPTERS or ["none"])
def test_the_first_screen_says_what_came_out_and_begins_to_show_it(opened, name):
    page, _ = opened(name, width=390)
    words = page.locator(".bd-article p:has(> strong)", has_text="In short.").first
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        comes_to(page, "() => innerWidth", width)
        box, chart = words.bounding_box(), page.locator(".w2s-chart").first.bounding_box()
        assert box["y"] + box["height"] < 650 and chart["y"] < 750


def test_rows_of_long_texts_are_cards_in_any_table(opened):
    page, _ = opened("findings", width=390)
    cards = page.locator(".w2s-cards tbody tr:visible")
    assert cards.count() > 3
    for card in cards.all():
        texts = [cell.bounding_box() for cell in card.locator(".w2s-long").all()]
        assert texts and all(box["width"] > 280 for box in texts)


def test_icons_of_a_row_have_one_middle(opened):
    page, _ = opened("index")
    icons = page.locator(".article-header-buttons [class*='fa-']:visible").all()
    middles = [icon.evaluate(MIDDLE) for icon in icons]
    assert len(middles) >= 2 and max(middles) - min(middles) <= 1


@pytest.mark.parametrize("name", WITH_CHARTS or ["none"])
def test_charts_follow_the_theme_and_their_sliders(opened, name):
    page, wrong = opened(name)
    grey = ":is(text[fill='#767676'], [fill='#767676'] > text:not([fill]))"
    label = page.locator(f".w2s-chart svg {grey}").first  # of an axis, else in the drawing
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
    page.emulate_media(media="screen")
    charts = page.locator(".w2s-chart").count()
    assert page.locator(".w2s-chart svg.marks").count() == charts
    for chart in page.locator(".w2s-chart:has(input[type=range])").all():
        drawing, slider = chart.locator("svg.marks"), chart.locator("input[type=range]").first
        before = re.sub(r"\s", "", drawing.inner_html())
        key = "Home" if slider.evaluate("one => one.value !== one.min") else "End"
        slider.press(key)
        changed = "([svg, before]) => svg.innerHTML.replaceAll(/\\s/g, '') !== before"
        comes_to(page, changed, True, [drawing.element_handle(), before])
    assert wrong == []


@pytest.mark.parametrize("name", ["index", "scorecard"])
def test_claims_are_cards_with_the_verdict_first(opened, name):
    page, _ = opened(name, width=390)
    cards = page.locator(".w2s-cards tbody tr")
    assert cards.count() >= 10
    for card in cards.all()[:10]:
        cells = {c.get_attribute("data-label"): c.bounding_box() for c in card.locator("td").all()}
        assert cells["verdict"]["y"] == min(cell["y"] for cell in cells.values())
        assert cells["claim"]["width"] > 280


def test_a_tap_on_a_mark_says_what_a_pointer_over_it_would(opened):
    """And the next tap, beside the chart, takes it away."""
    page, wrong = opened("robustness", width=390, has_touch=True)
    chart = page.locator(".w2s-chart:not(:has(script:text('bind')))").first
    chart.scroll_into_view_if_needed()
    chart.tap(position={"x": 5, "y": 5})  # where no mark is: it becomes live
    page.wait_for_function("box => box.dataset.live === 'yes'", arg=chart.element_handle())
    mark = chart.evaluate_handle(
        "box => [...box.querySelectorAll('path')].find(path => path.__data__?.tooltip)"
    ).as_element()
    mark.scroll_into_view_if_needed()
    at = mark.bounding_box()
    page.touchscreen.tap(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert "0." in tip.inner_text()
    page.locator(".bd-article h1").first.tap()
    tip.wait_for(state="hidden")
    assert wrong == []
