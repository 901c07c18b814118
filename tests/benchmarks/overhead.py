"""What a run costs beside its own work, by engine: sweeps of runs that count the words of 64 short texts.

From short sweeps and long ones, the quickest of each: what a run more takes, and what a sweep takes to start, its workers'
libraries included. A run's own work is what its record says.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from .common import cold, measured

FEW, MANY, TIMES = 4, 84, 3
ENGINES = {"local, 1 worker": 1, "local, 2 workers": 2, "Ray, 2 nodes": None}
"""How it is called, and the number of workers; None: as many as the cluster has."""
SLOTS = 2
"""Nodes with a core each."""


def swept(path: str, first: int, n: int, workers: int | None) -> tuple[float, float]:
    """Wall seconds of a sweep of runs that are not recorded, and seconds of these runs' own work.

    Args:
        path: of the texts.
        first: its first seed.
        n: how many runs, a seed each.
        workers: of this machine; None for Ray.
    """
    import w2s_lib as w2s
    from w2s_lib.experiments.sweep import train_missing
    from w2s_lib.runs.store import find

    task = w2s.default_task(path, n_train=64, n_validation=40, n_test=80)
    runs = [w2s.pin(w2s.supervisor("tfidf", task, seed=first + i)) for i in range(n)]
    engine, started = "local" if workers else "ray", time.monotonic()
    done = train_missing(runs, workers=workers, engine=engine, progress=False)
    seconds, records = time.monotonic() - started, [find(run) for run in runs]
    assert len(done) == n and all(records)
    return seconds, sum(record.provenance["seconds"] for record in records if record)


def sweeps(path: str, workers: int | None) -> dict[str, Any]:
    """Short sweeps and long ones, in one process, where the libraries are loaded."""
    swept(path, 0, SLOTS, workers)  # loads what is loaded once, in the workers of a cluster as well
    seeds = range(1000, 1000 * (TIMES + 1), 1000)
    few = min(swept(path, seed, FEW, workers) for seed in seeds)
    many = min(swept(path, seed + FEW, MANY, workers) for seed in seeds)
    each, own = (np.subtract(many, few) / (MANY - FEW)).tolist()
    return {
        "start": few[0] - FEW * each,
        "itself": own,
        "beyond itself": (workers or SLOTS) * each - own,
        "a minute": 60 / each,
    }


def measure() -> dict[str, Any]:
    """Seconds, by engine: a sweep's start; a run's own work; a worker's for a run, beyond that."""
    from tests.cluster import two_nodes
    from tests.conftest import sentences

    rows = []
    for name, workers in ENGINES.items():
        with cold() as folder, contextlib.ExitStack() as stack:
            path = Path(folder) / "sentences.csv"
            sentences().to_csv(path, index=False)
            if workers is None:
                stack.enter_context(two_nodes({}))
            rows.append({"engine": name} | measured(sweeps, str(path), workers))
            print(rows[-1], flush=True)
    return {"rows": rows, "runs": MANY - FEW, "texts": 64}
