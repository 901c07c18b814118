"""Citations: plain links to the works of `book/references.bib`, and the list of all works.

A citation is `[Burns et al. 2023](https://arxiv.org/abs/2312.09390)`. Its words are the authors and
the year in the work's key (`burns2023weak`), so that one work is cited with one year; its address
is one of those in the entry. A test holds the chapters to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Work:
    """A work of the bibliography.

    How the text cites it, and the addresses of it, the first one preferred.
    """

    words: str
    addresses: tuple[str, ...]

    @property
    def link(self) -> str:
        """The citation in Markdown."""
        return f"[{self.words}]({self.addresses[0]})" if self.addresses else self.words


def works(path: Path) -> dict[str, Work]:
    """Every entry of a BibTeX file, by its key."""
    return {key: _work(key, entry) for key, entry in _entries(path).items()}


def listing(path: Path) -> str:
    """All works as a Markdown list, each under the words that cite it, in their order."""
    from pybtex.plugin import find_plugin

    style = find_plugin("pybtex.style.formatting", "plain")()
    backend = find_plugin("pybtex.backends", "markdown")()
    entries, known = _entries(path), works(path)
    lines = [
        f"- **{known[entry.key].link}.** {' '.join(entry.text.render(backend).split())}"
        for entry in style.format_entries(entries.values())
    ]
    return "\n".join(sorted(lines, key=str.casefold)) + "\n"


def _entries(path: Path) -> dict[str, Any]:
    from pybtex.database import parse_file

    return dict(parse_file(str(path), bib_format="bibtex", encoding="utf-8").entries)


def _work(key: str, entry: Any) -> Work:
    from pybtex.richtext import Text

    names = [
        str(Text.from_latex(" ".join(person.prelast_names + person.last_names)))
        for person in entry.persons["author"]
    ]
    fields = entry.fields
    year = re.search(r"\d{4}", key)
    authors = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
    addresses = [fields["url"]] if "url" in fields else []
    addresses += [f"https://doi.org/{fields['doi']}"] if "doi" in fields else []
    preprints = [*ARXIV.findall(fields.get("note", "")), fields.get("eprint")]
    addresses += [f"https://arxiv.org/abs/{preprint}" for preprint in preprints if preprint]
    return Work(f"{authors} {year[0] if year else fields['year']}", tuple(addresses))
