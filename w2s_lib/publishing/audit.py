"""Published runs trained again, and compared with their records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from w2s_lib.experiments.sweep import train_missing
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import find, read


def train_again(specs: Iterable[RunSpec], results: Path, *, workers: int | None) -> pd.DataFrame:
    """Trains runs into the user's store and compares them with their published records.

    The published store has to be hidden (`W2S_PUBLISHED=0`), or nothing is trained. Stopped and
    called again, it goes on where it was.

    Args:
        specs: pinned runs; their teachers are trained too.
        results: the folder of the published records.
        workers: see `sweep`.

    Returns:
        A row a run that is published, in the order given, once each: `run_id`, `role`, `model`,
        `task`, `equal` (all predictions, to the bit) and `farthest` (the largest difference of a
        P(y = 1)).
    """
    runs = {step.run_id: step for spec in specs for step in spec.lineage()}
    train_missing(runs.values(), workers=workers)
    rows = []
    for run_id, spec in runs.items():
        if (file := results / f"{run_id}.parquet").exists() and (again := find(spec)):
            before, now = (one.predictions.sort_index() for one in (read(file), again))
            far = (before["p"] - now["p"]).abs().max()
            rows.append((run_id, spec.role, spec.model, spec.task.name, before.equals(now), far))
    return pd.DataFrame(rows, columns=["run_id", "role", "model", "task", "equal", "farthest"])
