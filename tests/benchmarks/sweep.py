"""A sweep of twelve related runs: against the plain way, against the sum of its parts, and with one worker and two.

The parts are what each run takes by itself, with the teacher that it needs, in an empty store and an empty cache: nothing
is shared. The sweep shares trunks, supervisors and tokenized texts. The plain way trains each run once with both cores, its
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


def together(workers: int) -> dict[str, Any]:
    """Trains all of `specs`, and says how many runs that took."""
    from w2s_lib.sweep import train_missing

    return {"runs": len(train_missing(specs(), workers=workers, progress=False))}


def alone(numbers: list[int]) -> dict[str, Any]:
    """Trains some of `specs` one by one, each from nothing."""
    import w2s_lib as w2s
    from w2s_lib.sweep import train_missing

    every, found = specs(), []
    for number in numbers:
        with cold():
            started = time.monotonic()
            trained = train_missing([every[number]], workers=1, progress=False)
        spec = every[number]
        found.append({"run": f"{spec.role}, {w2s.short_name(spec.model)}", "runs": len(trained),
                      "seconds": time.monotonic() - started})
    return {"parts": found}


def measure() -> dict[str, Any]:
    """Wall seconds of each way; the parts are trained side by side, one a core, and their seconds added up and shared out."""
    import w2s_lib as w2s

    runs, threads = specs(), os.cpu_count() or 1
    models = Counter(spec.model for spec in runs)
    each = {model: measured(plain, model, runs[0].task, "cpu", UNPUBLISHED, threads, threads=threads)["seconds"]
            for model in models}
    with ThreadPoolExecutor(WORKERS) as pool:  # the long and the short ones dealt out in turn
        found = list(pool.map(lambda first: measured(alone, list(range(first, len(runs), WORKERS))), range(WORKERS)))
    parts = [part for half in found for part in half["parts"]]
    whole = sum(part["seconds"] for part in parts)
    ways = [{"way": "plain Trainer", "runs trained": len(runs), "seconds": sum(each[m] * n for m, n in models.items())},
            {"way": f"each by itself, workers = {WORKERS}", "runs trained": sum(part["runs"] for part in parts),
             "seconds": whole / WORKERS}]
    for workers in (1, WORKERS):
        with cold():
            result = measured(together, workers)
        ways.append({"way": f"one sweep, workers = {workers}", "runs trained": result["runs"], "seconds": result["seconds"]})
    for row in ways:
        row["times faster"] = ways[0]["seconds"] / row["seconds"]
    return {"rows": ways, "alone": parts, "plain": each, "task": w2s.default_task("amazon").name, **SIZES}
