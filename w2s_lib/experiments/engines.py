"""Where runs are trained: engines behind one interface, and what all of them say of the work before it and while it is done."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from tqdm.auto import tqdm

from w2s_lib.runs.errors import AssetError, SpecError, StoreError
from w2s_lib.runs.model_names import EMBEDDED_DEPTH
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import published_store, read, user_store
from w2s_lib.training.execute import Training, cost, trainings

SECONDS_A_UNIT = 1.4e-3
"""Seconds of one core to take one row through one block, forward only; used where no record can say better."""


class Engine(Protocol):
    """Something that trains runs: `local_engine` or `ray_engine`. Its arguments map ids to what to train, teachers first."""

    def prepare(self, missing: dict[str, RunSpec], workers: int | None) -> int:
        """Refuses what cannot be trained there, before anything is; says how many runs will be trained at once."""
        ...

    def map_trainings(
        self, todo: dict[str, Training], slots: int, *, progress: bool
    ) -> Iterator[str]:
        """Trains, at most `slots` at once, each after its teachers; yields each key when the records are written."""
        ...


def engine_of(name: str) -> Engine:
    """The engine of that name, "local" or "ray"."""
    if name == "ray":
        from w2s_lib.experiments import ray_engine

        return ray_engine
    from w2s_lib.experiments import local_engine

    return local_engine


def train_all(
    missing: dict[str, RunSpec],
    among: int,
    *,
    engine: str = "local",
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[str]:
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
    todo = trainings(missing.values())
    slots = min(chosen.prepare(missing, workers), len(todo))
    units = {key: cost(*runs) for key, runs in todo.items()}
    rate = _seconds_a_unit()
    seconds = sum(
        work * rate(runs[0])
        for work, runs in zip(units.values(), todo.values(), strict=True)
        if work
    )
    known = math.isfinite(seconds)
    time = (
        f"about {seconds / slots / 60:.0f} min"
        if known
        else "for a time that no record tells (`plan` estimates it),"
    )
    at_once = f", {len(todo)} trainings" if len(todo) < len(missing) else ""
    print(
        f"w2s: {len(missing)} of {among} distinct runs to train{at_once}: {time} with {slots} "
        f"worker{'s' if slots > 1 else ''}, shared trunks extra",
        file=sys.stderr,
        flush=True,
    )
    form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
    size = {
        key: 1 + round(work / 1000) for key, work in units.items()
    }  # what costs nothing counts as well
    with tqdm(total=sum(size.values()), desc="sweep", disable=not progress, bar_format=form) as bar:
        for key in chosen.map_trainings(todo, slots, progress=progress):
            yield from (spec.run_id for spec in todo[key])
            bar.update(size[key])


def _seconds_a_unit() -> Callable[[RunSpec], float]:
    """What a unit of work on a run's model and device has cost in some of the records; NaN where none of them tells.

    For the embedded model on a CPU there is a constant, for lack of better.
    """
    rates: dict[tuple[str, str], list[float]] = {}
    for folder in (user_store(), published_store()):
        for path in sorted(folder.glob("*.parquet"))[:50] if folder and folder.is_dir() else []:
            with contextlib.suppress(
                StoreError, SpecError, AssetError
            ):  # whoever asks for it will hear of it
                record = read(path)
                if units := cost(record.spec):
                    rates.setdefault((record.spec.device, record.spec.name), []).append(
                        (record.provenance["seconds"] - record.provenance["trunk_seconds"]) / units
                    )
    known = {("cpu", name): SECONDS_A_UNIT for name in EMBEDDED_DEPTH}
    known |= {kind: float(np.median(found)) for kind, found in rates.items()}
    return lambda spec: known.get((spec.device, spec.name), math.nan)
