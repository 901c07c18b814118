"""`make pdf`: the built pages as one PDF, printed by the system's Chromium.

The pages are put one after another into one page without scripts, whose charts are the still ones;
`book/_static/print.css` says what is left out on paper. It is printed twice: the first print tells
on which pages the headings are, the second has these numbers in its table of contents.
"""

import html
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from w2s_lib.publishing.chapters import BookError, Chapter

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 900
"""Seconds for one print, which takes some 10 on an idle machine."""
HEADING = re.compile(
    r'<section[^>]*?\bid="([^"]+)"[^>]*>\s*(?:<span[^>]*></span>\s*)*<h([12])>(.*?)<a class="headerlink"',
    re.S,
)


def find_browser() -> str:
    """The path of Chromium. `BookError` says what to install where there is none."""
    if path := next(filter(None, map(shutil.which, BROWSERS)), None):
        return path
    raise BookError(
        "A PDF is printed by Chromium, and there is none on the path. Install it, for example with"
        " `apt-get install chromium` or `brew install --cask chromium`; Google Chrome will do, too."
    )


def write_pdf(pages: list[Chapter], target: Path) -> int:
    """Prints the built pages.

    Args:
        pages: of the book, in reading order; all of them built.
        target: the PDF.

    Returns:
        How many pages it has.

    Raises:
        BookError: there is no Chromium, it failed, or a heading is not in what it printed.
    """
    from pypdf import PdfReader

    target.parent.mkdir(parents=True, exist_ok=True)
    source, numbers = target.with_suffix(".html"), dict[str, int]()
    while True:
        source.write_text(one_page(pages, numbers), encoding="utf-8")
        _print(source, target)
        reader = PdfReader(target)
        number = reader.get_destination_page_number
        places = reader.named_destinations.items()
        found = {name.lstrip("/"): (number(place) or 0) + 1 for name, place in places}
        if lost := [name for page in pages for name, _, _ in headings(page) if name not in found]:
            raise BookError(f"{target.name} lacks headings: {', '.join(lost)}")
        if found == numbers:
            source.unlink()
            return len(reader.pages)
        numbers = found


def one_page(pages: list[Chapter], numbers: Mapping[str, int]) -> str:
    """The book as one HTML page: title, contents with the page numbers that are known, chapters."""
    config = yaml.safe_load((pages[0].root / "_config.yml").read_text(encoding="utf-8"))
    title, author = html.escape(config["title"]), html.escape(config["author"])
    first = _built(pages[0])
    styles = "\n".join(re.findall(r'<link[^>]+rel="stylesheet"[^>]*>', first))
    contents = "\n".join(
        f'<li class="level{level}"><a href="#{name}">{text}</a><span>{numbers.get(name, "")}</span></li>'
        for page in pages
        for name, level, text in headings(page)
    )
    chapters = "\n".join(f'<article class="bd-article">{article(page)}</article>' for page in pages)
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{title}</title>'
        f'{_rebased(styles)}</head><body class="w2s-paper"><header><h1>{title}</h1><p>{author}</p></header>'
        f'<nav><h1>Contents</h1><ul>{contents}</ul></nav><div class="bd-content">{chapters}</div></body></html>'
    )


def headings(page: Chapter) -> list[tuple[str, str, str]]:
    """The id, level and text of a page's headings of levels 1 and 2."""
    return HEADING.findall(article(page))


def article(page: Chapter) -> str:
    """What a page says, with ids that no other page has, and with links that stay in the book.

    A link to a file of the site, which would lead to a folder of this machine, is none on paper.
    """
    found = re.search(r'<article class="bd-article">(.*)</article>', _built(page), re.S)
    if not found:
        raise BookError(f"{page.name}: its page has no article")
    text = re.sub(r"<script\b.*?</script>", "", found[1], flags=re.S)
    text = re.sub(r'<a\b[^>]*href="_[^>]*>(.*?)</a>', r"\1", text, flags=re.S)
    text = re.sub(r'(\bid="|\bhref="#|\bfor="|url\(#)', rf"\g<1>{page.name}--", text)
    text = re.sub(r'href="(\w+)\.html#', r'href="#\1--', text)
    text = re.sub(r'href="(\w+)\.html"', r'href="#\1"', text)
    return f'<div id="{page.name}">{_rebased(text)}</div>'


def _built(page: Chapter) -> str:
    return (page.root / "_build" / "html" / f"{page.name}.html").read_text(encoding="utf-8")


def _rebased(text: str) -> str:
    """With the site's files as they are seen from a folder beside it."""
    return re.sub(r'\b(src|href)="(_\w+/)', r'\1="../html/\2', text)


def _print(source: Path, target: Path) -> None:
    """Runs Chromium, in a profile of its own."""
    browser = find_browser()
    target.unlink(missing_ok=True)
    with TemporaryDirectory() as profile:
        command = [browser, "--headless", "--disable-gpu", "--no-pdf-header-footer"]
        command += ["--generate-pdf-document-outline", "--allow-file-access-from-files"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        command += [f"--user-data-dir={profile}", f"--print-to-pdf={target}", source.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise BookError(f"{browser} has not printed within {PATIENCE} seconds") from None
    if done.returncode or not target.exists():
        raise BookError(f"{browser} failed ({done.returncode}): {done.stderr.strip()[-500:]}")
