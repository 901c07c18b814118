"""A store among faults: it cannot be written, its disk is full, processes are killed or write the same runs."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runs.test_store import SPEC, head, left_in, record
from w2s_lib.runs import store
from w2s_lib.runs.errors import StoreError
from w2s_lib.runs.store import find, read, user_store, weights, write

REPO = Path(__file__).parents[2]


# What cannot be written


def test_an_unwritable_store_is_said_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "file" / "records"))
    assert find(SPEC) is None
    with pytest.raises(StoreError, match=r"file.records.*W2S_STORE"):
        write(record())
    with pytest.raises(StoreError, match="file.records"):
        store.require_writable(store.user_store().folder)


def test_a_full_disk_leaves_nothing_half_written(own_store: Path, full_disk: Any) -> None:
    """The disk fills in the middle of the Parquet file, then in the middle of the weights."""
    for n_bytes, n, content in ((1000, 4000, b"1"), (9000, 40, b"1" * 10_000)):
        with full_disk(n_bytes), pytest.raises(StoreError, match=SPEC.run_id):
            write(record(n), artefacts=head(content))
        assert find(SPEC) is None and weights(SPEC) is None
        assert not [name for name in left_in(own_store) if ".part-" in name]


def test_a_full_disk_leaves_the_old_record_as_it_was(own_store: Path, full_disk: Any) -> None:
    old = Path(write(record(4000)).path)
    content = old.read_bytes()
    with full_disk(1000), pytest.raises(StoreError):
        write(record(4000), artefacts=head(b"1"))
    assert old.read_bytes() == content and weights(SPEC) is None


KILLED_AT = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.runs.test_store import head, record
from w2s_lib.runs.store import write

def die_at(last):
    step = 0
    def count(event, arguments):
        nonlocal step
        if event in ("open", "os.rename", "os.mkdir", "shutil.rmtree", "os.remove"):
            if any({store!r} in str(argument) for argument in arguments):
                step += 1
                if step == last:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    write(record(40), artefacts=head(b"1"))

for line in sys.stdin:  # each step in a process of its own; what they import is imported once
    if not (child := os.fork()):
        die_at(int(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_kill_at_any_step_of_writing_leaves_all_or_nothing(own_store: Path) -> None:
    """At each opening, renaming and removal in the store; then the next to write sweeps up."""
    code = KILLED_AT.format(root=str(REPO), store=str(own_store))
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=REPO, **pipes) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        for step in range(1, 60):
            print(step, file=parent.stdin, flush=True)
            ended = int(parent.stdout.readline())
            if found := find(SPEC):
                folder = weights(SPEC)
                assert folder is not None and (folder / "head").read_bytes() == b"1"
                assert found.digest == read(Path(found.path)).digest
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            write(record(40), artefacts=head(b"1"))
            assert not [name for name in left_in(own_store) if ".part-" in name]
            shutil.rmtree(own_store)
    assert ended == 0 and step > 5


RACE = """
import sys
sys.path.insert(0, {root!r})
from tests.runs.test_store import head, record
from w2s_lib.runs.store import write
sys.stdin.readline()
for seed in range(990_100, 990_120):
    write(record(40, record().spec.with_seed(seed)), artefacts=head(b"1"))
"""


def test_processes_that_write_the_same_runs_never_fail(own_store: Path) -> None:
    """And nobody who reads meanwhile sees a record without its weights."""
    command = [sys.executable, "-c", RACE.format(root=str(REPO))]
    writers = [
        subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        for seed in range(990_100, 990_120):
            if find(SPEC.with_seed(seed)) is not None:
                assert weights(SPEC.with_seed(seed)) is not None
                seen.add(seed)
    assert [writer.returncode for writer in writers] == [0] * 4 and seen


def test_what_dead_processes_left_is_swept_away(own_store: Path) -> None:
    """Not what a live one is writing, nor what one of another machine may be, but after a day."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = platform.node()
    own_store.mkdir()
    names = {
        f".part-{dead.pid}-{here}-00000000": False,
        f".part-{os.getpid()}-{here}-00000000": True,
        f".part-{dead.pid}-elsewhere-00000000": True,
        f".part-{dead.pid}-elsewhere-11111111": False,
    }
    for name in names:
        (own_store / name).mkdir()
        (own_store / name / "half").write_bytes(b"1")
    os.utime(own_store / f".part-{dead.pid}-elsewhere-11111111", (0, 0))
    store.require_writable()
    assert {name: (own_store / name).exists() for name in names} == names


# Claims


def test_one_process_at_a_time_has_the_claim_on_a_run(own_store: Path) -> None:
    with (
        user_store().claim(SPEC.run_id) as mine,
        user_store().claim(SPEC.with_seed(1).run_id) as other,
    ):
        assert mine and other
        with user_store().claim(SPEC.run_id) as again:
            assert not again
    with user_store().claim(SPEC.run_id) as mine:
        assert mine
    assert left_in(own_store) == []


def test_a_killed_process_has_no_claim(own_store: Path) -> None:
    code = f"""
import sys, time
from w2s_lib.runs.store import user_store
with user_store().claim({SPEC.run_id!r}) as mine:
    print(mine, flush=True)
    time.sleep(600)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    with user_store().claim(SPEC.run_id) as mine:
        assert not mine
    holder.kill()
    holder.wait()
    with user_store().claim(SPEC.run_id) as mine:
        assert mine
    assert left_in(own_store) == []
