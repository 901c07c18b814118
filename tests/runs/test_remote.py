"""A store behind a URL: in this process's memory, and on a local S3 server where there is one; nothing is locked."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import w2s_lib as w2s
from tests.runs.test_store import DAMAGE, SPEC, record, with_snapshots
from w2s_lib.runs import store
from w2s_lib.runs.errors import StoreError
from w2s_lib.runs.record import Record
from w2s_lib.runs.remote import Remote, remote_store
from w2s_lib.runs.spec import SEMANTICS, Task
from w2s_lib.runs.store import find, read, require_writable, user_store, weights, write

NAME = f"{SPEC.run_id}.parquet"


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The file system whose folder `/w2s` is the user's store; nothing is published."""
    monkeypatch.setenv("W2S_STORE", "memory://w2s/")
    monkeypatch.setattr(store, "repository_root", lambda: tmp_path / "checkout")
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


@pytest.fixture
def s3(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The same on a local S3 server."""
    import s3fs

    monkeypatch.setenv("W2S_STORE", f"s3://w2s/{tmp_path.name}")
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store, "repository_root", lambda: tmp_path / "checkout")
    return s3fs.S3FileSystem()


@pytest.fixture(params=["memory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, str]:
    """A file system and the folder in it that is the user's store."""
    return request.getfixturevalue(request.param), {"memory": "/w2s", "s3": f"w2s/{tmp_path.name}"}[
        request.param
    ]


def names(objects: tuple[Any, str]) -> list[str]:
    system, root = objects
    system.invalidate_cache()
    return sorted(path.split(root + "/", 1)[1] for path in system.find(root))


def test_what_is_recorded_is_told_by_the_names_alone(objects: tuple[Any, str]) -> None:
    """Also where there is nothing yet, and not what is set aside or a folder of weights."""
    assert store.recorded() == set()
    write(record(), artefacts=save)
    system, root = objects
    system.pipe_file(f"{root}/0123456789abcdef.damaged", b"x")
    assert store.recorded() == {SPEC.run_id}


def other(one: Record) -> Record:
    """The same run with one prediction that differs in its last bit."""
    frame = one.predictions.copy()
    frame.iloc[5, frame.columns.get_loc("p")] = np.nextafter(frame["p"].iloc[5], np.float32(2))
    return dataclasses.replace(
        one, predictions=frame, provenance={**one.provenance, "hardware": "an abacus"}
    )


def save(folder: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "head.safetensors"):
        (folder / name).write_bytes(name.encode() * 100)


def test_a_record_comes_back_as_it_was_written(objects: tuple[Any, str]) -> None:
    for one in (record(), with_snapshots()):
        assert find(one.spec) is None
        written = write(one)
        back = find(one.spec)
        assert (
            back is not None
            and back.digest == one.digest
            and back.predictions.equals(written.predictions)
        )
        assert (
            back.path
            == written.path
            == f"{os.environ['W2S_STORE'].rstrip('/')}/{one.spec.run_id}.parquet"
        )
    assert names(objects) == sorted(
        f"{one.spec.run_id}.parquet" for one in (record(), with_snapshots())
    )


def test_the_object_is_the_file_that_a_folder_would_hold(memory: Any, tmp_path: Path) -> None:
    write(record())
    assert (
        memory.cat(f"/w2s/{NAME}")
        == Path(write(record(), store=tmp_path / "folder").path).read_bytes()
    )


def test_weights_come_before_the_record_and_back_whole(
    objects: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    put = objects[0].pipe_file

    def watched(path: str, value: bytes, **options: Any) -> Any:
        order.append(path.rsplit("/", 1)[1])
        return put(path, value, **options)

    monkeypatch.setattr(objects[0], "pipe_file", watched)
    assert weights(SPEC) is None
    write(record(), artefacts=save)
    assert order[-2:] == ["adapter_model.safetensors", NAME] and len(order) == 4
    folder = weights(SPEC)
    assert folder is not None and folder == weights(SPEC)  # fetched once
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: name.encode() * 100
        for name in ("adapter_config.json", "adapter_model.safetensors", "head.safetensors")
    }
    assert not list(user_store().glob(".part-*"))


def test_other_weights_under_the_same_name_are_fetched_anew(memory: Any) -> None:
    write(record(), artefacts=save)
    before = weights(SPEC)
    memory.pipe_file(f"/w2s/{SPEC.run_id}/adapter_model.safetensors", b"trained again")
    after = weights(SPEC)
    assert (
        after is not None
        and after != before
        and (after / "adapter_model.safetensors").read_bytes() == b"trained again"
    )


def test_a_duplicate_that_agrees_is_kept_as_it_was(objects: tuple[Any, str]) -> None:
    first = write(record())
    system, root = objects
    before = system.cat_file(f"{root}/{NAME}")
    again = write(
        dataclasses.replace(record(), provenance={**record().provenance, "seconds": 99.0}),
        artefacts=save,
    )
    assert again.provenance == first.provenance and system.cat_file(f"{root}/{NAME}") == before
    assert weights(SPEC) is not None  # trained again for them


def test_a_duplicate_that_disagrees_is_refused_by_name(objects: tuple[Any, str]) -> None:
    write(record(), artefacts=save)
    system, root = objects
    before = {name: system.cat_file(f"{root}/{name}") for name in names(objects)}
    with pytest.raises(
        StoreError,
        match=f"run {SPEC.run_id} was trained twice and its two records disagree: .*abacus",
    ):
        write(
            other(record()),
            artefacts=lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"other"),
        )
    assert {name: system.cat_file(f"{root}/{name}") for name in names(objects)} == before


@pytest.mark.parametrize("agree", [True, False])
def test_two_who_finish_at_once(
    agree: bool, objects: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked and seen no record when the first of them puts his: the second is told of it by the store."""
    both_have_looked, look = threading.Barrier(2), store._find_away
    seen = {threading.current_thread().name}

    def together(away: Remote, run_id: str) -> Record | None:
        found = look(away, run_id)
        if threading.current_thread().name not in seen:
            seen.add(threading.current_thread().name)
            both_have_looked.wait(20)
        return found

    monkeypatch.setattr(store, "_find_away", together)
    ends: list[Any] = []

    def work(one: Record) -> None:
        try:
            ends.append(write(one))
        except StoreError as error:
            ends.append(error)

    threads = [
        threading.Thread(target=work, args=(one,))
        for one in (record(), record() if agree else other(record()))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [end for end in ends if isinstance(end, StoreError)]
    assert len(ends) == 2 and len(refused) == (0 if agree else 1)
    assert find(SPEC) is not None and names(objects) == [NAME]
    assert agree or "its two records disagree" in str(refused[0])


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_object_is_set_aside_and_counts_as_missing(
    damage: Any, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "folder"))
    path = Path(write(record()).path)
    damage(path)
    monkeypatch.setenv("W2S_STORE", "memory://w2s/")
    memory.pipe_file(f"/w2s/{NAME}", path.read_bytes())
    with pytest.warns(
        UserWarning, match=f"damaged record memory://w2s/{NAME}: .* kept as {SPEC.run_id}.damaged"
    ):
        assert find(SPEC) is None
    assert memory.cat(f"/w2s/{SPEC.run_id}.damaged") == path.read_bytes() and not memory.exists(
        f"/w2s/{NAME}"
    )
    assert find(SPEC) is None and write(record()).digest == record().digest


def test_the_published_store_is_looked_into_as_well(memory: Any, tmp_path: Path) -> None:
    path = write(record(), store=tmp_path / "checkout" / "book" / "results").path
    found = find(SPEC)
    assert found is not None and found.path == path and memory.find("/w2s") == []


def test_a_run_is_trained_into_it_and_read_from_it(
    memory: Any, small_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = w2s.supervisor("tfidf", small_task)
    trained = w2s.run(spec)
    monkeypatch.setattr(
        "w2s_lib.training.execute.execute", lambda *_, **__: pytest.fail("trained again")
    )
    assert w2s.run(spec).digest == trained.digest and memory.find("/w2s") == [
        f"/w2s/{spec.run_id}.parquet"
    ]


@pytest.mark.parametrize(
    "url, message",
    [
        ("s4://bucket", "the store s4://bucket cannot be used: .*[Pp]rotocol"),
        ("gs://bucket", "the store gs://bucket needs a package that is not installed: .*gcsfs"),
    ],
)
def test_a_store_that_cannot_be_reached_is_said_by_name(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2S_STORE", url)
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    for use in (lambda: find(SPEC), require_writable, lambda: write(record())):
        with pytest.raises(StoreError, match=message):
            use()


def test_a_bucket_that_is_not_there_is_said_before_training(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2S_STORE", "s3://nobodys/records")
    assert find(SPEC) is None
    with pytest.raises(
        StoreError, match="the store s3://nobodys/records cannot be used: FileNotFoundError"
    ):
        require_writable()


def test_which_stores_are_remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for chosen, remote in {
        "s3://b/p/": "s3://b/p",
        "gs://b": "gs://b",
        "records": None,
        str(tmp_path): None,
    }.items():
        monkeypatch.setenv("W2S_STORE", chosen)
        found = remote_store()
        assert (found and found.url) == remote
    monkeypatch.setenv("W2S_STORE", f"file://{tmp_path}/shared")
    assert remote_store() is None and user_store() == tmp_path / "shared"


# Records of another version


def test_a_record_of_another_format_is_refused_and_stays(own_store: Path) -> None:
    """It may be a later one: to set it aside and train anew would hide it from those who can read it."""
    import pyarrow.parquet as pq

    path = Path(write(record()).path)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"format": b"2"}), path)
    for use in (lambda: read(path), lambda: find(SPEC)):
        with pytest.raises(
            StoreError, match=f"record .*{NAME} is of format 2, and this library reads format 1"
        ):
            use()
    assert path.is_file()


def test_a_record_of_other_semantics_under_this_runs_name_is_refused_and_stays(
    own_store: Path,
) -> None:
    later = dataclasses.replace(SPEC, semantics=SEMANTICS + 1)
    path = Path(os.rename(write(record(spec=later)).path, own_store / NAME) or own_store / NAME)
    with pytest.raises(
        StoreError,
        match=f"of training semantics {SEMANTICS + 1}, and this library trains {SEMANTICS}",
    ):
        find(SPEC)
    assert path.is_file()
