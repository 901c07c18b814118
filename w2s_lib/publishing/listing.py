"""What is published, as tables: a row a run, a row a prediction, what the chapters plan, and what was timed.

`write_tables` puts all of it into one CSV and two Parquet files, which the scorecard page offers. Chapters: scorecard, PGR,
performance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from w2s_lib.experiments.results import row_of
from w2s_lib.experiments.sweep import note
from w2s_lib.publishing.chapters import chapters, planned_specs
from w2s_lib.publishing.profiles import load_profile
from w2s_lib.runs.errors import DamagedRecord, StoreError
from w2s_lib.runs.folders import repository_root
from w2s_lib.runs.model_names import split_model
from w2s_lib.runs.parts import Part
from w2s_lib.runs.record import snapshots_of
from w2s_lib.runs.spec import Continue, Flip, FromRun, RunSpec, Task
from w2s_lib.runs.store import published_store, read
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.table import EMBEDDED

__all__ = [
    "benchmarks",
    "planned_runs",
    "profile_states",
    "published_on",
    "published_runs",
    "registered_tasks",
    "write_tables",
]

COLUMNS = {
    "run_id": "str",
    "role": "str",
    "model": "str",
    "labels": "str",
    "supervisor": "str",
    "supervisor_run": "str",
    "loss": "str",
    "method": "str",
    "start": "str",
    "lora_blocks": "str",
    "quantization": "str",
    "half": "str",
    "seed": "int64",
    "n_train": "int64",
    "task": "str",
    "accuracy": "float64",
    "validation_accuracy": "float64",
    "next_token_loss_before": "float64",
    "next_token_loss": "float64",
    "seconds": "float64",
    "device": "str",
    "hardware": "str",
    "date": "str",
    "commit": "str",
    "spec": "str",
}
ROLES = ("supervisor", "ceiling", "student", "generative", "baseline")
PREDICTION = pa.schema(
    [
        ("run_id", pa.string()),
        ("row", pa.int32()),
        ("split", pa.string()),
        ("label", pa.int8()),
        ("p", pa.float32()),
        ("group", pa.int32()),
        ("share", pa.float64()),
    ]
)


def published_runs(folder: Path | None = None) -> pd.DataFrame:
    """Every record in `book/results/`, a row a run, from their metadata alone: predictions are neither read nor verified.

    The records are listed whether or not `W2S_PUBLISHED` hides them from training.

    Args:
        folder: another folder of records.

    Returns:
        Columns `run_id`, `role`, `model`, `labels` (with what differs from its default), `supervisor` and `supervisor_run`
        (model and id of the run that gave the labels, or ""), `loss`, `method`, `start`, `lora_blocks`, `quantization`,
        `half`, `seed`, `n_train`, `task`, `accuracy` (test) and `validation_accuracy` (NaN where there is none), the losses
        of next-token runs, `seconds`, `device`, `hardware`, `date`, `commit` and `spec`, the canonical JSON. Sorted by all of
        the description.

    Raises:
        DamagedRecord: a file is no record, or another run's.
        StoreError: there is no checkout around this library, and no folder was given.
    """
    rows = [_run(path) for path in _records(folder)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    place = frame["role"].map(ROLES.index)
    order = (
        frame.assign(place=place)
        .sort_values(
            [
                "task",
                "n_train",
                "place",
                "model",
                "supervisor",
                "labels",
                "loss",
                "start",
                "lora_blocks",
                "quantization",
                "method",
                "seed",
                "run_id",
            ]
        )
        .index
    )
    return frame.loc[order].reset_index(drop=True)


def planned_runs(root: Path | None = None) -> set[str]:
    """The ids of every distinct run that the chapters plan as published, their teachers included; nothing is trained."""
    pages = [page for page in chapters(root or _root()) if page.is_notebook]
    return {
        step.run_id for page in pages for spec in planned_specs(page, {}) for step in spec.lineage()
    }


def registered_tasks(folder: Path | None = None) -> pd.DataFrame:
    """Every task that has a name, a row each: the embedded ones, then those of the hub by name.

    Args:
        folder: as in `published_runs`.

    Returns:
        Columns `task`, `dataset` (the hub's name of it, or the embedded source), `commit` ("" where none is pinned), `a row
        is` ("text" or "pair"), `halves`, `validation`, `test` (rows each), `template`, `cut` (what a long text loses), `source`
        (who describes its columns) and `runs`, how many published runs are on it: 0 for a task that was never loaded here.
    """
    counts = published_runs(folder)["task"].value_counts()
    found = []
    for name, (stem, settings) in EMBEDDED.items():
        pair = "pair" if name == "movie-preference" else "text"
        found.append(
            (
                name,
                f"Hutto & Gilbert 2014, {stem}",
                "",
                pair,
                Task(name=name, **settings),
                "its own files",
            )
        )
    for name, task in sorted(HUB_TASKS.items()):
        commit = task.revision if re.fullmatch("[0-9a-f]{40}", task.revision) else ""
        made = Task(**{"name": name, **task.settings})
        found.append((name, task.hub, commit, "pair" if task.pairs else "text", made, task.source))
    rows = [
        (
            name,
            dataset,
            commit,
            kind,
            task.n_train,
            task.n_validation,
            task.n_test,
            task.template,
            task.cut,
            source,
            int(counts.get(name, 0)),
        )
        for name, dataset, commit, kind, task, source in found
    ]
    return pd.DataFrame(
        rows,
        columns=[
            "task",
            "dataset",
            "commit",
            "a row is",
            "halves",
            "validation",
            "test",
            "template",
            "cut",
            "source",
            "runs",
        ],
    )


def published_on(device: str, specs: Sequence[RunSpec], seeds: Sequence[int]) -> pd.DataFrame:
    """What is published of the same runs on another device; nothing is trained. Chapter: PGR.

    Args:
        device: "cpu" or "cuda".
        specs: the runs as they are elsewhere.
        seeds: those to look for; one is left out where it lacks any of the runs.

    Returns:
        A row a run, as `sweep` gives; no row where nothing is there. What was looked for in vain is noted as well, so that
        the page is stale once it is there.
    """
    store, rows = published_store(), list[dict[str, Any]]()
    if store is None:
        return pd.DataFrame()
    moved = [
        spec.along(lambda run: {} if run.name == "tfidf" else {"device": device}) for spec in specs
    ]
    for seed in seeds:
        paths = [store / f"{spec.with_seed(seed).run_id}.parquet" for spec in moved]
        for path in paths:
            note(path=str(path))
        if all(path.is_file() for path in paths):
            rows += [row_of(read(path)) for path in paths]
    return pd.DataFrame(rows).astype({"depth": "Int64"}) if rows else pd.DataFrame()


def profile_states() -> pd.DataFrame:
    """The profiles in `book/profiles/`, a row each. Chapter: performance.

    Returns:
        Columns `profile`, `device`, `models` (those that it names, without depth; else those of the chapters) and `runs`, how
        many published runs are of these models on this device: 0 where not every one of them has been trained there.
    """
    root, runs, rows = _root(), published_runs(), []
    usual = {
        name for page in chapters(root) if page.is_notebook for name in _models(page.defaults())
    }
    for path in sorted((root / "book" / "profiles").glob("*.yaml")):
        values = load_profile(root, path.stem)
        device = values.get("device", "cpu")
        models = (
            set().union(*(_models(each) for each in (values, *values.get("variants", [])))) or usual
        )
        of = runs[runs["device"] == device]["model"].map(lambda model: split_model(model)[0])
        mine = of[of.isin(models)] if models <= set(of) else of[:0]
        rows.append((path.stem, device, ", ".join(sorted(models)), len(mine)))
    return pd.DataFrame(rows, columns=["profile", "device", "models", "runs"])


def _models(parameters: dict[str, Any]) -> set[str]:
    """The language models that parameters name."""
    named = {
        "supervisors",
        "students",
        "rungs",
        "supervisor_model",
        "student_model",
    } & parameters.keys()
    found = [parameters[name] for name in named]
    models = [model for each in found for model in (each if isinstance(each, list) else [each])]
    return {split_model(model)[0] for model in models} - {"tfidf"}


def benchmarks() -> dict[str, Any]:
    """What `python -m tests.benchmarks` measured last: part -> its results, with machine, date and versions.

    A part that nobody has measured yet is not there. Chapter: performance.
    """
    path = _root() / "book" / "benchmarks.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def write_tables(folder: Path, target: Path) -> None:
    """Writes `runs.csv`, `runs.parquet` and `predictions.parquet` of the records in `folder`; the same bytes each time.

    `predictions.parquet` is long: `run_id`, `row`, `split`, `label`, `p`, `group` and `share`, the share of training after
    which a row was predicted: 1.0 at the end, less in snapshots. It has a row group a run.

    Raises:
        DamagedRecord: each record is verified on the way.
    """
    target.mkdir(parents=True, exist_ok=True)
    runs = published_runs(folder)
    runs.to_csv(target / "runs.csv", index=False, lineterminator="\n")
    table = pa.Table.from_pandas(runs, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, target / "runs.parquet", compression="zstd")
    names = ["run_id", "split", "label", "share"]
    with pq.ParquetWriter(
        target / "predictions.parquet", PREDICTION, compression="zstd", use_dictionary=names
    ) as writer:
        for path in _records(folder):
            writer.write_table(_predictions(path))


def _records(folder: Path | None) -> list[Path]:
    return sorted((folder or _root() / "book" / "results").glob("*.parquet"))


def _root() -> Path:
    if (root := repository_root()) is None:
        raise StoreError(
            "there is no book around this library: published records are in a checkout of the repository"
        )
    return root


def _run(path: Path) -> dict[str, Any]:
    try:
        metadata = {
            key.decode(): value.decode()
            for key, value in (pq.read_schema(path).metadata or {}).items()
        }
        spec, metrics, provenance = (
            json.loads(metadata[key]) for key in ("spec", "metrics", "provenance")
        )
        spec = RunSpec.from_json(metadata["spec"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DamagedRecord(f"damaged record {path}: {type(error).__name__}: {error}.") from error
    if spec.run_id != path.stem:
        raise DamagedRecord(f"damaged record {path}: it is of run {spec.run_id}.")
    teacher = spec.labels.run if isinstance(spec.labels, (FromRun, Flip)) else None
    start = (
        f"Continue({spec.start.run.run_id})"
        if isinstance(spec.start, Continue)
        else type(spec.start).__name__
    )
    return {
        "run_id": spec.run_id,
        "role": spec.role,
        "model": spec.model,
        "labels": _words(spec.labels),
        "supervisor": teacher.model if teacher else "",
        "supervisor_run": teacher.run_id if teacher else "",
        "loss": _words(spec.loss),
        "method": spec.method,
        "start": start,
        "lora_blocks": str(spec.lora.blocks),
        "quantization": spec.quantization,
        "half": spec.half,
        "seed": spec.seed,
        "n_train": spec.task.n_train,
        "task": spec.task.name,
        "accuracy": metrics.get("accuracy"),
        "validation_accuracy": metrics.get("validation_accuracy"),
        "next_token_loss_before": metrics.get("loss_before"),
        "next_token_loss": metrics.get("loss"),
        "device": spec.device,
        **{name: provenance[name] for name in ("seconds", "hardware", "date", "commit")},
        "spec": spec.to_json(),
    }


def _words(part: Part) -> str:
    """A part of a spec as Python would write it, without the run in it and what is as by default."""
    given = {
        f.name: getattr(part, f.name)
        for f in fields(part)
        if f.name != "run" and getattr(part, f.name) != f.default
    }
    inside = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return type(part).__name__ + (f"({inside})" if inside else "")


def _predictions(path: Path) -> pa.Table:
    record = read(path)
    shares = {"p": 1.0} | {
        name: float(name.removeprefix("p@")) for name in snapshots_of(record.predictions)
    }
    parts = []
    for name, share in shares.items():
        frame = record.predictions[record.predictions[name].notna()]
        parts.append(
            pa.table(
                {
                    "run_id": pa.repeat(record.spec.run_id, len(frame)),
                    "row": frame.index.to_numpy(np.int32),
                    "split": pa.array(frame["split"], pa.string()),
                    "label": frame["label"].to_numpy(np.int8),
                    "p": frame[name].to_numpy(np.float32),
                    "group": frame["group"].to_numpy(np.int32),
                    "share": pa.repeat(share, len(frame)),
                },
                schema=PREDICTION,
            )
        )
    return pa.concat_tables(parts).combine_chunks()
