"""Damaged records: set aside or reported by name, whatever the damage; and what is no damage, or a forgery."""

from __future__ import annotations

import dataclasses
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.runs.test_store import SPEC, head, record
from w2s_lib.runs.errors import DamagedRecord, StoreError
from w2s_lib.runs.record import Record, accuracies, from_parquet, to_parquet
from w2s_lib.runs.spec import SEMANTICS
from w2s_lib.runs.store import find, read, weights, write


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def rewritten(path: Path, **changes: str) -> None:
    """A well-formed Parquet file with other metadata: only the digest can tell."""
    table = pq.read_table(path)
    changed = {name.encode(): value.encode() for name, value in changes.items()}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **changed}), path)


def other_predictions(path: Path) -> None:
    table = pq.read_table(path)
    p = table["p"].to_numpy().copy()
    p[5] = 1 - p[5]
    pq.write_table(table.set_column(3, "p", [p]), path)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated": truncated,
    "emptied": emptied,
    "metrics edited": lambda path: rewritten(path, metrics='{"accuracy": 0.9}'),
    "provenance edited": lambda path: rewritten(path, provenance='{"task_digest": "00"}'),
    "spec edited": lambda path: rewritten(path, spec=SPEC.with_seed(1).to_json()),
    "spec of nonsense": lambda path: rewritten(
        path, spec='{"model":"smollm2-135m","task":"movie"}'
    ),
    "spec of a list": lambda path: rewritten(path, spec="[]"),
    "no JSON": lambda path: rewritten(path, metrics="{"),
    "a prediction edited": other_predictions,
    "no metadata": lambda path: pq.write_table(
        pq.read_table(path).replace_schema_metadata(None), path
    ),
    "no column p": lambda path: pq.write_table(pq.read_table(path).drop_columns("p"), path),
    "another run's": lambda path: os.replace(write(record(spec=SPEC.with_seed(1))).path, path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_users_damaged_record_is_set_aside_and_counts_as_missing(
    damage: Callable[[Path], Any], own_store: Path
) -> None:
    path = Path(write(record()).path)
    damage(path)
    with pytest.raises(DamagedRecord, match=SPEC.run_id):
        read(path)
    with pytest.warns(UserWarning, match=rf"{SPEC.run_id}\.damaged"):
        assert find(SPEC) is None
    assert not path.exists() and path.with_suffix(".damaged").exists()
    assert find(SPEC) is None  # and says so only once
    write(record())
    assert find(SPEC) is not None


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_published_record_is_an_error(
    damage: Callable[[Path], Any], own_store: Path, published: Path
) -> None:
    path = Path(write(record(), store=published).path)
    damage(path)
    with pytest.raises(DamagedRecord, match=SPEC.run_id):
        find(SPEC)
    assert path.exists()


def test_another_writers_encoding_is_no_damage(own_store: Path) -> None:
    """The same content in a file of other bytes; a column more is damage, though the digest knows nothing of it."""
    one = record()
    path = Path(write(one).path)
    table = pq.read_table(path)
    pq.write_table(table, path)
    assert read(path).digest == one.digest
    pq.write_table(table.append_column("p@0.5", table["p"]), path)
    with pytest.raises(DamagedRecord, match=rf"{one.spec.run_id}.*p@0\.5"):
        read(path)


def test_a_damaged_record_of_the_user_gives_way_to_the_published_one(
    own_store: Path, published: Path
) -> None:
    write(record(), store=published)
    emptied(Path(write(record()).path))
    with pytest.warns(UserWarning, match=SPEC.run_id):
        found = find(SPEC)
    assert found is not None and found.path.startswith(str(published))


def test_damaged_weights_are_said_and_count_as_missing(own_store: Path) -> None:
    """One bit; then a file that is not there. Trained again they are there as before."""
    for damage in (lambda file: file.write_bytes(b"0"), lambda file: file.unlink()):
        write(record(), artefacts=head(b"1"))
        folder = weights(SPEC)
        assert folder is not None
        damage(folder / "head")
        with pytest.warns(UserWarning, match=SPEC.run_id):
            assert weights(SPEC) is None
        assert find(SPEC) is not None
        write(record(), artefacts=head(b"1"))
        assert weights(SPEC) == folder


# Only content is damage


def test_a_record_that_cannot_be_opened_is_not_set_aside(own_store: Path) -> None:
    """Too many open files, as after a long session; then it is read again as it was."""
    path = Path(write(record()).path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(StoreError) as told:
            find(SPEC)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(told.value, DamagedRecord) and path.name in str(told.value)
    assert path.is_file() and find(SPEC) is not None


# Forged records, whose digest is right


def forged(**columns: Callable[[Any], Any]) -> Record:
    """A record with other values in some columns, and the metrics that they make."""
    one = record()
    frame = one.predictions.assign(
        **{
            name: change(one.predictions[name].to_numpy().copy())
            for name, change in columns.items()
        }
    )
    metrics = accuracies(frame.assign(p=frame["p"].fillna(0).clip(0, 1)))
    return dataclasses.replace(one, predictions=frame, metrics=metrics)


def first(value: Any) -> Callable[[Any], Any]:
    """Puts a value in the place of the first one."""
    return lambda column: np.concatenate([np.array([value], column.dtype), column[1:]])


FORGED = {
    "accuracy": lambda: dataclasses.replace(
        record(), metrics={**record().metrics, "accuracy": 1.0}
    ),
    "no accuracy": lambda: dataclasses.replace(record(), metrics={}),
    "NaN": lambda: forged(p=first(np.nan)),
    "p above 1": lambda: forged(p=first(7.0)),
    "p below 0": lambda: forged(p=first(-0.1)),
    "label": lambda: forged(label=first(2)),
    "group": lambda: forged(group=first(-1)),
    "split": lambda: forged(split=first("train")),
    "copies of a row": lambda: dataclasses.replace(
        record(), predictions=record().predictions.set_axis(pd.Index([7] * 400, name="row"))
    ),
    "no rows": lambda: dataclasses.replace(
        record(), predictions=record().predictions[:0], metrics={}
    ),
    "rules": lambda: dataclasses.replace(record(), rules="first"),
    "adapters": lambda: dataclasses.replace(record(), provenance={"weights": "../elsewhere"}),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_record_is_refused_though_its_digest_is_right(name: str, own_store: Path) -> None:
    one = FORGED[name]()
    with pytest.raises(StoreError, match=one.spec.run_id):
        write(one, rules=one.rules)
    if name not in ("split", "no rows"):  # of which we cannot make a file
        with pytest.raises(DamagedRecord, match=one.spec.run_id):
            from_parquet(to_parquet(one), f"{one.spec.run_id}.parquet")
    assert find(one.spec) is None


def test_a_record_that_names_another_folder_as_its_adapters_harms_it_not(own_store: Path) -> None:
    """What is not whole is removed: that may never be a folder that somebody else has named."""
    mine = own_store.parent / "mine"
    (mine / "papers").mkdir(parents=True)
    (own_store / SPEC.run_id).mkdir(parents=True)
    for name in (str(mine), "../../mine"):
        forged = dataclasses.replace(record(), provenance={"weights": name})
        (own_store / f"{SPEC.run_id}.parquet").write_bytes(to_parquet(forged))
        with pytest.warns(UserWarning, match=re.escape(repr(name))):
            assert weights(SPEC) is None
        assert (mine / "papers").is_dir()


# Rules


def test_a_published_record_carries_the_digest_of_its_rules(own_store: Path) -> None:
    rules = "ab" * 32
    path = Path(write(record(), store=own_store / "published", rules=rules).path)
    assert read(path).rules == rules and read(path).digest != record().digest
    for other in ("cd" * 32, ""):
        rewritten(path, rules=other)
        with pytest.raises(DamagedRecord):
            read(path)


# Other editions


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_record_of_the_first_edition_is_refused_by_name(version: str, own_store: Path) -> None:
    """As that edition wrote it, with a spec that cannot be read now: it is no damage, and it stays where it is."""
    path = Path(write(record()).path)
    old = (
        '{"half":"supervisor","model":"smollm2-135m@4","seed":990001,"semantics":1,'
        '"snapshots":[0.25,0.5]}'
    )
    rewritten(path, format=version, spec=old)
    for use in (lambda: read(path), lambda: find(SPEC)):
        with pytest.raises(
            StoreError, match=rf"{path.name}.*format {version}.*semantics 1"
        ) as told:
            use()
        assert not isinstance(told.value, DamagedRecord)
    assert path.is_file()


def test_a_record_of_other_semantics_is_refused_by_name_under_its_own(own_store: Path) -> None:
    other = dataclasses.replace(SPEC, semantics=SEMANTICS + 1)
    path = Path(write(record(spec=other)).path)
    with pytest.raises(StoreError, match=f"{path.name}.*semantics {SEMANTICS + 1}") as told:
        find(other)
    assert not isinstance(told.value, DamagedRecord) and path.is_file()
