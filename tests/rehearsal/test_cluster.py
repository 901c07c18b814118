"""A profile for a GPU on two Ray nodes, its records in an object store, while a node, the sweep and the store fail."""

from __future__ import annotations

import collections
import contextlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster import Nodes, ObjectStore, Said, two_nodes
from tests.conftest import Count, until
from tests.rehearsal.stage import OVERRIDES, UNCLEAR, stage
from w2s_lib.runs.record import from_parquet

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]
RUN = ("-m", "w2s_lib", "run", "PROFILE=gpu-small", *OVERRIDES, *UNCLEAR)
MODELS = [f"HuggingFaceTB/SmolLM2-{size}" for size in ("135M", "360M", "1.7B")]
TASKS = ("sciq", "boolq", "amazon_polarity", "anthropic_hh")
SECONDS = 20
"""For which the store refuses all connections."""


def n_said(nodes: Nodes, what: str) -> int:
    return sum(line.what == what for line in nodes.said())


def begun(nodes: Nodes, driver: subprocess.Popen[str]) -> Said:
    """What says that a run has just begun, after three more records."""
    for what, n in (("recorded", 3), ("started", 1)):
        wanted = n_said(nodes, what) + n
        until(lambda: driver.poll() is not None or n_said(nodes, what) >= wanted, seconds=600)  # noqa: B023
        assert driver.poll() is None, driver.communicate()[0]
    return [line for line in nodes.said() if line.what == "started"][-1]


def through_all(
    start: Callable[[], subprocess.Popen[str]], nodes: Nodes, store: ObjectStore
) -> dict[str, bytes]:
    """A sweep whose node dies, that is killed and started again, and whose store is away for a while.

    Each run is recorded once, and what was recorded before a fault stays to the byte.

    Args:
        start: starts it.
        nodes: where nothing has been trained.
        store: its records are under `rehearsed`.

    Returns:
        The records.
    """
    with contextlib.ExitStack() as at_the_end:
        driver = start()
        at_the_end.callback(driver.kill)
        kept = {}
        while True:  # the last one that began may be done before its node is killed
            killed = begun(nodes, driver)
            kept |= store.records("rehearsed")
            nodes.kill(killed.node)
            nodes.add()
            if killed.run not in store.records("rehearsed"):
                break
        begun(nodes, driver)
        kept |= store.records("rehearsed")
        driver.kill()
        driver.communicate()
        driver = start()
        at_the_end.callback(driver.kill)
        begun(nodes, driver)
        kept |= store.records("rehearsed")
        store.refuse(SECONDS)
        printed, _ = driver.communicate()
        assert driver.returncode == 0, printed
    said, done = nodes.said(), store.records("rehearsed")
    assert kept.items() <= done.items()
    again = [line for line in said if line.run == killed.run and line.what == "started"]
    assert len(again) > 1 and again[-1].node != killed.node
    times = collections.Counter(line.run for line in said if line.what == "recorded")
    assert set(times.values()) == {1} and times.keys() <= done.keys()
    names = store.files.find("w2s")
    assert not [name for name in names if "probe-" in name or "damaged" in name]
    n_started = sum(line.what == "started" for line in said)
    print(f"{len(done)} runs, begun {n_started} times, recorded once; {len(kept)} kept over faults")
    return done


def test_a_profile_outlasts_a_node_the_sweep_and_the_store(
    tmp_path: Path, record_property: Count
) -> None:
    """In the end its records are, to the bit, those of an undisturbed sweep on this machine."""
    store = ObjectStore()
    with stage(tmp_path, models=MODELS, tasks=TASKS) as here:
        own = here.environment | store.environment | {"W2S_STORE": "s3://w2s/rehearsed"}
        with two_nodes(own) as nodes:
            there = replace(here, environment=here.environment | nodes.environment)
            done = through_all(lambda: there.start(*RUN, "ENGINE=ray"), nodes, store)
        here.told(*RUN, "WORKERS=2")
    store.stop()
    undisturbed = here.records
    assert done.keys() == undisturbed.keys()
    for run_id, content in done.items():
        one, other = (from_parquet(file, run_id) for file in (content, undisturbed[run_id]))
        assert one.predictions.equals(other.predictions), run_id
        assert one.provenance.get("weights") == other.provenance.get("weights"), run_id
    record_property("runs of a profile on Ray, in spite of three faults", len(done))
