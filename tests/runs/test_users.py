"""Another user of the machine: what is read-only, what a group shares, a home that cannot be written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import content, pinned
from tests.publishing.conftest import sample
from tests.runs.test_store import SPEC, record
from w2s_lib.runs.folders import write_checked
from w2s_lib.runs.spec import Lora, Recipe, RunSpec
from w2s_lib.runs.store import write
from w2s_lib.tasks.table import default_task, resolve_task

REPO = Path(__file__).parents[2]
NOBODY, SOMEBODY, GROUP = 65534, 65533, 65532
SETTING = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
os.umask(0o002)
import numpy
from filelock import FileLock
from safetensors.numpy import save_file
from tests.runs.test_store import SPEC, record
from w2s_lib.runs import store
from w2s_lib.runs.folders import cache_dir, intact, write_cached
FIRST
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


def as_user(user: int, code: str, *, root: Path = REPO, first: str = "", **variables: str) -> Any:
    """What a program of another user prints, as JSON.

    Args:
        user: who it becomes.
        code: what it does.
        root: whose library it uses, and where it is.
        first: what it does while it is root's still.
        **variables: its environment.
    """
    code = SETTING.replace("FIRST", first) + code
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(user), str(GROUP)],
        cwd=root,
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
    assert written.startswith("StoreUnavailable") and claimed.startswith("StoreError: the store")
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


ALL_ROOTS = """
import contextlib, io
import w2s_lib as w2s
from w2s_lib import __main__ as cli
from w2s_lib.publishing import execution, pages, plan
specs = [w2s.RunSpec.from_json(line) for line in open("specs")]
trained = [w2s.run(specs[0]).metrics, w2s.run(specs[1]).metrics]  # it has loaded all that it takes
cli.take_jobs({})
"""
READ_ONLY = """
def verb(name):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        return cli.main([name]), err.getvalue()
del os.environ["W2S_STORE"]
nowhere = [said(lambda: w2s.sweep(specs[:1], progress=False)), verb("book"), verb("plan")]
os.environ["W2S_STORE"] = "MINE"
again = [w2s.run(spec).metrics == made for spec, made in zip(specs, trained)]
print(json.dumps([nowhere, again, said(lambda: w2s.run(specs[2]))]))
"""


def test_a_checkout_a_cache_and_a_home_that_are_only_read(
    place: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a store of one's own, runs are trained on the trunks that are there; else one sentence says why not."""
    root, mine = place / "checkout", place / "mine"
    for folder in (root, mine, place / "home"):
        folder.mkdir()
    sample(root)
    shutil.copytree(REPO / "w2s_lib", root / "w2s_lib")
    (root / "tests").symlink_to(REPO / "tests")
    shutil.copytree(tiny_models / "llama", place / "model", copy_function=shutil.copyfile)
    os.chown(mine, NOBODY, GROUP)
    given = {"n_train": 64, "n_validation": 40, "n_test": 80}
    task = resolve_task(default_task(str(root / "sätze.csv"), **given))
    brief = {"recipe": Recipe(epochs=1), "lora": Lora(rank=2, blocks=1), "quantization": "none"}
    specs = [RunSpec(model="tfidf", task=task)]
    specs += [
        pinned(place / "model", task=task, precision=precision, **brief)
        for precision in ("fp32", "bf16")
    ]
    (root / "specs").write_text("\n".join(spec.to_json() for spec in specs))
    before = content(root)
    nowhere, again, other = as_user(
        NOBODY,
        READ_ONLY.replace("MINE", str(mine)),
        root=root,
        first=ALL_ROOTS,
        W2S_STORE=str(place / "roots"),
        W2S_CACHE=str(place / "cache"),
        HOME=str(place / "home"),
    )
    stopped, (failed, why), (planned, _) = nowhere
    assert stopped.startswith(f"StoreError: the store {root / '.w2s'}") and "W2S_STORE" in stopped
    assert failed == 1 and why.startswith(f"error: nothing can be built in {root}: ")
    assert planned == 0 and again == [True, True]
    assert other.startswith("AssetError: cannot write the cache") and "W2S_CACHE" in other
    assert content(root) == before and list((place / "home").iterdir()) == []


def test_a_group_shares_a_store_and_a_cache(place: Path) -> None:
    """Either reads, replaces and claims what the other has left, adapters and a dead one's lock too."""
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
    said(FileLock(cache_dir() / "asset.lock").acquire)[:1],
]), flush=True)
os._exit(0)
"""
    first, second = (as_user(user, code, **shared) for user in (NOBODY, SOMEBODY))
    assert first == second and first[0] == "True" and first[2:] == ["True", "None", "<"]
    with_adapters = (path for path in (place / "records").rglob("*") if path.is_file())
    assert {path.stat().st_mode & 0o777 for path in with_adapters} == {0o664}
