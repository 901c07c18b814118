"""One run from spec to record: labels, fit, predictions on every split, metrics, provenance."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from . import probing, train, trunk
from .classifier import FloatArray
from .models import check
from .spec import Flip, GroundTruth, RunSpec
from .store import SPLITS, Record, StoreError, find, repository_root, require_writable, write
from .tasks import TaskTable, load_table, splits

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "numpy", "scikit-learn")


def refuse_early(specs: Collection[RunSpec], store: Path) -> None:
    """Raises, before the first of several runs is trained, what would stop a later one.

    Args:
        specs: all that will be trained.
        store: where their records will go.

    Raises:
        SpecError: a task that cannot be read or has too few rows, a depth that a model does not have.
        DeviceError: a device that is not here.
        StoreError: the store cannot be written.
    """
    for spec in specs:
        check(spec)
    for task, seed in {(spec.task, spec.seed): None for spec in specs}:
        splits(load_table(task), seed)
    require_writable(store)


def execute(spec: RunSpec, *, progress: bool = True) -> Record:
    """Trains one run whose teacher is recorded, and writes its record to the user's store."""
    started = time.monotonic()
    check(spec)
    table = load_table(spec.task)
    parts = splits(table, spec.seed)
    rows = getattr(parts, spec.half)
    labels = training_labels(spec, table, rows)
    every = np.concatenate([getattr(parts, name) for name in SPLITS])
    with train.one_thread(spec.device):
        fitted: Any
        if spec.name == "tfidf":
            fitted = probing.fit_tfidf(table, rows, labels)
        elif spec.method == "probe":
            fitted = probing.fit_probe(spec, table, rows, labels, parts.validation, progress=progress)
        elif spec.method == "zero_shot":
            fitted = probing.fit_zero_shot(spec, table, every, unlabelled=rows, progress=progress)
        else:
            fitted = train.fit(spec, table, rows, labels, progress=progress)
        p = fitted.predict(every, progress=progress)
    if not np.isfinite(p).all():  # the last step's loss was still a number
        raise train.TrainingError(f"the predictions of {spec.model} are not numbers: try a lower recipe.learning_rate than "
                                  f"{spec.recipe.learning_rate}. No record was written.")
    frame = table.frame.loc[every]
    predictions = pd.DataFrame({
        "split": np.repeat(SPLITS, [len(getattr(parts, name)) for name in SPLITS]).astype(object),
        "label": frame["label"].to_numpy(np.int8), "p": p,
        "group": pd.factorize(table.frame["group"])[0][every].astype(np.int32)}, index=pd.Index(every, name="row"))
    right = (predictions["p"] > 0.5) == (predictions["label"] == 1)
    shares = right.groupby(predictions["split"]).mean()
    metrics = {("accuracy" if name == "test" else f"{name}_accuracy"): float(shares[name]) for name in SPLITS}
    record = Record(spec, predictions, metrics, _provenance(
        spec, table, seconds=time.monotonic() - started, trunk_seconds=fitted.trunk_seconds))
    return write(record, artefacts=fitted.save)


def training_labels(spec: RunSpec, table: TaskTable, rows: Any) -> FloatArray:
    """P(y = 1) for the rows that a run trains on: ground truth, its teacher's labels, or those dealt out at random.

    Args:
        spec: the run.
        table: its task.
        rows: (n,) rows of `spec.half`.

    Raises:
        StoreError: the teacher's record is of another task, or lacks a row.
    """
    truth: FloatArray = table.frame["label"].to_numpy(np.float32)[rows]
    if isinstance(spec.labels, GroundTruth):
        return truth
    teacher = find(spec.labels.run)
    if teacher is None:
        raise StoreError(f"run {spec.run_id} learns from {spec.labels.run.run_id}, which has no record")
    labels: FloatArray = np.array(teacher.labels(rows, task_digest=table.digest), dtype=np.float32)
    if isinstance(spec.labels, Flip):
        rng = np.random.default_rng([spec.seed, 2])
        for value in (0.0, 1.0):
            labels[truth == value] = rng.permutation(labels[truth == value])
    if spec.labels.hard:
        labels = (labels > 0.5).astype(np.float32)
    return labels


def _provenance(spec: RunSpec, table: TaskTable, *, seconds: float, trunk_seconds: float) -> dict[str, Any]:
    import resource

    root = repository_root()
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False) if root else None
    peak = torch.cuda.max_memory_allocated() if spec.device == "cuda" else \
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"task_digest": table.digest, "device": spec.device, "hardware": trunk.hardware(spec.device),
            "threads": 1 if spec.device == "cpu" else torch.get_num_threads(), "python": sys.version.split()[0],
            "versions": {name: version(name) for name in PACKAGES}, "seconds": round(seconds, 2),
            "trunk_seconds": round(trunk_seconds, 2), "peak_memory_bytes": int(peak),
            "date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": git.stdout.strip() if git else ""}
