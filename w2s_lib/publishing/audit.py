"""Records checked against all that is on this machine, and published runs trained again."""

from __future__ import annotations

import datetime
import hashlib
import re
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from w2s_lib.experiments.sweep import rules_beside, train_missing
from w2s_lib.measures.metrics import answers, collapsed
from w2s_lib.runs.errors import AssetError, DamagedRecord, SpecError, StoreError
from w2s_lib.runs.folders import file_sha256
from w2s_lib.runs.record import Record, from_parquet, to_parquet
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import FolderStore, Store, find, read, weights_digest
from w2s_lib.tasks.table import at_hand, load_table, recorded_rows, splits

BITS = ("device", "hardware", "threads", "python", "versions")
"""Fields of a record's provenance on which the bits of its run may depend."""
MOST_CHANGE, MOST_MOVED = 0.05, 0.25
"""Made elsewhere, a run may differ by this much in accuracy, and answer so many rows otherwise: more than
any run that learned did on another kind of CPU (`book/retrained_runs.csv`)."""


def verify(store: Store, *, published: bool = False) -> pd.DataFrame:
    """Reads every record of a store, and compares it with what is on this machine.

    Reading checks digest, name and ranges, and recomputes the metrics. What this version of Arrow
    has written is compared with what it would write, to the byte. Then rows, labels and groups
    are compared with the task's table, where that is here, and adapters in a folder with the digest
    that is their name. A published record has to have its teachers beside it and to carry the
    digest of an edition's rules; its commit, where that is here, has to hold the same rules and to be no
    younger than its run.

    Returns:
        A row a file: `file`, `wrong` (what is; "" of a whole one) and `unknown` (what it could not
        be compared with; "" where there is nothing).
    """
    there, on_task = store.files(), cache(_on_its_task)
    rules = {file_sha256(file): file for file in rules_beside(store.folder)}
    rows: list[tuple[str, str, str]] = []
    for file in sorted(name for name in there if name.endswith((".parquet", ".damaged"))):
        wrong, unknown = "", list[str]()
        try:
            if file.endswith(".damaged"):
                raise StoreError("it was found damaged before, and is kept aside")
            record = exact(store.get(file) or b"", f"{store.name}/{file}")
            unknown.append(_compare_with_task(record, on_task))
            if published:
                absent = {f"{run.run_id}.parquet" for run in record.spec.lineage()} - there
                _expect(not absent, f"its lineage is not there: {', '.join(sorted(absent))}")
                unknown.append(_compare_with_rules(record, rules))
        except StoreError as error:
            wrong = str(error)
        rows.append((file, wrong, "; ".join(filter(None, unknown))))
    if isinstance(store, FolderStore):
        for folder in sorted(store.folder.glob(f"{'[0-9a-f]' * 16}/*/")):
            same = weights_digest(folder) == folder.name
            wrong = "" if same else "its adapters are not those of that name"
            rows.append((f"{folder.parent.name}/{folder.name}", wrong, ""))
    return pd.DataFrame(rows, columns=["file", "wrong", "unknown"])


def exact(content: bytes, name: str) -> Record:
    """`from_parquet`; and a file of this version of Arrow is what it would write, to the byte.

    Raises:
        DamagedRecord, StoreError: see `from_parquet`; or a byte differs that changes no content.
    """
    record = from_parquet(content, name)
    ours = f"parquet-cpp-arrow version {pa.__version__}".encode() in content
    if ours and content != to_parquet(record):
        raise DamagedRecord(f"damaged record {name}: a byte differs that changes no content")
    return record


def _expect(ok: object, otherwise: str) -> None:
    """Raises `StoreError`, with what `verify` says of the record, unless `ok`."""
    if not ok:
        raise StoreError(otherwise)


def _compare_with_task(record: Record, on_task: Callable[..., Any]) -> str:
    """Expects a record's rows to be those of its task; returns what is not known of them."""
    spec, found = record.spec, record.predictions
    try:
        table, parts = on_task(spec.task, spec.seed)
    except (AssetError, SpecError) as error:
        return f"the texts of {spec.task.name}: {error}"
    digest = record.provenance.get("task_digest")
    other = f"its task has digest {digest}, {spec.task.name} has {table.digest}"
    _expect(digest == table.digest, other)
    expected = recorded_rows(spec, table, parts)
    _expect(found.index.equals(expected.index), "its rows are not those of its task and seed")
    for name in expected:
        _expect(np.array_equal(found[name], expected[name]), f"{name}: not what its task says")
    return ""


def _on_its_task(task: Any, seed: int) -> tuple[Any, Any]:
    """A task's table and its splits. `AssetError` where that would have to be fetched."""
    if not at_hand(task):
        raise AssetError("they are not on this machine")
    table = load_table(task)
    return table, splits(table, seed)


def _compare_with_rules(record: Record, rules: dict[str, Path]) -> str:
    """Expects rules, date and commit of a published record to fit; returns what is not known."""
    made = record.provenance
    commit, date = str(made.get("commit", "")), str(made.get("date", ""))
    _expect(record.rules in rules, "its rules are those of no edition")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    _expect(re.fullmatch(r"\d{4}-\d\d-\d\d", date) and date <= today, f"its date is {date!r}")
    known = _at_commit(rules[record.rules], commit)
    if known is None:
        return f"commit {commit or 'none'}: it is not in this repository"
    committed, digest = known
    _expect(digest == record.rules, f"its rules are not in its commit {commit}")
    _expect(committed <= date, f"its commit is of {committed}, it of {date}")
    return ""


@cache
def _at_commit(file: Path, commit: str) -> tuple[str, str] | None:
    """A commit's date (UTC) and the SHA-256 of a file in it; None where the commit is not here."""

    def git(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["git", *words], cwd=file.parent, capture_output=True, check=False)

    if not re.fullmatch("[0-9a-f]{40}", commit):
        return None
    dated = git("show", "-s", "--format=%ct", f"{commit}^{{commit}}")
    if dated.returncode:
        return None
    date = datetime.datetime.fromtimestamp(int(dated.stdout), datetime.UTC).date().isoformat()
    content = git("show", f"{commit}:./{file.name}").stdout
    return date, hashlib.sha256(content).hexdigest()


def drawn(results: Path, date: str) -> list[RunSpec]:
    """One published run of each kind, drawn at random by a date, so that nobody chooses.

    Args:
        results: the folder of the published records.
        date: `YYYY-MM-DD`.
    """
    kinds: dict[tuple[str, ...], list[RunSpec]] = {}
    for file in sorted(results.glob("*.parquet")):
        spec = read(file).spec
        labels, start = type(spec.labels).__name__, type(spec.start).__name__
        kinds.setdefault((spec.role, spec.kind, labels, start), []).append(spec)
    rng = np.random.default_rng(int(date.replace("-", "")))
    return [kinds[kind][rng.integers(len(kinds[kind]))] for kind in sorted(kinds)]


def train_again(specs: Iterable[RunSpec], results: Path, *, workers: int | None) -> pd.DataFrame:
    """Trains runs into the user's store and compares them with their published records.

    The published store has to be hidden (`W2S_PUBLISHED=0`), or nothing is trained. Stopped and
    called again, it goes on where it was.

    Args:
        specs: pinned runs; their teachers are trained too.
        results: the folder of the published records.
        workers: see `sweep`.

    Returns:
        A row a run that is published, in the order given, once each: `run_id`, `role`, `model`,
        `task`, `equal` (predictions, metrics and adapters, to the bit), `farthest` (the largest
        difference of a P(y = 1)), `moved` (the share of rows whose `answers` differ), `change` (of
        the accuracy on test texts; of next-token runs the larger one of a loss), `elsewhere` (the
        fields of `BITS` that differ, "" on the same kind of machine), `hardware` (of this one), `collapsed`
        (in one of the two trainings alone) and `holds`: whether it is equal or, where it was made elsewhere, within `MOST_CHANGE` and
        `MOST_MOVED`.
    """
    runs = {step.run_id: step for spec in specs for step in spec.lineage()}
    train_missing(runs.values(), workers=workers)
    rows = []
    for run_id, spec in runs.items():
        if (file := results / f"{run_id}.parquet").exists() and (again := find(spec)):
            rows.append(
                {"run_id": run_id, "role": spec.role, "model": spec.model, "task": spec.task.name}
                | compare(read(file), again)
            )
    return pd.DataFrame(rows)


def compare(before: Record, again: Record) -> dict[str, Any]:
    """Two trainings of one run: see `train_again`."""
    old, new = (one.predictions.assign(yes=answers(one)).sort_index() for one in (before, again))
    made, remade = before.provenance, again.provenance
    elsewhere = ", ".join(name for name in BITS if made.get(name) != remade.get(name))
    adapters = made.get("weights") == remade.get("weights")
    equal = old.equals(new) and before.metrics == again.metrics and bool(elsewhere or adapters)
    moved = float((old["yes"] != new["yes"]).mean())
    reader = isinstance(before.spec.labels, NextToken)  # is tested on no texts
    if reader:
        change = max(abs(before.metrics[name] - value) for name, value in again.metrics.items())
    else:
        right = ((one["yes"] == one["label"])[one["split"] == "test"] for one in (old, new))
        was, now = (float(rows.mean()) for rows in right)
        change = abs(was - now)
    near = change <= MOST_CHANGE and moved <= MOST_MOVED
    return {
        "equal": equal,
        "farthest": (old["p"] - new["p"]).abs().max(),
        "moved": moved,
        "change": change,
        "elsewhere": elsewhere,
        "hardware": remade.get("hardware"),
        "collapsed": not reader and collapsed(before) != collapsed(again),
        "holds": equal or bool(elsewhere and near),
    }
