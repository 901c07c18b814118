"""A store behind an fsspec URL (`s3://bucket/prefix`, `gs://`): whole objects, never locked."""

import contextlib
import hashlib
import re
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from w2s_lib.runs.errors import StoreError, StoreUnavailable
from w2s_lib.runs.folders import cache_dir, temporary
from w2s_lib.runs.store import Store, rename_new, weights_digest

_KEY = re.compile(r"//([^/@:]+:[^@]*)@")
"""An access key in a URL, as in `s3://key:secret@bucket`."""

ANSWER_SECONDS, SLOWEST = 300.0, 1e6
"""How long one operation may take, and how many bytes a second are put at least. Without an end, a server
that takes connections and never answers holds a GET of s3fs for some 13 minutes and a PUT for good."""

_S3_RETRIES = {"mode": "standard", "total_max_attempts": 10}
"""Botocore's: a store that refuses every connection is given up after 27 to 84 seconds (98% of the time).
By default that is 6 to 13, and a server that starts again takes longer."""


class UrlStore(Store):
    """A prefix of an object store. Objects are put whole; fetched adapters stay in the cache.

    Args:
        url: of the prefix.
        seconds: an operation that takes longer is a `StoreError` (where fsspec can end one: `s3://`,
            `gs://`, `abfs://`).
    """

    def __init__(self, url: str, seconds: float = ANSWER_SECONDS) -> None:
        self.address, self.seconds = url.rstrip("/"), seconds
        self.name = _KEY.sub("//", self.address)
        prefix = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        self.folder = cache_dir() / "remote" / prefix

    def get(self, file: str) -> bytes | None:
        """See `Store`."""
        with self._reached() as (do, root), contextlib.suppress(FileNotFoundError):
            return bytes(do("cat_file", f"{root}/{file}"))
        return None

    def put(self, file: str, content: bytes, *, new: bool) -> bool:
        """See `Store`."""
        with self._reached() as (do, root), contextlib.suppress(FileExistsError):
            do("pipe_file", f"{root}/{file}", content, mode="create" if new else "overwrite")
            return True
        return False

    def rename(self, file: str, new: str) -> None:
        """See `Store`."""
        with self._reached() as (do, root), contextlib.suppress(FileNotFoundError):
            do("cp_file", f"{root}/{file}", f"{root}/{new}")
            do("rm_file", f"{root}/{file}")

    def files(self) -> set[str]:
        """See `Store`."""
        with self._reached() as (do, root), contextlib.suppress(FileNotFoundError):
            return {path.rpartition("/")[2] for path in do("ls", root, detail=False)}
        return set()

    @contextlib.contextmanager
    def probe(self) -> Iterator[str]:
        """See `Store`."""
        name = f"probe-{uuid.uuid4().hex}"
        self.put(name, b"w2s", new=True)  # as a record is put: not every gateway can
        try:
            yield name
        finally:
            with self._reached() as (do, root):
                do("rm_file", f"{root}/{name}")

    def fetch_weights(self, folder: Path) -> bool:
        """See `Store`."""
        name = folder.relative_to(self.folder)
        with self._reached() as (do, root), temporary(self.folder) as part:
            part.mkdir()
            for path in do("find", f"{root}/{name}"):
                (part / Path(path).name).write_bytes(do("cat_file", path))
            if weights_digest(part) != folder.name:
                said = f"w2s: adapters {self.name}/{name} are damaged or missing"
                warnings.warn(said, stacklevel=3)
                return False
            folder.parent.mkdir(parents=True, exist_ok=True)
            rename_new(part, folder)
        return True

    def put_weights(self, folder: Path, name: str) -> None:
        """See `Store`."""
        with self._reached() as (do, root):
            for file in sorted(folder.iterdir()):
                do("pipe_file", f"{root}/{name}/{file.name}", file.read_bytes())

    @contextlib.contextmanager
    def _reached(self) -> Iterator[tuple[Callable[..., Any], str]]:
        """What calls the file system, and the prefix in it; errors are said by the store's name."""
        from fsspec.config import conf  # slow, and not needed where records are in a folder
        from fsspec.core import url_to_fs

        try:
            # What a person has set for fsspec stays.
            conf.setdefault("s3", {}).setdefault("config_kwargs", {}).setdefault(
                "retries", _S3_RETRIES
            )
            system, root = url_to_fs(self.address)

            def do(what: str, *given: Any, **options: Any) -> Any:
                system.invalidate_cache()  # others write there, too
                size = sum(len(one) for one in given if isinstance(one, bytes))
                end = {"timeout": self.seconds + size / SLOWEST} if system.async_impl else {}
                return getattr(system, what)(*given, **options, **end)

            yield do, root
        except StoreError:
            raise
        except ImportError as error:
            how = "`pip install '.[cluster]'` does for s3://, `pip install gcsfs` for gs://."
            said = f"the store {self.name} needs a package that is not installed: {error}. {how}"
            raise StoreError(said) from error
        except Exception as error:  # every kind of store has its own
            text, key = str(error), _KEY.search(self.address)
            if isinstance(error, TimeoutError):  # fsspec's has no words
                text = text or f"no answer within {self.seconds:g} s"
            for word in key[1].split(":", 1) if key else ():
                text = text.replace(word, "***")
            said = f"the store {self.name} cannot be used: {type(error).__name__}: {text}"
            raise StoreUnavailable(said) from (None if key else error)
