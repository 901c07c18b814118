"""A store behind a URL: in this process's memory, and on a local S3 server where there is one; nothing is locked."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import w2s_lib as w2s
from tests.runs.test_record_damage import DAMAGE
from tests.runs.test_store import SPEC, record
from w2s_lib.runs.errors import StoreError, StoreUnavailable
from w2s_lib.runs.record import Record, accuracies
from w2s_lib.runs.remote import UrlStore
from w2s_lib.runs.spec import SEMANTICS, Task
from w2s_lib.runs.store import find, read, recorded, require_writable, user_store, weights, write

NAME = f"{SPEC.run_id}.parquet"


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The file system whose folder `/w2s` is the user's store; nothing is published."""
    monkeypatch.setenv("W2S_STORE", "memory://w2s/")
    monkeypatch.setenv("W2S_PUBLISHED", str(tmp_path / "published"))
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
    monkeypatch.setenv("W2S_PUBLISHED", str(tmp_path / "published"))
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
    assert recorded() == set()
    write(record(), artefacts=save)
    system, root = objects
    system.pipe_file(f"{root}/0123456789abcdef.damaged", b"x")
    assert recorded() == {SPEC.run_id}


def other(one: Record) -> Record:
    """The same run with one prediction that differs in its last bit."""
    frame = one.predictions.copy()
    frame.iloc[5, frame.columns.get_loc("p")] = np.nextafter(frame["p"].iloc[5], np.float32(2))
    return dataclasses.replace(
        one,
        predictions=frame,
        metrics=accuracies(frame),
        provenance={**one.provenance, "hardware": "an abacus"},
    )


def save(folder: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors", "head.safetensors"):
        (folder / name).write_bytes(name.encode() * 100)


def test_a_record_comes_back_as_it_was_written(objects: tuple[Any, str]) -> None:
    for one in (record(), record(spec=SPEC.with_seed(1))):
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
        f"{one.spec.run_id}.parquet" for one in (record(), record(spec=SPEC.with_seed(1)))
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
    assert order[-1] == NAME and len(order) == 4
    folder = weights(SPEC)
    assert folder is not None and folder == weights(SPEC)  # fetched once
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: name.encode() * 100
        for name in ("adapter_config.json", "adapter_model.safetensors", "head.safetensors")
    }
    assert not list(user_store().folder.glob(".part-*"))


def test_damaged_weights_are_said_and_count_as_missing(memory: Any) -> None:
    """In the cache they are fetched anew; in the store the run is trained again for them."""
    write(record(), artefacts=save)
    folder = weights(SPEC)
    assert folder is not None
    (folder / "head.safetensors").write_bytes(b"0")
    with pytest.warns(UserWarning, match=SPEC.run_id):
        assert weights(SPEC) == folder
    assert (folder / "head.safetensors").read_bytes() == b"head.safetensors" * 100
    shutil.rmtree(folder)
    memory.pipe_file(f"/w2s/{SPEC.run_id}/{folder.name}/head.safetensors", b"0")
    with pytest.warns(UserWarning, match=SPEC.run_id):
        assert weights(SPEC) is None
    with pytest.warns(UserWarning, match=SPEC.run_id):
        write(record(), artefacts=save)
    assert weights(SPEC) == folder


def test_a_duplicate_that_agrees_is_kept_as_it_was(objects: tuple[Any, str]) -> None:
    """Unless it brings the weights that the first one lacks."""
    first = write(record())
    later = dataclasses.replace(record(), provenance={**record().provenance, "seconds": 99.0})
    assert write(later).digest == first.digest and weights(SPEC) is None
    with_weights = write(later, artefacts=save)
    assert with_weights.provenance["seconds"] == 99.0 and weights(SPEC) is not None
    assert write(record(), artefacts=save).digest == with_weights.digest


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
    """Both have looked and seen no record when the first puts his: the store tells the second."""
    both_have_looked, get = threading.Barrier(2), objects[0].cat_file
    seen = {threading.current_thread().name}

    def together(path: str, **options: Any) -> Any:
        if threading.current_thread().name in seen:
            return get(path, **options)
        seen.add(threading.current_thread().name)
        try:
            return get(path, **options)
        finally:
            both_have_looked.wait(60)

    monkeypatch.setattr(objects[0], "cat_file", together)
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
    path = write(record(), store=tmp_path / "published").path
    found = find(SPEC)
    assert found is not None and found.path == path and memory.find("/w2s") == []


def test_a_run_is_trained_into_it_and_read_from_it(
    memory: Any, small_task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once: the second time nothing is said of training."""
    spec = w2s.supervisor("tfidf", small_task)
    trained = w2s.run(spec)
    assert "1 of 1 distinct runs to train" in capsys.readouterr().err
    assert w2s.run(spec).digest == trained.digest and memory.find("/w2s") == [
        f"/w2s/{spec.run_id}.parquet"
    ]
    assert capsys.readouterr().err == ""


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


def test_a_store_that_takes_calls_and_never_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By each operation: without an end of our own, a PUT waits for good."""
    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "anyone")
        monkeypatch.setattr(s3fs.S3FileSystem, "_cache", {})  # it would know another server by now
        dead = UrlStore("s3://silent/records", seconds=0.5)
        for use in (
            lambda: dead.put(NAME, b"1", new=True),
            lambda: dead.get(NAME),
            lambda: dead.rename(NAME, "aside"),
            dead.files,
        ):
            with pytest.raises(StoreUnavailable, match="s3://silent/records .*0.5 s"):
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


@pytest.mark.parametrize(
    "url, name",
    [
        ("s3://bucket/records/", "s3://bucket/records"),
        ("s3://key:se/cret@bucket/records", "s3://bucket/records"),
        ("abfs://container@account.example/records", "abfs://container@account.example/records"),
    ],
)
def test_a_url_is_shown_without_its_access_key(url: str, name: str) -> None:
    found = UrlStore(url)
    assert found.name == name and found.address == url.rstrip("/")


def test_an_access_key_is_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_STORE", "s4://akey:asecret@bucket")
    for use in (lambda: find(SPEC), require_writable, lambda: write(record())):
        with pytest.raises(StoreError) as told:
            use()
        assert "s4://bucket" in str(told.value)
        text = "".join(traceback.format_exception(told.value))
        assert "asecret" not in text and "akey" not in text


def test_a_file_url_is_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("W2S_STORE", f"file://{tmp_path}/shared")
    assert user_store().name == str(tmp_path / "shared")


# Records of another version


def test_a_record_of_another_format_is_refused_and_stays(own_store: Path) -> None:
    """It may be a later one: to set it aside and train anew would hide it from those who can read it."""
    import pyarrow.parquet as pq

    path = Path(write(record()).path)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"format": b"4"}), path)
    for use in (lambda: read(path), lambda: find(SPEC)):
        with pytest.raises(StoreError, match=f"record .*{NAME} is of format 4"):
            use()
    assert path.is_file()


def test_a_record_of_other_semantics_under_this_runs_name_is_refused_and_stays(
    own_store: Path,
) -> None:
    later = dataclasses.replace(SPEC, semantics=SEMANTICS + 1)
    path = Path(os.rename(write(record(spec=later)).path, own_store / NAME) or own_store / NAME)
    with pytest.raises(
        StoreError, match=f"{NAME}.*semantics {SEMANTICS + 1}.*semantics {SEMANTICS}"
    ):
        find(SPEC)
    assert path.is_file()
