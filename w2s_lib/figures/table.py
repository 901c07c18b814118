"""A data frame as a plain table that JupyterLab and the page show, with all its text escaped."""

import re
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, TypeAlias

import pandas as pd

from w2s_lib.measures.intervals import Interval, minus

Format: TypeAlias = str | Callable[[Any], str]
MOST_ROWS = 20
"""Of a table in a box that scrolls, as plain text."""
MOST_STYLED = 200
"""Rows of a table whose cells have a style, which is a third of their HTML."""
LINE = 80
"""Characters of a cell that is read on one line in a box that scrolls."""


class Table:
    """Rows of text: HTML in a notebook, plain elsewhere."""

    def __init__(self, rows: pd.DataFrame, scroll: str = "") -> None:
        """Args: rows: text alone; scroll: see `table`."""
        self.rows, self.scroll = rows, scroll

    def __repr__(self) -> str:
        """The table as text."""
        return self.rows.to_string(index=False, max_rows=MOST_ROWS if self.scroll else None)

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None, "display.html.use_mathjax", False):
            html: str = self.rows.to_html(index=False, escape=True, border=0)
        html = re.sub(r">\s+<", "><", html)
        # JupyterLab sets every cell to the right, sentences too, and drops styles of whole tables.
        if len(self.rows) <= MOST_STYLED:
            html = re.sub("<(t[dh])>", r'<\1 style="text-align: left">', html)
        if not self.scroll:
            return html
        longest = max((len(text) for text in self.rows.to_numpy().flat), default=0)
        wrap = "normal" if longest > LINE else "nowrap"
        box = f"max-height: 28rem; overflow: auto; white-space: {wrap}"
        label = escape(self.scroll)
        return f'<div style="{box}" tabindex="0" role="region" aria-label="{label}">{html}</div>'


class Shown:
    """What shows itself as a table."""

    def _table(self) -> Table:
        raise NotImplementedError

    def __repr__(self) -> str:
        """The table as text."""
        return repr(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()


def plain(text: str) -> str:
    """A text with what is invisible spelt out, such as what turns the direction of writing."""
    return "".join(c if c.isprintable() or c.isspace() else f"\\u{ord(c):04x}" for c in text)


def table(
    frame: pd.DataFrame, formats: Mapping[str, Format] | None = None, *, scroll: str = ""
) -> Table:
    """Shows a frame without its index. All text is escaped: a `<script>` in the data stays text.

    Args:
        frame: any columns; an `Interval` shows as `0.41 [0.33, 0.49]`, what is missing as nothing.
            An underscore in a column's name shows as a space.
        formats: column -> a number format such as ".3f", or a function of a value to its text; by
            default two decimals for numbers with a fraction.
        scroll: of a long table, its name: it is shown in a box that scrolls.

    Raises:
        KeyError: a format for a column that the frame does not have.
    """
    given = formats or {}
    if unknown := set(given) - set(frame.columns):
        raise KeyError(f"no column {sorted(unknown)}: the frame has {list(frame.columns)}")
    columns = {
        plain(str(name).replace("_", " ")): [
            plain(_text(value, given.get(name, ""))) for value in frame[name]
        ]
        for name in frame.columns
    }
    return Table(pd.DataFrame(columns, dtype=str), scroll)


def _text(value: Any, how: Format) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    if callable(how):
        return minus(str(how(value)))
    if isinstance(value, str):
        return value
    return minus(format(value, how or (".2f" if isinstance(value, (float, Interval)) else "")))
