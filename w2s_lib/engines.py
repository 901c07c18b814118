"""Where runs are trained: engines behind one interface, and what all of them say of the work before it and while it is done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from tqdm.auto import tqdm

from .assets import AssetError
from .record import StoreError
from .runner import cost
from .spec import RunSpec, SpecError
from .store import published_store, read, user_store

SECONDS_A_UNIT = 1.4e-3
"""Seconds of one core to take one row through one block, forward only; used where no record can say better."""


class Engine(Protocol):
    """Something that trains runs: `local_engine` or `ray_engine`. `missing` maps ids to what to train, teachers first."""

    def prepare(self, missing: dict[str, RunSpec], workers: int | None) -> int:
        """Refuses what cannot be trained there, before anything is; says how many runs will be trained at once."""
        ...

    def map_runs(self, missing: dict[str, RunSpec], slots: int, *, progress: bool) -> Iterator[str]:
        """Trains, at most `slots` at once, each run after its teachers; yields each id when its record is written."""
        ...


def engine_of(name: str) -> Engine:
    """The engine of that name, "local" or "ray"."""
    if name == "ray":
        from . import ray_engine

        return ray_engine
    from . import local_engine

    return local_engine


def train_all(missing: dict[str, RunSpec], among: int, *, engine: str = "local", workers: int | None = None,
              progress: bool = True) -> Iterator[str]:
    """Trains runs, after saying what it will cost; yields each id when its record is written.

    Args:
        missing: id -> what to train, teachers first; what they need and is not among them has its record.
        among: of how many runs these are the missing ones.
        engine: see `sweep`.
        workers: see `sweep`.
        progress: see `sweep`.

    Raises:
        SpecError, DeviceError, StoreError: before anything is trained.
        TrainingError, StoreError: later; what is finished by then is recorded, nothing half-written stays.
    """
    chosen = engine_of(engine)
    slots = min(chosen.prepare(missing, workers), len(missing))
    units = {run_id: cost(spec) for run_id, spec in missing.items()}
    minutes = sum(units.values()) * _seconds_a_unit() / slots / 60
    print(f"w2s: {len(missing)} of {among} distinct runs to train: about {minutes:.0f} min with {slots} "
          f"worker{'s' if slots > 1 else ''}, shared trunks extra", file=sys.stderr, flush=True)
    form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
    size = {run_id: 1 + round(work / 1000) for run_id, work in units.items()}  # what costs nothing counts as well
    with tqdm(total=sum(size.values()), desc="sweep", disable=not progress, bar_format=form) as bar:
        for run_id in chosen.map_runs(missing, slots, progress=progress):
            yield run_id
            bar.update(size[run_id])


def _seconds_a_unit() -> float:
    """The median over the published and the user's records of what a unit of work has cost; a constant without any."""
    rates = []
    for folder in (user_store(), published_store()):
        for path in sorted(folder.glob("*.parquet"))[:20] if folder and folder.is_dir() else []:
            with contextlib.suppress(StoreError, SpecError, AssetError):  # whoever asks for it will hear of it
                record = read(path)
                if units := cost(record.spec):
                    rates.append((record.provenance["seconds"] - record.provenance["trunk_seconds"]) / units)
    return float(np.median(rates)) if rates else SECONDS_A_UNIT
