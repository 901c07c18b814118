"""What a sweep publishes: each finished record, with the rules of its edition."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import w2s_lib as w2s
from tests.experiments.conftest import left_in
from w2s_lib.experiments.sweep import publish, train_missing
from w2s_lib.runs.errors import StoreError
from w2s_lib.runs.spec import Task
from w2s_lib.runs.store import read

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own: its published store is not the book's."""
    results = tmp_path / "checkout" / "book" / "results"
    monkeypatch.setenv("W2S_PUBLISHED", str(results))
    (results.parent / "claims").mkdir(parents=True)
    (results.parent / "claims" / "second.yaml").touch()
    return results


def test_finished_records_are_copied_to_the_published_store(
    own_store: Path, checkout: Path, small_task: Task
) -> None:
    weak = w2s.supervisor("tfidf", small_task)
    w2s.run(weak)
    taught = w2s.student("tfidf", weak)
    assert train_missing([taught], store="published", workers=1, progress=False) == {taught.run_id}
    assert left_in(checkout) == sorted(f"{s.run_id}.parquet" for s in (weak, taught))
    for spec in (weak, taught):
        mine, theirs = (folder / f"{spec.run_id}.parquet" for folder in (own_store, checkout))
        assert read(mine).predictions.equals(read(theirs).predictions)
    for path in own_store.glob("*.parquet"):
        path.unlink()
    assert w2s.run(taught).path == str(checkout / f"{taught.run_id}.parquet")


def test_a_published_record_carries_the_rules_of_its_edition(
    own_store: Path, checkout: Path, small_task: Task
) -> None:
    """Those that are there when it is published; a file that is written later changes no record."""
    one, other = (w2s.run(w2s.supervisor("tfidf", small_task, seed=seed)) for seed in (0, 1))
    rules = checkout.parent / "claims" / "second.yaml"
    publish(one)
    rules.write_text("claims: []")
    for record in (one, other):
        publish(record)
    found = [read(checkout / f"{record.spec.run_id}.parquet").rules for record in (one, other)]
    assert found == [hashlib.sha256(text).hexdigest() for text in (b"", b"claims: []")]
    rules.unlink()
    with pytest.raises(StoreError, match=r"second\.yaml"):
        publish(one)


def test_publishing_without_a_published_store_is_said_before_training(
    own_store: Path, checkout: Path, small_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    with pytest.raises(StoreError, match="no published store: .* W2S_PUBLISHED=0 hides it"):
        train_missing(
            [w2s.supervisor("tfidf", small_task)], store="published", workers=1, progress=False
        )
    assert not own_store.exists()
