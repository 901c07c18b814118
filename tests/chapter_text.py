"""Chapters as they are written: their code for a linter, their knobs, and what is wrong in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jupytext
import nbformat

from w2s_lib.publishing.chapters import Chapter
from w2s_lib.publishing.prose import fields, works

LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((https?://[^\s)]+)\)")
AUTHOR_YEAR = re.compile(r"^[^\W\d_a-z].* (\d{4}|n\.d\.)$")
FOLDED = {
    "remove-input": {"source_hidden": True},
    "hide-input": {"source_hidden": True},
    "hide-cell": {"source_hidden": True, "outputs_hidden": True},
}
"""What folds a cell on the page, and what folds it in JupyterLab: cells bear both."""


def script(page: Chapter) -> str:
    """The code as a linter reads it: of a prose cell the expressions of its fields are left."""
    notebook = page.notebook()
    for cell in notebook.cells:
        if (expressions := fields(cell.source)) is not None:
            cell.source = "\n".join(expressions)
    return str(jupytext.writes(notebook, "py:percent"))


@dataclass(frozen=True)
class Listed(Chapter):
    """A chapter whose listings of Python are cells, as if a reader had pasted each below its text."""

    def notebook(self) -> Any:
        notebook = super().notebook()
        for i, cell in reversed([*enumerate(notebook.cells)]):
            found = re.findall(r"^```python\n(.*?)^```$", cell.source, re.M | re.S)
            if cell.cell_type == "markdown":
                notebook.cells[i + 1 : i + 1] = map(nbformat.v4.new_code_cell, found)
        return notebook


def knobs(page: Chapter) -> list[str]:
    """The settings in the first column of the table under "What to tweak"."""
    text = page.text
    section = text.partition("\n## What to tweak\n")[2].partition("\n## ")[0]
    return re.findall(r"^\|\s*`([^`|]+)`\s*\|", section, re.M)


def problems(page: Chapter) -> Iterator[str]:
    """What is wrong with a chapter: citations, links to headings, cells folded in one place only."""
    text = page.text
    yield from wrong_citations(page, text)
    for link in re.findall(r"\]\(([\w/.-]+\.md#[^)\s]*)\)", text):
        yield f"the link to {link} must end before the #"
    for cell in page.notebook().cells if page.is_notebook else ():
        tags = cell.metadata.get("tags", [])
        wanted = [FOLDED[tag] for tag in tags if tag in FOLDED]
        prose = fields(cell.source) is not None and "remove-input" not in tags
        jupyter = cell.metadata.get("jupyter", {})
        if prose or any(not want.items() <= jupyter.items() for want in wanted):
            line = cell.source.strip().splitlines()[0]
            yield f"the cell `{line}` is not folded both on the page and in JupyterLab"


def wrong_citations(page: Chapter, text: str) -> Iterator[str]:
    """A link is a citation if its words end in a year, or its address is that of a work."""
    known = works(page.root / "book" / "references.bib")
    of = {plain(address): work for work in known.values() for address in work.addresses}
    for words, address in LINK.findall(text):
        cited = " ".join(words.replace("(", "").replace(")", "").split())
        work = of.get(plain(address))
        if work is None and AUTHOR_YEAR.match(cited):
            yield f"the citation [{words}]({address}) is not in references.bib"
        elif work is not None and work.words not in cited:
            yield f"the citation [{words}]({address}) must say {work.words!r}"


def plain(address: str) -> str:
    """An address without what does not matter."""
    return address.partition("://")[2].partition("#")[0].rstrip("/").lower()
