"""Rules for the prose of the book's pages, drafts among them; `tests/test_words.py` applies them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.chapter_text import LINK
from w2s_lib.publishing.chapters import Chapter
from w2s_lib.publishing.prose import CODE, FIELD, fields

HISTORY = {"log", "lessons"}
"""Pages about numbers that were measured once, which stay as they were typed."""
DECIMAL = re.compile(r"(?<![\w.])\d*\.\d+(?![\w]|\.\d)")
END = re.compile(r"(?<=[.?!:])[*)\"”]*\s+(?=[A-Z*>`\[{(])|\n\s*\n|\n(?=[-*>|] )")
CITED = re.compile(r"([A-Z][\w'’-]+)( et al\.| and [A-Z]\w+)?,? \(?((?:19|20)\d\d)\b")
BOLD = re.compile(r"(?<=[\w,;] )\*\*([^*{]+[^*{.,:?!])\*\*")
"""In the middle of a sentence; what stands at its head is explained by what follows."""
ESTIMATE = re.compile(r"([^{}]+?):[^:{}'\"]*\.\d[f%]")
NUMBER = re.compile(r"\.(value|low|high|n_\w+)$|^(?!runs\.).*\)$|\[\d+\]$", re.S)
"""An expression that gives a number and no interval, by its looks."""
INTERVAL = re.compile(r"\[[−+-]?\d*\.?\d+%?, [−+-]?\d*\.?\d+%?\]")


def pages(root: Path) -> list[Chapter]:
    """Every page in `book/`, whether the contents name it or not."""
    return [Chapter(path.stem, root) for path in sorted((root / "book").glob("*.md"))]


def prose(page: Chapter) -> str:
    """What a page says in words: its Markdown and its prose cells, without blocks of code."""
    cells = [
        cell.source.replace("%%prose", "", 1)
        for cell in page.notebook().cells
        if cell.cell_type == "markdown" or fields(cell.source) is not None
    ]
    return CODE.sub("", "\n\n".join(cells))


def sentences(text: str) -> Iterator[str]:
    """The sentences, each on one line; full stops in fields and in "et al." end none."""
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    hidden = re.sub(r"\{\{.*?\}\}|et al\.\s", keep, text, flags=re.S)
    for sentence in END.split(hidden):
        while "\0" in sentence:
            sentence = re.sub("\0(\\d+)\0", lambda found: kept[int(found[1])], sentence)
        yield " ".join(sentence.split())


def typed_decimals(text: str) -> Iterator[str]:
    """Decimals that nobody computed, in sentences that quote no work."""
    for sentence in sentences(text):
        bare = re.sub(r"`[^`]*`|\]\([^)]*\)", "", FIELD.sub("", sentence))
        if not LINK.search(sentence):
            yield from (f"{found} in: {sentence}" for found in DECIMAL.findall(bare))


def wrong_years(text: str, works: set[str]) -> Iterator[str]:
    """Citations, links or not, of an author whom the bibliography knows with another year.

    Args:
        text: Markdown or code.
        works: how each work is cited: "Burns et al. 2023".
    """
    authors = {work.split()[0] for work in works}
    for name, others, year in CITED.findall(" ".join(re.sub(r"[\[\]]", "", text).split())):
        if name in authors and f"{name}{others} {year}" not in works:
            yield f"{name}{others} {year}"


def names(glossary: str) -> set[str]:
    """The words that the glossary defines, in small letters, the other names in brackets too."""
    heads = re.findall(r"^\*\*([^*]+)\*\*(?: \(([^)]*)\))?", glossary, re.M)
    return {
        name.strip("*. ").lower() for head in heads for part in head for name in part.split(",")
    } - {""}


def undefined(text: str, known: set[str]) -> Iterator[str]:
    """Words set in bold as terms, or linked to the glossary, that the glossary does not define."""
    linked = re.findall(r"\[([^\]]+)\]\(glossary\.md\)", text)
    bold = [word for sentence in sentences(text) for word in BOLD.findall(sentence)]
    for word in [*linked, *(word for word in bold if len(word.split()) < 4)]:
        if word.lower() not in known | {"glossary"} and word.lower().rstrip("s") not in known:
            yield word


def crowded(text: str) -> Iterator[str]:
    """Sentences with more than two intervals, printed ones and those that fields print."""
    for sentence in sentences(text):
        printed = [e for field in FIELD.findall(sentence) for e in ESTIMATE.findall(field)]
        intervals = [e for e in printed if not NUMBER.search(e.strip())]
        if len(intervals) + len(INTERVAL.findall(sentence)) > 2:
            yield sentence
