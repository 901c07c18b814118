"""A user's own file, checked and brought to the columns of a task."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from w2s_lib.runs.errors import SpecError, require

FILE_KINDS = (".csv", ".jsonl", ".parquet")
SPLITS = ("train", "validation", "test")
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def is_file(name: str) -> bool:
    """Whether a task's name is the path of a user's file."""
    return name.endswith(FILE_KINDS)


def read_file(path: Path) -> pd.DataFrame:
    """A user's own `.csv`, `.jsonl` or `.parquet` file.

    Raises:
        SpecError: see `table.load_table`.
    """
    try:
        if path.suffix == ".csv":  # as written: an id of 007 stays so, and a text of NA is a text
            raw = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        elif path.suffix == ".jsonl":
            # Not `splitlines`: a string of JSON may hold U+2028, which that takes for a line's end.
            lines = path.read_text(encoding="utf-8-sig").split("\n")
            raw = pd.DataFrame([json.loads(line) for line in lines if line.strip()], dtype=object)
        else:
            with path.open("rb") as file:
                raw = pd.read_parquet(file).astype(object)  # decodes every text, here
    except Exception as error:  # pandas and Arrow have a dozen kinds
        raise SpecError(f"cannot read {path} as {path.suffix}: {error}") from error
    require(not raw.empty, f"{path} has no rows")
    return _canonical(raw, str(path))


def _canonical(raw: pd.DataFrame, name: str) -> pd.DataFrame:
    """Checks a user's columns and brings them to the canonical ones, or says which row is wrong."""
    pairs = "chosen" in raw.columns or "rejected" in raw.columns
    for column in ("chosen", "rejected") if pairs else ("text", "label"):
        there = ", ".join(map(repr, raw))
        require(column in raw.columns, f"{name} has no column {column!r}; its columns are {there}")
    frame = pd.DataFrame(index=raw.index)
    if pairs:
        chosen, rejected = (_strings(raw, side, name) for side in ("chosen", "rejected"))
        _refuse((chosen == "") | (rejected == ""), name, "one side of the comparison is empty")
        same = chosen.str.casefold() == rejected.str.casefold()
        _refuse(same, name, "a text is compared with itself: {!r}", chosen)
        frame["label"], frame["text"], frame["text_b"] = in_either_order(chosen, rejected)
    else:
        label = raw["label"].map(lambda value: _LABELS.get(str(value).strip().lower()))
        _refuse(label.isna(), name, "the label must be 0 or 1, not {!r}", raw["label"])
        frame["label"], frame["text"] = label.astype("int8"), _strings(raw, "text", name)
        _refuse(frame["text"] == "", name, "the text is empty")
    frame["id"] = _strings(raw, "id", name) if "id" in raw else list(map(str, range(len(raw))))
    _refuse(frame["id"] == "", name, "the id is empty")
    _refuse(frame["id"].duplicated(), name, "the id {!r} was used above", frame["id"])
    group = _strings(raw, "group", name) if "group" in raw else frame["id"]
    frame["group"] = group.where(group != "", frame["id"])
    frame["rating"] = np.nan
    frame["split"] = _strings(raw, "split", name) if "split" in raw else ""
    unknown = ~frame["split"].isin(["", *SPLITS])
    allowed = f"the split must be one of {', '.join(SPLITS)}, not {{!r}}"
    _refuse(unknown, name, allowed, frame["split"])
    own = frame["split"].where(frame["split"] != "", "train")
    crossing = own != own.groupby(frame["group"]).transform("first")
    _refuse(crossing, name, "group {!r} is in another split above", frame["group"])
    return frame


def _strings(raw: pd.DataFrame, column: str, name: str) -> pd.Series[Any]:
    """A column as text, spacing made even, missing values empty; anything else is refused."""
    allowed = (str, int, float, np.number) if column in ("id", "group") else (str,)

    def is_text(value: Any) -> bool:  # half of a surrogate pair is a character of no text
        return isinstance(value, allowed) and not re.search("[\ud800-\udfff]", str(value))

    values = raw[column]
    missing = values.isna()
    _refuse(~missing & ~values.map(is_text), name, f"the {column} must be text, not {{!r}}", values)
    texts = values.map(lambda value: " ".join(str(value).split())).astype(object)
    return texts.where(~missing, "")


def _refuse(
    wrong: pd.Series[bool], name: str, message: str, values: pd.Series[Any] | None = None
) -> None:
    """Raises `SpecError` that names the first wrong row, and its value where `message` asks."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        what = message.format(values.iloc[rows[0]]) if values is not None else message
        more = f" (and in {len(rows) - 1:,} more)" if len(rows) > 1 else ""
        raise SpecError(f"{name}, row {rows[0]} counting from 0: {what}{more}")


def in_either_order(
    chosen: pd.Series[Any], rejected: pd.Series[Any]
) -> tuple[pd.Series[Any], pd.Series[Any], pd.Series[Any]]:
    """Label, first and second text of each pair, the chosen one first in a random half.

    So order tells nothing. The draw is the same for everybody.
    """
    first = pd.Series(np.random.default_rng(0).random(len(chosen)) < 0.5, index=chosen.index)
    return first.astype("int8"), chosen.where(first, rejected), rejected.where(first, chosen)


def rows_to_keep(frame: pd.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    """Which rows to keep so that no text, and no pair of texts, stands twice, case aside.

    Of equal texts with one label the first is kept. Under both labels none is: nobody knows which
    is right.

    Returns:
        (n,) booleans.

    Raises:
        SpecError: a text under both labels, or a pair both ways, in a user's own file, where it can
            be mended.
    """
    same, verdict = frame["text"].str.casefold(), frame["label"]
    conflicting = "the same text has both labels"
    if "text_b" in frame:
        conflicting = "the same pair is preferred both ways, a tie,"
        other = frame["text_b"].str.casefold()
        swapped = same > other
        # Whether the alphabetically first one is the better one.
        verdict = verdict ^ swapped.astype("int8")
        same = same.where(~swapped, other) + "\n" + other.where(~swapped, same)
    conflict = (verdict.groupby(same).transform("nunique") > 1).to_numpy()
    if conflict.any() and is_file(name):
        first = np.flatnonzero(conflict & (same == same[conflict].iloc[0]).to_numpy())
        what = f"{frame['text'].iloc[first[0]]!r}; {int(conflict.sum())} rows in all are so"
        where = f"rows {', '.join(map(str, first))} (counting from 0)"
        raise SpecError(f"{name}: {conflicting} in {where}: {what}")
    kept: npt.NDArray[np.bool_] = ~(same.duplicated().to_numpy() | conflict)
    if not kept.all() and frame["rating"].isna().all():
        repeated = f"{int((~kept).sum()):,} of {len(kept):,} rows repeat a text"
        warnings.warn(f"{name}: {repeated} and are left out", stacklevel=2)
    return kept
