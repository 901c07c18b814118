"""A Ray cluster and an object store on this machine, and what can befall them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).parents[1]


class Said(NamedTuple):
    """A line of a worker's log."""

    time: str
    run: str
    what: str
    task: str
    node: str
    process: str


LINE = re.compile(r"w2s: (\S+ \S+) run (\w+) (started|recorded|was there), task (\w+), node (\w+)")


@dataclass
class Nodes:
    """A head that trains nothing, and nodes with a core each.

    Attributes:
        cluster: Ray's.
        nodes: those that train.
        environment: what all of them have, and what a process needs to find them.
    """

    cluster: Any
    nodes: list[Any]
    environment: dict[str, str]

    def add(self) -> None:
        """A node more."""
        self.nodes.append(add_node(self.cluster))

    def kill(self, node_id: str) -> None:
        """Ends a node with all its processes, at once."""
        (node,) = (node for node in self.nodes if node.node_id == node_id)
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def said(self) -> list[Said]:
        """What all workers have said of their runs, in order of time."""
        logs = Path(self.cluster.head_node.get_session_dir_path(), "logs").glob("worker-*.out")
        return sorted(
            Said(*found, path.stem.rpartition("-")[2])
            for path in logs
            for found in LINE.findall(path.read_text(errors="replace"))
        )


@contextlib.contextmanager
def two_nodes(environment: Mapping[str, str]) -> Iterator[Nodes]:
    """A cluster, until the end of the block; this process has its environment meanwhile.

    Args:
        environment: what its workers have beside the environment of this process.
    """
    # Ray does not quote the path of Python itself, and ours may have spaces in it.
    quoted = {"runtime_env": {"py_executable": shlex.quote(sys.executable)}}
    own = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",  # 30 are too few where the machine is busy
        "RAY_worker_niceness": "0",  # by default 15: on a busy machine they would hardly ever run
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(quoted),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        **environment,
    }
    with mock.patch.dict(os.environ, own):
        from ray.cluster_utils import Cluster  # here: Ray reads some of this when it is imported

        made = Cluster()
        try:
            add_node(made, num_cpus=0, no_monitor=True, include_dashboard=False)
            os.environ["RAY_ADDRESS"] = own["RAY_ADDRESS"] = made.address
            yield Nodes(made, [add_node(made) for _ in range(2)], own)
        finally:
            made.shutdown()


def add_node(cluster: Any, **settings: Any) -> Any:
    """A node more. Ray gives a node's agents fifteen seconds; where the machine is busy, it is tried again."""
    # A monitor of the logs would be a process of its own; tests read them.
    usual = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_log_monitor": False}
    settings = usual | settings
    for _ in range(3):
        with contextlib.suppress(Exception):
            return cluster.add_node(**settings)
    return cluster.add_node(**settings)


class ObjectStore:
    """A local S3 server with a bucket `w2s`. What it holds outlasts an outage.

    Attributes:
        environment: with which a process finds it.
    """

    def __init__(self) -> None:
        import s3fs

        self._start(0)
        host, self.port = self.server.get_host_and_port()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{self.port}",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.files = s3fs.S3FileSystem(
            endpoint_url=self.environment["AWS_ENDPOINT_URL"], key="none", secret="none"
        )
        self.files.makedirs("w2s", exist_ok=True)  # servers of one process share what they hold

    def _start(self, port: int) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request
        self.server = ThreadedMotoServer("127.0.0.1", port=port, verbose=False)
        self.server.start()

    def records(self, prefix: str) -> dict[str, bytes]:
        """Run id -> content of each record under `w2s/PREFIX`."""
        self.files.invalidate_cache()
        found = self.files.glob(f"w2s/{prefix}/*.parquet")
        return {Path(path).stem: self.files.cat_file(path) for path in found}

    def refuse(self, seconds: float) -> None:
        """Refuses all connections for a while, as a server does that is started again."""
        self.stop()
        time.sleep(seconds)
        self._start(self.port)

    def stop(self) -> None:
        """Ends what listens."""
        self.server.stop()
