"""Prose: its numbers, and the works that it cites.

Numbers: a notebook cell whose body is Markdown, and whose numbers are the notebook's own.

    %%prose
    The student is right on {{accuracy:.1%}} of the test rows.

`%load_ext w2s_lib` loads the magic. A field is `{{expression}}` or `{{expression:format}}`: any
Python expression, and Python's format specification. What a field gives is text: HTML in it is
escaped, and a negative number has the minus sign of the charts.

A citation is a plain link to a work of `book/references.bib`:
`[Burns et al. 2023](https://arxiv.org/abs/2312.09390)`. Its words are the authors and the year in
the work's key (`burns2023weak`), so that one work is cited with one year; its address is one of
those in the entry. A test holds the chapters to it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from w2s_lib.measures.intervals import minus
from w2s_lib.runs.errors import nearest

FIELD = re.compile(r"\{\{(.*?)\}\}", re.S)
HEADING = re.compile(r"^ {0,3}#{1,6}(\s|$)|(?<=\S\n) {0,3}(=+|-+)[ \t]*$", re.M)
NOTHING = re.compile(r"\bnan\b|^None$|^<(function|built-in|bound method) ", re.I)
CODE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)


class ProseError(ValueError):
    """A prose cell cannot be written; the message names the field and says why."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the message alone."""
        return [f"ProseError: {self}"]


def render(text: str, names: Mapping[str, Any]) -> str:
    """The Markdown with every field replaced by its value.

    Args:
        text: Markdown without headings, which a notebook's table of contents would not find.
        names: what the expressions of the fields may use.

    Raises:
        ProseError: a heading; or a field whose expression fails, or that would show nothing, NaN,
            None or a function.
    """
    if heading := HEADING.search(CODE.sub("", text)):
        raise ProseError(f"no headings in prose cells, but there is {heading[0].strip()!r}")
    shown = FIELD.sub(lambda field: escape(_value(field[1], names), quote=False), text)
    if left := re.search(r"\{\{|\{glue", shown):
        raise ProseError(f"a field that does not end, near {shown[left.start() :][:40]!r}")
    return shown


def magic(names: Mapping[str, Any]) -> Callable[[str, str], None]:
    """The cell magic `%%prose` over the names of a notebook."""

    def prose(line: str, cell: str) -> None:
        """Shows the cell as Markdown, with the values of its {{fields}}."""
        from IPython.display import display

        if line.strip():
            raise ProseError(f"%%prose takes nothing on its line, but got {line.strip()!r}")
        text = render(cell.strip(), names)
        bundle = {"text/markdown": text, "text/plain": text}
        display(bundle, raw=True)  # type: ignore[no-untyped-call]

    return prose


def fields(cell: str) -> list[str] | None:
    """The fields of a prose cell as f-strings, for a linter; None for any other cell."""
    if not cell.lstrip().startswith("%%prose"):
        return None
    return [_fstring(field) for field in FIELD.findall(cell)]


def _fstring(field: str) -> str:
    """The field as an f-string: Python knows where the expression ends and its format begins."""
    return f'f"""{{{field.strip()}}}"""'


def _value(field: str, names: Mapping[str, Any]) -> str:
    """What a field shows."""
    try:
        shown = str(eval(_fstring(field), dict(names)))  # noqa: S307  the author wrote it
    except NameError as error:
        known = [name for name in names if not name.startswith("_")]
        hint = nearest(str(error.name), known)
        raise ProseError(f"{{{{{field}}}}}: there is no {error.name!r}: {hint}") from None
    except Exception as error:
        raise ProseError(f"{{{{{field}}}}}: {type(error).__name__}: {error}") from None
    if not shown.strip() or NOTHING.search(shown):
        raise ProseError(f"{{{{{field}}}}}: would show {shown!r}; give words for this case")
    return minus(shown)


ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
BARE, ESCAPE = re.compile(r"(?<![\[(])https?://[^\s()\[\]]*\w"), "\\"
"""An address that is no part of a link, and what stands before its dots."""


@dataclass(frozen=True)
class Work:
    """A work of the bibliography.

    How the text cites it, and the addresses of it, the first one preferred.
    """

    words: str
    addresses: tuple[str, ...]


def works(path: Path) -> dict[str, Work]:
    """Every entry of a BibTeX file, by its key."""
    return {key: _work(key, entry) for key, entry in _entries(path).items()}


def listing(path: Path) -> str:
    """All works as a Markdown list, each under the words that cite it, in their order.

    An address in what is said of a work is a link too.
    """
    from pybtex.backends.markdown import Backend
    from pybtex.style.formatting.plain import Style

    known, lines = works(path), {}
    for entry in Style().format_entries(_entries(path).values()):
        work, text = known[entry.key], " ".join(entry.text.render(Backend()).split())
        said = BARE.sub(lambda url: f"[{url[0]}]({url[0].replace(ESCAPE, '')})", text)
        head = f"[{work.words}]({work.addresses[0]})" if work.addresses else work.words
        lines[work.words] = f"- **{head}{'.' if work.words[-1] != '.' else ''}** {said}"
    return "\n".join(lines[words] for words in sorted(lines, key=str.casefold)) + "\n"


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
