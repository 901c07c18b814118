"""What every way of fitting a run is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from w2s_lib.models.classifier import FloatArray
from w2s_lib.tasks.table import TaskTable


def no_rows() -> Any:
    """No rows, or labels of none."""
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Data:
    """What a run is fitted on, and what it will be asked.

    Attributes:
        table: the task's texts.
        rows: (n,) rows of the half that it is fitted on.
        labels: (n,) P(y = 1) for each of them; what reads or is asked for words does without.
        validation: rows that may choose a setting.
        validation_labels: P(y = 1) for each of them.
        asked: all rows that the run's records hold.
        adapters: the folder of the adapters of `spec.start`.
    """

    table: TaskTable
    rows: Any
    labels: Any
    validation: Any = field(default_factory=no_rows)
    validation_labels: Any = field(default_factory=no_rows)
    asked: Any = field(default_factory=no_rows)
    adapters: Path | None = None


class Fitted(Protocol):
    """A fitted run. Finetuning, next-token reading, TF-IDF, a probe and zero-shot each give one.

    Attributes:
        trunk_seconds: what the shared states took that were not in the cache.
        metrics: what it is worth, where that is not an accuracy; then nothing else is counted.
        notes: what provenance says of how it was trained.
    """

    trunk_seconds: float
    metrics: dict[str, float]
    notes: dict[str, Any]

    def predict(self, rows: Any) -> FloatArray:
        """P(y = 1) of rows, (n,) float32."""
        ...

    def save(self, folder: Path) -> None:
        """Writes what is kept beside the record, if anything is."""
        ...
