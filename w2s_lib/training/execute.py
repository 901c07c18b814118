"""One run from spec to record: labels, fit, predictions on every split, metrics, provenance."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from w2s_lib.models.backbone import check
from w2s_lib.models.classifier import FloatArray
from w2s_lib.models.machine import hardware, one_thread
from w2s_lib.runs.errors import SpecError, StoreError, TrainingError, nearest
from w2s_lib.runs.folders import repository_root
from w2s_lib.runs.labels import predicted_label
from w2s_lib.runs.record import SPLITS, Record, accuracies, snapshot_column
from w2s_lib.runs.spec import Continue, Flip, FromRun, NextToken, RunSpec
from w2s_lib.runs.store import find, require_writable, weights, write
from w2s_lib.tasks.embedded import EMBEDDED
from w2s_lib.tasks.splits import Splits, splits
from w2s_lib.tasks.table import (
    TaskTable,
    default_task,
    has_fixed_content,
    load_table,
    resolve_task,
    texts_a_row,
    warn_of_shared_texts,
)
from w2s_lib.training import baselines, finetune, next_token
from w2s_lib.training.fitting import Data, Fitted

Training = tuple[RunSpec, ...]
"""Runs that are trained once, together: see `trainings`."""
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "numpy", "scikit-learn")
"""Whose versions a record keeps."""


def refuse_early(specs: Collection[RunSpec]) -> None:
    """Raises, before the first of several runs is trained, what would stop a later one.

    Args:
        specs: all that will be trained.

    Raises:
        SpecError: a task that cannot be read or has too few rows, a depth that a model lacks.
        DeviceError: a device that is not here.
        StoreError: the store cannot be written.
    """
    for spec in specs:
        check(spec)
    tasks = {spec.task: None for spec in specs}
    for task, seed in {(spec.task, spec.seed): None for spec in specs}:
        splits(load_table(task), seed)
    corpora = {spec.labels.corpus for spec in specs if isinstance(spec.labels, NextToken)}
    for corpus in corpora - {""}:
        if not has_fixed_content(corpus):
            raise SpecError(
                f"NextToken.corpus is {corpus!r}: {nearest(corpus, EMBEDDED)} A file can change "
                "under its name."
            )
        tasks[resolve_task(default_task(corpus))] = None
    warn_of_shared_texts(tasks)
    require_writable()


def trainings(specs: Iterable[RunSpec]) -> dict[str, Training]:
    """One training for runs that learn the same, and only predict other rows or at other moments.

    Args:
        specs: distinct runs.

    Returns:
        The first one's id -> all of them; both in the order given.
    """
    same: dict[RunSpec, list[RunSpec]] = {}
    for spec in specs:
        same.setdefault(spec.training_key, []).append(spec)
    return {runs[0].run_id: tuple(runs) for runs in same.values()}


def fit_of(spec: RunSpec) -> Callable[[RunSpec, Data], Fitted]:
    """The function that fits a run: finetuning, reading, TF-IDF, a probe, or zero-shot."""
    if spec.role == "generative":
        return next_token.fit_next_token
    if spec.name == "tfidf":
        return baselines.fit_tfidf
    methods: dict[str, Callable[[RunSpec, Data], Fitted]] = {
        "finetune": finetune.fit,
        "probe": baselines.fit_probe,
        "zero_shot": baselines.fit_zero_shot,
    }
    return methods[spec.method]


def execute(*runs: RunSpec) -> None:
    """Trains once, and writes a record of each of these runs, to the bit as if trained alone.

    Args:
        *runs: one of `trainings`, whose teacher is recorded.
    """
    started = time.monotonic()
    shares = {share for run in runs for share in run.snapshots}
    spec = replace(runs[0], snapshots=tuple(sorted(shares)))
    check(spec)
    table = load_table(spec.task)
    parts = splits(table, spec.seed)
    rows = getattr(parts, spec.half)
    data = Data(
        table,
        rows,
        training_labels(spec, table, rows),
        validation=parts.validation,
        validation_labels=training_labels(spec, table, parts.validation),
        test=parts.test,
        asked=np.concatenate(list(_recorded_rows(spec, parts).values())),
        adapters=_adapters(spec),
    )
    if spec.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with one_thread(spec.device), finetune.explained_out_of_memory(spec):
        fitted = fit_of(spec)(spec, data)
        trained = time.monotonic() - started
        for run in runs:
            others = [other.run_id for other in runs if other != run]
            _record(run, table, _recorded_rows(run, parts), fitted, trained, others=others)


def _recorded_rows(spec: RunSpec, parts: Splits) -> dict[str, Any]:
    """The splits that a run's record holds: name -> rows."""
    names: tuple[str, ...] = SPLITS if spec.predict_halves else SPLITS[:2]
    if spec.role == "generative":
        names = ("validation",)
    return {name: getattr(parts, name) for name in names}


def _record(
    spec: RunSpec,
    table: TaskTable,
    held: dict[str, Any],
    fitted: Fitted,
    trained: float,
    *,
    others: list[str],
) -> None:
    """Predicts what the record of a trained run holds, and writes it.

    Args:
        spec: the run.
        table: its task.
        held: see `_recorded_rows`.
        fitted: what was trained.
        trained: seconds that this took.
        others: ids of the runs that share the training.
    """
    started, every = time.monotonic(), np.concatenate(list(held.values()))
    p = fitted.predict(every)
    if not np.isfinite(p).all():  # the last step's loss was still a number
        raise TrainingError(
            f"the predictions of {spec.model} are not numbers: try a lower recipe.learning_rate "
            f"than {spec.recipe.learning_rate}. No record was written."
        )
    predictions = pd.DataFrame(
        {
            "split": np.repeat(list(held), [len(rows) for rows in held.values()]).astype(object),
            "label": table.frame["label"].to_numpy(np.int8)[every],
            "p": p,
            "group": pd.factorize(table.frame["group"])[0][every].astype(np.int32),
        },
        index=pd.Index(every, name="row"),
    )
    for share, (rows, values) in sorted(fitted.snapshots.items()):
        if share == 0 or share in spec.snapshots:
            then = pd.Series(values, index=rows).reindex(every)
            predictions[snapshot_column(share)] = then.to_numpy(np.float32)
    seconds = trained + time.monotonic() - started
    provenance = fitted.notes | _provenance(spec, table, seconds, fitted.trunk_seconds)
    if others:
        provenance["trained_with"] = others
    metrics = fitted.metrics or accuracies(predictions)
    write(Record(spec, predictions, metrics, provenance), artefacts=fitted.save)


def training_labels(spec: RunSpec, table: TaskTable, rows: Any) -> FloatArray:
    """P(y = 1) for the rows that a run trains on.

    It is ground truth, its teacher's labels, or these dealt out at random within a true class.

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
        labels = predicted_label(labels).astype(np.float32)
    return labels


def _provenance(
    spec: RunSpec, table: TaskTable, seconds: float, trunk_seconds: float
) -> dict[str, Any]:
    return {
        "task_digest": table.digest,
        "device": spec.device,
        "hardware": hardware(spec.device),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in PACKAGES},
        "seconds": round(seconds, 2),
        "trunk_seconds": round(trunk_seconds, 2),
        "peak_memory_bytes": _peak_memory(spec.device),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
    }


def _peak_memory(device: str) -> int:
    """The most that was in use: of the GPU by this run, or of the CPU by this process so far."""
    import resource

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _commit() -> str:
    """The commit of the checkout that the library is in; "" where it is in none."""
    root, command = repository_root(), ["git", "rev-parse", "HEAD"]
    if root is None:
        return ""
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _adapters(spec: RunSpec) -> Path | None:
    """The folder of the adapters that a run starts from; None where it starts from fresh ones."""
    if not isinstance(spec.start, Continue):
        return None
    folder = weights(spec.start.run)
    if folder is None:
        raise StoreError(
            f"run {spec.run_id} starts from {spec.start.run.run_id}, whose adapters are not in the "
            "user's store"
        )
    return folder


def cost(*runs: RunSpec, depth: int | None = None) -> float:
    """Work of a training in text-blocks: one text through one block, forward.

    A training pass counts as three, a probe as none.

    Args:
        *runs: one run, or those that share the training.
        depth: blocks of their model, where its name does not say.
    """
    spec = runs[0]
    if not spec.trains:
        return 0.0
    task, blocks = spec.task, spec.lora.n_adapted(spec.depth or depth or 30)
    if spec.role == "generative":
        blocks += 8  # the vocabulary is as wide as some eight blocks of a small model
        predicted = 2 * task.n_validation
    else:
        looks = len(runs) + len({share for run in runs for share in run.snapshots})
        predicted = looks * (task.n_test + task.n_validation)
        predicted += sum(2 * task.n_train for run in runs if run.predict_halves)
    trained = 3 * task.n_train * spec.recipe.epochs
    return float(blocks * texts_a_row(task) * (trained + predicted))
