"""What exactly a model's name means, pinned: a commit of the hub, a digest of a folder; and why it cannot be had.

A name can come to mean other weights. So a run carries the revision of its model, its id covers it, and what is loaded is
that revision or nothing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from w2s_lib.runs.errors import AssetError, SpecError
from w2s_lib.runs.folders import file_sha256
from w2s_lib.runs.model_names import is_folder, is_hub, is_planning

KINDS = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")
"""Suffixes of the files of a folder that make the model: configuration, tokenizer, weights."""

UNREACHABLE = {
    "OfflineModeIsEnabled",
    "TransportError",
    "ConnectionError",
    "TimeoutError",
    "LocalEntryNotFoundError",
}
"""Errors of the hub's library, of its HTTP client and of Python that mean: the hub was not reached."""


def current(name: str, revision: str = "") -> str:
    """What a model's name means now.

    Args:
        name: a model without its depth.
        revision: of a hub model a branch, a tag or a commit; "": its main branch.

    Returns:
        The commit of a hub model: 40 hexadecimal digits, asked for once a process. Where the hub cannot be reached, the
        commit that its cache on this machine has under that name, since that is what would be loaded. While `planning`
        only the cache is looked at, and an unknown commit is "". Of a folder `folder_digest`; of any other model "".

    Raises:
        AssetError: the hub does not have it, does not give it, or cannot be reached and the cache does not have it.
        SpecError: a folder without a model.
    """
    if is_folder(name):
        return folder_digest(name)
    if not is_hub(name) or re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    repository, wanted = name.removeprefix("hf:"), revision or "main"
    return _cached(repository, wanted) if is_planning() else _commit(repository, wanted)


def require_current(name: str, revision: str) -> None:
    """Refuses a model that is not pinned, and a folder that is no longer what was pinned.

    Raises:
        SpecError: as it says.
    """
    if not (is_hub(name) or is_folder(name)):
        return
    found = folder_digest(name) if is_folder(name) else revision
    if not revision:
        raise SpecError(
            f"nothing says which revision of {name!r} is meant: build the run by `w2s.supervisor` or another arm, "
            f"or give RunSpec.revision{f' ({found!r} now)' if found else ''}"
        )
    if found != revision:
        raise SpecError(
            f"the files in {name!r} have changed: their digest is {found[:16]}..., and the run is of "
            f"{revision[:16]}...; build the run anew to use them as they are"
        )


def folder_digest(folder: str) -> str:
    """SHA-256 over the names and contents of a folder's configuration, tokenizer and weight files (suffixes in `KINDS`).

    A file is read once a process, and again when its size or its time has changed.

    Raises:
        SpecError: there is no `config.json`, or a file cannot be read.
    """
    if not (Path(folder) / "config.json").is_file():
        raise SpecError(f"no model in {folder!r}: there is no config.json")
    try:
        files = sorted(
            file for file in Path(folder).iterdir() if file.suffix in KINDS and file.is_file()
        )
        states = [(file, file.stat()) for file in files]
        content = [
            [file.name, _digest(file.absolute(), state.st_size, state.st_mtime_ns)]
            for file, state in states
        ]
    except OSError as error:
        raise SpecError(f"cannot read the model in {folder!r}: {error}") from error
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@functools.lru_cache(maxsize=1024)
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(file)


@functools.lru_cache(maxsize=256)
def _commit(repository: str, revision: str) -> str:
    import huggingface_hub

    try:
        commit = huggingface_hub.model_info(repository, revision=revision).sha
    except Exception as error:  # of the hub's library, or of its HTTP client
        found = _cached(repository, revision) if _classes(error) & UNREACHABLE else ""
        if not found:
            raise explained(error, f"hf:{repository}", revision) from error
        return found
    ref = (
        _cache_folder(repository) / "refs" / revision
    )  # a download by commit leaves none, and offline it is asked for
    with contextlib.suppress(OSError):
        ref.parent.mkdir(parents=True, exist_ok=True)
        part = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
        part.write_text(str(commit), encoding="utf-8")
        part.replace(ref)
    return str(commit)


def _cached(repository: str, revision: str) -> str:
    """The commit that the hub's cache on this machine has under a branch or a tag; "" where it has none."""
    folder = _cache_folder(repository)
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return commit if (folder / "snapshots" / commit / "config.json").exists() else ""


def downloaded(name: str, revision: str) -> bool:
    """Whether the hub's cache on this machine has a model's weights, and not only its configuration."""
    folder = _cache_folder(name.removeprefix("hf:")) / "snapshots" / revision
    return bool(revision) and any(
        file.suffix in (".safetensors", ".bin") for file in folder.glob("*")
    )


def _cache_folder(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


@contextlib.contextmanager
def explaining(name: str, revision: str) -> Iterator[None]:
    """Turns what the libraries raise while they load a model into one sentence (`explained`)."""
    try:
        yield
    except (SpecError, AssetError):
        raise
    except (OSError, ValueError, ImportError) as error:
        raise explained(error, name, revision) from error


def explained(error: BaseException, name: str, revision: str) -> Exception:
    """One sentence that says why a model cannot be had and what to do.

    Args:
        error: what was raised; what it was raised from counts too, since `transformers` wraps the hub's own errors.
        name: the model.
        revision: what was asked for.

    Returns:
        `AssetError`: it is gated, missing, private, or the hub cannot be reached. `SpecError`: it needs code of its own.
    """
    seen, repository = _classes(error), name.removeprefix("hf:")
    page = f"https://huggingface.co/{repository}"
    root = next((e for e in _chain(error) if "HfHubHTTPError" in _classes(e, alone=True)), error)
    why = (str(root).strip().splitlines() or [""])[0]
    if "GatedRepoError" in seen:
        return AssetError(
            f"{name} is gated: ask for access on {page}, then log in with `hf auth login`"
        )
    if "LocalTokenNotFoundError" in seen:
        return AssetError(
            f"{name} needs a login, and nobody is logged in: log in with `hf auth login`"
        )
    if "RevisionNotFoundError" in seen:
        return AssetError(
            f"{name} has no revision {revision!r}: {page}/tree/main lists its branches and tags"
        )
    if "RepositoryNotFoundError" in seen:
        return AssetError(
            f"the hub shows no model {repository!r}: check the name; if it is private, log in with "
            "`hf auth login`"
        )
    if "OfflineModeIsEnabled" in seen or (seen & UNREACHABLE and is_hub(name) and _offline()):
        return AssetError(
            f"{name} is not in the hub's cache on this machine, and offline mode is on: unset HF_HUB_OFFLINE "
            "and TRANSFORMERS_OFFLINE to fetch it once, or give a local folder"
        )
    if seen & UNREACHABLE:
        return AssetError(
            f"{name} is not in the hub's cache on this machine, and the hub cannot be reached: check the "
            "network, or give a local folder"
        )
    if "trust_remote_code" in str(error):
        return SpecError(
            f"{name} needs code of its own to be loaded, and such code is never run here"
        )
    return AssetError(f"cannot load {name} ({type(root).__name__}: {why})")


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _classes(error: BaseException, *, alone: bool = False) -> set[str]:
    """Names of the classes, and of their bases, of an error, and of all that it was raised from unless `alone`."""
    return {
        kind.__name__
        for each in ([error] if alone else _chain(error))
        for kind in type(each).__mro__
    }
