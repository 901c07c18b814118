"""Two hundred runs on a Ray cluster, one after another: memory stays flat and no file stays open."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

import w2s_lib as w2s
from tests.cluster import Nodes, two_nodes
from tests.conftest import Count
from w2s_lib.experiments.sweep import sweep
from w2s_lib.runs.spec import Task

pytestmark = pytest.mark.torture


def held(nodes: Nodes) -> dict[int, tuple[float, set[str]]]:
    """Of this process and the workers that have trained: id -> MiB that it alone has, files that it has open."""
    found = {}
    for pid in {os.getpid(), *(int(line.process) for line in nodes.said())}:
        one = psutil.Process(pid)
        size, files = one.memory_full_info().uss, {file.path for file in one.open_files()}
        found[pid] = (size / 2**20, files)
    return found


def test_two_hundred_runs_hold_no_more_than_fifty(
    small_task: Task, own_cache: Path, own_store: Path,
    record_property: Count,
) -> None:  # fmt: skip
    import ray

    specs = [w2s.supervisor("tfidf", small_task, seed=seed) for seed in range(200)]
    with two_nodes({}) as nodes:
        try:
            sweep(specs[:50], engine="ray", progress=False)
            before = held(nodes)
            sweep(specs, engine="ray", progress=False)
            after = held(nodes)
        finally:
            ray.shutdown()
    for pid, (size, files) in after.items():
        print(f"{pid}: {before[pid][0]:.0f} MiB, then {size:.0f}; {len(files)} files")
    record_property("runs in one sweep on Ray", len(specs))
    assert before.keys() == after.keys() and len(after) == 3
    for pid, (size, files) in after.items():
        assert size < 1.05 * before[pid][0]
        assert files == before[pid][1]
