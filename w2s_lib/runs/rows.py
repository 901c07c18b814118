"""A run as a row of a table: the frame of a sweep, and the files of all published runs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from w2s_lib.runs.description import Description
from w2s_lib.runs.record import Record
from w2s_lib.runs.spec import Continue

TEXT = (
    "run_id role model supervisor supervisor_run labels loss method start lora_blocks quantization "
    "half task device hardware date commit spec"
).split()
NUMBERS = "accuracy validation_accuracy next_token_loss_before next_token_loss seconds".split()
COLUMNS = (
    dict.fromkeys(TEXT, "str")
    | {"depth": "Int64", "seed": "int64", "n_train": "int64"}
    | dict.fromkeys(NUMBERS, "float64")
)
"""Column -> type of a table with a row a run."""


def row_of(record: Record) -> dict[str, Any]:
    """A run's row: its spec, metrics (accuracies at 1/2) and provenance, as in `COLUMNS`."""
    spec, metrics, made = record.spec, record.metrics, record.provenance
    teacher = spec.teacher
    start = spec.start.run.run_id if isinstance(spec.start, Continue) else ""
    same = ("run_id", "role", "model", "depth", "method", "quantization", "half", "seed", "device")
    return {
        **{name: getattr(spec, name) for name in same},
        "labels": _words(spec.labels),
        "supervisor": teacher.model if teacher else "",
        "supervisor_run": teacher.run_id if teacher else "",
        "loss": _words(spec.loss),
        "start": f"Continue({start})" if start else type(spec.start).__name__,
        "lora_blocks": str(spec.lora.blocks),
        "n_train": spec.task.n_train,
        "task": spec.task.name,
        "accuracy": metrics.get("accuracy"),
        "validation_accuracy": metrics.get("validation_accuracy"),
        "next_token_loss_before": metrics.get("loss_before"),
        "next_token_loss": metrics.get("loss"),
        **{name: made.get(name) for name in ("seconds", "hardware", "date", "commit")},
        "spec": spec.to_json(),
    }


def _words(part: Description) -> str:
    """A part of a spec as Python would write it, without its run and what is as by default."""
    given = {
        f.name: getattr(part, f.name)
        for f in fields(part)
        if f.name != "run" and getattr(part, f.name) != f.default
    }
    inside = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return type(part).__name__ + (f"({inside})" if inside else "")
