"""The prose of every page and draft: decimals, years, defined words, intervals. codespell is a step of `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chapter_text import problems
from tests.prose_rules import (
    HISTORY,
    crowded,
    names,
    pages,
    prose,
    typed_decimals,
    undefined,
    wrong_years,
)
from w2s_lib.publishing.prose import works

ROOT = Path(__file__).resolve().parent.parent
PAGES = pages(ROOT)
WORKS = {work.words for work in works(ROOT / "book" / "references.bib").values()}
KNOWN = names((ROOT / "book" / "glossary.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_prose_of_a_page(page) -> None:
    text = prose(page)
    assert list(problems(page)) == []
    assert list(wrong_years(text, WORKS)) == []
    if page.name not in HISTORY:
        assert list(typed_decimals(text)) == []
    if page.name != "log":
        assert list(undefined(text, KNOWN)) == []
        assert list(crowded(text)) == []


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "w2s_lib").rglob("*.py"))], ids=lambda p: p.stem
)
def test_a_work_has_one_year_in_code_too(path: Path) -> None:
    assert list(wrong_years(path.read_text(encoding="utf-8"), WORKS)) == []


def test_each_rule_finds_what_it_is_for() -> None:
    """And lets pass what is beside it."""
    quoted = "[Burns et al. 2023](https://arxiv.org/abs/2312.09390) report .58 and more. We saw 0.61, `0.7` and {{x:.2f}}."
    assert [found.split(" in: ")[0] for found in typed_decimals(quoted)] == ["0.61"]
    assert not list(typed_decimals("Version 5.2.3, Qwen3 0.6B, in 1 of 2."))
    years = "Burns et al. (2024) and [Burns et al.\n2023](x), Holm (1979), Alain and Bengio 2017, in May 2024"
    assert list(wrong_years(years, WORKS)) == ["Burns et al. 2024", "Alain and Bengio 2017"]
    defined = {"student", "probe"}
    terms = "The **student** and two **probes** meet the **oracle**; see [words](glossary.md). **Note**: no."
    assert list(undefined(terms, defined)) == ["words", "oracle"]
    assert names("**half** (*halves*, *a part*). One.\n\n**spec.** Two.") == {
        "half",
        "halves",
        "a part",
        "spec",
    }
    three = "From {{a:.2f}} to {{b['x']:+.1%}} over {{c.value:.2f}} and {{errors(2):.3f}}"
    assert not list(crowded(f"{three}.")) and list(crowded(f"{three} [-.003, +.008]."))
    assert list(crowded("{{f'{a:.2f} and {b:.2f}' if a.low > 0 else ''}} beside {{c:.2f}}."))
    assert not list(crowded("{{a:.2f}} and {{b:.2f}}. Then {{c:.2f}} and {{d:.2f}}."))
