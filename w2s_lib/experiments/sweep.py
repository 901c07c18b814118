"""`run` and `sweep`: what is recorded is read, what is not is trained, each distinct run once."""

import contextlib
import math
import os
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Literal

from tqdm.auto import tqdm

from w2s_lib.experiments.results import Results
from w2s_lib.models.pins import pin
from w2s_lib.runs import store as stores
from w2s_lib.runs.errors import AssetError, RunError, SpecError, StoreError, nearest
from w2s_lib.runs.folders import file_sha256
from w2s_lib.runs.model_names import EMBEDDED_DEPTH
from w2s_lib.runs.record import Record
from w2s_lib.runs.spec import RunSpec

SECONDS_A_UNIT = 1.4e-3
"""Seconds of one core to take a row through a block, forward, for where no record tells more."""

EDITIONS = ("second", "beyond", "leaderboard")
"""Of the book, in order: the names of their rules in `book/claims/`, as far as they are frozen."""

ENGINES = ("local", "ray")


def run(spec: RunSpec) -> Record:
    """The record of one run: read where it is there, else trained in this process, teachers first.

    Raises:
        SpecError, DeviceError, StoreError: before anything is trained.
        TrainingError, StoreError: later; nothing half-written stays.
    """
    return _complete([spec], workers=1, engine="local", progress=False)[0][0]


def sweep(
    specs: Iterable[RunSpec],
    *,
    seeds: Sequence[int] | None = None,
    workers: int | None = None,
    engine: str | None = None,
    progress: bool = True,
) -> Results:
    """Runs every spec under every seed, and returns its `Results`, which shows itself as a table.

    A run that fails, or whose worker dies, costs only the runs that need it: the others are trained
    before the error is raised.

    Args:
        specs: what to run; equal ones are run once.
        seeds: each spec's whole lineage is run under each of them; None keeps the specs' own.
        workers: processes of this machine; by default one a core, or one a GPU where a run asks
            for CUDA. With more, runs share a GPU as far as its memory goes (`local.gpu_share`). With one, runs are trained in this process. Beside
            engine="ray" it is an error; where `W2S_ENGINE` names Ray, it is not used.
        engine: "local" for this machine, or "ray" for the Ray cluster that is running here or at
            `RAY_ADDRESS`; by default what `W2S_ENGINE` says, else "local".
        progress: one bar with the time left. (`TQDM_DISABLE=1` hides all bars.)

    Raises:
        SpecError, DeviceError, StoreError: no specs, or one of them cannot be run: before anything
            is trained.
        TrainingError, StoreError: later; what is finished is recorded, nothing half-written stays.
    """
    if not engine and os.environ.get("W2S_ENGINE") == "ray":
        workers = None  # a chapter's number is of this machine
    wanted = list(specs)
    if seeds is not None:
        wanted = [spec.with_seed(seed) for spec in wanted for seed in seeds]
    if not wanted:
        raise SpecError("no specs to run, or no seeds")
    return Results(_complete(wanted, workers=workers, engine=engine, progress=progress)[0])


def train_missing(
    specs: Iterable[RunSpec], *, store: Literal["user", "published"] = "user", **how: Any
) -> set[str]:
    """Trains what no store holds, teachers first, and says what it will cost before it starts.

    Args:
        specs: what is wanted; their teachers are added.
        store: "user", or "published" to copy each finished record to `book/results/` as well.
        **how: `workers`, `engine` and `progress` of `sweep`; beside Ray `workers` is an error,
            whoever names Ray.

    Returns:
        The ids of the runs that were missing.

    Raises:
        SpecError, DeviceError, StoreError, TrainingError: see `sweep`.
    """
    wanted = list(specs)
    if store not in ("user", "published"):
        raise SpecError(f'unknown store {store!r}: "user" or "published"')
    publishing = store == "published"
    if publishing:
        stores.require_writable(_published())
        wanted = [step for spec in wanted for step in spec.lineage()]
    return _complete(wanted, publishing=publishing, **how)[1]


def publish(record: Record) -> None:
    """Copies a record to the published store, whole or not at all; its weights stay where they are.

    The copy carries the SHA-256 of the newest edition's rules: so they are older than what they
    decide.

    Raises:
        StoreError: there is no published store, or there are no rules.
    """
    store = _published()
    if not (store / f"{record.spec.run_id}.parquet").is_file():
        stores.write(record, store=store, rules=file_sha256(rules_beside(store)[-1]))


def _published() -> Path:
    folder = stores.published_store()
    if folder is None:
        raise StoreError("no published store: this is no checkout, or W2S_PUBLISHED=0 hides it")
    if not rules_beside(folder):
        rules = folder.parent / "claims" / f"{EDITIONS[0]}.yaml"
        raise StoreError(f"there is no {rules}: rules come before any published record")
    return folder


def rules_beside(store: Path) -> list[Path]:
    """The files of rules that lie beside a published store, in the order of the editions."""
    files = [store.parent / "claims" / f"{edition}.yaml" for edition in EDITIONS]
    return [file for file in files if file.is_file()]


def _complete(
    specs: Iterable[RunSpec],
    *,
    workers: int | None = None,
    engine: str | None = None,
    progress: bool = True,
    publishing: bool = False,
) -> tuple[list[Record], set[str]]:
    """Trains what has no record.

    Args:
        specs: what is wanted.
        workers: see `sweep`.
        engine: see `sweep`.
        progress: see `sweep`.
        publishing: copy each record to the published store, as soon as it is there.

    Returns:
        The records, each distinct one once, in the order asked for; the ids of those trained now.
    """
    if workers is not None and workers < 1:
        raise SpecError(f"workers must be at least 1, not {workers}")
    engine = engine or os.environ.get("W2S_ENGINE") or "local"
    if engine not in ENGINES:
        raise SpecError(f"unknown engine {engine!r}: {nearest(engine, ENGINES)}")
    wanted = {spec.run_id: spec for spec in map(pin, specs)}
    records, missing = find_missing(wanted.values())
    for run_id in records.keys() - missing.keys() if publishing else ():
        publish(records[run_id])
    if missing:
        n_runs = len({step.run_id for spec in wanted.values() for step in spec.lineage()})
        _train(missing, records, n_runs, engine, workers, progress, publishing)
    stores.remove_left()
    return [records[run_id] for run_id in wanted], set(missing)


def _train(
    missing: dict[str, RunSpec],
    records: dict[str, Record],
    n_runs: int,
    engine: str,
    workers: int | None,
    progress: bool,
    publishing: bool,
) -> None:
    """Trains runs, after saying what it will cost.

    Args:
        missing: id -> what to train, teachers first.
        records: what is known of the time that runs take; each new one is added as soon as it is
            there.
        n_runs: of how many these are the missing ones.
        engine: "local" or "ray".
        workers: see `sweep`.
        progress: see `sweep`.
        publishing: see `_complete`.
    """
    from w2s_lib.experiments.local import gpu_share
    from w2s_lib.training.execute import cost  # loads torch: only where needed

    module = import_module(f"w2s_lib.experiments.{engine}")
    started_from = {spec.continued.run_id for spec in missing.values() if spec.continued}
    jobs = {run_id: (spec, run_id in started_from) for run_id, spec in missing.items()}
    slots = min(module.prepare(missing, workers), len(jobs))
    units = {run_id: cost(spec) for run_id, spec in missing.items()}
    seconds = sum(units[name] * _rate(missing[name], records) for name in jobs)
    time = f": about {seconds / slots / 60:.0f} min" if math.isfinite(seconds) else ""
    what = f"{len(missing)} of {n_runs} distinct runs to train{time}"
    how = f"with {slots} worker{'s' if slots > 1 else ''}, shared trunks extra"
    print(f"w2s: {what} {how}", file=sys.stderr, flush=True)
    share = partial(gpu_share, records=records.values())  # a view: what was just measured counts
    size = {name: 1 + round(work / 1000) for name, work in units.items()}
    form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
    failed: dict[str, RunError] = {}
    with (
        tqdm(total=sum(size.values()), desc="sweep", disable=not progress, bar_format=form) as bar,
        contextlib.closing(module.train_jobs(jobs, slots, share)) as ended,
    ):
        for run_id, error in ended:
            bar.update(size[run_id])
            if error:
                failed[run_id] = error
                continue
            record = stores.patiently(partial(stores.find, missing[run_id]))
            assert record, f"no record of {run_id}"
            records[run_id] = record
            if publishing:
                publish(record)
    if failed:
        raise _failure(failed, missing)


def find_missing(specs: Iterable[RunSpec]) -> tuple[dict[str, Record], dict[str, RunSpec]]:
    """The records that are there, and what has to be trained, teachers first; both by their ids.

    A recorded run needs no teacher any more. A run that another one starts from is trained again
    where its record is there and its adapters are not.
    """
    records: dict[str, Record] = {}
    missing: dict[str, RunSpec] = {}

    def need(spec: RunSpec, *, adapters: bool = False) -> None:
        run_id = spec.run_id
        if run_id in missing:
            return
        if run_id not in records and (record := stores.find(spec)):
            records[run_id] = record
        if run_id not in records or (adapters and stores.weights(spec) is None):
            for parent in spec.parents():
                need(parent, adapters=parent == spec.continued)
            missing[run_id] = spec

    for spec in specs:
        need(spec)
    return records, missing


def _rate(spec: RunSpec, records: dict[str, Record]) -> float:
    """Seconds that a unit of work has cost in runs of this model and device; NaN if unknown."""
    from w2s_lib.training.execute import cost

    rates = []
    for record in records.values():
        made, own = record.provenance, record.spec
        if (own.device, own.name) == (spec.device, spec.name):
            with contextlib.suppress(SpecError, AssetError):  # its task's file is gone
                if units := cost(own):
                    rates.append((made["seconds"] - made["trunk_seconds"]) / units)
    if rates:
        return float(median(rates))
    known = spec.device == "cpu" and spec.name in EMBEDDED_DEPTH
    return SECONDS_A_UNIT if known or not cost(spec) else math.nan


def _failure(failed: dict[str, RunError], missing: dict[str, RunSpec]) -> Exception:
    """One error for all runs that failed, of the first one's type, with the runs that need them."""
    teachers = {
        run_id: {step.run_id for step in list(spec.lineage())[:-1]} & failed.keys()
        for run_id, spec in missing.items()
    }
    errors = {str(error): error for run_id, error in failed.items() if not teachers[run_id]}
    said = list(errors)
    if untrained := [run_id for run_id, lost in teachers.items() if lost]:
        said.append(f"Not trained, since they need a run that failed: {', '.join(untrained)}.")
    first = next(iter(errors.values()))
    return first if len(said) == 1 else type(first)("\n".join(said))
