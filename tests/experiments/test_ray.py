"""On a real Ray cluster of this machine: a head that trains nothing and two worker nodes, an object-store server beside it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import w2s_lib as w2s
from tests.cluster import Nodes, add_node, two_nodes
from tests.conftest import until
from w2s_lib.experiments.ray import prepare, train_jobs
from w2s_lib.experiments.sweep import sweep, train_missing
from w2s_lib.runs.errors import DeviceError, OutOfMemory, SpecError, StoreError, TrainingError
from w2s_lib.runs.spec import RunSpec, Task
from w2s_lib.runs.store import find, weights

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[test]'")
pytestmark = pytest.mark.filterwarnings("ignore:.* are also among the")


class Log:
    """What the workers have said since this was made: (time, run, what, task, node), from their own logs, in order."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.before = nodes, 0
        self.before = len(self.lines())

    def lines(self) -> list[tuple[str, ...]]:
        return [line[:5] for line in self.nodes.said()][self.before :]

    def of(self, run_id: str) -> list[tuple[str, ...]]:
        return [line for line in self.lines() if line[1] == run_id]


@pytest.fixture(scope="module")
def cluster(s3_server: dict[str, str], session_cache: Path) -> Iterator[Nodes]:
    """Its workers find the S3 server by the environment."""
    own = {**s3_server, "W2S_CACHE": str(session_cache)}
    own["RAY_task_oom_retries"] = "0"  # for the last test; nothing else lacks memory
    with two_nodes(own) as nodes:
        try:
            yield nodes
        finally:
            ray.shutdown()


def run_ids(specs: Any) -> set[str]:
    return {spec.run_id for spec in specs}


@pytest.fixture
def on_s3(cluster: Nodes, monkeypatch: pytest.MonkeyPatch) -> Log:
    """The user's store is on the object store, the engine is Ray; gives what the workers say from now on."""
    monkeypatch.setenv("W2S_STORE", "s3://w2s/records")
    monkeypatch.setenv("W2S_ENGINE", "ray")
    return Log(cluster)


@pytest.fixture(scope="module")
def specs(small_task: Task, quick: dict[str, Any]) -> dict[str, RunSpec]:
    """Two lineages, one quick and one slow, and a run that starts from another's adapters."""
    tfidf = w2s.supervisor("tfidf", small_task)
    slow = dataclasses.replace(
        w2s.supervisor("smollm2-135m@1", small_task, **quick),
        recipe=dataclasses.replace(quick["recipe"], epochs=48),
    )
    once = {"lora": quick["lora"], "recipe": dataclasses.replace(quick["recipe"], epochs=1)}
    read = w2s.generative("smollm2-135m@1", small_task, **once)
    continued = w2s.ceiling("smollm2-135m@1", small_task, start=read, **quick)
    return {
        "slow": slow,
        "tfidf": tfidf,
        "student": w2s.student("smollm2-135m@1", tfidf, **quick),
        "student of slow": w2s.student("smollm2-135m@1", slow, **quick),
        "read": read,
        "continued": continued,
    }


def test_a_sweep_on_two_nodes_is_what_it_is_in_one_process(
    on_s3: Log, specs: dict[str, RunSpec], own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records and the adapters that a run starts from go through the object store."""
    lineages = [specs[name] for name in ("slow", "tfidf", "student", "student of slow")]
    assert set(sweep(lineages, progress=False).frame["run_id"]) == run_ids(lineages)
    frame = sweep(specs.values(), progress=False).frame  # the rest
    assert set(frame["run_id"]) == run_ids(specs.values())
    assert all(
        record.path == f"s3://w2s/records/{record.spec.run_id}.parquet"
        for record in frame["record"]
    )
    begun = [line for line in on_s3.lines() if line[2] == "started"]
    assert sorted(line[1] for line in begun) == sorted(run_ids(specs.values()))  # each of them once
    assert len({line[4] for line in begun}) == 2  # on both nodes
    assert len({line[3] for line in begun}) == len(begun)  # each a task of its own
    mine = weights(specs["continued"])
    monkeypatch.setenv("W2S_STORE", str(own_store))
    ours = frame.set_index("run_id")["record"]
    for name in ("student", "continued"):  # with their teacher's labels, and another's adapters
        assert w2s.run(specs[name]).predictions.equals(ours[specs[name].run_id].predictions), name
    assert mine is not None and not mine.is_relative_to(own_store)
    for file in (own_store / specs["continued"].run_id).glob("*/*"):
        assert (mine / file.name).read_bytes() == file.read_bytes() or file.suffix == ".json"


def test_a_student_starts_when_its_supervisor_is_ready(
    cluster: Nodes, specs: dict[str, RunSpec]
) -> None:
    """Not when all supervisors are: the slow one, of another lineage, was still being trained."""
    log = Log(cluster)
    log.before = 0
    when = {
        (name, line[2]): line[0] for name, spec in specs.items() for line in log.of(spec.run_id)
    }
    assert when["tfidf", "recorded"] <= when["student", "started"] < when["slow", "recorded"]
    assert when["slow", "recorded"] <= when["student of slow", "started"]
    assert when["read", "recorded"] <= when["continued", "started"]


def test_a_finished_run_is_not_trained_again_by_a_second_task(
    on_s3: Log, specs: dict[str, RunSpec]
) -> None:
    some = [specs[name] for name in ("tfidf", "student", "read", "continued")]
    jobs = {spec.run_id: (spec, spec == specs["read"]) for spec in some}
    assert set(train_jobs(jobs, 2, lambda spec: 0.0)) == {(name, None) for name in jobs}
    assert {(line[1], line[2]) for line in on_s3.lines()} == {
        (name, what) for name in jobs for what in ("started", "was there")
    }


def test_what_a_run_raises_comes_as_it_is_when_the_others_are_done(
    on_s3: Log, specs: dict[str, RunSpec], quick: dict[str, Any]
) -> None:
    recipe = dataclasses.replace(quick["recipe"], learning_rate=1e30)
    task = specs["tfidf"].task
    wild = w2s.supervisor("smollm2-135m@1", task, **quick | {"recipe": recipe})
    taught = w2s.student("tfidf", wild)
    fine = specs["tfidf"].with_seed(1)
    with pytest.raises(TrainingError, match="(?s)^the loss is nan.*Not trained.*" + taught.run_id):
        train_missing([taught, fine], progress=False)
    assert find(wild) is None and find(taught) is None and find(fine) is not None


def test_what_the_cluster_cannot_do_is_said_before_training(
    on_s3: Log, specs: dict[str, RunSpec], quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = specs["student"].with_seed(7)
    with pytest.raises(SpecError, match="takes no number of workers"):
        train_missing([new], workers=2, progress=False)
    with pytest.raises(DeviceError, match="a run needs a GPU"):
        train_missing([dataclasses.replace(new, device="cuda")], progress=False)
    with pytest.raises(SpecError, match="n_train"):
        train_missing(
            [w2s.supervisor("tfidf", dataclasses.replace(new.task, n_train=200)), new],
            progress=False,
        )
    monkeypatch.setenv("W2S_STORE", "memory://w2s")  # which every process has for itself
    with pytest.raises(
        StoreError,
        match="node .* does not see this machine's store memory://w2s: .* Nothing was trained",
    ):
        train_missing([new], progress=False)
    assert on_s3.lines() == []


def test_an_access_key_is_not_given_to_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose dashboard shows every task's environment. Said before anybody is asked."""
    monkeypatch.setenv("W2S_STORE", "s3://akey:asecret@bucket/records")
    with pytest.raises(StoreError, match="s3://bucket/records holds an access key") as told:
        prepare({}, None)
    assert "akey" not in str(told.value)


@pytest.mark.torture
def test_a_node_that_dies_in_mid_training_costs_nothing_that_is_finished(
    cluster: Nodes, specs: dict[str, RunSpec], own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is begun anew on the other node; by task ids, node ids and times in the workers' own logs."""
    monkeypatch.setenv("W2S_ENGINE", "ray")
    log, killed = Log(cluster), dict[str, Any]()
    first, student = specs["tfidf"], specs["student"]
    victim = dataclasses.replace(student, recipe=dataclasses.replace(student.recipe, epochs=200))

    def kill() -> None:
        """The node that trains the victim, whose supervisor's record is there."""
        until(lambda: log.of(victim.run_id))
        node = log.of(victim.run_id)[0][4]
        killed.update(at=f"{datetime.now()}", node=node, written=record.stat().st_mtime_ns)
        cluster.kill(node)

    record, wanted = own_store / f"{first.run_id}.parquet", [first, victim]
    killer = threading.Thread(target=kill)
    killer.start()
    frame = sweep(wanted, progress=False).frame
    killer.join()
    lines = log.lines()
    assert set(frame["run_id"]) == run_ids(wanted)
    told = [line for line in lines if line[1] == victim.run_id]
    assert [line[2] for line in told] == ["started", "started", "recorded"]
    (begun, *_, task, node), (anew, *_, same_task, other), (*_, finished_on) = told
    assert (
        begun < killed["at"] < anew
        and task == same_task
        and node == killed["node"] != other == finished_on
    )
    assert [line[2] for line in lines if line[1] == first.run_id] == ["started", "recorded"]
    assert record.stat().st_mtime_ns == killed["written"]
    monkeypatch.setenv("W2S_STORE", str(own_store.with_name("alone")))
    assert w2s.run(victim).predictions.equals(
        frame.set_index("run_id")["record"][victim.run_id].predictions
    )


@pytest.mark.torture
def test_a_run_without_room_beside_others_is_tried_again_with_a_gpu_of_its_own(
    cluster: Nodes,
    specs: dict[str, RunSpec],
    quick: dict[str, Any],
    own_store: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a node with a GPU by name alone: three runs that take two fifths of it each."""
    node = add_node(cluster.cluster, num_cpus=3, num_gpus=1)
    log, task = Log(cluster), specs["tfidf"].task
    wide = dataclasses.replace(quick["lora"], rank=10**12)
    large = w2s.supervisor("smollm2-135m@1", task, **quick | {"lora": wide})
    taught, fine = w2s.student("tfidf", large), specs["tfidf"].with_seed(2)
    jobs = {spec.run_id: (spec, False) for spec in (large, taught, fine)}
    failed = dict(train_jobs(jobs, 3, lambda spec: 0.4))
    assert failed[fine.run_id] is None and find(fine)
    assert all(isinstance(failed[spec.run_id], OutOfMemory) for spec in (large, taught))
    assert f"{large.run_id} is tried again alone" in capsys.readouterr().err
    begun = [line for line in log.of(large.run_id) if line[2] == "started"]
    assert len(begun) == 2 and {line[4] for line in log.lines()} == {node.node_id}
    cluster.cluster.remove_node(node)


@pytest.mark.torture
def test_a_worker_with_less_memory_than_planned(
    cluster: Nodes, specs: dict[str, RunSpec], own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a node whose memory counts as full at one percent: Ray's memory monitor stops the run."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    add_node(cluster.cluster)
    for node in cluster.nodes:
        cluster.cluster.remove_node(node)
    recipe = dataclasses.replace(specs["student"].recipe, epochs=100_000)
    endless = dataclasses.replace(specs["student"], recipe=recipe)
    with pytest.raises(TrainingError, match="for want of memory"):
        train_missing([endless], engine="ray", progress=False)
    assert not list(own_store.glob("*.parquet"))


def test_without_a_cluster_none_is_started(
    specs: dict[str, RunSpec], own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.shutdown()  # so this test is the last one
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(DeviceError, match="127.0.0.1:9") as told:
        sweep([specs["tfidf"]], engine="ray")
    assert "start one with `ray start --head`" in str(told.value) and not ray.is_initialized()
    assert not list(own_store.glob("*.parquet"))
