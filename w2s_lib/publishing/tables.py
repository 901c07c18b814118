"""What is published, as tables: runs, predictions, named tasks, profiles, benchmarks.

`write_tables` puts all of it into one CSV and two Parquet files, which the scorecard page offers.
Chapters: scorecard, tasks, performance, PGR.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from w2s_lib.experiments.results import Results
from w2s_lib.publishing.chapters import chapters, planned_specs
from w2s_lib.publishing.profiles import load_profile
from w2s_lib.runs.errors import DamagedRecord, StoreError
from w2s_lib.runs.folders import repository_root
from w2s_lib.runs.model_names import split_model
from w2s_lib.runs.record import Record, snapshots_of
from w2s_lib.runs.rows import COLUMNS, row_of
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import read
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.embedded import EMBEDDED
from w2s_lib.tasks.table import default_task

ROLES = ("supervisor", "ceiling", "student", "generative", "baseline")
ORDER = ["task", "n_train", "place", "model", "supervisor", "labels", "loss", "start"]
ORDER += ["lora_blocks", "quantization", "method", "seed", "run_id"]
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
    """Every record in `book/results/`, a row a run, from metadata alone: nothing is verified.

    The records are listed whether or not `W2S_PUBLISHED` hides them from training.

    Args:
        folder: another folder of records.

    Returns:
        Columns `run_id`, `role`, `model`, `labels` (with what differs from its default),
        `supervisor` and `supervisor_run` (model and id of the run that gave the labels, or ""),
        `loss`, `method`, `start`, `lora_blocks`, `quantization`, `half`, `seed`, `n_train`, `task`,
        `accuracy` (test) and `validation_accuracy` (NaN where there is none), the losses of
        next-token runs, `seconds`, `device`, `hardware`, `date`, `commit` and `spec`, the canonical
        JSON. Sorted by all of the description.

    Raises:
        DamagedRecord: a file is no record, or another run's.
        StoreError: there is no checkout around this library, and no folder was given.
    """
    rows = [_run(path) for path in _records(folder)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS).drop(columns="depth")
    order = frame.assign(place=frame["role"].map(ROLES.index)).sort_values(ORDER).index
    return frame.loc[order].reset_index(drop=True)


def planned_runs(root: Path | None = None) -> set[str]:
    """The ids of all runs that the chapters plan as published, teachers included."""
    specs = [
        spec
        for page in chapters(root or _root())
        if page.is_notebook
        for spec in planned_specs(page, {})
    ]
    return {step.run_id for spec in specs for step in spec.lineage()}


def registered_tasks(folder: Path | None = None) -> pd.DataFrame:
    """Every task that has a name, a row each: the embedded ones, then those of the hub by name.

    Args:
        folder: as in `published_runs`.

    Returns:
        Columns `task`, `dataset` (the hub's name of it, or the embedded source), `commit` ("" where
        none is pinned), `a row is` ("text" or "pair"), `halves`, `validation`, `test` (rows each),
        `template`, `cut` (what a long text loses), `source` (who describes its columns) and `runs`,
        how many published runs are on it: 0 for a task that was never loaded here.
    """
    found = []
    for name, embedded in EMBEDDED.items():
        about = f"Hutto & Gilbert 2014, {embedded.stem}", "", embedded.pairs, "its own files"
        found.append((default_task(name), *about))
    for name, task in sorted(HUB_TASKS.items()):
        commit = task.revision if re.fullmatch("[0-9a-f]{40}", task.revision) else ""
        found.append((default_task(name), task.hub, commit, task.pairs, task.source))
    counts = published_runs(folder)["task"].value_counts()
    return pd.DataFrame(
        {
            "task": task.name,
            "dataset": dataset,
            "commit": commit,
            "a row is": "pair" if pairs else "text",
            "halves": task.n_train,
            "validation": task.n_validation,
            "test": task.n_test,
            "template": task.template,
            "cut": task.cut,
            "source": source,
            "runs": int(counts.get(task.name, 0)),
        }
        for task, dataset, commit, pairs, source in found
    )


def published_on(
    device: str, specs: Sequence[RunSpec], seeds: Sequence[int], folder: Path | None = None
) -> pd.DataFrame:
    """What is published of the same runs on another device; nothing is trained. Chapter: PGR.

    Args:
        device: "cpu" or "cuda".
        specs: the runs as they are elsewhere.
        seeds: those to look for; one is left out where it lacks any of the runs.
        folder: as in `published_runs`.

    Returns:
        A row a run, as in `Results.frame`; no row where nothing is there.
    """
    there, records = {path.stem: path for path in _records(folder)}, list[Record]()
    moved = [
        spec.map_lineage(lambda run: {} if run.name == "tfidf" else {"device": device})
        for spec in specs
    ]
    for seed in seeds:
        ids = [spec.with_seed(seed).run_id for spec in moved]
        if there.keys() >= set(ids):
            records += [read(there[run_id]) for run_id in ids]
    return Results(records).frame if records else pd.DataFrame()


def profile_states(folder: Path | None = None) -> pd.DataFrame:
    """The profiles in `book/profiles/`, a row each, without sketches, which have a banner.

    Args:
        folder: as in `published_runs`.

    Returns:
        Columns `profile`, `device`, `models` (those that it names, without depth; else those of the
        chapters) and `runs`, how many published runs are of these models on this device: 0 where
        not every one of them has been trained there.
    """
    root, runs, rows = _root(), published_runs(folder), []
    usual = _models([page.defaults() for page in chapters(root) if page.is_notebook])
    for path in sorted((root / "book" / "profiles").glob("*.yaml")):
        values = load_profile(root, path.stem)
        if "banner" in values:
            continue
        device = values.get("device", "cpu")
        models = _models([values, *values.get("variants", [])]) or usual
        there = [split_model(model)[0] for model in runs[runs["device"] == device]["model"]]
        n_runs = sum(model in models for model in there) if models <= set(there) else 0
        rows.append((path.stem, device, ", ".join(sorted(models)), n_runs))
    return pd.DataFrame(rows, columns=["profile", "device", "models", "runs"])


def _models(settings: Sequence[dict[str, Any]]) -> set[str]:
    """The language models that several sets of parameters name."""
    names = ("supervisors", "students", "rungs", "supervisor_model", "student_model")
    given = [parameters[name] for parameters in settings for name in names if name in parameters]
    models = [model for each in given for model in ([each] if isinstance(each, str) else each)]
    return {split_model(model)[0] for model in models} - {"tfidf"}


def benchmarks() -> dict[str, Any]:
    """What `python -m tests.benchmarks` measured last: part -> results, machine, date, versions.

    A part that nobody has measured yet is not there. Chapter: performance.
    """
    path = _root() / "book" / "benchmarks.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def write_tables(folder: Path, target: Path) -> None:
    """Writes `runs.csv`, `runs.parquet` and `predictions.parquet` of a folder's records.

    The same records give the same bytes.

    `predictions.parquet` is long: `run_id`, `row`, `split`, `label`, `p`, `group` and `share`, the
    share of training after which a row was predicted: 1.0 at the end, less in snapshots. It has a
    row group a run.

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
            "there is no book around this library: records are published in a checkout of it"
        )
    return root


def _run(path: Path) -> dict[str, Any]:
    try:
        metadata = pq.read_schema(path).metadata or {}
        spec = RunSpec.from_json(metadata[b"spec"].decode())
        metrics, provenance = (json.loads(metadata[key]) for key in (b"metrics", b"provenance"))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DamagedRecord(f"damaged record {path}: {type(error).__name__}: {error}.") from error
    if spec.run_id != path.stem:
        raise DamagedRecord(f"damaged record {path}: it is of run {spec.run_id}.")
    return row_of(spec, metrics, provenance)


def _predictions(path: Path) -> pa.Table:
    record = read(path)
    rows = record.predictions.reset_index().assign(run_id=record.spec.run_id)
    shares = {name: float(name.removeprefix("p@")) for name in snapshots_of(record.predictions)}
    parts = []
    for name, share in {"p": 1.0, **shares}.items():
        part = rows[rows[name].notna()].assign(p=rows[name], share=share)
        parts.append(pa.Table.from_pandas(part, schema=PREDICTION, preserve_index=False))
    return pa.concat_tables(parts).replace_schema_metadata(None).combine_chunks()
