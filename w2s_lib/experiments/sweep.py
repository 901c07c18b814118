"""`run` and `sweep`: what is recorded is read, what is not is trained, teachers first, each distinct run once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from w2s_lib.experiments.results import Results
from w2s_lib.runs.errors import SpecError, StoreError, nearest
from w2s_lib.runs.record import Record
from w2s_lib.runs.spec import Continue, RunSpec
from w2s_lib.runs.store import find, published_store, require_writable, weights, write

ENGINES = ("local", "ray")
ONE_THREAD = "published records are made with one thread, so that their bits are the same elsewhere"


def run(spec: RunSpec, *, progress: bool = True) -> Record:
    """The record of one run: read where it is there, else trained in this process, with every teacher it needs.

    Args:
        spec: what to run.
        progress: show bars with the time left.

    Raises:
        SpecError, DeviceError, StoreError: before anything is trained.
        TrainingError, StoreError: later; nothing half-written stays.
    """
    missing = _missing([spec])
    if missing:
        from w2s_lib.training.execute import (  # loads torch: not where all is recorded
            execute,
            refuse_early,
        )

        refuse_early(missing.values())
        for step in missing.values():
            execute(step)
    return _read(spec, trained=spec.run_id in missing)


def sweep(
    specs: Iterable[RunSpec],
    *,
    seeds: Sequence[int] | None = None,
    workers: int | None = None,
    engine: str | None = None,
    progress: bool = True,
) -> Results:
    """Runs every spec under every seed, and returns its `Results`, which shows itself as a table.

    Args:
        specs: what to run; equal ones are run once.
        seeds: each spec's whole lineage is run under each of them; None keeps the specs' own.
        workers: processes of this machine, of one thread (or `W2S_THREADS`) or one GPU each; by default as many as there are
            cores for, or one a GPU where a run asks for CUDA. A cluster has its own: beside engine="ray" it is an error.
            Where it is `W2S_ENGINE` that names Ray, this number, which a chapter says of this machine, is not used.
        engine: "local" for this machine, or "ray" for the Ray cluster that is running here or at `RAY_ADDRESS`; by default
            what `W2S_ENGINE` says, else "local".
        progress: one bar with the time left.

    Raises:
        SpecError, DeviceError, StoreError: no specs, or one of them cannot be run: before anything is trained.
        TrainingError, StoreError: later; what is finished by then is recorded, nothing half-written stays.
    """
    wanted = {
        s.run_id: s
        for spec in specs
        for s in ([spec] if seeds is None else map(spec.with_seed, seeds))
    }
    if not wanted:
        raise SpecError("no specs to run, or no seeds")
    if not engine and os.environ.get("W2S_ENGINE") == "ray":
        workers = None
    trained = train_missing(
        list(wanted.values()), workers=workers, engine=engine, progress=progress
    )
    return Results(_read(spec, trained=run_id in trained) for run_id, spec in wanted.items())


def train_missing(
    specs: Sequence[RunSpec],
    *,
    store: str = "user",
    workers: int | None = None,
    engine: str | None = None,
    progress: bool = True,
) -> set[str]:
    """Trains what no store holds, teachers first, and says what it will cost before it starts.

    Args:
        specs: what is wanted; their teachers are added.
        store: "user", or "published" to copy each finished record to `book/results/` as well.
        workers: see `sweep`; beside Ray an error, whoever names Ray.
        engine: see `sweep`.
        progress: see `sweep`.

    Returns:
        The ids of the runs that were trained.
    """
    if workers is not None and workers < 1:
        raise SpecError(f"workers must be at least 1, not {workers}")
    engine = engine or os.environ.get("W2S_ENGINE") or "local"
    if engine not in ENGINES:
        raise SpecError(f"unknown engine {engine!r}: {nearest(engine, ENGINES)}")
    if store not in ("user", "published"):
        raise SpecError(f"unknown store {store!r}: {nearest(store, ('user', 'published'))}")
    if store == "published":
        require_writable(_published())
        if (os.environ.get("W2S_THREADS") or "1") != "1":  # now, and not at the first `publish`
            raise SpecError(f"{ONE_THREAD}: unset W2S_THREADS")
    wanted = {step.run_id: step for spec in specs for step in spec.lineage()}
    missing = _missing(specs if store == "user" else wanted.values())
    for run_id, spec in wanted.items():
        if store == "published" and run_id not in missing:
            publish(spec)
    if missing:
        from w2s_lib.experiments.engines import train_all

        for run_id in train_all(
            missing, len(wanted), engine=engine, workers=workers, progress=progress
        ):
            if store == "published":
                publish(missing[run_id])
    return set(missing)


def _missing(specs: Iterable[RunSpec]) -> dict[str, RunSpec]:
    """What has to be trained for these, teachers first; a recorded run needs no teacher any more.

    A run that another one starts from is trained again where its record is there and its adapters are not.
    """
    steps: dict[str, RunSpec] = {}

    def need(spec: RunSpec, *, adapters: bool = False) -> None:
        there = find(spec) is not None and (not adapters or weights(spec) is not None)
        if not there and spec.run_id not in steps:
            for parent in spec.parents():
                need(parent, adapters=isinstance(spec.start, Continue) and parent == spec.start.run)
            steps[spec.run_id] = spec

    for spec in specs:
        need(spec)
    return steps


def publish(spec: RunSpec) -> Path:
    """Copies a record from the user's store to the published one, whole or not at all; weights stay where they are.

    Raises:
        StoreError: no published store, or the record was made with several threads.
    """
    target = _published()
    path = target / f"{spec.run_id}.parquet"
    if not path.is_file():
        record = find(spec)
        assert record is not None
        if spec.device == "cpu" and record.provenance["threads"] != 1:
            raise StoreError(
                f"{ONE_THREAD}, and {record.path} with {record.provenance['threads']}: move it away to train that "
                "run again"
            )
        write(record, store=target)
    return path


def _published() -> Path:
    target = published_store()
    if target is None:
        raise StoreError(
            "no published store: not a checkout of the book, or W2S_PUBLISHED=0 hides it"
        )
    return target


def _read(spec: RunSpec, *, trained: bool) -> Record:
    record = find(spec)
    assert record is not None, f"no record of {spec.run_id}"
    note(run_id=spec.run_id, digest=record.digest, trained=trained, path=record.path)
    return record


def note(**line: Any) -> None:
    """Notes, for whoever executes a chapter, a file that it depends on (`path`) and what run it is of."""
    if manifest := os.environ.get("W2S_MANIFEST"):
        with Path(manifest).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
