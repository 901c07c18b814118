"""Another user of the machine: what is read-only, what a group shares, a home that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs.test_store import SPEC, record
from w2s_lib.runs.folders import write_checked
from w2s_lib.runs.store import write

REPO = Path(__file__).parents[2]
NOBODY, SOMEBODY, GROUP = 65534, 65533, 65532
SETTING = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
os.umask(0o002)
import numpy
from safetensors.numpy import save_file
from tests.runs.test_store import SPEC, record
from w2s_lib.runs import store
from w2s_lib.runs.folders import cache_dir, intact, write_cached
os.setgroups([])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[2]))  # not sooner: the interpreter may be root's own
def said(work):
    try:
        return str(work())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def as_user(user: int, code: str, **variables: str) -> Any:
    """What a program of another user prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", SETTING + code, str(REPO), str(user), str(GROUP)],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_store_that_is_only_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are read; what cannot be written, claimed or read is said by name, and stays as it was."""
    monkeypatch.setenv("W2S_STORE", str(place / "records"))
    write(record(40))
    hidden = Path(write(record(40, spec=SPEC.with_seed(1))).path)
    hidden.chmod(0o600)
    found, written, claimed, tried, unread = as_user(
        NOBODY,
        """
print(json.dumps([
    said(lambda: store.find(SPEC).digest),
    said(lambda: store.write(record(40, spec=SPEC.with_seed(2)))),
    said(lambda: store.user_store().claim(SPEC.with_seed(2).run_id).__enter__()),
    said(store.require_writable),
    said(lambda: store.find(SPEC.with_seed(1))),
]))
""",
        W2S_STORE=str(place / "records"),
    )
    assert found == record(40).digest
    assert "could not be written" in written and "W2S_STORE" in written
    assert written.startswith("StoreError") and claimed.startswith("StoreError: the store")
    assert tried.startswith("StoreError") and "Nothing was trained" in tried
    assert unread.startswith("StoreError") and hidden.name in unread and "Permission" in unread
    assert sorted(path.name for path in (place / "records").iterdir()) == sorted(
        [hidden.name, f"{SPEC.run_id}.parquet"]
    )


def test_a_cache_that_is_only_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "cache").mkdir()
    monkeypatch.setenv("W2S_CACHE", str(place / "cache"))
    write_checked(place / "cache" / "states.npy", lambda file: file.write(b"1"))
    whole, written = as_user(
        NOBODY,
        """
print(json.dumps([
    said(lambda: intact(cache_dir() / "states.npy")),
    said(lambda: write_cached(cache_dir() / "other", lambda file: file.write(b"1"))),
]))
""",
        W2S_CACHE=str(place / "cache"),
    )
    assert whole == "True" and written.startswith("AssetError") and "W2S_CACHE" in written


def test_a_home_that_cannot_be_written(place: Path) -> None:
    """Of a service, say: the cache is said by name, and so is the way out."""
    (place / "home").mkdir()
    (said,) = as_user(
        NOBODY,
        "print(json.dumps([said(lambda: write_cached(cache_dir() / 'x', lambda f: f.write(b'1')))]))",
        HOME=str(place / "home"),
    )
    assert said.startswith("AssetError") and str(place / "home") in said and "W2S_CACHE" in said


def test_a_group_shares_a_store_and_a_cache(place: Path) -> None:
    """Either reads, replaces and claims what the other has left, adapters too."""
    for name in ("records", "cache"):
        (place / name).mkdir()
        os.chown(place / name, 0, GROUP)
        os.chmod(place / name, 0o2775)
    shared = {"W2S_STORE": str(place / "records"), "W2S_CACHE": str(place / "cache")}
    code = """
def adapters(folder):
    save_file({"w": numpy.ones(2)}, folder / "head")
with store.user_store().claim(SPEC.run_id) as mine:
    pass
print(json.dumps([
    said(lambda: mine),
    said(lambda: store.write(record(40), artefacts=adapters).digest),
    said(lambda: len((store.weights(SPEC) / "head").read_bytes()) > 0),
    said(lambda: write_cached(cache_dir() / "trunk" / "chunk", lambda file: file.write(b"1"))),
]))
"""
    first, second = (as_user(user, code, **shared) for user in (NOBODY, SOMEBODY))
    assert first == second and first[0] == "True" and first[2:] == ["True", "None"]
    with_adapters = (path for path in (place / "records").rglob("*") if path.is_file())
    assert {path.stat().st_mode & 0o777 for path in with_adapters} == {0o664}
