"""Records: written whole or not at all, verified on reading, damage set aside or reported by name."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import resource
import shutil
import signal
import stat
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
from w2s_lib.runs.record import SPLITS, Record, accuracies, from_parquet, to_parquet
from w2s_lib.runs.spec import SEMANTICS, Hard, RunSpec
from w2s_lib.runs.store import find, read, user_store, weights, write

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


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published store of its own, in place of the repository's."""
    monkeypatch.setenv("W2S_PUBLISHED", str(tmp_path / "published"))
    return tmp_path / "published"


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


@pytest.mark.parametrize(
    "change",
    [
        lambda r: dataclasses.replace(r, spec=r.spec.with_seed(1)),
        lambda r: dataclasses.replace(r, metrics={**r.metrics, "accuracy": 0.76}),
        lambda r: dataclasses.replace(r, provenance={**r.provenance, "seconds": 2}),
        lambda r: dataclasses.replace(r, rules="ab" * 32),
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
    one = record()
    assert change(one).digest != one.digest
    assert dataclasses.replace(one, path="elsewhere").digest == one.digest


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


def test_damaged_weights_are_said_and_count_as_missing(own_store: Path) -> None:
    """One bit; then a file that is not there. Trained again they are there as before."""
    for damage in (lambda file: file.write_bytes(b"0"), lambda file: file.unlink()):
        write(record(), artefacts=head(b"1"))
        folder = weights(SPEC)
        assert folder is not None
        damage(folder / "head")
        with pytest.warns(UserWarning, match=SPEC.run_id):
            assert weights(SPEC) is None
        assert find(SPEC) is not None
        write(record(), artefacts=head(b"1"))
        assert weights(SPEC) == folder


def test_two_trainings_of_a_run_must_agree(own_store: Path) -> None:
    first = write(record())
    frame = record().predictions.copy()
    frame.iloc[5, frame.columns.get_loc("p")] = np.nextafter(frame["p"].iloc[5], np.float32(2))
    other = dataclasses.replace(record(), predictions=frame, metrics=accuracies(frame))
    with pytest.raises(StoreError, match=SPEC.run_id):
        write(other, artefacts=head(b"2"))
    assert read(Path(first.path)).digest == first.digest and weights(SPEC) is None


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
    assert set(metadata) == {b"format", b"spec", b"metrics", b"provenance", b"rules", b"digest"}
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
    "metrics edited": lambda path: rewritten(path, metrics='{"accuracy": 0.9}'),
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


def test_another_writers_encoding_is_no_damage(own_store: Path) -> None:
    """The same content in a file of other bytes; a column more is damage, though the digest knows nothing of it."""
    one = record()
    path = Path(write(one).path)
    table = pq.read_table(path)
    pq.write_table(table, path)
    assert read(path).digest == one.digest
    pq.write_table(table.append_column("p@0.5", table["p"]), path)
    with pytest.raises(DamagedRecord, match=rf"{one.spec.run_id}.*p@0\.5"):
        read(path)


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
    assert store.user_store().folder == Path.home() / "somewhere"
    monkeypatch.delenv("W2S_STORE")
    monkeypatch.chdir(tmp_path)  # never the working directory
    assert store.user_store().folder == REPO / ".w2s" / "records"
    assert store.published_store() == REPO / "book" / "results"


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
        store.require_writable(store.user_store().folder)


def test_a_full_disk_leaves_nothing_half_written(own_store: Path, full_disk: Any) -> None:
    """The disk fills in the middle of the Parquet file, then in the middle of the weights."""
    for n_bytes, n, content in ((1000, 4000, b"1"), (9000, 40, b"1" * 10_000)):
        with full_disk(n_bytes), pytest.raises(StoreError, match=SPEC.run_id):
            write(record(n), artefacts=head(content))
        assert find(SPEC) is None and weights(SPEC) is None
        assert not [name for name in left_in(own_store) if ".part-" in name]


def test_a_full_disk_leaves_the_old_record_as_it_was(own_store: Path, full_disk: Any) -> None:
    old = Path(write(record(4000)).path)
    content = old.read_bytes()
    with full_disk(1000), pytest.raises(StoreError):
        write(record(4000), artefacts=head(b"1"))
    assert old.read_bytes() == content and weights(SPEC) is None


KILLED_AT = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.runs.test_store import head, record
from w2s_lib.runs.store import write

step, places = 0, ({places})
def count(event, arguments):
    global step
    if event in ("open", "os.rename", "os.mkdir", "shutil.rmtree", "os.remove"):
        if any({store!r} in str(argument) for argument in arguments):
            step += 1
            if step == places:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
write(record(40), artefacts=head(b"1"))
"""


def test_a_kill_at_any_step_of_writing_leaves_all_or_nothing(own_store: Path) -> None:
    """At each opening, renaming and removal in the store; then the next to write sweeps up."""
    for step in range(1, 60):
        code = KILLED_AT.format(root=str(REPO), places=step, store=str(own_store))
        ended = subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode
        if found := find(SPEC):
            folder = weights(SPEC)
            assert folder is not None and (folder / "head").read_bytes() == b"1"
            assert found.digest == read(Path(found.path)).digest
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        write(record(40), artefacts=head(b"1"))
        assert not [name for name in left_in(own_store) if ".part-" in name]
        shutil.rmtree(own_store)
    assert ended == 0 and step > 5


RACE = """
import sys
sys.path.insert(0, {root!r})
from tests.runs.test_store import head, record
from w2s_lib.runs.store import write
sys.stdin.readline()
for seed in range(990_100, 990_120):
    write(record(40, record().spec.with_seed(seed)), artefacts=head(b"1"))
"""


def test_processes_that_write_the_same_runs_never_fail(own_store: Path) -> None:
    """And nobody who reads meanwhile sees a record without its weights."""
    command = [sys.executable, "-c", RACE.format(root=str(REPO))]
    writers = [
        subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        for seed in range(990_100, 990_120):
            if find(SPEC.with_seed(seed)) is not None:
                assert weights(SPEC.with_seed(seed)) is not None
                seen.add(seed)
    assert [writer.returncode for writer in writers] == [0] * 4 and seen


def test_what_dead_processes_left_is_swept_away(own_store: Path) -> None:
    """Not what a live one is writing, nor what one of another machine may be, but after a day."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = platform.node()
    own_store.mkdir()
    names = {
        f".part-{dead.pid}-{here}-00000000": False,
        f".part-{os.getpid()}-{here}-00000000": True,
        f".part-{dead.pid}-elsewhere-00000000": True,
        f".part-{dead.pid}-elsewhere-11111111": False,
    }
    for name in names:
        (own_store / name).mkdir()
        (own_store / name / "half").write_bytes(b"1")
    os.utime(own_store / f".part-{dead.pid}-elsewhere-11111111", (0, 0))
    store.require_writable()
    assert {name: (own_store / name).exists() for name in names} == names


# Only content is damage


def test_a_record_that_cannot_be_opened_is_not_set_aside(own_store: Path) -> None:
    """Too many open files, as after a long session; then it is read again as it was."""
    path = Path(write(record()).path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(StoreError) as told:
            find(SPEC)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(told.value, DamagedRecord) and path.name in str(told.value)
    assert path.is_file() and find(SPEC) is not None


# Forged records, whose digest is right


def forged(**columns: Callable[[Any], Any]) -> Record:
    """A record with other values in some columns, and the metrics that they make."""
    one = record()
    frame = one.predictions.assign(
        **{
            name: change(one.predictions[name].to_numpy().copy())
            for name, change in columns.items()
        }
    )
    metrics = accuracies(frame.assign(p=frame["p"].fillna(0).clip(0, 1)))
    return dataclasses.replace(one, predictions=frame, metrics=metrics)


def first(value: Any) -> Callable[[Any], Any]:
    """Puts a value in the place of the first one."""
    return lambda column: np.concatenate([np.array([value], column.dtype), column[1:]])


FORGED = {
    "accuracy": lambda: dataclasses.replace(
        record(), metrics={**record().metrics, "accuracy": 1.0}
    ),
    "no accuracy": lambda: dataclasses.replace(record(), metrics={}),
    "NaN": lambda: forged(p=first(np.nan)),
    "p above 1": lambda: forged(p=first(7.0)),
    "p below 0": lambda: forged(p=first(-0.1)),
    "label": lambda: forged(label=first(2)),
    "group": lambda: forged(group=first(-1)),
    "split": lambda: forged(split=first("train")),
    "copies of a row": lambda: dataclasses.replace(
        record(), predictions=record().predictions.set_axis(pd.Index([7] * 400, name="row"))
    ),
    "no rows": lambda: dataclasses.replace(
        record(), predictions=record().predictions[:0], metrics={}
    ),
    "rules": lambda: dataclasses.replace(record(), rules="first"),
    "adapters": lambda: dataclasses.replace(record(), provenance={"weights": "../elsewhere"}),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_record_is_refused_though_its_digest_is_right(name: str, own_store: Path) -> None:
    one = FORGED[name]()
    with pytest.raises(StoreError, match=one.spec.run_id):
        write(one, rules=one.rules)
    if name not in ("split", "no rows"):  # of which we cannot make a file
        with pytest.raises(DamagedRecord, match=one.spec.run_id):
            from_parquet(to_parquet(one), f"{one.spec.run_id}.parquet")
    assert find(one.spec) is None


def test_a_record_that_names_another_folder_as_its_adapters_harms_it_not(own_store: Path) -> None:
    """What is not whole is removed: that may never be a folder that somebody else has named."""
    mine = own_store.parent / "mine"
    (mine / "papers").mkdir(parents=True)
    (own_store / SPEC.run_id).mkdir(parents=True)
    for name in (str(mine), "../../mine"):
        forged = dataclasses.replace(record(), provenance={"weights": name})
        (own_store / f"{SPEC.run_id}.parquet").write_bytes(to_parquet(forged))
        with pytest.warns(UserWarning, match=f"damaged record.*{re.escape(repr(name))}"):
            assert weights(SPEC) is None
        assert (mine / "papers").is_dir()


# Rules


def test_a_published_record_carries_the_digest_of_its_rules(own_store: Path) -> None:
    rules = "ab" * 32
    path = Path(write(record(), store=own_store / "published", rules=rules).path)
    assert read(path).rules == rules and read(path).digest != record().digest
    for other in ("cd" * 32, ""):
        rewritten(path, rules=other)
        with pytest.raises(DamagedRecord):
            read(path)


# Other editions


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_record_of_the_first_edition_is_refused_by_name(version: str, own_store: Path) -> None:
    """As that edition wrote it, with a spec that cannot be read now: it is no damage, and it stays where it is."""
    path = Path(write(record()).path)
    old = (
        '{"half":"supervisor","model":"smollm2-135m@4","seed":990001,"semantics":1,'
        '"snapshots":[0.25,0.5]}'
    )
    rewritten(path, format=version, spec=old)
    for use in (lambda: read(path), lambda: find(SPEC)):
        with pytest.raises(
            StoreError, match=rf"{path.name}.*format {version}.*semantics 1"
        ) as told:
            use()
        assert not isinstance(told.value, DamagedRecord)
    assert path.is_file()


def test_a_record_of_other_semantics_is_refused_by_name_under_its_own(own_store: Path) -> None:
    other = dataclasses.replace(SPEC, semantics=SEMANTICS + 1)
    path = Path(write(record(spec=other)).path)
    with pytest.raises(StoreError, match=f"{path.name}.*semantics {SEMANTICS + 1}") as told:
        find(other)
    assert not isinstance(told.value, DamagedRecord) and path.is_file()


# Claims


def test_one_process_at_a_time_has_the_claim_on_a_run(own_store: Path) -> None:
    with (
        user_store().claim(SPEC.run_id) as mine,
        user_store().claim(SPEC.with_seed(1).run_id) as other,
    ):
        assert mine and other
        with user_store().claim(SPEC.run_id) as again:
            assert not again
    with user_store().claim(SPEC.run_id) as mine:
        assert mine
    assert left_in(own_store) == []


def test_a_killed_process_has_no_claim(own_store: Path) -> None:
    code = f"""
import sys, time
from w2s_lib.runs.store import user_store
with user_store().claim({SPEC.run_id!r}) as mine:
    print(mine, flush=True)
    time.sleep(600)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    with user_store().claim(SPEC.run_id) as mine:
        assert not mine
    holder.kill()
    holder.wait()
    with user_store().claim(SPEC.run_id) as mine:
        assert mine
    assert left_in(own_store) == []
