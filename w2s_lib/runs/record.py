"""A finished run: its spec, its predictions, what they are worth, where they come from, and a digest of all of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from w2s_lib.runs.errors import StoreError
from w2s_lib.runs.labels import predicted_label
from w2s_lib.runs.spec import RunSpec

SPLITS = ("test", "validation", "supervisor", "student")


@dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        spec: what was run.
        predictions: index `row`; columns `split` (one of "test", "validation", "supervisor", "student"), `label` (ground
            truth, 0/1), `p` (float32, P(y = 1)) and `group` (rows of one group share a number); then `p@0.5` and the like
            where the spec asks for snapshots, NaN in the halves. For `NextToken`, `p` is the geometric mean of the
            probabilities of a row's tokens, and `p@0` that before training.
        metrics: "accuracy" (test), "validation_accuracy", "supervisor_accuracy", "student_accuracy", as far as predicted;
            for `NextToken`, "loss_before" and "loss".
        provenance: versions, device, hardware, threads, seconds, date, git commit, peak memory, the task's digest.
        path: the file; "" for one that was never written.
    """

    spec: RunSpec
    predictions: pd.DataFrame
    metrics: dict[str, float]
    provenance: dict[str, Any]
    path: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of spec, metrics, provenance and every column: what the file's metadata must say."""
        h = hashlib.sha256()
        for part in (
            self.spec.to_json(),
            json.dumps([self.metrics, self.provenance], sort_keys=True),
        ):
            h.update(part.encode() + b"\0")
        frame = self.predictions
        h.update(",".join(frame["split"].tolist()).encode())
        for column in (
            frame.index.to_numpy(np.int32),
            frame["label"].to_numpy(np.int8),
            frame["p"].to_numpy(np.float32),
            frame["group"].to_numpy(np.int32),
        ):
            h.update(np.ascontiguousarray(column).tobytes())
        for name in snapshots_of(frame):
            h.update(
                name.encode() + np.ascontiguousarray(frame[name].to_numpy(np.float32)).tobytes()
            )
        return h.hexdigest()

    def at(self, share: float) -> Record:
        """The run as it was after a share of its training: only the rows that were predicted then.

        Raises:
            StoreError: the run has no such snapshot.
        """
        name, frame = snapshot_column(share), self.predictions
        if name not in frame:
            raise StoreError(
                f"record {self.spec.run_id} has no snapshot at {share}: it has {snapshots_of(frame)}"
            )
        frame = frame[frame[name].notna()].assign(p=lambda rows: rows[name])[
            ["split", "label", "p", "group"]
        ]
        return Record(self.spec, frame, accuracies(frame), self.provenance)

    def at_median(self) -> Record:
        """The run's answers with the threshold that calls half of each split 1: `p` becomes its rank there, in (0, 1).

        No label is used for it. Where classes are balanced it takes out that a run may prefer one of them, and leaves how well
        it ranks. Equal `p` share a rank.
        """
        of_split = self.predictions.groupby("split", sort=False)["p"]
        p = ((of_split.rank() - 0.5) / of_split.transform("size")).astype(np.float32)
        frame = self.predictions.assign(p=p)[["split", "label", "p", "group"]]
        return Record(self.spec, frame, accuracies(frame), self.provenance)

    def labels(self, rows: Any, *, task_digest: str) -> Any:
        """P(y = 1) that this run gives to `rows`, joined by task digest and row.

        Raises:
            StoreError: the record is of another task, or lacks a row.
        """
        if self.provenance["task_digest"] != task_digest:
            raise StoreError(
                f"record {self.spec.run_id} was made on task {self.provenance['task_digest'][:12]}, not on "
                f"{task_digest[:12]}: predictions of different tasks are not joined"
            )
        missing = np.setdiff1d(rows, self.predictions.index.to_numpy())
        if len(missing):
            raise StoreError(
                f"record {self.spec.run_id} has no prediction for {len(missing)} rows, the first is {missing[0]}"
            )
        return self.predictions["p"].loc[np.asarray(rows)].to_numpy()


def accuracies(predictions: pd.DataFrame) -> dict[str, float]:
    """A record's metrics: accuracy by split, that of test being "accuracy"."""
    right = predicted_label(predictions["p"]) == predictions["label"]
    shares = right.groupby(predictions["split"], sort=False).mean()
    return {
        ("accuracy" if name == "test" else f"{name}_accuracy"): float(share)
        for name, share in shares.items()
    }


def snapshot_column(share: float) -> str:
    """The column of the predictions after a share of training."""
    return "p@" + repr(float(share)).removesuffix(".0")


def snapshots_of(frame: pd.DataFrame) -> list[str]:
    """The columns of a record's snapshots."""
    return [str(name) for name in frame.columns if str(name).startswith("p@")]
