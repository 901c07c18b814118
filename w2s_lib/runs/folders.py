"""Where things lie: the cache, the checkout around this package; files written whole, and their digests."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from w2s_lib.runs.errors import AssetError


def repository_root() -> Path | None:
    """The folder above this package, where it is a checkout with a book in it."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "book" / "_toc.yml").is_file() else None


def cache_dir() -> Path:
    """The folder of converted assets: `W2S_CACHE` where it is set, else the platform's cache folder."""
    return (
        Path(os.environ.get("W2S_CACHE") or user_cache_dir("w2s", appauthor=False))
        .expanduser()
        .absolute()
    )


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


def save_whole(file: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Puts a file into the cache whole or not at all: `write` fills a temporary one, which is then renamed.

    Raises:
        AssetError: the cache cannot be written, or the disk is full.
    """
    part = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as part:
            write(part)
        os.replace(part.name, file)
    except OSError as error:
        raise AssetError(
            f"cannot write the cache {cache_dir()} ({error}): free some space there, or set W2S_CACHE to a folder "
            "that can be written"
        ) from error
    finally:
        if part:
            Path(part.name).unlink(missing_ok=True)


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
