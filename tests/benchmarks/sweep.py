"""A sweep of twelve related runs: against the plain way, against the sum of its parts, and with one worker and two.

The parts are what each student's PGR takes by itself: the student, its teacher and its ceiling, in an empty store and an empty
cache, so that nothing is shared. The sweep shares supervisors, ceilings and trunks, and what each of them saves is read from
the records' own seconds. The plain way trains each run once with both cores, its
labels read from a file: all runs of one model have the same sizes, so one of each model is measured and counted as often
as there are runs of it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .common import MODEL, UNPUBLISHED, cold, measured
from .student import plain

SIZES = {"n_train": 200, "n_validation": 100, "n_test": 400}
WORKERS = 2
KINDS = ("supervisors", "ceilings", "students", "trunks")


def specs() -> list[Any]:
    """Two supervisors, two ceilings, and of each pair a naive student and one with the confidence loss."""
    import w2s_lib as w2s

    task = w2s.default_task("amazon", **SIZES)
    weak = [w2s.supervisor(f"{MODEL}@{depth}", task) for depth in (2, 4)]
    strong = [f"{MODEL}@13", MODEL]
    found = [*weak, *(w2s.ceiling(model, task) for model in strong)]
    for loss in (w2s.XentLoss(), w2s.ConfidenceLoss()):
        found += [w2s.student(model, teacher, loss=loss) for model in strong for teacher in weak]
    return [spec.with_seed(UNPUBLISHED) for spec in found]


def trained(runs: list[Any], workers: int) -> dict[str, Any]:
    """Trains runs and their teachers; how many that were, the wall seconds, and the records' seconds by kind of run."""
    from w2s_lib.experiments.sweep import train_missing
    from w2s_lib.runs.store import find

    started = time.monotonic()
    done = train_missing(runs, workers=workers, progress=False)
    seconds, of = time.monotonic() - started, dict.fromkeys(KINDS, 0.0)
    for spec in {step.run_id: step for run in runs for step in run.lineage()}.values():
        record = find(spec)
        assert record is not None
        trunk = record.provenance["trunk_seconds"]
        of["trunks"] += trunk
        of[f"{spec.role}s"] += record.provenance["seconds"] - trunk
    return {"runs": len(done), "seconds": seconds, "of": of}


def together(workers: int) -> dict[str, Any]:
    """All of `specs` in one sweep."""
    return trained(specs(), workers)


def alone(numbers: list[int]) -> dict[str, Any]:
    """What the PGR of some of the students needs, each from nothing."""
    every = specs()
    ceiling = {spec.model: spec for spec in every if spec.role == "ceiling"}
    students, found = [spec for spec in every if spec.role == "student"], []
    for number in numbers:
        with cold():
            found.append(trained([students[number], ceiling[students[number].model]], 1))
    return {"parts": found}


def measure() -> dict[str, Any]:
    """Wall seconds of each way; the parts are trained side by side, one a core, and their seconds added up and shared out."""
    import w2s_lib as w2s

    runs, threads = specs(), os.cpu_count() or 1
    n_students = sum(spec.role == "student" for spec in runs)
    models = Counter(spec.model for spec in runs)
    each = {
        model: measured(plain, model, runs[0].task, "cpu", UNPUBLISHED, threads, threads=threads)[
            "seconds"
        ]
        for model in models
    }
    with ThreadPoolExecutor(WORKERS) as pool:  # the long and the short ones dealt out in turn
        found = list(
            pool.map(
                lambda first: measured(alone, list(range(first, n_students, WORKERS))),
                range(WORKERS),
            )
        )
    parts = [part for half in found for part in half["parts"]]
    whole = sum(part["seconds"] for part in parts)
    ways = [
        {
            "way": "plain Trainer",
            "runs trained": len(runs),
            "seconds": sum(each[m] * n for m, n in models.items()),
        },
        {
            "way": f"each by itself, workers = {WORKERS}",
            "runs trained": sum(part["runs"] for part in parts),
            "seconds": whole / WORKERS,
        },
    ]
    shared: dict[str, float] = {}
    for workers in (1, WORKERS):
        with cold():
            result = measured(together, workers)
        shared = shared or result["of"]
        ways.append(
            {
                "way": f"one sweep, workers = {workers}",
                "runs trained": result["runs"],
                "seconds": result["seconds"],
            }
        )
    for row in ways:
        row["times faster"] = ways[0]["seconds"] / row["seconds"]
    kinds = [
        {"what": kind, "apart": sum(part["of"][kind] for part in parts), "together": shared[kind]}
        for kind in KINDS
    ]
    return {
        "rows": ways,
        "kinds": kinds,
        "n_runs": len(runs),
        "plain": each,
        "task": w2s.default_task("amazon").name,
        **SIZES,
    }
