"""The two stores: a record comes back as it was written, with its weights; where they are, and which comes first."""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import w2s_lib as w2s
from w2s_lib.runs import store
from w2s_lib.runs.errors import StoreError
from w2s_lib.runs.folders import cache_dir
from w2s_lib.runs.record import SPLITS, Record, accuracies
from w2s_lib.runs.spec import Hard, RunSpec
from w2s_lib.runs.store import find, read, weights, write

REPO = Path(__file__).parents[2]
SPEC = RunSpec(
    model="smollm2-135m@4", half="supervisor", predict_halves=True, seed=990_001
)  # a seed that nobody publishes


def record(n: int = 400, spec: RunSpec = SPEC) -> Record:
    """A record with made-up predictions: n rows, of a table of twice as many."""
    rng = np.random.default_rng(n)
    frame = pd.DataFrame(
        {
            "split": np.repeat(SPLITS, n // 4).astype(object),
            "label": rng.integers(0, 2, n).astype(np.int8),
            "p": rng.random(n, dtype=np.float32),
            "group": np.arange(n, dtype=np.int32) // 2,
        },
        index=pd.Index(rng.permutation(2 * n)[:n], name="row"),
    )
    return Record(spec, frame, accuracies(frame), {"task_digest": "ab" * 32, "seconds": 1.5})


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Round trip


@pytest.mark.parametrize("n", [4, 400])
def test_a_record_comes_back_as_it_was_written(n: int, own_store: Path) -> None:
    one = record(n)
    written = write(one)
    again = find(SPEC)
    assert again is not None and again.path == written.path == str(
        own_store / f"{SPEC.run_id}.parquet"
    )
    assert (again.spec, again.metrics, again.provenance) == (one.spec, one.metrics, one.provenance)
    assert again.digest == one.digest == written.digest
    pd.testing.assert_frame_equal(again.predictions, one.predictions, check_index_type=False)
    assert (
        again.predictions["p"].dtype == np.float32 and again.predictions["label"].dtype == np.int8
    )
    assert again.predictions["p"].to_numpy().tobytes() == one.predictions["p"].to_numpy().tobytes()


def test_a_record_keeps_its_lineage(own_store: Path) -> None:
    student = RunSpec(model="smollm2-135m", labels=Hard(run=SPEC), seed=SPEC.seed)
    write(record(spec=student))
    found = find(student)
    assert found is not None and found.spec == student and found.spec.labels.run == SPEC
    assert find(SPEC) is None and find(student.with_seed(1)) is None


def test_the_same_record_is_the_same_bytes_and_small(own_store: Path) -> None:
    """Published records are committed: rewriting one must not change it, and 4,500 rows stay far below 30 kB."""
    first = Path(write(record(4400)).path).read_bytes()
    assert first == Path(write(record(4400)).path).read_bytes()
    assert len(first) < 30_000 and left_in(own_store) == [f"{SPEC.run_id}.parquet"]


def head(content: bytes) -> Callable[[Path], None]:
    """What writes weights of one file, `head`."""
    return lambda folder: (folder / "head").write_bytes(content) and None


def test_weights_lie_beside_the_record_that_names_their_digest(own_store: Path) -> None:
    """A second training of a run changes nothing, unless the first has left no weights."""
    without = write(record())
    assert weights(SPEC) is None
    first = write(record(), artefacts=head(b"1"))
    folder = weights(SPEC)
    assert folder == own_store / SPEC.run_id / first.provenance["weights"] and folder is not None
    assert (folder / "head").read_bytes() == b"1"
    again = write(record(), artefacts=head(b"2"))
    assert again.digest == first.digest != without.digest and weights(SPEC) == folder
    assert left_in(own_store) == sorted(
        str(path.relative_to(own_store))
        for path in (folder.parent, folder, folder / "head", Path(first.path))
    )


def test_two_trainings_of_a_run_must_agree(own_store: Path) -> None:
    first = write(record())
    frame = record().predictions.copy()
    frame.iloc[5, frame.columns.get_loc("p")] = np.nextafter(frame["p"].iloc[5], np.float32(2))
    other = dataclasses.replace(record(), predictions=frame, metrics=accuracies(frame))
    with pytest.raises(StoreError, match=SPEC.run_id):
        write(other, artefacts=head(b"2"))
    assert read(Path(first.path)).digest == first.digest and weights(SPEC) is None


def test_two_trainings_on_cuda_may_disagree(own_store: Path) -> None:
    """The first stays, and that is said; but not where it has lost its adapters."""
    spec = w2s.supervisor("smollm2-135m@2", "movie", device="cuda")
    first = write(record(spec=spec), artefacts=head(b"1"))
    frame = record().predictions.copy()
    frame.iloc[5, frame.columns.get_loc("p")] = np.nextafter(frame["p"].iloc[5], np.float32(2))
    other = dataclasses.replace(first, predictions=frame, metrics=accuracies(frame), path="")
    with pytest.warns(UserWarning, match=f"{spec.run_id} was trained twice"):
        assert write(other, artefacts=head(b"2")).digest == first.digest
    folder = weights(spec)
    assert folder is not None and (folder / "head").read_bytes() == b"1"
    (folder / "head").unlink()
    with pytest.warns(UserWarning, match="adapters"), pytest.raises(StoreError, match="remove its"):
        write(other, artefacts=head(b"2"))


def test_what_is_written_has_the_mode_that_the_umask_gives(own_store: Path) -> None:
    """A store can be a group's."""
    before = os.umask(0o002)
    try:
        path = Path(write(record(), artefacts=head(b"1")).path)
        folder = weights(SPEC)
    finally:
        os.umask(before)
    assert folder is not None
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, folder / "head", folder)]
    assert modes == [0o664, 0o664, 0o775]


# The two stores


def test_the_users_store_is_looked_into_first(own_store: Path, published: Path) -> None:
    mine = record()
    theirs = dataclasses.replace(mine, provenance={**mine.provenance, "seconds": 9})
    write(theirs, store=published)
    found = find(SPEC)
    assert (
        found is not None
        and found.digest == theirs.digest
        and found.path == str(published / f"{SPEC.run_id}.parquet")
    )
    write(mine)
    found = find(SPEC)
    assert found is not None and found.digest == mine.digest


def test_the_published_store_can_be_hidden(
    own_store: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(record(), store=published)
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    assert find(SPEC) is None and store.published_store() is None


def test_where_the_users_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("W2S_STORE", "~/somewhere")
    assert store.user_store().folder == Path.home() / "somewhere"
    monkeypatch.delenv("W2S_STORE")
    monkeypatch.chdir(tmp_path)  # never the working directory
    assert store.user_store().folder == REPO / ".w2s" / "records"
    assert store.published_store() == REPO / "book" / "results"


@pytest.mark.parametrize("name", ["W2S_STORE", "W2S_CACHE", "W2S_PUBLISHED"])
def test_the_home_of_nobody_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = {"W2S_STORE": store.user_store, "W2S_CACHE": cache_dir}.get(name, store.published_store)
    monkeypatch.setenv(name, "~no-such-user/somewhere")
    with pytest.raises(StoreError, match=f"{name} is '~no-such-user/somewhere'"):
        where()


def test_where_the_stores_are_without_a_checkout(tmp_path: Path) -> None:
    """As where the library is installed: its files are copied to a folder without a book."""
    (tmp_path / "w2s_lib").mkdir()
    shutil.copy(REPO / "w2s_lib" / "__init__.py", tmp_path / "w2s_lib")
    shutil.copytree(REPO / "w2s_lib" / "runs", tmp_path / "w2s_lib" / "runs")
    code = "from w2s_lib.runs.store import *; print(user_store().folder, published_store())"
    variables = {"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    told = subprocess.check_output(
        [sys.executable, "-c", code], cwd=tmp_path, env=variables, text=True
    )
    folder, published = told.split()
    assert folder.startswith(str(tmp_path)) and "w2s" in Path(folder).parts
    assert published == "None"


def test_reading_a_record_starts_no_thread(own_store: Path) -> None:
    """An exit in the moment in which Arrow starts one aborts the process: read at its end."""
    path = write(record(40)).path
    code = f"""
import psutil
from w2s_lib.runs.record import from_parquet
before = psutil.Process().num_threads()
with open({path!r}, "rb") as file:
    from_parquet(file.read(), {path!r})
print(psutil.Process().num_threads() - before)
"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=REPO, text=True) == "0\n"
