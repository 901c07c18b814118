"""Trains on a Ray cluster: a task for each job, with its teachers' tasks as arguments."""

import math
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from w2s_lib.experiments.local import Outcome, Share
from w2s_lib.experiments.worker import Job, from_line, to_line, train
from w2s_lib.runs.errors import (
    DeviceError,
    OutOfMemory,
    RunError,
    SpecError,
    StoreError,
    TrainingError,
)
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import find, require_writable, user_store, write
from w2s_lib.training.execute import refuse_early

RETRIES = 3
"""How often a job is begun anew after its worker has died."""

CHECK_SECONDS = 60
"""After how long a sweep says that the check of a node still waits."""

SECONDS_TO_END, SECONDS_TO_STOP = 1, 10
"""What a task has to end by itself before it is interrupted, and then before it is killed."""


def connect() -> Any:
    """Ray, connected to the running cluster. None is ever started here.

    Raises:
        DeviceError: Ray is not installed, or no cluster is running.
    """
    try:
        import ray
    except ImportError as error:
        raise DeviceError("engine='ray' needs Ray: pip install '.[cluster]'") from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS") or "auto"
        try:
            if address != "auto":  # where nobody answers, Ray would end this process after a minute
                host, _, port = address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=address)
        except (OSError, RuntimeError, ValueError) as error:
            how = "start one with `ray start --head`, or name it in RAY_ADDRESS"
            said = f"engine='ray' finds no running Ray cluster: {how} ({address}: {error})"
            raise DeviceError(said) from error
    return ray


def prepare(missing: dict[str, RunSpec], workers: int | None) -> int:
    """Refuses what the cluster cannot train; says how many runs it trains at once.

    Raises:
        DeviceError: no Ray, no cluster, or no node with the GPU or core that a run asks for.
        StoreError: a node does not see the store, or cannot write to it.
        SpecError: a run cannot be trained on a node; a number of workers, which is the cluster's.
    """
    if workers is not None:
        how = "it has as many as CPUs, or GPUs (`ray start --num-cpus`)"
        raise SpecError(f"engine='ray' takes no number of workers, which is the cluster's: {how}")
    if (store := user_store()).name != store.address:
        said = f"the address of the store {store.name} holds an access key"
        how = "give it to the nodes in their environment"
        raise StoreError(f"{said}, which Ray would show to all of its cluster: {how}")
    ray = connect()
    require_writable()
    alive = [node for node in ray.nodes() if node["Alive"]]
    kinds = sorted({_resource(spec) for spec in missing.values()})
    nodes = [
        (kind, node) for kind in kinds for node in alive if node["Resources"].get(kind, 0) >= 1
    ]
    if lacking := set(kinds) - {kind for kind, _ in nodes}:
        raise DeviceError(f"a run needs a {min(lacking)} and no node of the Ray cluster has one")
    _check_nodes(ray, nodes, missing)
    parents = {parent.run_id: parent for spec in missing.values() for parent in spec.parents()}
    for run_id in parents.keys() - missing.keys():
        if user_store().find(run_id) is None and (record := find(parents[run_id])):
            write(record)  # from the published store, which not every node has
    return sum(int(node["Resources"][kind]) for kind, node in nodes)


def train_jobs(jobs: dict[str, Job], slots: int, share: Share) -> Iterator[Outcome]:
    """See `local.train_jobs`. A job whose worker dies is begun anew, up to `RETRIES` times.

    Jobs that need one that failed are yielded too, with its error. What a run takes of a GPU is
    known where one like it was recorded before this call.
    """
    shares = {name: math.ceil(1000 * share(spec)) / 1000 for name, (spec, _) in jobs.items()}
    failed: dict[str, OutOfMemory] = {}
    for name, error in _train_jobs(jobs, shares):
        if isinstance(error, OutOfMemory):
            failed[name] = error
        else:
            yield name, error
    again: dict[str, Job] = {}
    for name in [name for name in jobs if name in failed]:
        steps = [step.run_id for step in jobs[name][0].lineage()]  # teachers first
        if 0 < shares[next(step for step in steps if step in failed)] < 1:
            print(f"w2s: {name} is tried again alone on its GPU: {failed[name]}", file=sys.stderr)
            again[name] = jobs[name]
        else:
            yield name, failed[name]
    yield from _train_jobs(again, {name: math.ceil(shares[name]) for name in again})


def _train_jobs(jobs: dict[str, Job], shares: Mapping[str, float]) -> Iterator[Outcome]:
    ray, tasks = connect(), dict[str, Any]()
    for name, job in jobs.items():
        takes = {"num_cpus": 1, "num_gpus": shares[name]}
        teachers = [tasks[parent.run_id] for parent in job[0].parents() if parent.run_id in tasks]
        task = _task(ray, _train, max_retries=RETRIES, **takes)
        tasks[name] = task.remote(to_line(job), *teachers)
    for name, error in _outcomes(ray, {task: f"run {name}" for name, task in tasks.items()}):
        if not isinstance(error, RunError | None):
            raise error
        yield name.removeprefix("run "), error


def _check_nodes(ray: Any, nodes: list[tuple[str, Any]], missing: dict[str, RunSpec]) -> None:
    """Asks every node whether it sees this machine's store and can train the runs meant for it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    checks = {}
    with user_store().probe() as name:
        for kind, node in nodes:
            lines = [to_line((s, False)) for s in missing.values() if _resource(s) == kind]
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            takes = {"num_cpus": 0, f"num_{kind.lower()}s": 0.01}
            check = _task(ray, _check, scheduling_strategy=there, **takes)
            address = node["NodeManagerAddress"]
            checks[check.remote(address, name, lines)] = f"the check of node {address}"
        # They end together: none is to be cancelled.
        while busy := ray.wait(list(checks), num_returns=len(checks), timeout=CHECK_SECONDS)[1]:
            names = ", ".join(checks[task] for task in busy)
            print(f"w2s: waiting for {names}: its GPU or cores may be taken", file=sys.stderr)
        for _, error in _outcomes(ray, checks):
            if error:
                raise error


def _check(node: str, name: str, lines: list[str]) -> None:
    """On a node: raises what would stop one of these runs there.

    Args:
        node: its address, for the message.
        name: of the file that the sweep has left in the store.
        lines: the runs.
    """
    store = user_store()
    if store.get(name) is None:
        how = "name in W2S_STORE a folder that all nodes share, or a URL such as s3://bucket/prefix"
        said = f"node {node} of the Ray cluster does not see this machine's store {store.name}"
        raise StoreError(f"{said}: {how}. Nothing was trained.")
    refuse_early([from_line(line)[0] for line in lines])


def _train(line: str, *teachers: None) -> None:
    """On a node: trains a job, and says when to the worker's log, which the sweep's terminal shows.

    Args:
        line: the job.
        *teachers: the results of the tasks that had to be done before.
    """
    import ray

    here, job = ray.get_runtime_context(), from_line(line)

    def say(what: str) -> None:
        now = datetime.now().isoformat(" ", "milliseconds")
        where = f"task {here.get_task_id()}, node {here.get_node_id()}"
        print(f"w2s: {now} run {job[0].run_id} {what}, {where}", flush=True)

    say("started")
    say("recorded" if train(job) else "was there")


def _outcomes(ray: Any, waiting: dict[Any, str]) -> Iterator[tuple[str, Exception | None]]:
    """The names of tasks as they end; those that are not waited for to the end are stopped."""
    waiting = dict(waiting)
    try:
        while waiting:
            (task,), _ = ray.wait(list(waiting))
            name, error = waiting.pop(task), None
            try:
                ray.get(task)
            except ray.exceptions.RayError as raised:
                error = _translated(ray, raised, name)
            yield name, error
    finally:
        _stop(ray, list(waiting))


def _translated(ray: Any, error: Exception, name: str) -> Exception:
    """What a task has raised, or the death of its worker, as an error of this library."""
    while isinstance(error, ray.exceptions.RayTaskError):  # nested: a student's, of its teacher's
        error = error.cause
    if isinstance(error, ImportError):
        said = f"a node of the Ray cluster lacks what this library needs ({error})"
        return DeviceError(f"{said}: install the same on every node")
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        how = "fewer CPUs on its node (`ray start --num-cpus`), or a lower recipe.batch_size"
        return TrainingError(f"Ray stopped {name} for want of memory: give it {how}")
    if isinstance(error, ray.exceptions.RayError):
        why = f"for good or {RETRIES + 1} times: {type(error).__name__}: {error}"
        return TrainingError(f"Ray lost {name}, {why}")
    return error


def _stop(ray: Any, tasks: list[Any]) -> None:
    """Interrupts tasks, so that their workers clean up; one that is deaf to that is killed.

    A worker that is just beginning a task can miss the interrupt. And to cancel a task in the
    moment in which it ends makes Ray abort the process that asks, a notebook's kernel say
    (https://github.com/ray-project/ray/pull/54798). Tasks often end together: they get a moment.
    """
    for seconds, force in ((SECONDS_TO_END, False), (SECONDS_TO_STOP, True)):
        tasks = ray.wait(tasks, num_returns=len(tasks), timeout=seconds)[1] if tasks else []
        for task in tasks:
            ray.cancel(task, force=force)


def _task(ray: Any, function: Any, **options: Any) -> Any:
    """The function as a task whose worker has the same store and caches as this process."""
    names = ("W2S_CACHE", "HF_HOME", "HF_HUB_OFFLINE")
    same = {name: os.environ[name] for name in names if os.environ.get(name)}
    own = {"W2S_STORE": user_store().address, "W2S_PUBLISHED": "0", "TQDM_DISABLE": "1"}
    environment = {"env_vars": own | same | {"OMP_NUM_THREADS": "1"}}
    return ray.remote(function).options(runtime_env=environment, **options)


def _resource(spec: RunSpec) -> str:
    return "GPU" if spec.device == "cuda" else "CPU"
