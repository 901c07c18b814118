"""What is printed: the whole book by `make pdf`, one page from a dark screen."""

import re

import pytest

from tests.browser.conftest import ROOT, SITE
from w2s_lib.publishing.chapters import chapters
from w2s_lib.publishing.pdf import headings, write_pdf


def test_a_pdf_has_chapters_contents_figures_and_answers(site, tmp_path):
    pypdf = pytest.importorskip("pypdf")
    pages = [page for page in chapters(ROOT) if page.name in ("pgr", "glossary")]
    if SITE != ROOT / "_build" / "html":
        pytest.skip("make pdf prints the book of this checkout")
    target = ROOT / "_build" / "pdf" / "test.pdf"
    n_pages = write_pdf(pages, target)
    texts = [page.extract_text() for page in pypdf.PdfReader(target).pages]
    target.unlink()
    assert len(texts) == n_pages > 5 and all(len(text) > 20 for text in texts)
    contents = " ".join(texts[1].split())
    for number, text in enumerate(texts[2:], start=3):
        for title in ("Exercises", "Where it breaks"):
            if re.search(rf"^{title}$", text, re.M):
                assert f"{title} {number}" in contents
    assert len(headings(pages[0])) > 5
    whole = " ".join(texts)
    assert "A ceiling no better than the student" in " ".join(whole.split())  # a folded answer
    assert "strong ceiling" in whole and "task_name" not in whole  # a chart's words; folded code


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
