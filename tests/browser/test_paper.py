"""What is printed: the whole book by `make pdf`, one page from a dark screen."""

import re

import pytest

from tests.browser.conftest import PAGES, ROOT, SITE
from w2s_lib.publishing.chapters import chapters
from w2s_lib.publishing.pdf import headings, write_pdf

COLUMN = 658
"""Pixels between the margins of A4."""


def test_a_pdf_has_chapters_contents_figures_and_answers(site, tmp_path):
    pypdf = pytest.importorskip("pypdf")
    pages = [page for page in chapters(ROOT) if page.name in ("pgr", "glossary")]
    if SITE != ROOT / "_build" / "html":
        pytest.skip("make pdf prints the book of this checkout")
    target = ROOT / "_build" / "pdf" / "test.pdf"
    n_pages = write_pdf(pages, target)
    reader = pypdf.PdfReader(target)
    texts = [page.extract_text() for page in reader.pages]
    links = [note.get_object() for page in reader.pages for note in page.annotations or ()]
    outline = str(reader.outline)
    target.unlink()
    assert len(texts) == n_pages > 5 and all(len(text) > 20 for text in texts)
    contents = " ".join(texts[1].split())
    for number, text in enumerate(texts[2:], start=3):
        for title in ("Exercises", "Where it breaks"):
            if re.search(rf"^{title}$", text, re.M):
                assert f"{title} {number}" in contents
    titles = {title for _, _, title in headings(pages[0])}
    lasts = [[line for line in text.splitlines() if not line.isdigit()][-1] for text in texts]
    assert len(titles) > 5 and not titles & set(lasts)  # no heading stands alone at a page's foot
    assert all(title in outline for title in ("Contents", "Exercises", "Glossary"))
    assert len(links) > 20 and "file:" not in str(links)
    whole = " ".join(texts)
    assert "A ceiling no better than the student" in " ".join(whole.split())  # a folded answer
    assert "strong ceiling" in whole and "task_name" not in whole  # a chart's words; folded code


@pytest.mark.parametrize("name", PAGES or ["none"])
def test_nothing_is_cut_on_paper(opened, name):
    """Paper does not scroll, and shows nothing beside its column; a box stays with what is in it."""
    page, wrong = opened(name, width=COLUMN)
    page.emulate_media(media="print")
    cut = page.evaluate(
        """() => {
        const column = document.querySelector('.bd-article').getBoundingClientRect();
        const seen = (part) => part.getClientRects().length && !part.closest('.visually-hidden');
        const bad = (part) => {
            const style = getComputedStyle(part), box = part.getBoundingClientRect();
            return (part.matches('div, pre, table') && style.overflow !== 'visible')
                || (part.matches('.cell_input') && style.breakInside !== 'avoid')
                || box.left < column.left - 1 || box.right > column.right + 1;
        };
        const parts = [...document.querySelectorAll('.bd-article :is(div, pre, table, td, p, text)')];
        return parts.filter((part) => seen(part) && bad(part)).map((part) => part.outerHTML.slice(0, 200));
    }"""
    )
    assert cut == [] and wrong == []
    assert page.locator("h1:visible").count() == 1
    if name == "examples":
        assert page.locator(".w2s-examples details:visible").count() == 1
        assert not page.locator("select").first.is_visible()


def test_from_a_dark_screen_paper_is_light(opened):
    page, wrong = opened("pgr", theme="dark")
    seen = page.evaluate(
        """() => {
        const ink = () => getComputedStyle(document.querySelector('h1')).color;
        const found = [ink()];
        for (const name of ['beforeprint', 'afterprint']) { dispatchEvent(new Event(name)); found.push(ink()); }
        return found;
    }"""
    )
    assert seen[0] == seen[2] != seen[1] and wrong == []
    page.emulate_media(media="print")
    hidden = [".bd-sidebar-primary", ".headerlink", ".vega-bindings", ".cell > details.hide"]
    for part in hidden:
        for each in page.locator(part).all():
            assert not each.is_visible(), part
