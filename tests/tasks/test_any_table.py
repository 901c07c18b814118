"""Any table of texts: the same from every kind of file, or refused in every one; and any file at all."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s_lib.runs.errors import SpecError
from w2s_lib.tasks.table import default_task, load_table

WRITE: dict[str, Any] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


def loaded(path: Path) -> pd.DataFrame | None:
    """The table of a file; None where it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of repeated texts
        try:
            return load_table(default_task(str(path))).frame
        except SpecError as error:
            assert path.name in str(error)
            return None


texts = st.text(max_size=8) | st.sampled_from(["NA", "null", "true", "007", "1e5", "-", "=1"])
rows = st.tuples(texts, st.sampled_from(["0", "1", "true", "2"]), texts)


@given(st.lists(rows, min_size=1, max_size=6))
def test_a_table_is_the_same_from_every_kind_of_file(folder: Path, rows: Any) -> None:
    frame = pd.DataFrame(rows, columns=["text", "label", "id"], dtype=object)
    tables = []
    for suffix, write in WRITE.items():
        write(frame, path := folder / f"own{suffix}")
        tables.append(loaded(path))
    if any(table is None for table in tables):
        assert all(table is None for table in tables)
        return
    first, *others = tables
    assert first is not None and first["label"].isin((0, 1)).all() and (first["text"] != "").all()
    for other in others:
        pd.testing.assert_frame_equal(first, other)


@given(st.binary(max_size=99) | st.text(max_size=99).map(str.encode), st.sampled_from([*WRITE]))
def test_any_other_file_is_refused_by_name(folder: Path, content: bytes, suffix: str) -> None:
    (path := folder / f"other{suffix}").write_bytes(content)
    assert loaded(path) is None
