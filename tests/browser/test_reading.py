"""Reading the built book with a keyboard, a finger or a screen reader, and finding one's way in it."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import MINUTE, PAGES, SITE, all_live, comes_to
from tests.prose_rules import INTERVAL

expect.set_options(timeout=MINUTE)
LONGEST = 300
"""Presses of Tab after which a page must have come round."""


@pytest.mark.parametrize("width", (390, 1440))
def test_a_keyboard_reaches_all_and_sees_where_it_is(opened, width):
    page, _ = opened("pgr", width=width)
    all_live(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to main content"
    comes_to(page, "document.activeElement.getBoundingClientRect().top >= 0", True)  # it slides in
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
            named = page.evaluate("document.activeElement.innerText")
            page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.parentElement.open")
            assert page.evaluate("document.activeElement.innerText") == named
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
        expect(tip).to_have_text(meaning)
        box = tip.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
        page.keyboard.press("Escape")
        expect(tip).to_be_hidden()
    page.evaluate("document.activeElement.blur()")
    words.first.hover()
    expect(tip).to_have_text(meanings[0])
    tip.hover()
    page.wait_for_timeout(500)
    assert tip.is_visible()  # it can be pointed at
    page.mouse.move(1, 1)
    expect(tip).to_be_hidden()
    links = words.evaluate_all("all => all.map((one) => one.getAttribute('href'))")
    glossary = (SITE / "glossary.html").read_text(encoding="utf-8")
    assert all(f'id="{link.partition("#")[2]}"' in glossary for link in links) and wrong == []


def test_a_first_tap_shows_the_meaning_and_a_second_follows_it(opened):
    page, _ = opened("pgr", width=390, has_touch=True)
    word = page.locator(".w2s-word").first
    word.tap()
    expect(page.locator(".w2s-tip")).to_be_visible()
    assert page.url.endswith("pgr.html")
    word.tap()
    page.wait_for_url("**/glossary.html#*")


def test_the_book_is_read_from_page_to_page(opened):
    """Without a script. The foot of a page says what the next one is about, and so does that one.

    No sentence has more than two intervals; the log is as it was written.
    """
    page, _ = opened("index", java_script_enabled=False)
    assert page.locator("article a", has_text="performance gap recovered").first.is_visible()
    seen = ["index"]
    while True:
        for text in page.locator("article :is(p, li):not(:has(p, li))").all_text_contents():
            for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z])", text):
                assert seen[-1] == "log" or len(INTERVAL.findall(sentence)) <= 2, sentence
        if not (link := page.locator("a.right-next")).count():
            break
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
