"""Numbers into prose: `report` gives a value a name, and the page says it with ``{glue:text}`name` ``.

A page that quotes a result by name cannot disagree with it. Every chapter uses this; `book/scorecard.md` reads the
values back as data from the file that `W2S_REPORT` names.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

__all__ = ["ReportError", "report", "reported"]

reported: dict[str, dict[str, object]] = {}
"""What this process has reported: name -> {"text": ..., "value": ..., "low": ..., "high": ...} (bounds of intervals)."""


class ReportError(ValueError):
    """A value that must not reach the page: it has no number, no words or two meanings."""


def report(name: str, value: object, fmt: str = "", *, text: str | None = None) -> None:
    """Reports `value` under `name`, so that ``{glue:text}`name` `` renders exactly `format(value, fmt)`.

    Args:
        name: what the page calls it: letters, digits, `_`, `-` and `.`. From another page: ``pgr.ipynb::name:s``.
        value: a number (NumPy's and torch's scalars too), a string, or an object that formats itself, such as `Interval`.
        fmt: a format specification, as in `format(3.14159, ".2f")`.
        text: the words to show where the value is NaN, e.g. "no gap to recover". Not used otherwise.

    Raises:
        ReportError: the name or value cannot be shown, the value is NaN and no `text` is given, or the name already
            stands for another text. (At a person's prompt, where cells are run again, the new value replaces the old.)
    """
    if not name or not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise ReportError(f"report: {name!r} is no name; use letters, digits, '_', '-' and '.'.")
    parts = _parts(name, value)
    missing = any(isinstance(part, float) and math.isnan(part) for part in parts.values())
    shown = text if missing else _formatted(name, value, fmt)
    if shown is None:
        raise ReportError(f"report({name!r}): the value is {value!r}; say in `text` what the page shows instead.")
    if not shown.strip():
        raise ReportError(f"report({name!r}): the text is empty.")
    entry: dict[str, object] = {"text": shown} | {k: None if v != v else v for k, v in parts.items()}
    by_hand = _in_notebook() and "W2S_REPORT" not in os.environ
    if not by_hand and reported.get(name, entry)["text"] != shown:
        raise ReportError(f"report({name!r}): already reported as {reported[name]['text']!r}, now {shown!r}.")
    reported[name] = entry
    if path := os.environ.get("W2S_REPORT"):
        Path(path).write_text(json.dumps(reported, indent=1, sort_keys=True), encoding="utf-8")
    if _in_notebook():
        from myst_nb import glue

        glue(name, shown, display=False)


def _parts(name: str, value: object) -> dict[str, float | int | str]:
    """The value as plain data: itself, or its `value`, `low` and `high` where it has them."""
    fields = {key: getattr(value, key) for key in ("value", "low", "high") if hasattr(value, key)}
    parts = {}
    for key, part in (fields or {"value": value}).items():
        part = part.item() if getattr(part, "ndim", None) == 0 else part  # NumPy's and torch's scalars
        if not isinstance(part, (float, int, str)):
            raise ReportError(f"report({name!r}): {key} is a {type(part).__name__}; want a number or a string.")
        parts[key] = part
    return parts


def _formatted(name: str, value: object, fmt: str) -> str:
    """`format(value, fmt)`, with an error that names the report."""
    value = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    try:
        return format(value, fmt)
    except (TypeError, ValueError) as error:
        raise ReportError(f"report({name!r}): cannot write {value!r} as {fmt!r}: {error}") from error


def _in_notebook() -> bool:
    """Whether a kernel is there to take the output. (IPython is imported by whoever started it, never here.)"""
    import sys

    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None
