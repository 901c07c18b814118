"""One run from spec to record: labels, fit, predictions on every split, metrics, provenance."""

import contextlib
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from w2s_lib.models.backbone import check
from w2s_lib.models.classifier import Fitted
from w2s_lib.models.machine import hardware, one_thread
from w2s_lib.runs.errors import SpecError, StoreError, StoreUnavailable, TrainingError, nearest
from w2s_lib.runs.folders import cache_dir, repository_root
from w2s_lib.runs.record import FloatArray, Record, accuracies
from w2s_lib.runs.settings import Kind, NextToken
from w2s_lib.runs.spec import Relabelled, RunSpec
from w2s_lib.runs.store import FolderStore, patiently, require_writable, user_store, weights, write
from w2s_lib.tasks import table as tasks
from w2s_lib.tasks.embedded import EMBEDDED
from w2s_lib.tasks.labels import training_labels
from w2s_lib.tasks.table import TaskTable, load_table, recorded_rows, splits, texts_a_row
from w2s_lib.training import baselines, entry, finetune, next_token
from w2s_lib.training.finetune import Data

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "numpy", "scikit-learn")
"""Whose versions a record keeps."""


def refuse_early(specs: Collection[RunSpec]) -> None:
    """Raises, before the first of several runs is trained, what would stop a later one.

    Args:
        specs: all that will be trained.

    Raises:
        SpecError: a task that cannot be read or has too few rows, a depth that a model lacks, label
            words that a model does not know.
        DeviceError: a device that is not here.
        StoreError: the store cannot be written.
    """
    for spec in specs:
        check(spec)
        if spec.kind == "zero_shot":
            baselines.label_tokens(spec)
    used = {spec.task: None for spec in specs}
    for task, seed in {(spec.task, spec.seed): None for spec in specs}:
        splits(load_table(task), seed)
    corpora = {spec.labels.corpus for spec in specs if isinstance(spec.labels, NextToken)}
    for corpus in corpora - {""}:
        if not tasks.has_fixed_content(corpus):
            said = f"{nearest(corpus, EMBEDDED)} A file can change under its name."
            raise SpecError(f"NextToken.corpus is {corpus!r}: {said}")
        used[tasks.resolve_task(tasks.default_task(corpus))] = None
    tasks.warn_of_shared_texts(used)
    require_writable()


FITS: dict[Kind, Callable[[RunSpec, Data], Fitted]] = {
    "classifier": finetune.fit,
    "reader": next_token.fit_next_token,
    "tfidf": baselines.fit_tfidf,
    "probe": baselines.fit_probe,
    "method": entry.fit_entry,
    "text_method": entry.fit_entry,
    "zero_shot": baselines.fit_zero_shot,
    "transfer": finetune.load,
}
"""What fits a run of each kind."""


def execute(spec: RunSpec) -> None:
    """Trains a run whose teacher is recorded, and writes its record.

    Where the store is full or does not answer, it tries again for as long as the run has taken. Then
    it keeps the record in the cache and raises `StoreUnavailable`; called again, it sends that.
    """
    if _sent(spec):
        return
    started = time.monotonic()
    check(spec)
    table = load_table(spec.task)
    parts = splits(table, spec.seed)
    rows, held = getattr(parts, spec.half), recorded_rows(spec, table, parts)
    asked = held.index.to_numpy()

    def told(some: Any) -> FloatArray:
        labels = training_labels(spec, table, some, half=rows)
        made = isinstance(spec.labels, Relabelled)
        return entry.relabelled(spec, table, some, labels, asked=asked) if made else labels

    data = Data(
        table, rows, told(rows), validation=parts.validation, asked=asked, adapters=_adapters(spec)
    )
    if spec.kind == "probe":  # the only kind with a setting that their labels choose
        data = replace(data, validation_labels=told(parts.validation))
    if spec.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with one_thread(spec.device), finetune.explained_out_of_memory(spec):
        fitted = FITS[spec.kind](spec, data)
        record = _record(spec, table, held, fitted)
    seconds = time.monotonic() - started
    record.provenance["seconds"] = round(seconds, 2)
    try:
        patiently(lambda: write(record, artefacts=fitted.save), seconds)
    except StoreUnavailable as error:
        kept, why = _unsent(), str(error).rstrip(".")
        try:
            write(record, store=kept.folder, artefacts=fitted.save)
        except StoreError:
            raise error from None
        how = f"The run is kept in {kept.name}, and is sent from there when it is asked for again"
        raise StoreUnavailable(f"{why}. {how}.") from error


def _unsent() -> FolderStore:
    """Finished runs that the user's store, and no other one, has not taken."""
    name = hashlib.sha256(user_store().name.encode()).hexdigest()[:16]
    return FolderStore(cache_dir() / "unsent" / name)


def _sent(spec: RunSpec) -> bool:
    """Whether a run was kept in the cache; then it is in the user's store now."""
    kept = _unsent()
    if (record := kept.find(spec.run_id)) is None:
        return False
    folder = kept.weights(record)
    copy: Any = partial(shutil.copytree, folder, dirs_exist_ok=True) if folder else None
    write(record, artefacts=copy)
    (kept.folder / f"{spec.run_id}.parquet").unlink(missing_ok=True)
    shutil.rmtree(kept.folder / spec.run_id, ignore_errors=True)
    return True


def _record(spec: RunSpec, table: TaskTable, held: pd.DataFrame, fitted: Fitted) -> Record:
    """Predicts what the record of a trained run holds.

    Args:
        spec: the run.
        table: its task.
        held: see `recorded_rows`.
        fitted: what was trained.
    """
    p = fitted.predict(held.index.to_numpy())
    if not np.isfinite(p).all():  # the last step's loss was still a number
        said = f"try a lower recipe.learning_rate than {spec.recipe.learning_rate}"
        raise TrainingError(f"the predictions of {spec.model} are not numbers: {said}")
    predictions = held.assign(p=p)[["split", "label", "p", "group"]]
    provenance = {
        **fitted.notes,
        "task_digest": table.digest,
        "device": spec.device,
        "hardware": hardware(spec.device),
        "threads": torch.get_num_threads(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in PACKAGES},
        "trunk_seconds": round(fitted.trunk_seconds, 2),
        **_memory(spec.device),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
    }
    return Record(spec, predictions, fitted.metrics or accuracies(predictions), provenance)


def _memory(device: str) -> dict[str, int]:
    """The most that was in use: of the GPU by this run, or of the CPU by this process so far."""
    import resource

    if device == "cuda":
        return {
            "peak_memory_bytes": torch.cuda.max_memory_allocated(),
            "device_memory_bytes": torch.cuda.get_device_properties().total_memory,
        }
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def _commit() -> str:
    """The commit of the checkout that the library is in; "" where it is in none, or nobody can tell."""
    if (root := repository_root()) is None:
        return ""
    command = ["git", "rev-parse", "HEAD"]
    with contextlib.suppress(OSError):  # there is no git, in a container say
        return subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.strip()
    return ""


def _adapters(spec: RunSpec) -> Path | None:
    """The folder of the adapters that a run starts from; None where it starts from fresh ones."""
    if spec.continued is None:
        return None
    folder = weights(spec.continued)
    if folder is None:
        said = f"{spec.continued.run_id}, whose adapters are not in the user's store"
        raise StoreError(f"run {spec.run_id} starts from {said}")
    return folder


def cost(spec: RunSpec, *, depth: int | None = None) -> float:
    """Work of a run in text-blocks: one text through one block, forward.

    A training pass counts as three, a probe as none.

    Args:
        spec: the run.
        depth: blocks of its model, where its name does not say.
    """
    if not (spec.trains or spec.kind == "transfer"):
        return 0.0
    task, blocks = spec.task, spec.lora.n_adapted(spec.depth or depth or 30)
    if spec.role == "generative":
        blocks += 8  # the vocabulary is as wide as some eight blocks of a small model
        predicted = 2 * task.n_validation
    else:
        predicted = task.n_test + task.n_validation + 2 * task.n_train * spec.predict_halves
    rows = 2 * task.n_train if spec.half == "pool" else task.n_train  # of the pool, about
    trained = 3 * rows * spec.recipe.epochs if spec.trains else 0
    return float(blocks * texts_a_row(task) * (trained + predicted))
