"""A Ray cluster: how `ray_engine` connects to it, what it asks of a node (can it train? train), and how that is stopped."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from typing import Any

from w2s_lib.runs.errors import DeviceError, StoreError
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import find, marked, store_name, weights
from w2s_lib.training.execute import execute, refuse_early

GRACE, PATIENCE = 1, 10
"""Seconds that a task has to end by itself: before it is interrupted, and after."""


def connect() -> Any:
    """Ray, connected to the running cluster. None is ever started here.

    Raises:
        DeviceError: Ray is not installed, or no cluster is running.
    """
    try:
        import ray
    except ImportError as error:
        raise DeviceError(
            "engine='ray' needs Ray, which is not installed: pip install '.[cluster]'"
        ) from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS") or "auto"
        try:
            if (
                address != "auto"
            ):  # where nobody answers, Ray would wait for a minute and end this process
                host, _, port = address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=address)
        except (OSError, RuntimeError, ValueError) as error:
            raise DeviceError(
                "engine='ray' finds no running Ray cluster: start one with `ray start --head`, or name one in "
                f"RAY_ADDRESS ({address}: {error})"
            ) from error
    return ray


def check_node(node: str, name: str, texts: list[str]) -> None:
    """Raises what would stop one of these runs on this node.

    Args:
        node: its address, for the message.
        name: of the mark that who asks has left in the store.
        texts: the runs, as JSON.

    Raises:
        StoreError: this node does not see the same store, or cannot write to it.
        SpecError, DeviceError: see `refuse_early`.
    """
    if not marked(name):
        raise StoreError(
            f"node {node} of the Ray cluster does not see this machine's store {store_name()}: name in W2S_STORE "
            "a folder that all nodes share, or a URL such as s3://bucket/prefix. Nothing was trained."
        )
    refuse_early([RunSpec.from_json(text) for text in texts])


def train_once(adapters: dict[str, bool], *teachers: None) -> None:
    """Trains runs that share a training, but those whose record is there, as it is where a task is tried again after that.

    What it does is said, with the time, to the worker's log, and so to the terminal or notebook of who asked.

    Args:
        adapters: the runs, as JSON; whether a run's adapters must be there as well.
        *teachers: the results of the tasks that had to be done before.
    """
    import ray

    def say(what: str, ids: list[str]) -> None:
        here, now = ray.get_runtime_context(), datetime.now().isoformat(" ", "milliseconds")
        for run_id in ids:
            print(
                f"w2s: {now} run {run_id} {what}, task {here.get_task_id()}, node {here.get_node_id()}",
                flush=True,
            )

    runs = {RunSpec.from_json(text): needed for text, needed in adapters.items()}
    lacking = [
        spec
        for spec, needed in runs.items()
        if find(spec) is None or (needed and weights(spec) is None)
    ]
    say("was there", [spec.run_id for spec in runs if spec not in lacking])
    if lacking:
        say("started", ids := [spec.run_id for spec in lacking])
        execute(*lacking)
        say("recorded", ids)


def stop(ray: Any, tasks: list[Any]) -> None:
    """Stops tasks by a KeyboardInterrupt, after which a worker cleans up behind itself; one that is deaf to it is killed.

    A worker that is just beginning a task can miss the interrupt. And to cancel a task in the moment in which it ends makes
    Ray abort the process that asks, a notebook's kernel say: a race that Ray's authors know of
    (https://github.com/ray-project/ray/pull/54798). Tasks often end together, so they get a moment first.
    """
    for seconds, force in ((GRACE, False), (PATIENCE, True)):
        tasks = ray.wait(tasks, num_returns=len(tasks), timeout=seconds)[1] if tasks else []
        for task in tasks:
            ray.cancel(task, force=force)
