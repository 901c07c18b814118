"""Readers behind `tasks`: the embedded snippets, a user's own file, a dataset of the hub, each to the same columns."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from w2s_lib.runs.assets import fetch_data
from w2s_lib.runs.errors import AssetError, SpecError
from w2s_lib.tasks.comparisons import in_either_order

COLUMNS = ["id", "text", "label", "group", "rating", "split"]
FILE_KINDS = (".csv", ".jsonl", ".parquet")
PARTS = ("train", "validation", "test")
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def read_embedded(
    stem: str, *, min_rating: float, group_by_prefix: bool
) -> tuple[pd.DataFrame, list[tuple[int, ...]]]:
    """One of the four sets of Hutto & Gilbert (ICWSM 2014): its table, and every rater's rating of each row.

    The label is the sign of the published mean, which is the mean of the published ratings in all rows but 199 of
    `tweets`: families of one tweet with its emphasis varied ("Anger is UGLY!!"), made for a figure of their paper, with
    other means. They are left out: nothing says which numbers are right, and copies of one text would cross splits.

    Args:
        stem: the set's name in the file names.
        min_rating: rows whose mean is no further from 0 are left out.
        group_by_prefix: whether ids are `document_sentence`, the document being the group.
    """
    folder = fetch_data()
    raters = {
        row[0]: row[3]
        for row in _tab_separated(folder / f"{stem}_anonDataRatings.txt", n_columns=4)
    }
    records, ratings = [], []
    for key, mean, text in _tab_separated(folder / f"{stem}_GroundTruth.txt", n_columns=3):
        rating, votes = float(mean), tuple(json.loads(raters[key]))
        if abs(rating) > min_rating and abs(rating - sum(votes) / len(votes)) < 1e-4:
            # Raters saw the characters that the entities stand for, not the entities; editorials are escaped twice.
            shown = " ".join(html.unescape(html.unescape(text)).split())
            group = key.partition("_")[0] if group_by_prefix else key
            records.append((key, shown, int(rating > 0), group, rating, ""))
            ratings.append(votes)
    return pd.DataFrame(records, columns=COLUMNS).astype({"label": "int8"}), ratings


def _tab_separated(path: Path, *, n_columns: int) -> Iterator[list[str]]:
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        yield line.split("\t", n_columns - 1)


def read_file(path: Path) -> pd.DataFrame:
    """A user's own `.csv`, `.jsonl` or `.parquet` file.

    Raises:
        SpecError: see `tasks.load_table`.
    """
    try:
        if path.suffix == ".csv":  # as written: an id of 007 stays so, and a text of NA is a text
            raw = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        elif path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            raw = pd.DataFrame([json.loads(line) for line in lines if line.strip()], dtype=object)
        else:
            raw = pd.read_parquet(path)
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # pandas' and pyarrow's own are ValueErrors
        raise SpecError(f"cannot read {path} as {path.suffix}: {error}") from error
    return _canonical(raw, str(path))


def read_hub(name: str) -> pd.DataFrame:
    """A dataset of the hub with the columns `text` and `label` (0 or 1), by `datasets.load_dataset`.

    Raises:
        AssetError: it cannot be loaded: no network, or no such dataset.
        SpecError: see `tasks.load_table`.
    """
    data = load_hub(
        name,
        what=f"the dataset 'hf:{name}' from the hub",
        advice="check the name and the network, or save it as .csv, .jsonl or .parquet and give the file's path",
    )
    return hub_frame(data, f"hf:{name}")


def load_hub(*args: Any, what: str, advice: str, **settings: Any) -> Any:
    """`datasets.load_dataset`, with one clear sentence where it fails.

    Raises:
        AssetError: it cannot be loaded: what was wanted, why not, and the advice.
    """
    import datasets

    try:
        return datasets.load.load_dataset(*args, **settings)
    except Exception as error:  # datasets lets through the errors of half a dozen libraries
        reason = (str(error).splitlines() or [""])[0]
        raise AssetError(
            f"cannot load {what} ({type(error).__name__}: {reason}): {advice}"
        ) from error


def hub_frame(data: Any, name: str) -> pd.DataFrame:
    """The table of a `datasets.Dataset`, or of a `DatasetDict`'s train, validation and test (others are left out)."""
    if not hasattr(data, "keys"):
        return _canonical(data.to_pandas(), name)
    found = [data[part].to_pandas().assign(split=part) for part in PARTS if part in data]
    if not found:
        raise SpecError(
            f"{name} has the splits {', '.join(data.keys())}: one of {', '.join(PARTS)} is needed"
        )
    return _canonical(pd.concat(found, ignore_index=True), name)


def _canonical(raw: pd.DataFrame, name: str) -> pd.DataFrame:
    """Check a user's columns and bring them to the canonical ones, or say which row is wrong."""
    pairs = "chosen" in raw.columns or "rejected" in raw.columns
    for column in ("chosen", "rejected") if pairs else ("text", "label"):
        if column not in raw.columns:
            raise SpecError(
                f"{name} has no column {column!r}; its columns are {', '.join(map(repr, raw.columns))}"
            )
    if pairs:
        chosen, rejected = _strings(raw["chosen"]), _strings(raw["rejected"])
        _refuse((chosen == "") | (rejected == ""), name, "one side of the comparison is empty")
        _refuse(
            chosen.str.casefold() == rejected.str.casefold(),
            name,
            "a text is compared with itself: {!r}",
            chosen,
        )
        label, text, text_b = in_either_order(chosen, rejected)
    else:
        label = raw["label"].map(lambda value: _LABELS.get(str(value).strip().lower()))
        _refuse(label.isna(), name, "the label must be 0 or 1, not {!r}", raw["label"])
        text = _strings(raw["text"])
        _refuse(text == "", name, "the text is empty")
    key = (
        _strings(raw["id"])
        if "id" in raw
        else pd.Series([str(row) for row in range(len(raw))], dtype=object)
    )
    _refuse(key == "", name, "the id is empty")
    _refuse(key.duplicated(), name, "the id {!r} was used above", key)
    group = _strings(raw["group"]) if "group" in raw else key
    split = _strings(raw["split"]) if "split" in raw else pd.Series("", index=raw.index)
    _refuse(
        ~split.isin(["", *PARTS]),
        name,
        f"the split must be one of {', '.join(PARTS)}, not {{!r}}",
        split,
    )
    group = group.where(group != "", key)
    own = split.where(split != "", "train")
    _refuse(
        own != own.groupby(group).transform("first"),
        name,
        "group {!r} is in another split above",
        group,
    )
    frame = pd.DataFrame(
        {"id": key, "text": text, "label": label, "group": group, "rating": np.nan, "split": split}
    )
    if pairs:
        frame["text_b"] = text_b
    return frame.astype({"label": "int8"})


def _strings(column: pd.Series[Any]) -> pd.Series[Any]:
    """As text, spacing made even, missing values empty."""
    return column.map(lambda value: "" if pd.isna(value) else " ".join(str(value).split())).astype(
        object
    )


def _refuse(
    wrong: pd.Series[bool], name: str, message: str, values: pd.Series[Any] | None = None
) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        what = message.format(values.iloc[rows[0]]) if values is not None else message
        more = f" (and in {len(rows) - 1:,} more)" if len(rows) > 1 else ""
        raise SpecError(f"{name}, row {rows[0]} counting from 0: {what}{more}")


def distinct(frame: pd.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    """Which rows to keep so that no text, and no pair of texts, stands twice, upper and lower case being the same.

    Of equal texts with one label the first is kept. Under both labels none is: nobody knows which is right.

    Raises:
        SpecError: a text under both labels, or a pair both ways, in a user's own file, where it can be mended.
    """
    same, verdict = frame["text"].str.casefold(), frame["label"]
    if "text_b" in frame:
        other = frame["text_b"].str.casefold()
        swapped = same > other
        verdict = verdict ^ swapped.astype(
            "int8"
        )  # whether the alphabetically first one is the better one
        same = same.where(~swapped, other) + "\n" + other.where(~swapped, same)
    conflict = (verdict.groupby(same).transform("nunique") > 1).to_numpy()
    is_file = name.endswith(FILE_KINDS) and not name.startswith("hf:")
    if conflict.any() and is_file:
        what = (
            "the same pair is preferred both ways, a tie,"
            if "text_b" in frame
            else "the same text has both labels"
        )
        first = np.flatnonzero(conflict & (same == same[conflict].iloc[0]).to_numpy())
        raise SpecError(
            f"{name}: {what} in rows {', '.join(map(str, first))} (counting from 0): "
            f"{frame['text'].iloc[first[0]]!r}; {int(conflict.sum())} rows in all are so. Correct or delete them."
        )
    kept: npt.NDArray[np.bool_] = ~(same.duplicated().to_numpy() | conflict)
    if not kept.all() and frame["rating"].isna().all():
        warnings.warn(
            f"{name}: {int((~kept).sum()):,} of {len(kept):,} rows repeat a text and are left out",
            stacklevel=2,
        )
    return kept
