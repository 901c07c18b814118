"""Records checked, and published runs trained again: damaged, forged with their digest, made elsewhere, and whole."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import w2s_lib as w2s
from tests.conftest import Count, pinned
from tests.runs.test_store import SPEC, record
from w2s_lib import __main__ as cli
from w2s_lib.publishing.audit import MOST_MOVED, compare, drawn, exact, train_again, verify
from w2s_lib.runs.errors import DamagedRecord, StoreError
from w2s_lib.runs.record import Record, accuracies, from_parquet, to_parquet
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import RunSpec, Task
from w2s_lib.runs.store import FolderStore, find, read, weights_digest, write

pytestmark = pytest.mark.usefixtures("own_cache")
ROOT = Path(__file__).parents[2]


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def runs(small_task: Task, tiny_models: Path) -> dict[str, RunSpec]:
    """A supervisor under two seeds, its student, a student with adapters, and a run that reads."""
    weak = w2s.supervisor("tfidf", small_task)
    lora, brief = w2s.Lora(rank=1, alpha=2.0, blocks=1), w2s.Recipe(epochs=1, batch_size=16)
    own = {"task": small_task, "lora": lora, "recipe": brief, "precision": "fp32"}
    tuned = pinned(tiny_models / "llama", **own, quantization="none")
    return {
        "weak": weak,
        "second": weak.with_seed(1),
        "taught": w2s.student("tfidf", weak),
        "tuned": tuned,
        "reader": dataclasses.replace(tuned, labels=NextToken()),
    }


@pytest.fixture(scope="module")
def checkout(
    runs: dict[str, RunSpec], session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkout with a commit before its rules and one with them, at which all runs were made."""
    root = tmp_path_factory.mktemp("checkout")
    git(root, "init", "-q")
    git(root, "commit", "-qm", "before", "--allow-empty")
    (rules := root / "book" / "claims" / "second.yaml").parent.mkdir(parents=True)
    rules.write_text("level: 0.95\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "rules")
    digest, commit = hashlib.sha256(rules.read_bytes()).hexdigest(), git(root, "rev-parse", "HEAD")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("W2S_CACHE", str(session_cache))
        patch.setenv("W2S_PUBLISHED", "0")
        patch.setenv("W2S_STORE", str(root / "mine"))
        for spec in runs.values():
            made = w2s.run(spec)
            made = dataclasses.replace(made, provenance=made.provenance | {"commit": commit})
            write(made, store=root / "book" / "results", rules=digest)
    return root


@pytest.fixture
def results(checkout: Path, tmp_path: Path) -> Path:
    """The published records of a copy of the checkout."""
    return shutil.copytree(checkout, tmp_path / "copy") / "book" / "results"


def wrong(results: Path) -> dict[str, str]:
    """What `verify` finds: file -> what is wrong."""
    table = verify(FolderStore(results), published=True)
    assert len(table) and set(table["unknown"]) <= {""}, table
    return dict(table.loc[table["wrong"] != "", ["file", "wrong"]].to_numpy())


def replaced(results: Path, spec: RunSpec, change: Callable[[Record], Record]) -> Record:
    """Puts another record in the place of one, with the digest and the metrics that it makes."""
    forged = change(read(results / f"{spec.run_id}.parquet"))
    (results / f"{forged.spec.run_id}.parquet").write_bytes(to_parquet(forged))
    return forged


def made(**changes: str) -> Callable[[Record], Record]:
    """Another provenance."""
    return lambda one: dataclasses.replace(one, provenance=one.provenance | changes)


def column(name: str, change: Callable[[Any], Any]) -> Callable[[Record], Record]:
    """Another column, and the metrics that it makes."""

    def forge(one: Record) -> Record:
        frame = one.predictions.assign(**{name: change(one.predictions[name].to_numpy().copy())})
        metrics = one.metrics if one.spec.role == "generative" else accuracies(frame)
        return dataclasses.replace(one, predictions=frame, metrics=metrics)

    return forge


def shifted_rows(one: Record) -> Record:
    frame = one.predictions.set_axis(one.predictions.index + 1)
    return dataclasses.replace(one, predictions=frame)


# Whole


def test_every_published_record_is_whole() -> None:
    """Its content, and its rows, labels and groups against the tasks' texts; its rules and teachers."""
    table = verify(FolderStore(ROOT / "book" / "results"), published=True)
    assert len(table) > 300 and (table["wrong"] == "").all(), table[table["wrong"] != ""]
    assert not table["unknown"].str.contains("texts").any()


def test_a_whole_store_is_told_to_be(
    results: Path,
    runs: dict[str, RunSpec],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both stores, adapters too; one record is of a file that is gone and cannot be compared."""
    mine = results.parents[1] / "mine"
    gone = Task(name="gone.csv", sha256="ab" * 32, n_train=64, n_validation=40, n_test=80)
    monkeypatch.setenv("W2S_STORE", str(mine))
    monkeypatch.setenv("W2S_PUBLISHED", str(results))
    some = read(results / f"{runs['weak'].run_id}.parquet")
    write(dataclasses.replace(some, spec=w2s.supervisor("tfidf", gone)))
    assert cli.verify({}) == 0
    said = capsys.readouterr().out
    assert f"{mine}: 8 of 8 files are whole" in said and f"{results}: 5 of 5" in said
    assert "1 records could not be compared with the texts of gone.csv" in said


# Damaged


def test_every_byte_of_a_record_counts(record_property: Count) -> None:
    """Each one changed in turn: nothing is read as other content, and `verify` finds what reading does not.

    But for the bytes that say who wrote the file: with another version of Arrow no bytes can be compared.
    """
    name, whole = f"{SPEC.run_id}.parquet", to_parquet(one := record(8))
    rng, writer = np.random.default_rng(0), whole.index(b"parquet-cpp-arrow version")
    n_found = {from_parquet: 0, exact: 0}
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        for look in n_found:
            try:
                assert look(bytes(damaged), name).digest == one.digest
            except StoreError as error:
                assert name in str(error)
                n_found[look] += 1
                break
        else:
            assert abs(place - writer) < 32, place
    record_property("bytes of a record changed", len(whole))
    record_property("of these found by reading", n_found[from_parquet])
    record_property("of these found by comparison alone, the rest name the writer", n_found[exact])


def test_a_record_cut_off_anywhere_is_damaged(record_property: Count) -> None:
    name, whole = f"{SPEC.run_id}.parquet", to_parquet(record(8))
    for length in range(len(whole)):
        with pytest.raises(DamagedRecord, match=name):
            from_parquet(whole[:length], name)
    record_property("lengths at which a record was cut off", len(whole))


def test_records_in_each_others_place_are_damaged(results: Path, runs: dict[str, RunSpec]) -> None:
    one, two = (results / f"{runs[name].run_id}.parquet" for name in ("weak", "second"))
    one.rename(results / "aside")
    two.rename(one)
    (results / "aside").rename(two)
    assert wrong(results).keys() == {one.name, two.name}


def test_every_byte_of_an_adapter_counts(
    results: Path, runs: dict[str, RunSpec], record_property: Count
) -> None:
    """Each one changed in turn, cut off, another run's in its place. `verify` only looks."""
    mine = results.parents[1] / "mine"
    folder = next((mine / runs["tuned"].run_id).iterdir())
    sizes = [file.stat().st_size for file in folder.iterdir()]
    record_property("bytes of an adapter changed", sum(sizes))
    for file in folder.iterdir():
        whole = bytearray(file.read_bytes())
        for place in range(len(whole)):
            whole[place] ^= 255
            file.write_bytes(whole)
            assert weights_digest(folder) != folder.name, (file.name, place)
            whole[place] ^= 255
        file.write_bytes(whole)
    assert weights_digest(folder) == folder.name
    other = next((mine / runs["reader"].run_id).iterdir())
    for damage in (
        lambda: file.write_bytes(whole[:-1]),
        lambda: file.unlink(),
        lambda: (shutil.rmtree(folder), shutil.copytree(other, folder)),
    ):
        damage()
        table = verify(FolderStore(mine)).set_index("file")["wrong"]
        assert list(table.index[table != ""]) == [f"{runs['tuned'].run_id}/{folder.name}"]


# Forged together with their digest

BY_VERIFY: dict[str, tuple[str, Callable[[Record], Record], str]] = {
    "accuracy": (
        "weak",
        lambda one: dataclasses.replace(one, metrics=one.metrics | {"accuracy": 0.75}),
        "its metrics are",
    ),
    "labels": ("taught", column("label", lambda labels: 1 - labels), "label: not what"),
    "splits": ("weak", column("split", lambda split: np.roll(split, 1)), "split: not what"),
    "groups": ("weak", column("group", lambda group: group[::-1]), "group: not what"),
    "other rows": ("weak", shifted_rows, "rows are not those of its task"),
    "another seed's predictions": (
        "weak",
        lambda one: dataclasses.replace(one, spec=one.spec.with_seed(2)),
        "rows are not those of its task and seed",
    ),
    "task": ("weak", made(task_digest="ab" * 32), "its task has digest abab"),
    "no rules": ("weak", lambda one: dataclasses.replace(one, rules=""), "those of no edition"),
    "rules": ("weak", lambda one: dataclasses.replace(one, rules="ab" * 32), "those of no edition"),
    "date before its commit": ("weak", made(date="2001-01-01"), "its commit is of"),
    "date to come": ("weak", made(date="9999-01-01"), "its date is '9999-01-01'"),
    "date that is none": ("weak", made(date="today"), "its date is 'today'"),
}


@pytest.mark.parametrize("name", BY_VERIFY)
def test_what_is_forged_with_its_digest_is_found_by_verify(
    name: str, results: Path, runs: dict[str, RunSpec], record_property: Count
) -> None:
    """Not by reading, but for the metrics: the digest is right."""
    run, forge, said = BY_VERIFY[name]
    forged = replaced(results, runs[run], forge)
    (found,) = wrong(results).items()
    assert found[0] == f"{forged.spec.run_id}.parquet" and said in found[1]
    record_property("records forged together with their digest", 1)


def test_a_published_record_without_its_teacher_is_told(
    results: Path, runs: dict[str, RunSpec]
) -> None:
    (results / f"{runs['weak'].run_id}.parquet").unlink()
    ((file, said),) = wrong(results).items()
    assert file.startswith(runs["taught"].run_id) and runs["weak"].run_id in said


def test_a_commit_is_compared_with_the_rules(results: Path, runs: dict[str, RunSpec]) -> None:
    """Before the rules were written; one that is not here, or is none, is told and is no damage."""
    replaced(results, runs["weak"], made(commit=git(results.parents[1], "rev-parse", "HEAD~1")))
    (said,) = wrong(results).values()
    assert "its rules are not in its commit" in said
    for other in ("ab" * 20, "", "--output=x"):
        replaced(results, runs["weak"], made(commit=other))
        table = verify(FolderStore(results), published=True)
        (told,) = (words for words in table["unknown"] if words)
        assert f"commit {other or 'none'}" in told and (table["wrong"] == "").all()


def raised(p: Any) -> Any:
    """Every third prediction, turned round."""
    return np.where(np.arange(len(p)) % 3, p, 1 - p)


def other_loss(one: Record) -> Record:
    return dataclasses.replace(one, metrics=one.metrics | {"loss": one.metrics["loss"] - 0.5})


BY_AUDIT = {
    "predictions": ("taught", column("p", raised)),
    "one prediction": ("taught", column("p", lambda p: np.nextafter(p, np.float32(0.5)))),
    "a loss": ("reader", other_loss),
    "adapters": ("tuned", made(weights="ab" * 16)),
}


@pytest.mark.parametrize("name", BY_AUDIT)
def test_what_verify_cannot_know_is_found_by_an_audit(
    name: str, results: Path, runs: dict[str, RunSpec], monkeypatch: pytest.MonkeyPatch,
    record_property: Count,
) -> None:  # fmt: skip
    """On the same kind of machine a run trained again is equal, to the bit."""
    run, forge = BY_AUDIT[name]
    monkeypatch.setenv("W2S_STORE", str(results.parents[1] / "mine"))
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    again = find(runs[run])
    assert again is not None
    true = compare(read(results / f"{runs[run].run_id}.parquet"), again)
    assert true["equal"] and true["holds"] and true["moved"] == true["change"] == 0
    forged = replaced(results, runs[run], forge)
    assert not wrong(results)
    found = compare(forged, again)
    assert not (found["equal"] or found["holds"]) and found["elsewhere"] == ""
    record_property("records forged together with their digest", 1)


def test_what_was_made_elsewhere_is_compared_within_tolerances(
    results: Path, runs: dict[str, RunSpec]
) -> None:
    """A record that says so falsely is told to: its bits are those of this machine."""
    one = read(results / f"{runs['taught'].run_id}.parquet")
    far = dataclasses.replace(one, provenance=one.provenance | {"hardware": "an abacus"})
    found = compare(far, one)
    assert found["equal"] and found["holds"] and found["elsewhere"] == "hardware"
    near = column("p", lambda p: np.nextafter(p, np.float32(0.5)))(far)
    found = compare(near, one)
    assert not found["equal"] and found["holds"] and 0 < found["farthest"] < 1e-6
    other = column("p", raised)(far)
    found = compare(other, one)
    assert not found["holds"] and found["moved"] > MOST_MOVED


# Trained again


def test_runs_are_trained_again_with_their_teachers_and_compared(
    results: Path, runs: dict[str, RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a store of its own; one that is not published has no row."""
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    weak, taught = runs["weak"], runs["taught"]
    replaced(results, taught, column("p", raised))
    table = train_again([taught, weak.with_seed(2)], results, workers=1).set_index("run_id")
    assert table["equal"].to_dict() == {weak.run_id: True, taught.run_id: False}
    assert table["farthest"][weak.run_id] == 0 < table["farthest"][taught.run_id]
    assert list(table["elsewhere"]) == ["", ""]


def test_a_date_draws_one_of_each_kind(results: Path, runs: dict[str, RunSpec]) -> None:
    days = [f"2026-12-{day:02d}" for day in range(1, 11)]
    draws = [{spec.run_id for spec in drawn(results, day)} for day in days]
    kinds = {runs[name].run_id for name in ("taught", "tuned", "reader")}
    seeds = {runs[name].run_id for name in ("weak", "second")}
    assert all(len(draw) == 4 and kinds < draw for draw in draws)
    assert {frozenset(draw & seeds) for draw in draws} == {frozenset({one}) for one in seeds}
    assert draws[0] == {spec.run_id for spec in drawn(results, days[0])}
