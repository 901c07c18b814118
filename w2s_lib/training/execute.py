"""One run from spec to record: labels, fit, predictions on every split, metrics, provenance."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from w2s_lib.models.backbone import check
from w2s_lib.models.classifier import FloatArray
from w2s_lib.models.machine import hardware, threads
from w2s_lib.runs.errors import SpecError, StoreError, nearest
from w2s_lib.runs.folders import repository_root
from w2s_lib.runs.record import SPLITS, Record, accuracies, snapshot_column
from w2s_lib.runs.spec import Continue, Flip, FromRun, NextToken, RunSpec
from w2s_lib.runs.store import find, require_writable, weights, write
from w2s_lib.tasks.splits import Splits, splits
from w2s_lib.tasks.table import EMBEDDED, TaskTable, default_task, fixed, load_table, texts_a_row
from w2s_lib.training import baselines as probing
from w2s_lib.training import finetune as train
from w2s_lib.training import next_token

Training = tuple[RunSpec, ...]
"""Runs that are trained once, together: see `trainings`."""
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
    for corpus in {spec.labels.corpus for spec in specs if isinstance(spec.labels, NextToken)} - {
        ""
    }:
        if not fixed(corpus):
            raise SpecError(
                f"NextToken.corpus is {corpus!r}: {nearest(corpus, EMBEDDED)} A file can change under its name."
            )
        load_table(default_task(corpus))
    require_writable()


def trainings(specs: Iterable[RunSpec]) -> dict[str, Training]:
    """Runs that learn the same and only predict other rows, or at other moments, as what they are: one training.

    Args:
        specs: distinct runs.

    Returns:
        The first one's id -> all of them; both in the order given.
    """
    same: dict[RunSpec, list[RunSpec]] = {}
    for spec in specs:
        same.setdefault(spec.learned, []).append(spec)
    return {runs[0].run_id: tuple(runs) for runs in same.values()}


def execute(*runs: RunSpec, progress: bool = True) -> None:
    """Trains once, and writes a record to the user's store for each of these runs, to the bit as if trained alone.

    Args:
        *runs: one of `trainings`, whose teacher is recorded.
        progress: show bars.
    """
    started = time.monotonic()
    spec = replace(
        runs[0], snapshots=tuple(sorted({share for run in runs for share in run.snapshots}))
    )
    check(spec)
    table = load_table(spec.task)
    parts = splits(table, spec.seed)
    rows, validation = getattr(parts, spec.half), parts.validation
    every = np.concatenate(list(_held(spec, parts).values()))
    start = _adapters(spec)
    if spec.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with train.few_threads(spec.device), train.advice_on_memory(spec):
        fitted: Any
        if isinstance(spec.labels, NextToken):
            fitted = next_token.fit_next_token(spec, table, rows, validation, progress=progress)
        elif spec.name == "tfidf":
            fitted = probing.fit_tfidf(table, rows, training_labels(spec, table, rows))
        elif spec.method == "probe":
            chosen_by = validation, training_labels(spec, table, validation) > 0.5
            fitted = probing.fit_probe(
                spec,
                table,
                rows,
                training_labels(spec, table, rows),
                chosen_by,
                every=every,
                adapters=start,
                progress=progress,
            )
        elif spec.method == "zero_shot":
            fitted = probing.fit_zero_shot(
                spec, table, np.union1d(every, rows), unlabelled=rows, progress=progress
            )
        else:
            fitted = train.fit(
                spec,
                table,
                rows,
                training_labels(spec, table, rows),
                start=start,
                watch=np.concatenate([parts.test, validation]),
                progress=progress,
            )
        trained = time.monotonic() - started
        for run in runs:
            others = [other.run_id for other in runs if other != run]
            _record(
                run, table, _held(run, parts), fitted, trained, others=others, progress=progress
            )


def _held(spec: RunSpec, parts: Splits) -> dict[str, Any]:
    """The splits that a run's record holds: name -> rows."""
    names = (
        ("validation",)
        if isinstance(spec.labels, NextToken)
        else SPLITS
        if spec.predict_halves
        else SPLITS[:2]
    )
    return {name: getattr(parts, name) for name in names}


def _record(
    spec: RunSpec,
    table: TaskTable,
    held: dict[str, Any],
    fitted: Any,
    trained: float,
    *,
    others: list[str],
    progress: bool,
) -> None:
    """Predicts what the record of a trained run holds, and writes it.

    Args:
        spec: the run.
        table: its task.
        held: see `_held`.
        fitted: what was trained.
        trained: seconds that this took.
        others: ids of the runs that share the training.
        progress: show bars.
    """
    started, every = time.monotonic(), np.concatenate(list(held.values()))
    p = fitted.predict(every, progress=progress)
    if not np.isfinite(p).all():  # the last step's loss was still a number
        raise train.TrainingError(
            f"the predictions of {spec.model} are not numbers: try a lower recipe.learning_rate than "
            f"{spec.recipe.learning_rate}. No record was written."
        )
    frame = table.frame.loc[every]
    predictions = pd.DataFrame(
        {
            "split": np.repeat(list(held), [len(rows) for rows in held.values()]).astype(object),
            "label": frame["label"].to_numpy(np.int8),
            "p": p,
            "group": pd.factorize(table.frame["group"])[0][every].astype(np.int32),
        },
        index=pd.Index(every, name="row"),
    )
    shares = fitted.snapshots if isinstance(spec.labels, NextToken) else spec.snapshots
    for share in shares:
        watched, values = fitted.snapshots[share]
        predictions[snapshot_column(share)] = (
            pd.Series(values, index=watched).reindex(every).to_numpy(np.float32)
        )
    metrics = fitted.metrics if isinstance(spec.labels, NextToken) else accuracies(predictions)
    notes = getattr(fitted, "notes", {}) | ({"trained_with": others} if others else {})
    write(
        Record(
            spec,
            predictions,
            metrics,
            notes
            | _provenance(
                spec,
                table,
                seconds=trained + time.monotonic() - started,
                trunk_seconds=fitted.trunk_seconds,
            ),
        ),
        artefacts=fitted.save,
    )


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
        raise StoreError(
            f"run {spec.run_id} learns from {spec.labels.run.run_id}, which has no record"
        )
    labels: FloatArray = np.array(teacher.labels(rows, task_digest=table.digest), dtype=np.float32)
    if isinstance(spec.labels, Flip):
        rng = np.random.default_rng([spec.seed, 2])
        for value in (0.0, 1.0):
            labels[truth == value] = rng.permutation(labels[truth == value])
    if spec.labels.hard:
        labels = (labels > 0.5).astype(np.float32)
    return labels


def _provenance(
    spec: RunSpec, table: TaskTable, *, seconds: float, trunk_seconds: float
) -> dict[str, Any]:
    import resource

    root = repository_root()
    git = (
        subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False
        )
        if root
        else None
    )
    peak = (
        torch.cuda.max_memory_allocated()
        if spec.device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
    )
    return {
        "task_digest": table.digest,
        "device": spec.device,
        "hardware": hardware(spec.device),
        "threads": threads() if spec.device == "cpu" else torch.get_num_threads(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in PACKAGES},
        "seconds": round(seconds, 2),
        "trunk_seconds": round(trunk_seconds, 2),
        "peak_memory_bytes": int(peak),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": git.stdout.strip() if git else "",
    }


def _adapters(spec: RunSpec) -> Path | None:
    """The folder of the adapters that a run starts from; None where it starts from fresh ones."""
    if not isinstance(spec.start, Continue):
        return None
    folder = weights(spec.start.run)
    if folder is None:
        raise StoreError(
            f"run {spec.run_id} starts from {spec.start.run.run_id}, whose adapters are not in the user's store"
        )
    return folder


def cost(*runs: RunSpec, depth: int | None = None) -> float:
    """Work of a training in text-blocks: one text through one block, forward. A training pass counts as three, a probe as none.

    Args:
        *runs: one run, or those that share the training.
        depth: blocks of their model, where its name does not say.
    """
    spec = runs[0]
    if not spec.trains:
        return 0.0
    task, depth = spec.task, spec.depth or depth or 30
    blocks = depth if spec.lora.blocks == "all" else min(depth, int(spec.lora.blocks))
    moments = len(runs) + len({share for run in runs for share in run.snapshots})
    predicted = moments * (task.n_test + task.n_validation) + sum(
        2 * task.n_train for run in runs if run.predict_halves
    )
    if isinstance(
        spec.labels, NextToken
    ):  # the vocabulary is as wide as some eight blocks of a small model
        blocks, predicted = blocks + 8, 2 * task.n_validation
    return float(blocks * texts_a_row(task) * (3 * task.n_train * spec.recipe.epochs + predicted))
