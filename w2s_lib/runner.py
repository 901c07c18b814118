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

from . import next_token, probing, train, trunk
from .classifier import FloatArray
from .halves import splits
from .models import check
from .record import SPLITS, Record, StoreError, accuracies, snapshot_column
from .spec import Continue, Flip, FromRun, NextToken, RunSpec, SpecError, nearest
from .store import find, repository_root, require_writable, weights, write
from .tasks import EMBEDDED, TaskTable, default_task, load_table, texts_a_row

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "numpy", "scikit-learn")


def refuse_early(specs: Collection[RunSpec]) -> None:
    """Raises, before the first of several runs is trained, what would stop a later one.

    Args:
        specs: all that will be trained.

    Raises:
        SpecError: a task that cannot be read or has too few rows, a depth that a model does not have.
        DeviceError: a device that is not here.
        StoreError: the store cannot be written.
    """
    for spec in specs:
        check(spec)
    for task, seed in {(spec.task, spec.seed): None for spec in specs}:
        splits(load_table(task), seed)
    for corpus in {spec.labels.corpus for spec in specs if isinstance(spec.labels, NextToken)} - {""}:
        if load_table(default_task(corpus)).task.sha256:
            raise SpecError(f"NextToken.corpus is {corpus!r}: {nearest(corpus, EMBEDDED)} A file can change under its name.")
    require_writable()


def execute(spec: RunSpec, *, progress: bool = True) -> Record:
    """Trains one run whose teacher is recorded, and writes its record to the user's store."""
    started = time.monotonic()
    check(spec)
    table = load_table(spec.task)
    parts = splits(table, spec.seed)
    rows, validation = getattr(parts, spec.half), parts.validation
    held = ("validation",) if isinstance(spec.labels, NextToken) else SPLITS if spec.predict_halves else SPLITS[:2]
    every = np.concatenate([getattr(parts, name) for name in held])
    start = _adapters(spec)
    with train.one_thread(spec.device), train.advice_on_memory(spec):
        fitted: Any
        if isinstance(spec.labels, NextToken):
            fitted = next_token.fit_next_token(spec, table, rows, validation, progress=progress)
        elif spec.name == "tfidf":
            fitted = probing.fit_tfidf(table, rows, training_labels(spec, table, rows))
        elif spec.method == "probe":
            chosen_by = validation, training_labels(spec, table, validation) > 0.5
            fitted = probing.fit_probe(spec, table, rows, training_labels(spec, table, rows), chosen_by, every=every,
                                       adapters=start, progress=progress)
        elif spec.method == "zero_shot":
            fitted = probing.fit_zero_shot(spec, table, np.union1d(every, rows), unlabelled=rows, progress=progress)
        else:
            fitted = train.fit(spec, table, rows, training_labels(spec, table, rows), start=start,
                               watch=every[:len(parts.test) + len(validation)], progress=progress)
        p = fitted.predict(every, progress=progress)
    if not np.isfinite(p).all():  # the last step's loss was still a number
        raise train.TrainingError(f"the predictions of {spec.model} are not numbers: try a lower recipe.learning_rate than "
                                  f"{spec.recipe.learning_rate}. No record was written.")
    frame = table.frame.loc[every]
    predictions = pd.DataFrame({
        "split": np.repeat(held, [len(getattr(parts, name)) for name in held]).astype(object),
        "label": frame["label"].to_numpy(np.int8), "p": p,
        "group": pd.factorize(table.frame["group"])[0][every].astype(np.int32)}, index=pd.Index(every, name="row"))
    for share, (watched, values) in fitted.snapshots.items():
        predictions[snapshot_column(share)] = pd.Series(values, index=watched).reindex(every).to_numpy(np.float32)
    metrics = fitted.metrics if isinstance(spec.labels, NextToken) else accuracies(predictions)
    record = Record(spec, predictions, metrics, _provenance(
        spec, table, seconds=time.monotonic() - started, trunk_seconds=fitted.trunk_seconds) | getattr(fitted, "notes", {}))
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
    if not isinstance(spec.labels, (FromRun, Flip)):
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


def _adapters(spec: RunSpec) -> Path | None:
    """The folder of the adapters that a run starts from; None where it starts from fresh ones."""
    if not isinstance(spec.start, Continue):
        return None
    folder = weights(spec.start.run)
    if folder is None:
        raise StoreError(f"run {spec.run_id} starts from {spec.start.run.run_id}, whose adapters are not in the user's store")
    return folder


def cost(spec: RunSpec, depth: int | None = None) -> float:
    """Work of a run in text-blocks: one text through one block, forward. A training pass counts as three, a probe as none.

    Args:
        spec: the run.
        depth: blocks of its model, where its name does not say.
    """
    if not spec.trains:
        return 0.0
    task, depth = spec.task, spec.depth or depth or 30
    blocks = depth if spec.lora.blocks == "all" else min(depth, int(spec.lora.blocks))
    predicted = task.n_test + task.n_validation + (2 * task.n_train if spec.predict_halves else 0)
    predicted += len(spec.snapshots) * (task.n_test + task.n_validation)
    if isinstance(spec.labels, NextToken):  # the vocabulary is as wide as some eight blocks of a small model
        blocks, predicted = blocks + 8, 2 * task.n_validation
    return float(blocks * texts_a_row(task) * (3 * task.n_train * spec.recipe.epochs + predicted))
