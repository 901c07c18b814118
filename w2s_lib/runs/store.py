"""Records: one Parquet file a finished run, verified on reading, complete or absent.

A record holds predictions by row, and in its metadata the spec, metrics, provenance and a digest of all of it. It holds
no text and no pickle. Two stores are searched: the user's, then the published one (`book/results/`, read-only). The
user's is a folder, or the prefix of an object store (`remote.py`).
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from platformdirs import user_data_dir

from w2s_lib.runs.errors import DamagedRecord, StoreError
from w2s_lib.runs.folders import locked, repository_root
from w2s_lib.runs.parquet import from_parquet, to_parquet
from w2s_lib.runs.record import Record
from w2s_lib.runs.remote import Remote, remote_store
from w2s_lib.runs.spec import RunSpec

__all__ = [
    "DamagedRecord",
    "claim",
    "discard_partial",
    "find",
    "mark",
    "marked",
    "published_store",
    "read",
    "recorded",
    "repository_root",
    "require_writable",
    "store_name",
    "user_store",
    "weights",
    "write",
]


def user_store() -> Path:
    """`W2S_STORE`; else `.w2s/records` at the repository's root; else the platform's data folder.

    Where `W2S_STORE` is a URL, the folder in the cache in which its records are made ready.
    """
    if away := remote_store():
        return away.local
    if chosen := os.environ.get("W2S_STORE"):
        return Path(chosen.removeprefix("file://")).expanduser().absolute()
    root = repository_root()
    return (
        root / ".w2s" / "records"
        if root
        else Path(user_data_dir("w2s", appauthor=False)) / "records"
    )


def store_name() -> str:
    """The user's store as `W2S_STORE` would name it: an absolute path or a URL."""
    away = remote_store()
    return away.url if away else str(user_store())


def published_store() -> Path | None:
    """`book/results/`, unless `W2S_PUBLISHED=0` hides it or there is no repository around the library."""
    root = repository_root()
    return (
        root / "book" / "results" if root and os.environ.get("W2S_PUBLISHED", "1") != "0" else None
    )


def find(spec: RunSpec) -> Record | None:
    """The record of `spec`, from the user's store, else from the published one; None where neither has it.

    A damaged record in the user's store is set aside (`.damaged`) with a warning, and counts as missing.

    Raises:
        DamagedRecord: the published record is damaged.
    """
    away = remote_store()
    record = (
        _find_away(away, spec.run_id)
        if away
        else _find_here(user_store() / f"{spec.run_id}.parquet")
    )
    published = published_store()
    path = (published or user_store()) / f"{spec.run_id}.parquet"
    return record or (read(path) if published and path.is_file() else None)


def _find_here(path: Path) -> Record | None:
    try:
        return read(path) if path.is_file() else None
    except DamagedRecord as error:
        os.replace(path, aside := path.with_suffix(".damaged"))
        warnings.warn(
            f"{error} It is kept as {aside.name}, and the run counts as missing.", stacklevel=3
        )
        return None


def _find_away(away: Remote, run_id: str) -> Record | None:
    content = away.get(name := f"{run_id}.parquet")
    try:
        return None if content is None else from_parquet(io.BytesIO(content), f"{away.url}/{name}")
    except DamagedRecord as error:
        away.rename(name, aside := f"{run_id}.damaged")
        warnings.warn(
            f"{error} It is kept as {aside}, and the run counts as missing.", stacklevel=3
        )
        return None


def recorded() -> set[str]:
    """The ids of all runs that have a record in either store, by the names of the files alone: nothing is read or verified."""
    away, published = remote_store(), published_store()
    names = away.names() if away else {path.name for path in user_store().glob("*.parquet")}
    names |= {path.name for path in published.glob("*.parquet")} if published else set()
    return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}


def weights(spec: RunSpec) -> Path | None:
    """The folder of a run's adapters in the user's store; None where they are not (published records come without).

    From a URL they are fetched into the cache.
    """
    if away := remote_store():
        return away.download(spec.run_id)
    folder = user_store() / spec.run_id
    return folder if (folder / "adapter_model.safetensors").is_file() else None


def read(path: Path) -> Record:
    """Reads and verifies one record.

    Raises:
        DamagedRecord: it is truncated, altered, or another run's.
        StoreError: another version of the library has written it.
    """
    return from_parquet(path, str(path))


def require_writable(store: Path | None = None) -> None:
    """Tries a folder, or the user's store, before training: raises `StoreError` where nothing can be written to it."""
    folder = store or user_store()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryFile(dir=folder),
            mark() if store is None else contextlib.nullcontext(),
        ):
            pass
    except OSError as error:
        raise StoreError(
            f"the store {folder} cannot be written: {error}. Name another folder in W2S_STORE. Nothing was "
            "trained."
        ) from error


@contextlib.contextmanager
def claim(run_id: str) -> Iterator[bool]:
    """Whether this process may train a run: False where another live process is training it for the same store.

    The claim lasts as long as the context. The system frees that of a process that dies. A store behind a URL has no
    claims, so this is True there: two records of one run are compared, and the first one stays.
    """
    if remote_store():
        yield True
        return
    with contextlib.ExitStack() as stack:
        try:
            mine = stack.enter_context(locked(user_store() / f".{run_id}.lock", wait=False))
        except OSError as error:
            raise StoreError(f"the store {user_store()} cannot be locked: {error}") from error
        yield mine


@contextlib.contextmanager
def mark() -> Iterator[str]:
    """Leaves a small file in the user's store for as long as the context lasts, and gives its name: for `marked`."""
    if away := remote_store():
        with away.mark() as name:
            yield name
        return
    file = user_store() / f".probe-{uuid.uuid4().hex}"
    file.touch()
    try:
        yield file.name
    finally:
        file.unlink(missing_ok=True)


def marked(name: str) -> bool:
    """Whether the user's store, as this process and this machine see it, has the mark of that name."""
    away = remote_store()
    return (user_store() / name).is_file() if away is None else away.get(name) is not None


def write(
    record: Record, *, store: Path | None = None, artefacts: Callable[[Path], None] | None = None
) -> Record:
    """Writes a record whole: under a temporary name, renamed last. Its folder of weights is in place before it.

    To a URL it is put in one piece, after its weights. Where the store has that run already, by somebody who trained it at
    the same time, the two must agree, and the first one stays.

    Args:
        record: a finished run.
        store: a folder; the user's store by default.
        artefacts: writes adapter and head into the folder that it is given.

    Returns:
        The record with its path.

    Raises:
        StoreError: the store cannot be written, or the disk is full; nothing half-written stays. Or, of a URL: the store's
            record of this run has other predictions.
    """
    away = None if store else remote_store()
    store = store or user_store()
    path = store / f"{record.spec.run_id}.parquet"
    temporary: Path | None = None
    try:
        store.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".part-{os.getpid()}-", dir=store))
        to_parquet(record, temporary / path.name)
        if artefacts:
            (temporary / "weights").mkdir()
            artefacts(temporary / "weights")
        if away:
            return _put(away, record, temporary)
        if artefacts:
            if any((temporary / "weights").iterdir()):
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                os.replace(temporary / "weights", path.with_suffix(""))
        os.replace(temporary / path.name, path)
    except OSError as error:
        raise StoreError(
            f"the record of {record.spec.run_id} could not be written to {store}: {error}. Free some space, "
            "or name another folder in W2S_STORE. Nothing half-written was left."
        ) from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    return replace(record, path=str(path))


def _put(away: Remote, record: Record, folder: Path) -> Record:
    """Puts what `folder` holds to an object store, and gives the record that is there then: this one, or its equal."""
    run_id = record.spec.run_id
    there = _agreed(record, _find_away(away, run_id))
    if (folder / "weights").is_dir() and any((folder / "weights").iterdir()):
        away.upload(folder / "weights", run_id)
    if there is None and not away.create(
        f"{run_id}.parquet", (folder / f"{run_id}.parquet").read_bytes()
    ):
        there = _agreed(record, _find_away(away, run_id))
    return there or replace(record, path=f"{away.url}/{run_id}.parquet")


def _agreed(record: Record, there: Record | None) -> Record | None:
    if (
        there
        and replace(record, metrics={}, provenance={}).digest
        != replace(there, metrics={}, provenance={}).digest
    ):
        both = [one.provenance.get("hardware", "unknown hardware") for one in (there, record)]
        raise StoreError(
            f"run {record.spec.run_id} was trained twice and its two records disagree: {there.path} ({both[0]}), "
            f"which stays, and a new one ({both[1]}), which was not written. The same bits need the same kind of "
            "machine and the same versions."
        )
    return there


def discard_partial(pid: int | None) -> None:
    """Removes what a process that was killed has left half-written in the user's store."""
    for folder in user_store().glob(f".part-{pid}-*"):
        shutil.rmtree(folder, ignore_errors=True)
