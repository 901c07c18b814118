"""Numbers into prose: `report` gives a value a name, and the page says it with ``{glue:text}`name` ``.

A page that quotes a result by its name cannot disagree with it. Every chapter reports this way, into the file that the
environment variable `W2S_REPORT` names, and pages that gather results read them back as data with `reports`.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["ReportError", "report", "reported", "reports", "say"]

PARTS = ("value", "low", "high", "strict_low", "strict_high", "n_seeds", "n_items")

reported: dict[str, dict[str, Any]] = {}
"""What this process has reported: name -> its `text` and its `value`; an interval's bounds, seeds and test rows as well."""


class ReportError(ValueError):
    """A value that must not reach a page: it has no number, no words, or two meanings."""


def report(name: str, value: Any, fmt: str = "", *, text: str | None = None) -> None:
    """Reports `value` as `name`, so that ``{glue:text}`name` `` renders exactly `format(value, fmt)`.

    Args:
        name: letters, digits, `_`, `-` and `.`. Another page writes ``{glue:text}`pgr.ipynb::name:s` ``.
        value: a number (NumPy's and torch's scalars too), a string, or what formats itself, such as an `Interval`.
        fmt: a format specification, as in `format(3.14159, ".2f")`.
        text: the words to show if the value, or a bound of it, is NaN, such as "no gap to recover". Not needed for an
            object that has words of its own for it.

    Raises:
        ReportError: the value is no number or string; it would be shown as NaN; nothing would be shown; or the name
            already stands for another text (but at a person's prompt, where cells are run again, it is replaced).
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise ReportError(f"report: {name!r} is no name; use letters, digits, '_', '-' and '.'.")
    value = _plain(value)
    parts = {part: _plain(getattr(value, part)) for part in PARTS if hasattr(value, part)}
    parts = parts or {"value": value}
    if odd := [part for part in parts.values() if not isinstance(part, (float, int, str))]:
        raise ReportError(
            f"report({name!r}): {odd[0]!r} is a {type(odd[0]).__name__}, not a number or a string."
        )
    missing = [key for key, part in parts.items() if isinstance(part, float) and math.isnan(part)]
    try:
        shown = text if missing and text else format(value, fmt)
    except (TypeError, ValueError) as error:
        raise ReportError(
            f"report({name!r}): cannot write {value!r} as {fmt!r}: {error}"
        ) from error
    if missing and re.search(r"\bnan\b", shown, re.IGNORECASE):
        raise ReportError(
            f"report({name!r}): {missing[0]} is NaN; give the words to show instead as `text`."
        )
    if not shown.strip():
        raise ReportError(f"report({name!r}): nothing would be shown.")
    path, in_notebook = os.environ.get("W2S_REPORT"), _in_notebook()
    if name in reported and reported[name]["text"] != shown and (path or not in_notebook):
        raise ReportError(
            f"report({name!r}): it is {shown!r} here, but was {reported[name]['text']!r} before."
        )
    reported[name] = {"text": shown} | {
        key: None if key in missing else part for key, part in parts.items()
    }
    if path:
        Path(path).write_text(json.dumps(reported, indent=1, sort_keys=True), encoding="utf-8")
    if in_notebook:
        from myst_nb import glue

        glue(name, shown, display=False)


def say(fmt: str = "", **values: Any) -> None:
    """Reports several values in one format: `say(".3f", weak=0.62, ceiling=0.86)`. Args and errors: `report`."""
    for name, value in values.items():
        report(name, value, fmt)


def reports(folder: Path | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """What executed chapters have reported: chapter -> name -> its `text`, `value` and so on, as in `reported`.

    Args:
        folder: where their files lie; by default the folder of `W2S_REPORT`, else `_build/executed` of the checkout that
            this library is in.

    Raises:
        ReportError: there are none.
    """
    if folder is None:
        from w2s_lib.runs.folders import repository_root

        here = os.environ.get("W2S_REPORT")
        root = repository_root()
        folder = Path(here).parent if here else (root or Path.cwd()) / "_build" / "executed"
    found = {
        path.name.removesuffix(".report.json"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.report.json"))
    }
    if not found:
        raise ReportError(f"no chapter has reported anything in {folder}: run `make book` first.")
    return found


def _plain(value: Any) -> Any:
    """A zero-dimensional array or tensor, or a NumPy scalar, as Python's own number."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _in_notebook() -> bool:
    """Whether a kernel is there to take the output (it has IPython loaded, so nothing needs importing)."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None
