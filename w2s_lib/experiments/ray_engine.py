"""The engine of a Ray cluster: a task for each training, its teachers' tasks as arguments, records through a shared store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from w2s_lib.experiments.cluster import check_node, connect, stop, train_once
from w2s_lib.runs.errors import DeviceError, SpecError, TrainingError
from w2s_lib.runs.spec import Continue, RunSpec
from w2s_lib.runs.store import find, mark, require_writable, store_name, write
from w2s_lib.training.execute import Training

RETRIES = 3
"""How often a run is begun anew after its worker has died."""


def prepare(missing: dict[str, RunSpec], workers: int | None) -> int:
    """See `engines.Engine`: every node must see the store, and have what the runs need.

    Raises:
        DeviceError: no Ray, no cluster, or none with a node that has the GPU, or the cores, that a run asks for.
        StoreError: a node does not see the store, or cannot write to it.
        SpecError: a run cannot be trained on a node; a number of workers, which is the cluster's to say.
    """
    if workers is not None:
        raise SpecError(
            "engine='ray' takes no number of workers: it trains as many runs at once as the cluster has CPUs, or "
            "GPUs, for (`ray start --num-cpus`)"
        )
    ray = connect()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    require_writable()
    takes = {"CPU": 1, "GPU": 1}
    nodes = {
        kind: [
            node
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get(kind, 0) >= takes[kind]
        ]
        for kind in sorted(set(map(_kind, missing.values())))
    }
    if lacking := [f"{takes[kind]} {kind}" for kind in nodes if not nodes[kind]]:
        raise DeviceError(f"a run needs {lacking[0]} and no node of the Ray cluster has as much")
    with mark() as name:
        checks = {}
        for kind, node in ((kind, node) for kind, there in nodes.items() for node in there):
            texts = [spec.to_json() for spec in missing.values() if _kind(spec) == kind]
            place = {
                "scheduling_strategy": On(node["NodeID"], soft=False),
                "num_cpus": 0,
                f"num_{kind.lower()}s": 0.01,
            }
            checks[
                _task(ray, check_node, **place).remote(node["NodeManagerAddress"], name, texts)
            ] = "check of a node"
        ray.wait(
            list(checks), num_returns=len(checks)
        )  # all of them: they end together, and none is to be cancelled
        for _ in _finished(ray, checks):
            pass
    for parent in (
        parent
        for spec in missing.values()
        for parent in spec.parents()
        if parent.run_id not in missing
    ):
        if (record := find(parent)) and not record.path.startswith(f"{store_name()}/"):
            write(record)  # the published store has it, and not every node need have that
    return sum(
        int(node["Resources"][kind] // takes[kind]) for kind in nodes for node in nodes[kind]
    )


def map_trainings(todo: dict[str, Training], slots: int, *, progress: bool = True) -> Iterator[str]:
    """See `engines.Engine`. A run whose worker dies is begun anew, elsewhere if its node is gone, up to `RETRIES` times.

    Raises:
        TrainingError: a worker had too little memory, or died too often. What a run raises comes as it is.
    """
    ray, refs = connect(), dict[str, Any]()
    started_from = {
        spec.start.run.run_id for spec, *_ in todo.values() if isinstance(spec.start, Continue)
    }
    for runs in todo.values():
        takes = {"num_cpus": 1, "num_gpus": 1} if _kind(runs[0]) == "GPU" else {"num_cpus": 1}
        task = _task(ray, train_once, max_retries=RETRIES, **takes)
        teachers = [refs[parent.run_id] for parent in runs[0].parents() if parent.run_id in refs]
        ref = task.remote({spec.to_json(): spec.run_id in started_from for spec in runs}, *teachers)
        refs |= {spec.run_id: ref for spec in runs}
    return _finished(ray, {refs[key]: key for key in todo})


def _finished(ray: Any, waiting: dict[Any, str]) -> Iterator[str]:
    """The names of tasks as they finish; at the first that fails, or is not waited for, the others are stopped."""
    name = ""
    try:
        while waiting:
            (ref,), _ = ray.wait(list(waiting))
            name = waiting.pop(ref)
            ray.get(ref)
            yield name
    except ray.exceptions.RayTaskError as error:
        cause = error
        while isinstance(cause, ray.exceptions.RayTaskError):  # a student's, of its teacher's
            cause = cause.cause
        if isinstance(cause, ImportError):
            raise DeviceError(
                f"a node of the Ray cluster lacks what this library needs ({cause}): install the same on every "
                "node"
            ) from error
        raise cause from error
    except ray.exceptions.OutOfMemoryError as error:
        raise TrainingError(
            f"a worker had less memory than run {name} needs, and Ray stopped it: give its node more memory or "
            "fewer CPUs (`ray start --num-cpus`), or lower recipe.batch_size. It has no record."
        ) from error
    except ray.exceptions.RayError as error:
        raise TrainingError(
            f"Ray lost run {name}, for good or {RETRIES + 1} times: {type(error).__name__}: {error} It has no "
            "record."
        ) from error
    finally:
        stop(ray, list(waiting))


def _task(ray: Any, function: Any, **options: Any) -> Any:
    """The function as a task whose worker has the same store, caches and number of threads as this process."""
    own = {"W2S_STORE": store_name(), "W2S_PUBLISHED": "0", "OMP_NUM_THREADS": "1"}
    same = {
        name: os.environ[name]
        for name in ("W2S_CACHE", "HF_HOME", "HF_HUB_OFFLINE")
        if os.environ.get(name)
    }
    return ray.remote(function).options(runtime_env={"env_vars": own | same}, **options)


def _kind(spec: RunSpec) -> str:
    return "GPU" if spec.device == "cuda" else "CPU"
