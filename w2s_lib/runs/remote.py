"""A store behind an fsspec URL (`s3://bucket/prefix`, `gs://`): whole objects, each put once and compared, never locked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s_lib.runs.errors import StoreError
from w2s_lib.runs.folders import cache_dir

LAST = "adapter_model.safetensors"
"""Put after all other files of a run's weights: where it is, they are."""


def remote_store() -> Remote | None:
    """The store that `W2S_STORE` names by a URL; None where it is a folder of this machine."""
    chosen = os.environ.get("W2S_STORE", "")
    return (
        Remote(chosen.rstrip("/")) if "://" in chosen and not chosen.startswith("file://") else None
    )


@dataclass(frozen=True)
class Remote:
    """A prefix of an object store. Every method raises `StoreError` where the store cannot be reached.

    Attributes:
        url: such as `s3://bucket/prefix`.
    """

    url: str

    @property
    def local(self) -> Path:
        """The folder of the cache where records are made ready and fetched weights are kept."""
        return cache_dir() / "remote" / hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def get(self, name: str) -> bytes | None:
        """An object's content; None where there is none of that name."""
        with self._reached() as (system, root), contextlib.suppress(FileNotFoundError):
            return bytes(system.cat_file(f"{root}/{name}"))
        return None

    def names(self) -> set[str]:
        """The names of all objects right under the prefix."""
        with self._reached() as (system, root), contextlib.suppress(FileNotFoundError):
            system.invalidate_cache()
            return {path.rpartition("/")[2] for path in system.ls(root, detail=False)}
        return set()

    def create(self, name: str, content: bytes) -> bool:
        """Puts a new object whole, and says whether it did: False where somebody else has put one of that name."""
        with self._reached() as (system, root), contextlib.suppress(FileExistsError):
            system.pipe_file(f"{root}/{name}", content, mode="create")
            return True
        return False

    def rename(self, name: str, new: str) -> None:
        """Renames an object, by a copy; one that is gone already is left to whoever took it."""
        with self._reached() as (system, root), contextlib.suppress(FileNotFoundError):
            system.mv(f"{root}/{name}", f"{root}/{new}")

    @contextlib.contextmanager
    def mark(self) -> Iterator[str]:
        """Puts a small object for as long as the context lasts: what can be written, and seen by others. Gives its name."""
        name = f"probe-{uuid.uuid4().hex}"
        with self._reached() as (system, root):
            system.pipe_file(f"{root}/{name}", b"w2s")
        try:
            yield name
        finally:
            with self._reached() as (system, root):
                system.rm_file(f"{root}/{name}")

    def upload(self, folder: Path, name: str) -> None:
        """Puts every file of a folder under `name/`, the adapters last."""
        with self._reached() as (system, root):
            for file in sorted(folder.iterdir(), key=lambda file: (file.name == LAST, file.name)):
                system.pipe_file(f"{root}/{name}/{file.name}", file.read_bytes())

    def download(self, name: str) -> Path | None:
        """A local copy of the files under `name/`, fetched where it is not there yet; None where there are no adapters."""
        with self._reached() as (system, root):
            system.invalidate_cache()
            try:
                version = str(
                    system.ukey(f"{root}/{name}/{LAST}")
                )  # other adapters under the same name are fetched anew
            except FileNotFoundError:
                return None
            folder = self.local / name / hashlib.sha256(version.encode()).hexdigest()[:16]
            if not folder.is_dir():
                folder.parent.mkdir(parents=True, exist_ok=True)
                part = Path(tempfile.mkdtemp(prefix=f".part-{os.getpid()}-", dir=self.local))
                try:
                    for path in system.find(f"{root}/{name}"):
                        (part / Path(path).name).write_bytes(system.cat_file(path))
                    with contextlib.suppress(FileExistsError):  # another process was faster
                        _rename_new(part, folder)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
        return folder

    @contextlib.contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """The file system and the prefix in it; what goes wrong there is said by the store's name."""
        from fsspec.core import (
            url_to_fs,  # here: a chapter whose records are in a folder needs none of it
        )

        try:
            yield url_to_fs(self.url)
        except (StoreError, KeyboardInterrupt, GeneratorExit):
            raise
        except ImportError as error:
            raise StoreError(
                f"the store {self.url} needs a package that is not installed: {error}. `pip install '.[cluster]'` "
                "installs that for s3://, `pip install gcsfs` that for gs://."
            ) from error
        except Exception as error:  # every kind of store has its own
            raise StoreError(
                f"the store {self.url} cannot be used: {type(error).__name__}: {error}"
            ) from error


def _rename_new(part: Path, folder: Path) -> None:
    try:
        os.rename(part, folder)
    except OSError as error:
        if not folder.is_dir():
            raise
        raise FileExistsError(folder) from error
