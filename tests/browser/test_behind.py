"""What stands under a figure, and the browser of examples. See `test_pages.py` for what they need."""

import re

import pytest

from tests.browser.conftest import PAGES, SITE
from w2s_lib.publishing.examples import CATEGORIES

WITH_FIGURES = [n for n in PAGES if "w2s-behind" in (SITE / f"{n}.html").read_text()]


@pytest.mark.parametrize("name", WITH_FIGURES or ["none"])
def test_a_figure_leads_to_its_data_its_runs_and_its_code(opened, site, name):
    page, wrong = opened(name, width=390)
    rows = (SITE / "scorecard.html").read_text()
    for line in page.locator(".w2s-behind").all():
        for link in line.locator("a.w2s-data").all():
            table = page.request.get(f"{site}/{link.get_attribute('href')}").text()
            assert len(table.splitlines()) > 1
        for link in line.locator(".w2s-runs a").all():
            assert f'id="{link.get_attribute("href").partition("#")[2]}"' in rows
        for fold in line.locator("details").all():
            summary, inside = fold.locator("summary"), fold.locator(":scope > :nth-child(2)")
            assert not inside.is_visible()
            summary.focus()
            page.keyboard.press("Enter")
            assert inside.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390 and wrong == []


def test_a_run_leads_to_its_row(opened):
    page, wrong = opened("pgr")
    page.locator(".w2s-runs summary").first.click()
    link = page.locator(".w2s-runs a").first
    run = link.inner_text()
    link.click()
    page.wait_for_function("document.querySelector('tr:target')?.getBoundingClientRect().y < 900")
    assert run in page.locator("tr:target").inner_text() and wrong == []


@pytest.mark.parametrize("width", [390, 1440])
def test_examples_are_chosen_by_keyboard(opened, width):
    page, wrong = opened("examples", width=width)
    box = page.locator(".w2s-examples")
    shown = box.locator("blockquote:visible")
    assert (SITE / "examples.html").stat().st_size < 300_000
    assert shown.count() == 16 and "16 texts" in box.get_by_role("status").inner_text()
    experiment, seed, category = box.locator("select").all()
    for select, count in ((experiment, 16), (seed, 16), (category, 4)):
        before = shown.all_inner_texts()
        select.focus()
        page.keyboard.press("ArrowDown")
        after = shown.all_inner_texts()
        assert len(after) == count and after != before
        assert f"{count} texts" in box.get_by_role("status").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width and wrong == []


def test_examples_are_a_list_without_a_script(opened):
    page, _ = opened("examples", javascript=False)
    parts = page.locator(".w2s-examples details")
    assert page.locator("select").count() == 0 and parts.count() > 10
    for number in range(parts.count()):
        text = parts.nth(number).inner_text() if number == 0 else parts.nth(number).text_content()
        assert all(re.search(category, text, re.I) for category in CATEGORIES)
    parts.nth(1).locator("summary").click()
    assert parts.nth(1).locator("blockquote").first.is_visible()
