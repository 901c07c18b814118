"""Where records are kept: one Parquet file a finished run, verified on reading, complete or absent.

Two stores are searched: the user's, then the published one (`book/results/`, read-only). The
user's is a folder, or a URL with a prefix in an object store (`remote.py`). A run's adapters lie
beside its record, in `<run id>/<digest>/`; the record's provenance names the digest, so that a
record and its adapters cannot be of different trainings.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from platformdirs import user_data_dir

from w2s_lib.runs import folders
from w2s_lib.runs.errors import DamagedRecord, StoreError, StoreUnavailable
from w2s_lib.runs.record import Record, check_content, from_parquet, to_parquet
from w2s_lib.runs.spec import RunSpec

ROOM = "free some space, or name another folder in W2S_STORE"
PATIENCE_SECONDS, RETRY_SECONDS = 600.0, 60.0
"""How long a sweep that is at work waits for a store that is away; between two tries."""
T = TypeVar("T")


class Store(ABC):
    """Where records are: a `FolderStore` or a `UrlStore`. Methods raise `StoreError`.

    Attributes:
        address: as `W2S_STORE` names it: an absolute path, or a URL, which may hold an access key.
        name: the same for people, without an access key.
        folder: a folder of this machine: the store's own, or one of the cache.
    """

    address: str
    name: str
    folder: Path

    @abstractmethod
    def get(self, file: str) -> bytes | None:
        """The content of a file; None where there is none of that name."""

    @abstractmethod
    def put(self, file: str, content: bytes, *, new: bool) -> bool:
        """Puts a file whole, and says whether it did.

        False where `new` is set and somebody has put one of that name meanwhile, as far as the
        store can tell.
        """

    @abstractmethod
    def rename(self, file: str, new: str) -> None:
        """Renames a file; one that is gone already is left to whoever took it."""

    @abstractmethod
    def files(self) -> set[str]:
        """The names of all files."""

    @abstractmethod
    def probe(self) -> AbstractContextManager[str]:
        """Leaves a small file for as long as the context lasts; gives its name, for `get`."""

    def claim(self, run_id: str) -> AbstractContextManager[bool]:
        """Whether this process may train a run: False where another live one does.

        The claim lasts as long as the context; the system frees that of a process that dies. A
        store behind a URL has no claims: two records of one run are compared, and the first stays.
        """
        return contextlib.nullcontext(True)

    def weights(self, record: Record) -> Path | None:
        """The folder in `folder` with a record's adapters; None of none, or where they are not whole."""
        digest = record.provenance.get("weights", "")
        folder = self.folder / record.spec.run_id / digest
        return folder if digest and (whole(folder) or self.fetch_weights(folder)) else None

    def fetch_weights(self, folder: Path) -> bool:
        """Puts adapters into a folder of the cache where the store has them; says whether it did."""
        return False

    @abstractmethod
    def put_weights(self, folder: Path, name: str) -> None:
        """Puts a folder of adapters under a name that ends with their digest."""

    def find(self, run_id: str) -> Record | None:
        """A run's record. A damaged one is set aside with a warning, and counts as missing."""
        file = f"{run_id}.parquet"
        content = self.get(file)
        try:
            return None if content is None else from_parquet(content, f"{self.name}/{file}")
        except DamagedRecord as error:
            self.rename(file, aside := f"{run_id}.damaged")
            said = f"{error} It is kept as {aside}, and the run counts as missing."
            warnings.warn(said, stacklevel=3)
            return None


class FolderStore(Store):
    """A folder. Its files appear whole, by renaming; claims are locks of the system."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address, self.name = folder, str(folder), str(folder)

    def get(self, file: str) -> bytes | None:
        """See `Store`."""
        try:
            return (self.folder / file).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{self.folder / file} cannot be read: {error}") from error

    def put(self, file: str, content: bytes, *, new: bool) -> bool:
        """See `Store`."""
        folders.write_whole(self.folder / file, lambda part: part.write(content))
        return True

    def rename(self, file: str, new: str) -> None:
        """See `Store`."""
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.folder / file, self.folder / new)

    def files(self) -> set[str]:
        """See `Store`."""
        return {path.name for path in self.folder.glob("*")}

    @contextlib.contextmanager
    def probe(self) -> Iterator[str]:
        """See `Store`."""
        with folders.temporary(self.folder) as part:
            part.write_bytes(b"w2s")
            yield part.name

    @contextlib.contextmanager
    def claim(self, run_id: str) -> Iterator[bool]:
        """See `Store`."""
        lock = folders.lock_of(self.folder / run_id)
        with contextlib.ExitStack() as stack:
            try:
                mine = stack.enter_context(folders.locked(lock, wait=False))
            except OSError as error:
                raise StoreError(f"the store {self.name} cannot be locked: {error}") from error
            yield mine

    def put_weights(self, folder: Path, name: str) -> None:
        """See `Store`."""
        for path in (*folder.iterdir(), folder):
            folders.sync(path)
        target = self.folder / name
        target.parent.mkdir(exist_ok=True)
        while not whole(target):
            rename_new(folder, target)
        folders.sync(target.parent)


def user_store() -> Store:
    """`W2S_STORE`; else `.w2s/records` in the repository; else the platform's data folder."""
    chosen = os.environ.get("W2S_STORE", "")
    if "://" in chosen and not chosen.startswith("file://"):
        from w2s_lib.runs.remote import UrlStore

        return UrlStore(chosen)
    if chosen:
        return FolderStore(folders.named_folder(chosen.removeprefix("file://"), "W2S_STORE"))
    if root := folders.repository_root():
        return FolderStore(root / ".w2s" / "records")
    return FolderStore(Path(user_data_dir("w2s", appauthor=False)) / "records")


def published_store() -> Path | None:
    """The folder `W2S_PUBLISHED`; else `book/results/` in the repository; None: "0", or neither."""
    chosen, root = os.environ.get("W2S_PUBLISHED", ""), folders.repository_root()
    if chosen not in ("", "1"):
        return None if chosen == "0" else folders.named_folder(chosen, "W2S_PUBLISHED")
    return root / "book" / "results" if root else None


def find(spec: RunSpec) -> Record | None:
    """The record of `spec`, from the user's store, else from the published one; or None.

    A damaged record in the user's store is set aside (`.damaged`) with a warning.

    Raises:
        DamagedRecord: the published record is damaged.
        StoreError: a record is there and cannot be read.
    """
    if record := user_store().find(spec.run_id):
        return record
    published = published_store()
    path = published / f"{spec.run_id}.parquet" if published else None
    return read(path) if path and path.is_file() else None


def remove_left() -> None:
    """Removes what dead processes have left in the user's store and among what the cache keeps."""
    cache = folders.cache_dir()
    for folder in (user_store().folder, cache / "states", *(cache / "trunks").glob("*")):
        folders.remove_parts(folder)


def recorded() -> set[str]:
    """The ids of all runs with a record in either store, by the names of the files alone."""
    names, published = user_store().files(), published_store()
    if published:
        names |= FolderStore(published).files()
    return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}


def weights(spec: RunSpec) -> Path | None:
    """The folder of a run's adapters, from the user's store (published records have none).

    Adapters whose digest is not the one that the record names count as missing, with a warning.
    """
    store = user_store()
    record = store.find(spec.run_id)
    return store.weights(record) if record else None


def read(path: Path) -> Record:
    """Reads and verifies one record.

    Raises:
        DamagedRecord: it is truncated, altered, or another run's.
        StoreError: it cannot be read, or another version of the library has written it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"record {path} cannot be read: {error}") from error
    return from_parquet(content, str(path))


def require_writable(folder: Path | None = None) -> None:
    """Tries a folder, or the user's store, before training.

    Raises:
        StoreError: nothing can be written to it.
    """
    store = FolderStore(folder) if folder else user_store()
    try:
        with store.probe():
            pass
    except OSError as error:
        said = f"the store {store.name} cannot be written: {error}"
        raise StoreError(f"{said}. Nothing was trained: {ROOM}.") from error


def write(
    record: Record,
    *,
    store: Path | None = None,
    artefacts: Callable[[Path], None] | None = None,
    rules: str = "",
) -> Record:
    """Writes a record whole; its adapters are in place before it.

    Where the store has that run already, the two must agree, and the first one stays, unless it
    lacks its adapters.

    Args:
        record: a finished run.
        store: a folder; the user's store by default.
        artefacts: writes adapter and head into the folder that it is given.
        rules: SHA-256 of the edition's rules file, in hex, for a record that is published.

    Returns:
        The record that is there then, with its path.

    Raises:
        StoreUnavailable: the store cannot be written, or the disk is full; nothing half-written stays.
        StoreError: its record of this run has other predictions, or this one is not valid.
    """
    to, run_id = FolderStore(store) if store else user_store(), record.spec.run_id
    record = replace(record, rules=rules)
    try:
        check_content(record)
    except ValueError as error:
        raise StoreError(f"run {run_id} has no valid record: {error}") from error
    try:
        with folders.temporary(to.folder) as part:
            part.mkdir()
            if artefacts:
                artefacts(part)
            for file in part.iterdir():  # safetensors keeps its files to the owner
                file.chmod(part.stat().st_mode & 0o666)
            if digest := weights_digest(part):
                record = replace(record, provenance={**record.provenance, "weights": digest})
            there = to.find(run_id)
            lost = bool(there and digest and not to.weights(there))
            if there and _agreed(record, there, lost=lost) and not lost:
                return there
            if digest:
                to.put_weights(part, f"{run_id}/{digest}")
            if not to.put(f"{run_id}.parquet", to_parquet(record), new=there is None):
                there = to.find(run_id)
                return there if there and _agreed(record, there, lost=False) else record
    except OSError as error:
        said = f"the record of {run_id} could not be written to {to.name}: {error}"
        raise StoreUnavailable(f"{said}. Nothing half-written was left: {ROOM}.") from error
    return replace(record, path=f"{to.name}/{run_id}.parquet")


def patiently(do: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """Does something with a store. Where it is away, does it again, for so many seconds."""
    last = time.monotonic() + seconds
    while True:
        try:
            return do()
        except StoreUnavailable as error:
            if (left := last - time.monotonic()) <= 0:
                raise
            said = f"w2s: {str(error).rstrip('.')}. This is tried again for {left:.0f} s."
            print(said, file=sys.stderr, flush=True)
            time.sleep(min(left, RETRY_SECONDS))


def weights_digest(folder: Path) -> str:
    """SHA-256 of the names and contents of a folder's files, 32 hex digits; "" of no files."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    lines = "".join(f"{folders.file_sha256(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:32] if lines else ""


def whole(folder: Path) -> bool:
    """Whether a folder of adapters, named by their digest, is there and whole.

    A damaged one is removed with a warning: the run counts as one that has no adapters.
    """
    if not folder.is_dir():
        return False
    if weights_digest(folder) == folder.name:
        return True
    said = f"w2s: damaged adapters {folder}: removed; the run is trained again where it needs them"
    warnings.warn(said, stacklevel=2)
    shutil.rmtree(folder)
    return False


def rename_new(part: Path, folder: Path) -> None:
    """Renames a folder, unless there is one of that name: another process may have been faster."""
    try:
        os.rename(part, folder)
    except OSError:
        if not folder.is_dir():
            raise


def _agreed(record: Record, there: Record, *, lost: bool) -> bool:
    """True where two records of a run have the same predictions, else an error.

    On CUDA two trainings may differ: there the first one stays, with a warning, unless it has `lost`
    its adapters, for a record and its adapters have to be of one training.
    """
    new, old = (replace(one, metrics={}, provenance={}, rules="").digest for one in (record, there))
    if new == old:
        return True
    was, now = (one.provenance.get("hardware", "unknown hardware") for one in (there, record))
    said = (
        f"run {record.spec.run_id} was trained twice and its two records disagree: {there.path} "
        f"({was}), which stays, and a new one ({now}), which was not written: the same bits need "
        "the same kind of machine and the same versions"
    )
    if record.spec.device == "cuda" and not lost:
        warnings.warn(f"w2s: {said}, and on CUDA they may differ all the same", stacklevel=2)
        return True
    raise StoreError(f"{said}. To have it anew, remove its record, and those of its students")
