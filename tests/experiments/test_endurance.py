"""Two hundred runs on a Ray cluster, one after another: memory stays flat and no file stays open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import w2s_lib as w2s
from tests.cluster import two_nodes
from w2s_lib.experiments.sweep import sweep
from w2s_lib.runs.spec import Task

pytestmark = pytest.mark.torture


def trainers() -> Iterator[psutil.Process]:
    """This process, and the workers on the nodes, which are its children."""
    me = psutil.Process()
    yield me
    yield from (one for one in me.children(recursive=True) if "ray::" in " ".join(one.cmdline()))


def held() -> dict[int, tuple[float, set[str]]]:
    """Process -> MiB of memory that it alone has, files that it has open."""
    return {
        one.pid: (one.memory_full_info().uss / 2**20, {file.path for file in one.open_files()})
        for one in trainers()
    }


def test_two_hundred_runs_hold_no_more_than_fifty(
    small_task: Task, own_cache: Path, own_store: Path
) -> None:
    import ray

    specs = [w2s.supervisor("tfidf", small_task, seed=seed) for seed in range(200)]
    with two_nodes({}):
        try:
            sweep(specs[:50], engine="ray", progress=False)
            before = held()
            sweep(specs, engine="ray", progress=False)
            after = held()
        finally:
            ray.shutdown()
    print(*(f"{pid}: {before.get(pid)}, {after[pid]}" for pid in after), sep="\n")
    assert before.keys() == after.keys() and len(after) >= 3
    for pid, (size, files) in after.items():
        assert size < 1.05 * before[pid][0]
        assert files == before[pid][1]
