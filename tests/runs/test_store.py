"""Records: written whole or not at all, verified on reading, damage set aside or reported by name."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from w2s_lib.runs import store
from w2s_lib.runs.errors import DamagedRecord, StoreError
from w2s_lib.runs.record import SPLITS, Record
from w2s_lib.runs.spec import FromRun, RunSpec
from w2s_lib.runs.store import find, read, write

REPO = Path(__file__).parents[2]
SPEC = RunSpec(
    model="smollm2-135m@4", half="supervisor", seed=990_001
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
    return Record(
        spec,
        frame,
        {"accuracy": 0.75, "validation_accuracy": 0.7},
        {"task_digest": "ab" * 32, "seconds": 1.5},
    )


def with_snapshots(n: int = 400) -> Record:
    """The same with predictions after a quarter and after half of training, of test and validation alone."""
    one = record(n, dataclasses.replace(SPEC, snapshots=(0.25, 0.5)))
    seen = one.predictions["split"].isin(["test", "validation"])
    early = np.random.default_rng(0).random((n, 2), dtype=np.float32)
    columns = {
        f"p@{share}": np.where(seen, early[:, i], np.float32("nan"))
        for i, share in enumerate((0.25, 0.5))
    }
    return dataclasses.replace(one, predictions=one.predictions.assign(**columns))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a published store of its own."""
    monkeypatch.delenv("W2S_PUBLISHED", raising=False)
    monkeypatch.setattr(store, "repository_root", lambda: tmp_path / "checkout")
    return tmp_path / "checkout" / "book" / "results"


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


def test_a_record_with_snapshots_comes_back_as_it_was_written(own_store: Path) -> None:
    one = with_snapshots()
    again = find(write(one).spec)
    assert again is not None and again.spec.snapshots == (0.25, 0.5) and again.digest == one.digest
    pd.testing.assert_frame_equal(again.predictions, one.predictions, check_index_type=False)
    assert pq.read_table(again.path).column_names == [
        "row",
        "split",
        "label",
        "p",
        "group",
        "p@0.25",
        "p@0.5",
    ]
    for share in one.spec.snapshots:
        pd.testing.assert_frame_equal(
            again.at(share).predictions, one.at(share).predictions, check_index_type=False
        )


def test_a_record_keeps_its_lineage(own_store: Path) -> None:
    student = RunSpec(model="smollm2-135m", labels=FromRun(run=SPEC, hard=True), seed=SPEC.seed)
    write(record(spec=student))
    found = find(student)
    assert found is not None and found.spec == student and found.spec.labels.run == SPEC
    assert find(SPEC) is None and find(student.with_seed(1)) is None


def test_the_same_record_is_the_same_bytes_and_small(own_store: Path) -> None:
    """Published records are committed: rewriting one must not change it, and 4,500 rows stay far below 30 kB."""
    first = Path(write(record(4400)).path).read_bytes()
    assert first == Path(write(record(4400)).path).read_bytes()
    assert len(first) < 30_000 and left_in(own_store) == [f"{SPEC.run_id}.parquet"]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: dataclasses.replace(r, spec=r.spec.with_seed(1)),
        lambda r: dataclasses.replace(r, metrics={**r.metrics, "accuracy": 0.76}),
        lambda r: dataclasses.replace(r, provenance={**r.provenance, "seconds": 2}),
        lambda r: dataclasses.replace(
            r, predictions=r.predictions.assign(p=np.nextafter(r.predictions["p"], np.float32(1)))
        ),
        lambda r: dataclasses.replace(
            r, predictions=r.predictions.assign(label=1 - r.predictions["label"])
        ),
        lambda r: dataclasses.replace(r, predictions=r.predictions.assign(group=0)),
        lambda r: dataclasses.replace(r, predictions=r.predictions.assign(split="test")),
        lambda r: dataclasses.replace(
            r, predictions=r.predictions.set_axis(r.predictions.index + 1)
        ),
        lambda r: dataclasses.replace(r, predictions=r.predictions.iloc[::-1]),
        lambda r: dataclasses.replace(r, predictions=r.predictions.iloc[1:]),
    ],
)
def test_the_digest_covers_everything(change: Callable[[Record], Record]) -> None:
    for one in (record(), with_snapshots()):
        assert change(one).digest != one.digest
        assert dataclasses.replace(one, path="elsewhere").digest == one.digest


def test_the_digest_covers_every_snapshot() -> None:
    """A value of one, a value that was not there, one dropped, their names exchanged, one added."""
    one = with_snapshots()
    frame = one.predictions
    row, unseen = frame.index[3], frame.index[-1]
    changes = [
        frame.assign(**{"p@0.5": frame["p@0.5"].where(frame.index != row, np.float32(0.125))}),
        frame.assign(**{"p@0.5": frame["p@0.5"].where(frame.index != unseen, np.float32(0.125))}),
        frame.drop(columns="p@0.25"),
        frame.rename(columns={"p@0.25": "p@0.5", "p@0.5": "p@0.25"}),
        frame.rename(columns={"p@0.25": "p@0.3"}),
        frame.assign(**{"p@0.75": frame["p"]}),
    ]
    digests = {dataclasses.replace(one, predictions=changed).digest for changed in changes}
    assert len(digests) == len(changes) and one.digest not in digests


def test_weights_lie_beside_the_record_and_are_replaced_with_it(own_store: Path) -> None:
    write(
        record(), artefacts=lambda folder: (folder / "old.safetensors").write_bytes(b"1") and None
    )
    write(
        record(), artefacts=lambda folder: (folder / "new.safetensors").write_bytes(b"2") and None
    )
    assert left_in(own_store) == [
        SPEC.run_id,
        f"{SPEC.run_id}.parquet",
        f"{SPEC.run_id}/new.safetensors",
    ]


def test_a_record_holds_no_text_and_no_pickle(own_store: Path) -> None:
    table = pq.read_table(write(record()).path)
    assert table.column_names == ["row", "split", "label", "p", "group"]
    assert [str(kind).partition("<")[0] for kind in table.schema.types] == [
        "int32",
        "dictionary",
        "int8",
        "float",
        "int32",
    ]
    metadata = table.schema.metadata
    assert set(metadata) == {b"format", b"spec", b"metrics", b"provenance", b"digest"}
    assert all(json.loads(metadata[key]) for key in (b"spec", b"metrics", b"provenance"))


# Joins


def test_labels_are_joined_by_row() -> None:
    one = record()
    rows = one.predictions.index.to_numpy()[[7, 3, 300]]
    found = one.labels(rows, task_digest="ab" * 32)
    assert found.tolist() == one.predictions["p"].to_numpy()[[7, 3, 300]].tolist()


def test_predictions_are_not_joined_across_tasks_or_rows_that_are_not_there() -> None:
    one = record()
    with pytest.raises(
        StoreError,
        match="was made on task abababababab, not on cdcdcdcdcdcd: predictions of different tasks",
    ):
        one.labels(one.predictions.index[:3], task_digest="cd" * 32)
    absent = next(row for row in range(800) if row not in one.predictions.index)
    with pytest.raises(
        StoreError, match=f"{SPEC.run_id} has no prediction for 1 rows, the first is {absent}"
    ):
        one.labels([one.predictions.index[0], absent], task_digest="ab" * 32)


# Damage


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def rewritten(path: Path, **changes: str) -> None:
    """A well-formed Parquet file with other metadata: only the digest can tell."""
    table = pq.read_table(path)
    changed = {name.encode(): value.encode() for name, value in changes.items()}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **changed}), path)


def other_predictions(path: Path) -> None:
    table = pq.read_table(path)
    p = table["p"].to_numpy().copy()
    p[5] = 1 - p[5]
    pq.write_table(table.set_column(3, "p", [p]), path)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated": truncated,
    "emptied": emptied,
    "metrics edited": lambda path: rewritten(
        path, metrics='{"accuracy": 0.9, "validation_accuracy": 0.7}'
    ),
    "provenance edited": lambda path: rewritten(path, provenance='{"task_digest": "00"}'),
    "spec edited": lambda path: rewritten(path, spec=SPEC.with_seed(1).to_json()),
    "spec of nonsense": lambda path: rewritten(
        path, spec='{"model":"smollm2-135m","task":"movie"}'
    ),
    "spec of a list": lambda path: rewritten(path, spec="[]"),
    "no JSON": lambda path: rewritten(path, metrics="{"),
    "a prediction edited": other_predictions,
    "no metadata": lambda path: pq.write_table(
        pq.read_table(path).replace_schema_metadata(None), path
    ),
    "no column p": lambda path: pq.write_table(pq.read_table(path).drop_columns("p"), path),
    "another run's": lambda path: os.replace(write(record(spec=SPEC.with_seed(1))).path, path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_users_damaged_record_is_set_aside_and_counts_as_missing(
    damage: Callable[[Path], Any], own_store: Path
) -> None:
    path = Path(write(record()).path)
    damage(path)
    with pytest.raises(DamagedRecord, match=f"damaged record .*{SPEC.run_id}"):
        read(path)
    with pytest.warns(
        UserWarning,
        match=rf"damaged record .* kept as {SPEC.run_id}\.damaged, and the run counts as missing",
    ):
        assert find(SPEC) is None
    assert not path.exists() and path.with_suffix(".damaged").exists()
    assert find(SPEC) is None  # and says so only once
    write(record())
    assert find(SPEC) is not None


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_published_record_is_an_error(
    damage: Callable[[Path], Any], own_store: Path, published: Path
) -> None:
    path = Path(write(record(), store=published).path)
    damage(path)
    with pytest.raises(DamagedRecord, match=f"damaged record .*{SPEC.run_id}"):
        find(SPEC)
    assert path.exists()


@pytest.mark.parametrize(
    "edit",
    [
        lambda p: np.where(np.arange(len(p)) == 5, 1 - p, p),
        lambda p: np.where(np.isnan(p), np.float32(0.5), p),
        None,
    ],
)
def test_an_altered_snapshot_is_noticed(edit: Callable[[Any], Any] | None, own_store: Path) -> None:
    """A value of it, values for rows that it does not have, or all of it taken away."""
    one = with_snapshots()
    path = Path(write(one).path)
    table = pq.read_table(path)
    pq.write_table(table, path)
    assert (
        read(path).digest == one.digest
    )  # the same content in another writer's encoding is no damage
    altered = (
        table.drop_columns("p@0.5")
        if edit is None
        else table.set_column(6, "p@0.5", [edit(table["p@0.5"].to_numpy())])
    )
    pq.write_table(altered, path)
    with pytest.raises(DamagedRecord, match=f"damaged record .*{one.spec.run_id}.*digest"):
        read(path)


def test_any_flipped_byte_is_noticed_or_changes_nothing(own_store: Path) -> None:
    """Parquet has bytes that mean nothing (a statistic, a writer's name): what is read must be what was written."""
    one = record(40)
    path = Path(write(one).path)
    intact = path.read_bytes()
    noticed, places = 0, range(0, len(intact), max(1, len(intact) // 150))
    for place in places:
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 0x10]) + intact[place + 1 :])
        try:
            again = read(path)
            assert again.digest == one.digest and again.predictions.equals(
                one.predictions.set_axis(again.predictions.index)
            )
        except DamagedRecord:
            noticed += 1
    assert noticed > len(places) / 2


# The two stores


def test_the_users_store_is_looked_into_first(own_store: Path, published: Path) -> None:
    mine, theirs = (
        record(),
        dataclasses.replace(record(), metrics={"accuracy": 0.1, "validation_accuracy": 0.1}),
    )
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


def test_a_damaged_record_of_the_user_gives_way_to_the_published_one(
    own_store: Path, published: Path
) -> None:
    write(record(), store=published)
    emptied(Path(write(record()).path))
    with pytest.warns(UserWarning, match="damaged record"):
        found = find(SPEC)
    assert found is not None and found.path.startswith(str(published))


def test_the_published_store_can_be_hidden(
    own_store: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(record(), store=published)
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    assert find(SPEC) is None and store.published_store() is None


def test_where_the_users_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("W2S_STORE", "~/somewhere")
    assert store.user_store() == Path.home() / "somewhere"
    monkeypatch.delenv("W2S_STORE")
    monkeypatch.chdir(tmp_path)  # never the working directory
    assert store.user_store() == REPO / ".w2s" / "records"
    monkeypatch.setattr(store, "repository_root", lambda: None)
    assert store.user_store().is_absolute() and "w2s" in store.user_store().parts
    assert store.published_store() is None


# What cannot be written


def test_an_unwritable_store_is_said_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "file" / "records"))
    assert find(SPEC) is None
    with pytest.raises(StoreError, match=r"could not be written to .*file.records: .* W2S_STORE"):
        write(record())
    with pytest.raises(
        StoreError, match=r"the store .*file.records cannot be written: .* Nothing was trained"
    ):
        store.require_writable(store.user_store())


def test_a_full_disk_leaves_nothing_half_written(own_store: Path, full_disk: Any) -> None:
    """The disk fills in the middle of the Parquet file, then in the middle of the weights."""
    with (
        full_disk(1000),
        pytest.raises(StoreError, match="could not be written .* Nothing half-written was left"),
    ):
        write(record(4000), artefacts=lambda folder: (folder / "head").write_bytes(b"1") and None)
    assert left_in(own_store) == []
    with (
        full_disk(9000),
        pytest.raises(StoreError, match="could not be written .* Nothing half-written was left"),
    ):
        write(
            record(40),
            artefacts=lambda folder: (folder / "head").write_bytes(b"1" * 10_000) and None,
        )
    assert left_in(own_store) == []


def test_a_full_disk_leaves_the_old_record_as_it_was(own_store: Path, full_disk: Any) -> None:
    old = Path(
        write(
            record(40), artefacts=lambda folder: (folder / "head").write_bytes(b"1") and None
        ).path
    ).read_bytes()
    with full_disk(1000), pytest.raises(StoreError):
        write(record(4000), artefacts=lambda folder: (folder / "head").write_bytes(b"2") and None)
    assert left_in(own_store) == [SPEC.run_id, f"{SPEC.run_id}.parquet", f"{SPEC.run_id}/head"]
    assert (own_store / f"{SPEC.run_id}.parquet").read_bytes() == old
    assert (own_store / SPEC.run_id / "head").read_bytes() == b"1"


# The committed records


def test_every_published_record_is_intact_and_has_its_lineage() -> None:
    results = REPO / "book" / "results"
    records = [read(path) for path in sorted(results.glob("*.parquet"))]
    ids = {one.spec.run_id for one in records}
    for one in records:
        assert {step.run_id for step in one.spec.lineage()} <= ids, (
            f"{one.path} lacks a teacher's record"
        )
        if one.spec.role == "generative":
            assert set(one.predictions["split"]) == {"validation"}
            continue
        truth, names = (
            one.predictions["label"] == 1,
            SPLITS if one.spec.predict_halves else SPLITS[:2],
        )
        assert set(one.predictions["split"]) == set(names)
        for name in names:
            here = one.predictions["split"] == name
            right = float(((one.predictions["p"] > 0.5) == truth)[here].mean())
            assert one.metrics[
                "accuracy" if name == "test" else f"{name}_accuracy"
            ] == pytest.approx(right)


# Claims


def test_one_process_at_a_time_has_the_claim_on_a_run(own_store: Path) -> None:
    with store.claim(SPEC.run_id) as mine, store.claim(SPEC.with_seed(1).run_id) as other:
        assert mine and other
        with store.claim(SPEC.run_id) as again:
            assert not again
    with store.claim(SPEC.run_id) as mine:
        assert mine
    assert left_in(own_store) == []


def test_a_killed_process_has_no_claim(own_store: Path) -> None:
    code = f"""
import sys, time
from w2s_lib.runs.store import claim
with claim({SPEC.run_id!r}) as mine:
    print(mine, flush=True)
    time.sleep(600)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    with store.claim(SPEC.run_id) as mine:
        assert not mine
    holder.kill()
    holder.wait()
    with store.claim(SPEC.run_id) as mine:
        assert mine
    assert left_in(own_store) == []
