"""A sweep of twelve related runs: against the sum of its parts, and with one worker and two.

The parts are what each run takes by itself, with the teacher that it needs, in an empty store and an empty cache: nothing
is shared. The sweep shares trunks, supervisors and tokenized texts.
"""

from __future__ import annotations

from typing import Any

from .common import MODEL, UNPUBLISHED, cold, measured

SIZES = {"n_train": 400, "n_validation": 200, "n_test": 800}


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


def train(numbers: list[int], workers: int) -> dict[str, Any]:
    """Trains some of `specs`, and says how many runs that took."""
    from w2s_lib.sweep import train_missing

    every = specs()
    return {"trained": len(train_missing([every[number] for number in numbers], workers=workers, progress=False))}


def measure() -> dict[str, Any]:
    """Wall seconds of each way."""
    import w2s_lib as w2s

    runs, alone = specs(), []
    for number, spec in enumerate(runs):
        with cold():
            found = measured(train, [number], 1)
        name = f"{spec.role}, {w2s.short_name(spec.model)}"
        alone.append({"run": name, "runs": found["trained"], "seconds": found["seconds"]})
    whole = sum(row["seconds"] for row in alone)
    ways = [{"way": "each by itself", "runs trained": sum(row["runs"] for row in alone), "seconds": whole}]
    for workers in (1, 2):
        with cold():
            found = measured(train, list(range(len(runs))), workers)
        ways.append({"way": f"one sweep, workers = {workers}", "runs trained": found["trained"], "seconds": found["seconds"]})
    for row in ways:
        row["times faster"] = ways[0]["seconds"] / row["seconds"]
    return {"rows": ways, "alone": alone, "task": w2s.default_task("amazon").name, **SIZES}
