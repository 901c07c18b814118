"""Nothing is wider than its place: every page at three widths, light and dark.

Charts fit without being scrolled or shrunk, what must scroll is a box that a keyboard reaches, and
no text of a drawing is cut.
"""

import pytest

from tests.browser.conftest import PAGES, SITE, all_live

CHAPTERS = [
    name
    for name in PAGES
    if name not in ("scorecard", "performance")
    and "<strong>In short.</strong>" in (SITE / f"{name}.html").read_text(encoding="utf-8")
]
SMALLEST = 10  # CSS pixels of a chart's text
WIDER = """() => {
  const found = [], article = document.querySelector('.bd-article');
  const name = (e) => `${e.tagName}.${e.getAttribute('class')}: ${e.textContent.trim().slice(0, 40)}`;
  const right = article.getBoundingClientRect().right;
  for (const e of article.querySelectorAll('*')) {
    if (e.closest('svg, .visually-hidden, thead') || !e.getClientRects().length) continue;
    const scrolls = e.scrollWidth > e.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(e).overflowX);
    if (scrolls && (e.tabIndex < 0 || !getComputedStyle(e).backgroundImage.includes('gradient'))) found.push(`unmarked ${name(e)}`);
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


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES or ["none"])
def test_nothing_is_wider_than_its_place(opened, name, theme, width):
    page, wrong = opened(name, theme=theme, width=width)
    all_live(page)
    page.wait_for_timeout(500)  # the theme marks its own scroll boxes a moment later
    assert page.evaluate(WIDER) == [] and wrong == []
    assert page.evaluate(TEXTS, SMALLEST) == []
    for chart in page.query_selector_all(".w2s-chart"):
        assert chart.evaluate("box => box.scrollWidth <= box.clientWidth")


@pytest.mark.parametrize("name", PAGES or ["none"])
def test_the_still_form_fits_a_phone_too(opened, name):
    page, _ = opened(name, width=390, javascript=False)
    assert page.evaluate(TEXTS, SMALLEST) == []
    charts = page.locator(".w2s-chart").count()
    assert page.locator(".w2s-narrow > svg:visible").count() == charts
    assert page.locator(".w2s-wide > svg:visible").count() == 0


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", CHAPTERS or ["none"])
def test_the_first_screen_says_what_came_out_and_begins_to_show_it(opened, name, width):
    page, _ = opened(name, width=width)
    words = page.locator(".bd-article p:has(> strong)", has_text="In short.").first.bounding_box()
    chart = page.locator(".w2s-chart").first.bounding_box()
    assert words["y"] + words["height"] < 650 and chart["y"] < 750


def test_rows_of_long_texts_are_cards_in_any_table(opened):
    page, _ = opened("findings", width=390)
    cards = page.locator(".w2s-cards tbody tr:visible")
    assert cards.count() > 3
    for card in cards.all():
        texts = [cell.bounding_box() for cell in card.locator(".w2s-long").all()]
        assert texts and all(box["width"] > 280 for box in texts)


@pytest.mark.parametrize("name", ["index", "scorecard"])
def test_claims_are_cards_with_the_verdict_first(opened, name):
    page, _ = opened(name, width=390)
    cards = page.locator(".w2s-cards tbody tr")
    assert cards.count() >= 10
    for card in cards.all()[:10]:
        cells = {c.get_attribute("data-label"): c.bounding_box() for c in card.locator("td").all()}
        assert cells["verdict"]["y"] == min(cell["y"] for cell in cells.values())
        assert cells["claim"]["width"] > 280


def test_a_chart_turns_narrow_and_wide_with_its_box(opened):
    page, wrong = opened("pgr", width=1440)
    all_live(page)
    drawing = page.locator(".w2s-chart svg.marks").first
    wide = drawing.bounding_box()["width"]
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("() => document.querySelector('.w2s-chart svg.marks').clientWidth < 400")
    page.set_viewport_size({"width": 1440, "height": 800})
    page.wait_for_function(
        "wide => document.querySelector('.w2s-chart svg.marks').clientWidth > wide - 2", arg=wide
    )
    assert wrong == []
