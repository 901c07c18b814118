"""Files of the cache: written whole, with their digest, shared under the umask."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from w2s_lib.runs.errors import AssetError
from w2s_lib.runs.folders import intact, locked, remove_parts, write_cached, write_checked

STATES = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_every_byte_of_a_file_of_the_cache_counts(tmp_path: Path) -> None:
    """Such as a trunk's chunk: each one changed in turn, and cut off anywhere, is noticed and said."""
    path = tmp_path / "cache" / "states.npy"
    assert not intact(path)
    write_checked(path, lambda file: np.save(file, STATES))
    assert intact(path) and (np.load(path, mmap_mode="r") == STATES).all()
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytes([whole[place] ^ 1 << place % 8])
        for damaged in (whole[:place] + flipped + whole[place + 1 :], whole[:place]):
            path.write_bytes(damaged)
            os.utime(path, (1, place))  # a clock too coarse for this test
            with pytest.warns(UserWarning, match=path.name):
                assert not intact(path)


def test_a_file_of_the_cache_may_hold_several_arrays(tmp_path: Path) -> None:
    path = tmp_path / "states.npz"
    write_checked(path, lambda file: np.savez(file, states=STATES))
    assert intact(path)
    with np.load(path) as arrays:
        assert (arrays["states"] == STATES).all()


def test_a_cache_can_be_a_groups(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        write_cached(tmp_path / "cache" / "file", lambda file: file.write(b"1"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o775
    assert stat.S_IMODE((tmp_path / "cache" / "file").stat().st_mode) == 0o664


def test_a_cache_that_cannot_be_written_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(AssetError, match="W2S_CACHE"):
        write_cached(tmp_path / "cache" / "file", lambda file: file.write(b"1"))


def count(folder: Path) -> None:
    """Adds one to a number in a file 50 times, each time under the lock."""
    for _ in range(50):
        with locked(folder / ".number.lock", wait=True):
            number = int((folder / "number").read_text())
            (folder / "number").write_text(str(number + 1))


def sweep(folder: Path) -> None:
    """Removes lock files that nobody holds, until it is told to stop."""
    while not (folder / "stop").exists():
        remove_parts(folder)


def test_one_process_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    """Though the file of the lock is removed each time, and swept away by another process."""
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count, args=(tmp_path,)) for _ in range(3)]
    sweeper = context.Process(target=sweep, args=(tmp_path,))
    for process in (sweeper, *processes):
        process.start()
    for process in processes:
        process.join()
    (tmp_path / "stop").touch()
    sweeper.join()
    assert (tmp_path / "number").read_text() == "150"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["number", "stop"]


def test_a_lock_that_nobody_holds_is_swept_away(tmp_path: Path) -> None:
    """As a killed process leaves it; one that is held stays, whoever sweeps."""
    (tmp_path / ".left.lock").touch()
    with locked(tmp_path / ".held.lock", wait=False) as mine:
        remove_parts(tmp_path)
        assert mine and [path.name for path in tmp_path.iterdir()] == [".held.lock"]
