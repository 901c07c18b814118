"""What is published, as tables: runs, predictions, named tasks, profiles, benchmarks.

`write_tables` puts runs and predictions into files, which the scorecard page offers.
Chapters: scorecard, tasks, performance, reliability, foretelling.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from w2s_lib.experiments.results import Results
from w2s_lib.measures.metrics import joined
from w2s_lib.publishing import chapters as book
from w2s_lib.runs.errors import StoreError
from w2s_lib.runs.folders import repository_root
from w2s_lib.runs.model_names import EMBEDDED_DEPTH, split_model
from w2s_lib.runs.record import Record
from w2s_lib.runs.spec import Centred, FromRun, Hard, RunSpec
from w2s_lib.runs.store import read
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.embedded import EMBEDDED
from w2s_lib.tasks.table import default_task

ROLES = ("supervisor", "ceiling", "student", "generative", "baseline", "transfer")
ORDER = ["task", "n_train", "place", "model", "supervisor", "labels", "loss", "start"]
ORDER += ["lora_blocks", "quantization", "method", "seed", "run_id"]
TASK = {"name": "task", "n_train": "halves", "n_validation": "validation", "n_test": "test"}
PREDICTION = {"run_id": "str", "row": "int32", "split": "str", "label": "int8", "p": "float32"}
PREDICTION |= {"group": "int32"}
REHEARSED = "rehearsed on a CPU with small models, not yet executed on a GPU"
"""What a profile is of which there is no published run. A test holds README, pages and profiles to these words."""


def published_runs(folder: Path | None = None) -> pd.DataFrame:
    """Every record in `book/results/`, a row a run.

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
    frame = Results(map(_read, _records(folder))).frame.drop(columns=["depth", "record"])
    placed = frame.assign(place=frame["role"].map(ROLES.index))
    return placed.sort_values(ORDER, ignore_index=True).drop(columns="place")


def planned_runs(root: Path | None = None) -> dict[str, str]:
    """Every run that the chapters plan as published, teachers included.

    Returns:
        Run id -> the first chapter, by name, that plans it: its predictions are in that one's file.
    """
    planned: dict[str, str] = {}
    for page in book.notebooks(root or book_root()):
        planned = dict.fromkeys(book.Job(page, {}).run_ids, page.name) | planned  # the first stays
    return planned


def registered_tasks(folder: Path | None = None) -> pd.DataFrame:
    """Every task that has a name, a row each: the embedded ones, then those of the hub by name.

    Args:
        folder: as in `published_runs`.

    Returns:
        The fields of `Task`, the name as `task` and the numbers of rows as `halves`, `validation`
        and `test`; `dataset` (the hub's name of it, or the embedded source), `commit` ("" where
        none is pinned), `a row is` ("text" or "pair"), `source` (who describes its columns) and
        `runs`, how many published runs are on it: 0 for a task that was never loaded here.
    """
    hub = dict(sorted(HUB_TASKS.items()))
    own = "Hutto & Gilbert 2014,"
    about = [(f"{own} {t.stem}", "", "its own files", t.pairs) for t in EMBEDDED.values()]
    about += [(t.hub, t.revision if t.pinned else "", t.source, t.pairs) for t in hub.values()]
    frame = pd.DataFrame([default_task(name) for name in (*EMBEDDED, *hub)]).rename(columns=TASK)
    frame[["dataset", "commit", "source", "pairs"]] = about
    frame["a row is"] = frame.pop("pairs").map({True: "pair", False: "text"})
    counts = published_runs(folder)["task"].value_counts()
    return frame.assign(runs=frame["task"].map(counts).fillna(0).astype(int))


def published(arms: Iterable[RunSpec], seeds: Iterable[int], folder: Path | None = None) -> Results:
    """What is published of some arms: the seeds that have all of them. Nothing is trained.

    Args:
        arms: specs; their own seed does not matter.
        seeds: those to look for.
        folder: as in `published_runs`.
    """
    there, arms = {path.stem: path for path in _records(folder)}, list(arms)
    of_seed = [dict.fromkeys(arm.with_seed(seed).run_id for arm in arms) for seed in seeds]
    whole = [ids for ids in of_seed if ids.keys() <= there.keys()]
    return Results(_read(there[run_id]) for ids in whole for run_id in ids)


@cache
def chapter_names(chapter: str) -> dict[str, Any]:
    """What a chapter's set-up names: its arms, `seeds` and other parameters. Nothing is trained.

    Raises:
        BookError: its set-up failed.
    """
    return book.planned_names(book.Chapter(chapter, book_root()), {})


def taught_runs(folder: Path | None = None) -> pd.DataFrame:
    """Every published run that learned a supervisor's labels, with both models' predictions.

    As they are, hard or centred. Labels that are made for an experiment (`Flip`, and those of the people
    chapter) are left out. Chapter: foretelling.

    Args:
        folder: as in `published_runs`.

    Returns:
        The columns of `Results.frame`; `weak_record`, the supervisor's; `arm`, a number that runs
        share which differ in their seed alone; and arrays over test rows by row: `label`, `p` and
        `weak_p` (P(y = 1) of the student and of its supervisor), `answer` and `weak_answer` (0 or
        1, at the median of P on validation texts).
    """
    records = {path.stem: _read(path) for path in _records(folder)}
    taught, both = list[Record](), []
    for record in records.values():
        if isinstance(labels := record.spec.labels, (FromRun, Hard, Centred)):
            weak = records[labels.run.run_id]
            pair = {"student": [record], "supervisor": [weak]}
            (p, label, _), (held, *_) = joined(pair), joined(pair, "validation")
            answer = (p > np.median(held, axis=2, keepdims=True)).astype(np.int8)
            taught.append(record)
            both.append((weak, label, *p[:, 0], *answer[:, 0]))
    arms = pd.Series([record.spec.with_seed(0).to_json() for record in taught])
    names = ["weak_record", "label", "p", "weak_p", "answer", "weak_answer"]
    frame = Results(taught).frame.assign(arm=pd.factorize(arms)[0])
    return frame.join(pd.DataFrame(both, columns=names))


def profile_states(folder: Path | None = None) -> pd.DataFrame:
    """The profiles in `book/profiles/`, a row each, without sketches, which have a banner.

    Args:
        folder: as in `published_runs`.

    Returns:
        Columns `profile`, `device`, `models` (those of the hub that it names, without depth; else
        the embedded one), `runs`, how many published runs are of these models on this device: 0 where
        not every one of them has been trained there; and `state`, the same in words.
    """
    root, runs, rows = book_root(), published_runs(folder), []
    for path in sorted((root / "book" / "profiles").glob("*.yaml")):
        values = book.load_profile(root, path.stem)
        if "banner" not in values:
            device = values.get("device", "cpu")
            models = set(re.findall(r"hf:[\w./-]+", str(values))) or set(EMBEDDED_DEPTH)
            there = [split_model(model)[0] for model in runs[runs["device"] == device]["model"]]
            own = models | {"tfidf"}  # which is of no model family
            n_runs = sum(model in own for model in there) if models <= set(there) else 0
            state = f"{n_runs} published runs" if n_runs else REHEARSED
            rows.append((path.stem, device, ", ".join(sorted(models)), n_runs, state))
    return pd.DataFrame(rows, columns=["profile", "device", "models", "runs", "state"])


def benchmarks() -> Any:
    """What `python -m tests.benchmarks` measured last: part -> results, machine, date, versions.

    A part that nobody has measured yet is not there. Chapter: performance.
    """
    return json.loads((book_root() / "book" / "benchmarks.json").read_text(encoding="utf-8"))


def last_audit(
    what: Literal["audit", "retrained_runs", "retrained_claims"] = "audit",
) -> pd.DataFrame:
    """What `make audit` found last, or `make retrain CLAIMS=...` on another kind of CPU, with its `date`.

    Chapter: reliability.

    Args:
        what: runs that were drawn by that date, or those of claims (columns: see
            `w2s_lib.publishing.audit.train_again`); or these claims (`claims.retrained`).
    """
    return pd.read_csv(book_root() / "book" / f"{what}.csv", keep_default_na=False)


def write_tables(folder: Path, target: Path, planned: Mapping[str, str]) -> None:
    """Writes `runs.csv`, `runs.parquet` and `predictions-CHAPTER.parquet` of a folder's records.

    The same records give the same bytes.

    Predictions are long: `run_id`, `row`, `split`, `label`, `p` and `group`. Those of a run are in the
    file of one chapter, as `planned_runs` says, or of "none".

    Raises:
        DamagedRecord: each record is verified on the way.
    """
    target.mkdir(parents=True, exist_ok=True)
    runs = published_runs(folder)
    runs.to_csv(target / "runs.csv", index=False, lineterminator="\n")
    runs.to_parquet(target / "runs.parquet", index=False, compression="zstd")
    rows: dict[str, list[pd.DataFrame]] = {}
    for path in _records(folder):
        part = _read(path).predictions.reset_index().assign(run_id=path.stem)
        rows.setdefault(planned.get(path.stem, "none"), []).append(part)
    for name, parts in rows.items():
        frame = pd.concat(parts)[[*PREDICTION]].astype(PREDICTION)
        frame.to_parquet(target / f"predictions-{name}.parquet", index=False, compression="zstd")


@cache
def _read(path: Path) -> Record:
    return read(path)


def _records(folder: Path | None) -> list[Path]:
    return sorted((folder or book_root() / "book" / "results").glob("*.parquet"))


def book_root() -> Path:
    """The checkout around this library. `StoreError` where there is none."""
    if (root := repository_root()) is None:
        raise StoreError("there is no book around this library: it stands in a checkout of it")
    return root
