"""What exactly a run is of, pinned: a commit of the hub, a digest of a folder or a file.

A name can come to mean other weights or other texts. So a run carries the revision of its model
and the digest of its task, its id covers both, and what is loaded is just that or nothing.
"""

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from w2s_lib.runs.errors import AssetError, SpecError
from w2s_lib.runs.folders import unchanged_sha256
from w2s_lib.runs.hub_errors import reason
from w2s_lib.runs.model_names import is_folder, is_hub
from w2s_lib.runs.spec import RunSpec
from w2s_lib.tasks.table import resolve_task

MODEL_FILES = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")
"""Suffixes of the files of a folder that make the model: configuration, tokenizer, weights."""

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def pin(spec: RunSpec, *, local_only: bool = False) -> RunSpec:
    """The same run with its models' revisions and its task's digest filled in, along its lineage.

    Args:
        spec: a run as the arms describe it.
        local_only: ask no hub; what this machine does not know stays as it is.

    Raises:
        AssetError: a model or a dataset that cannot be had.
        SpecError: a folder without a model, an unknown task, a file that cannot be read.
    """

    def found(run: RunSpec) -> dict[str, Any]:
        return {
            "revision": resolve_revision(run.name, run.revision, local_only=local_only),
            "task": resolve_task(run.task, local_only=local_only),
        }

    return spec.map_lineage(found)


def resolve_revision(name: str, revision: str = "", *, local_only: bool = False) -> str:
    """What a model's name means now.

    Args:
        name: a model without its depth.
        revision: of a hub model a branch, a tag or a commit; "": its main branch. A commit, and a
            folder's digest, are pins: they stay as they are.
        local_only: ask no hub; `revision` comes back where its cache has no such commit.

    Returns:
        Of a hub model the commit, 40 hexadecimal digits, asked for once a process; where the hub
        cannot be reached, the one that its cache has, since that is what would be loaded. Of a
        folder `folder_digest`; of any other model "".

    Raises:
        AssetError: the hub does not have it, does not give it, or cannot be reached.
        SpecError: a folder without a model.
    """
    if is_folder(name):
        return revision or folder_digest(name)
    if not is_hub(name) or re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    try:
        return _commit(name, revision or "main", local_only)
    except AssetError:
        if local_only:
            return revision
        raise


@functools.lru_cache(maxsize=256)
def _commit(name: str, revision: str, local_only: bool) -> str:
    """The commit behind a branch or a tag; the hub's cache keeps it, with the configuration."""
    import huggingface_hub
    from huggingface_hub import errors

    repository = name.removeprefix("hf:")
    with explaining(name):
        try:  # a download would try an unreachable hub again and again, for half a minute
            if not local_only:
                huggingface_hub.HfApi().model_info(repository, revision=revision, timeout=10)
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status != 429 and status < 500:
                raise  # else it is busy: the download asks again, when it is told to
        except Exception:  # of whatever HTTP client the hub's library has
            local_only = True
        file = huggingface_hub.hf_hub_download(
            repository, "config.json", revision=revision, local_files_only=local_only
        )
    return Path(file).parent.name


def require_current(name: str, revision: str) -> None:
    """Refuses a model that is not pinned, and a folder that is no longer what was pinned.

    Raises:
        SpecError: as it says.
    """
    advice = "`pin` finds what a spec without a revision means now, as `sweep` does"
    if is_hub(name) and not re.fullmatch("[0-9a-f]{40}", revision):
        raise SpecError(f"{name!r} is not pinned to a commit: {advice}")
    if is_folder(name) and (found := folder_digest(name)) != revision:
        pinned = f"it is pinned to {revision[:16] or 'nothing'}, their digest is {found[:16]}"
        raise SpecError(f"the run is not of the files in {name!r} as they are: {pinned}; {advice}")


def folder_digest(folder: str) -> str:
    """SHA-256 over names and contents of a folder's model files (suffixes in `MODEL_FILES`).

    A file is read once a process, and again when its size or its time has changed.

    Raises:
        SpecError: there is no `config.json`, or a file cannot be read.
    """
    try:
        if not (Path(folder) / "config.json").is_file():
            raise SpecError(f"no model in {folder!r}: there is no config.json")
        files = sorted(f for f in Path(folder).iterdir() if f.suffix in MODEL_FILES and f.is_file())
        content = [[file.name, unchanged_sha256(file)] for file in files]
    except (OSError, UnicodeError) as error:
        raise SpecError(f"cannot read the model in {folder!r}: {error}") from error
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def downloaded(name: str, revision: str) -> bool:
    """Whether the hub's cache on this machine has a model's weights, not only its configuration."""
    from huggingface_hub import try_to_load_from_cache

    repository = name.removeprefix("hf:")
    return bool(revision) and any(
        isinstance(try_to_load_from_cache(repository, file, revision=revision), str)
        for file in WEIGHT_FILES
    )


@contextlib.contextmanager
def explaining(name: str) -> Iterator[None]:
    """Turns what the libraries raise while they load a model into one sentence.

    Raises:
        AssetError: it is gated, missing, private, damaged, or out of reach.
        SpecError: it needs code of its own.
    """
    try:
        yield
    except (SpecError, RuntimeError, MemoryError):
        raise
    except Exception as error:  # each library has its own
        if "trust_remote_code" in str(error):
            raise SpecError(f"{name} needs code of its own, which is never run here") from error
        raise AssetError(f"cannot load {name}: {reason(error)}") from error
