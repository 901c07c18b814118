"""Where things lie, and how files are written: whole or not at all, locked, with digests."""

import contextlib
import functools
import hashlib
import os
import platform
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from w2s_lib.runs.errors import AssetError, StoreError

_PART = ".part-"
_DAY = 24 * 3600
_DIGEST = 32


def repository_root() -> Path | None:
    """The folder above this package, where it is a checkout with a book in it."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "book" / "_toc.yml").is_file() else None


def cache_dir() -> Path:
    """The folder of converted assets: `W2S_CACHE` if it is set, else the platform's."""
    chosen = os.environ.get("W2S_CACHE") or user_cache_dir("w2s", appauthor=False)
    return named_folder(chosen, "W2S_CACHE")


def named_folder(path: str, variable: str) -> Path:
    """A folder that somebody named in an environment variable; `~` is their home.

    Raises:
        StoreError: `~name`, and nobody here has that name.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise StoreError(f"{variable} is {path!r}: {error}") from None


def file_sha256(path: Path) -> str:
    """Sha256 of a file's content, in hex (0.2 s for the 269 MB of the embedded model)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unchanged_sha256(path: Path) -> str:
    """The same, read once a process, and again when the file's size or time has changed."""
    state = path.stat()
    return _sha256_of_state(path.absolute(), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _sha256_of_state(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file whole or not at all: a temporary one is put on the disk, then renamed.

    Args:
        path: the file; one of that name is replaced. Its mode is what the umask gives.
        write: fills the open file that it is given.
    """
    with temporary(path.parent) as part:
        with part.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    sync(path.parent)


def write_cached(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_whole` for a file of the cache.

    Raises:
        AssetError: the cache cannot be written, or the disk is full.
    """
    with writing_cache():
        write_whole(path, write)


@contextlib.contextmanager
def writing_cache() -> Iterator[None]:
    """Turns what the system refuses into an `AssetError` that says what to do."""
    try:
        yield
    except OSError as error:
        advice = "free some space there, or set W2S_CACHE to a folder that can be written"
        raise AssetError(f"cannot write the cache {cache_dir()} ({error}): {advice}") from error


def write_checked(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """`write_cached` with the content's SHA-256 as the last 32 bytes, for `intact`.

    Formats that know their own length, such as npy, are read as if the digest were not there.
    """

    def with_digest(file: IO[bytes]) -> None:
        write(file)
        file.flush()
        file.seek(0, os.SEEK_END)
        file.write(bytes.fromhex(file_sha256(Path(file.name))))

    write_cached(path, with_digest)


def intact(path: Path) -> bool:
    """Whether a file of `write_checked` is there and whole; a damaged one is said.

    It is read once a process, and again when its size or time has changed.

    Raises:
        AssetError: it is there and cannot be read.
    """
    try:
        state = path.stat()
        return _intact(path, state.st_size, state.st_mtime_ns)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise AssetError(f"cannot read the cache's {path}: {error}") from error


@functools.lru_cache(maxsize=4096)
def _intact(path: Path, size: int, mtime_ns: int) -> bool:
    if size > _DIGEST:
        content = np.memmap(path, mode="r")
        if hashlib.sha256(content[:-_DIGEST].data).digest() == content[-_DIGEST:].tobytes():
            return True
    warnings.warn(f"w2s: damaged {path}: it is computed again", stacklevel=4)
    return False


@contextlib.contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A new name in a folder, for what is renamed when it is whole. What is left of it is removed.

    What dead processes have left there is removed as well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_parts(folder)
    part = folder / f"{_PART}{os.getpid()}-{platform.node()}-{uuid.uuid4().hex[:8]}"
    try:
        yield part
    finally:
        _remove(part)


def remove_parts(folder: Path, *, of: int = 0) -> None:
    """Removes what dead processes have left half-written in a folder, and what process `of` has.

    Hidden lock files that nobody holds go as well. Each is held while it is removed, so that no two
    processes can hold the lock; one that wants it in that moment finds it taken.
    """
    for part in folder.glob(f"{_PART}*"):
        if _abandoned(part) or part.name.startswith(f"{_PART}{of}-"):
            _remove(part)
    for lock in folder.glob(".*.lock"):
        with contextlib.suppress(OSError), locked(lock, wait=False):  # another user's stays
            pass


def lock_of(file: Path) -> Path:
    """The lock of who makes a file of the cache: hidden, so that `remove_parts` finds it."""
    return file.with_name(f".{file.stem}.lock")


def sync(path: Path) -> None:
    """Has the system put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _abandoned(part: Path) -> bool:
    """Whether a temporary name is a dead process's of this machine, or older than a day."""
    pid, _, rest = part.name.removeprefix(_PART).partition("-")
    try:
        if time.time() - part.stat().st_mtime > _DAY:
            return True
        if rest.rpartition("-")[0] == platform.node():
            os.kill(int(pid), 0)
    except (ProcessLookupError, FileNotFoundError):
        return True
    except (OSError, ValueError):  # another user's process, or another program's file
        pass
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[bool]:
    """Holds a lock file, which the system frees when this process ends, however it ends.

    Args:
        file: the lock file. It is removed with the lock.
        wait: wait for whoever holds it.

    Yields:
        Whether this process holds the lock: False where another one does and `wait` is not set.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        file.unlink(missing_ok=True)  # while it is held: who waits for it takes a new file
        lock.release()
