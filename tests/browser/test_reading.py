"""Reading the built book with a keyboard, a finger or a screen reader, and finding one's way in it."""

import re

import pytest
from axe_playwright_python.base import AXE_FILE_PATH

from tests.browser.conftest import PAGES, SITE, all_live
from tests.prose_rules import INTERVAL

THEMES, WIDTHS = ("light", "dark"), (390, 820, 1440)
LONGEST = 300
"""Presses of Tab after which a page must have come round."""


def axe(page):
    """What axe-core finds on a page that is more than minor, at three widths."""
    page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
    found = set()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)
        for rule in page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]:
            if rule["impact"] != "minor":
                found |= {(width, rule["id"], str(node["target"])) for node in rule["nodes"]}
    return sorted(found)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_axe_finds_nothing_that_matters(opened, name, theme):
    page, _ = opened(name, theme=theme, query="?q=gap" if name == "search" else "")
    if name == "search":
        page.locator("#search-results .context").first.wait_for()
    all_live(page)
    assert axe(page) == []


@pytest.mark.parametrize("width", (390, 1440))
def test_a_keyboard_reaches_all_and_sees_where_it_is(opened, width):
    page, _ = opened("pgr", width=width)
    all_live(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to main content"
    assert page.locator(":focus").bounding_box()["y"] > -30
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#main-content') !== null")
    folded = page.locator(".bd-article summary")
    reached = 0
    for _ in range(LONGEST):
        where = page.evaluate(
            """() => {
                const at = document.activeElement, box = at.getBoundingClientRect(), style = getComputedStyle(at);
                return {tag: at.tagName, html: at.outerHTML.slice(0, 120), left: box.left, right: box.right,
                        seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 1};
            }"""
        )
        if where["tag"] == "BODY":
            break
        assert where["seen"] and where["left"] >= 0 and where["right"] <= width + 1, where["html"]
        if where["tag"] == "SUMMARY":
            reached += 1
            page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.parentElement.open")
            page.keyboard.press("Enter")
        page.keyboard.press("Tab")
    else:
        pytest.fail(f"no end after {LONGEST} presses of Tab")
    assert reached == folded.count() > 5


def test_nothing_moves_where_motion_is_not_wanted(opened):
    page, _ = opened("pgr")
    page.emulate_media(reduced_motion="reduce")
    moving = """[...document.querySelectorAll("*")].filter((part) => {
        const style = getComputedStyle(part);
        return [style.transitionDuration, style.animationDuration].some((all) =>
            all.split(",").some((one) => parseFloat(one) * (one.includes("ms") ? 1 : 1000) > 1));
    }).length"""
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0  # what the rule is for


def test_a_glossary_word_says_what_it_means(opened):
    page, wrong = opened("pgr", width=390)
    words, tip = page.locator(".w2s-word"), page.locator(".w2s-tip")
    meanings = words.evaluate_all("all => all.map((one) => one.getAttribute('aria-description'))")
    assert len(meanings) > 5 and len(set(meanings)) == len(meanings) and all(meanings)
    assert page.locator(":is(h1, h2, h3, h4, pre, code, a, table) .w2s-word").count() == 0
    for word, meaning in zip(words.all(), meanings, strict=True):
        word.focus()
        assert tip.inner_text() == meaning
        box = tip.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        page.keyboard.press("Escape")
        assert not tip.is_visible()
    page.evaluate("document.activeElement.blur()")
    words.first.hover()
    assert tip.inner_text() == meanings[0]
    tip.hover()
    page.wait_for_timeout(500)
    assert tip.is_visible()  # it can be pointed at
    page.mouse.move(1, 1)
    tip.wait_for(state="hidden")
    links = words.evaluate_all("all => all.map((one) => one.getAttribute('href'))")
    glossary = (SITE / "glossary.html").read_text(encoding="utf-8")
    assert all(f'id="{link.partition("#")[2]}"' in glossary for link in links) and wrong == []


def test_a_first_tap_shows_the_meaning_and_a_second_follows_it(browser, site):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(f"{site}/pgr.html")
    word = page.locator(".w2s-word").first
    word.tap()
    assert page.locator(".w2s-tip").is_visible() and page.url.endswith("pgr.html")
    word.tap()
    page.wait_for_url("**/glossary.html#*")
    context.close()


def test_the_foot_of_a_page_says_what_the_next_one_is_about(opened):
    page, _ = opened("index")
    assert page.locator("article a", has_text="performance gap recovered").first.is_visible()
    seen = ["index"]
    while (link := page.locator("a.right-next")).count():
        about = " ".join(link.locator(".w2s-about").inner_text().split())
        assert about.endswith((".", "?")) and len(about) > 20
        page.goto(page.url.rpartition("/")[0] + "/" + link.get_attribute("href"))
        seen.append(page.url.rpartition("/")[2].removesuffix(".html"))
        said = page.locator("article p:visible").all_inner_texts()
        assert any(about in " ".join(text.split()) for text in said), (seen[-1], about)
    assert set(seen) == set(PAGES) - {"genindex"} and len(seen) == len(set(seen))


def test_a_search_shows_what_a_page_says_and_not_its_code(opened):
    page, wrong = opened("search", query="?q=movie")
    page.locator("#search-results .search-summary", has_text="finished").wait_for()
    results = page.locator("#search-results li")
    assert results.count() > 2
    for result in results.all():
        excerpt = result.locator(".context")
        excerpt.wait_for()
        assert not re.search(r"task_name|Parameters|import ", excerpt.inner_text())
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in PAGES if name != "log"])
def test_no_sentence_has_more_than_two_intervals(opened, name):
    page, _ = opened(name, javascript=False)
    for text in page.locator("article :is(p, li):not(:has(p, li))").all_text_contents():
        for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z])", text):
            assert len(INTERVAL.findall(sentence)) <= 2, sentence
