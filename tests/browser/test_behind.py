"""What stands under a figure, and the browser of examples. See `test_pages.py` for what they need."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import SITE, with_part
from w2s_lib.publishing.examples import CATEGORIES


@pytest.mark.parametrize("name", with_part("w2s-behind") or ["none"])
def test_a_figure_leads_to_its_data_its_runs_and_its_code(opened, name):
    page, wrong = opened(name, width=390)
    rows = (SITE / "scorecard.html").read_text(encoding="utf-8")
    hrefs = "all => all.map((one) => one.getAttribute('href'))"
    for table in page.locator(".w2s-behind a.w2s-data").evaluate_all(hrefs):
        assert len((SITE / table).read_text(encoding="utf-8").splitlines()) > 1
    for run in page.locator(".w2s-behind .w2s-runs a").evaluate_all(hrefs):
        assert f'id="{run.partition("#")[2]}"' in rows
    for many in page.locator(".w2s-behind a.w2s-runs").all():
        _, *lines = (SITE / many.get_attribute("href")).read_text(encoding="utf-8").splitlines()
        assert many.inner_text() == f"{len(lines)} runs"
        assert all(f'id="run-{line.rpartition(",")[2]}"' in rows for line in lines)
    for fold in page.locator(".w2s-behind details").all():
        inside = fold.locator(":scope > :nth-child(2)")
        assert not inside.is_visible()
        fold.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(inside).to_be_visible()
    for box in page.locator(".w2s-behind .w2s-scroll").all():
        assert box.bounding_box()["height"] < 400
    assert page.evaluate("document.documentElement.scrollWidth") <= 390 and wrong == []


def test_a_run_leads_to_its_row(opened):
    page, wrong = opened(with_part('<details class="w2s-runs"')[0])
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
    expect(box.get_by_role("status")).to_contain_text("16 texts")
    assert shown.count() == 16
    experiment, seed, category = box.locator("select").all()
    for select, count in ((experiment, 16), (seed, 16), (category, 4)):
        before = shown.all_inner_texts()
        select.focus()
        page.keyboard.press("ArrowDown")
        expect(box.get_by_role("status")).to_contain_text(f"{count} texts")
        expect(shown).not_to_have_text(before, use_inner_text=True)
        assert shown.count() == count
    assert page.evaluate("document.documentElement.scrollWidth") <= width and wrong == []


def test_examples_are_a_list_without_a_script(opened):
    page, _ = opened("examples", java_script_enabled=False)
    parts = page.locator(".w2s-examples details")
    assert page.locator("select").count() == 0 and parts.count() > 10
    for number in range(parts.count()):
        text = parts.nth(number).inner_text() if number == 0 else parts.nth(number).text_content()
        assert all(re.search(category, text, re.I) for category in CATEGORIES)
    parts.nth(1).locator("summary").click()
    expect(parts.nth(1).locator("blockquote").first).to_be_visible()
