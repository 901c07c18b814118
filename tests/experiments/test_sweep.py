"""Sweeps: what is trained and in which order, and what is refused before it."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import w2s_lib as w2s
from tests.conftest import pinned
from tests.experiments.conftest import left_in
from w2s_lib.experiments.sweep import find_missing, sweep, train_missing
from w2s_lib.models.pins import pin
from w2s_lib.runs import store
from w2s_lib.runs.errors import AssetError, DeviceError, SpecError, StoreError, TrainingError
from w2s_lib.runs.folders import lock_of
from w2s_lib.runs.spec import SEMANTICS, Lora, Recipe, RunSpec, Task
from w2s_lib.runs.store import find, read

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore:.* are also among the"),
]  # the small tables are made of the same sentences


def test_a_run_alone_with_a_trunk_of_its_own_has_the_same_bits(
    swept: SimpleNamespace,
    specs: dict[str, RunSpec],
    own_store: Path,
    tmp_path: Path,
    make_cache: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In this process, from nothing: supervisor, then student; and the supervisor alone is what `lineage` asked for."""
    monkeypatch.setenv("W2S_CACHE", str(make_cache(tmp_path / "cache")))
    record = w2s.run(specs["confident"])
    pd.testing.assert_frame_equal(record.predictions, swept.records["confident"].predictions)
    assert {path.stem for path in own_store.glob("*.parquet")} == {
        specs["weak"].run_id,
        specs["confident"].run_id,
    }
    weak = find(specs["weak"])
    assert weak is not None and weak.predictions.equals(swept.records["weak"].predictions)
    for name in ("weak", "confident"):
        mine, theirs = (
            load_file(next((root / specs[name].run_id).glob("*/adapter_model.safetensors")))
            for root in (own_store, swept.store)
        )
        assert mine.keys() == theirs.keys() and all(
            torch.equal(mine[key], theirs[key]) for key in mine
        )


def test_seeds_are_swept_with_their_whole_lineage(own_store: Path, small_task: Task) -> None:
    weak = w2s.supervisor("tfidf", small_task)
    taught = w2s.student("tfidf", weak)
    frame = sweep([taught], seeds=[3, 4, 3], workers=1, progress=False).frame
    assert frame["seed"].tolist() == [3, 4] and frame["run_id"].tolist() == [
        taught.with_seed(s).run_id for s in (3, 4)
    ]
    expected = {step.with_seed(seed).run_id for step in (weak, taught) for seed in (3, 4)}
    assert {path.stem for path in own_store.glob("*.parquet")} == expected
    three, four = (
        set(found.predictions.query("split == 'student'").index)
        for found in (read(own_store / f"{weak.with_seed(seed).run_id}.parquet") for seed in (3, 4))
    )
    assert three != four
    tests = [set(record.predictions.query("split == 'test'").index) for record in frame["record"]]
    assert tests[0] == tests[1]  # test is the task's, whatever the seed


def family(task: Task) -> tuple[RunSpec, RunSpec, RunSpec, RunSpec]:
    """A reader, a teacher, a student that starts from the reader, a probe of the student."""
    lora = Lora(blocks=1)
    read, weak = w2s.generative("smollm2-135m@2", task, lora=lora), w2s.supervisor("tfidf", task)
    taught = w2s.student("smollm2-135m@2", weak, start=read, lora=lora)
    return read, weak, taught, w2s.probe("smollm2-135m@2", task, start=taught, lora=lora)


def missing(specs: Iterable[RunSpec]) -> list[RunSpec]:
    return list(find_missing(specs)[1].values())


def test_what_is_missing_comes_parents_first(own_store: Path, small_task: Task) -> None:
    """In whatever order they are asked for."""
    read, weak, taught, probe = family(small_task)
    for asked in ([probe], [probe, taught, weak, read], [taught, probe, probe]):
        found = missing(asked)
        assert set(found) == {read, weak, taught, probe} and len(found) == 4
        for spec in (taught, probe):
            assert all(found.index(parent) < found.index(spec) for parent in spec.parents())
    assert missing([weak, read]) == [weak, read]


def test_a_lineage_of_adapters_in_a_sweep(
    own_store: Path, specs: dict[str, RunSpec], quick: dict[str, Any], tiny_models: Path
) -> None:
    """A reader, a student that goes on from it, and a probe of that student, by two processes, the last asked for first."""
    weak, model = specs["tfidf"], f"{tiny_models}/llama@3"
    brief = {"lora": quick["lora"], "recipe": Recipe(epochs=1)}
    read = w2s.generative(model, weak.task, **brief)
    taught = w2s.student(model, weak, start=read, **brief)
    probe = w2s.probe(model, weak.task, start=taught, lora=quick["lora"])
    read, taught, probe = map(pin, (read, taught, probe))
    frame = sweep([probe, taught, read], workers=2, progress=False).frame
    assert frame["role"].tolist() == ["baseline", "student", "generative"]
    times = [
        (own_store / f"{spec.run_id}.parquet").stat().st_mtime_ns for spec in (read, taught, probe)
    ]
    assert times == sorted(times) and len(list(own_store.glob("*.parquet"))) == 4
    assert train_missing([probe], workers=2, progress=False) == set()


@pytest.mark.parametrize(
    "recipe, lora, message",
    [
        ({"learning_rate": 1e30}, {}, "the loss is nan at step"),
        (
            {"learning_rate": 1e30, "epochs": 1, "batch_size": 64},
            {},
            "the predictions of smollm2-135m@3 are not numbers",
        ),
        ({}, {"rank": 10**12}, "out of memory while training smollm2-135m@3"),
    ],
)
def test_training_that_fails_leaves_nothing(
    recipe: dict[str, Any],
    lora: dict[str, Any],
    message: str,
    own_store: Path,
    specs: dict[str, RunSpec],
) -> None:
    top = specs["top"]
    parts = {
        "recipe": dataclasses.replace(top.recipe, **recipe),
        "lora": dataclasses.replace(top.lora, **lora),
    }
    spec = dataclasses.replace(top, **parts)
    with pytest.raises(TrainingError, match=message):
        w2s.run(spec)
    assert left_in(own_store) == []


def test_a_full_disk_while_the_trunk_is_written(
    own_store: Path,
    specs: dict[str, RunSpec],
    tmp_path: Path,
    make_cache: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    full_disk: Any,
) -> None:
    cache = make_cache(tmp_path / "cache")
    monkeypatch.setenv("W2S_CACHE", str(cache))
    with (
        full_disk(100_000),
        pytest.raises(AssetError, match="cannot write the cache .*: free some space there"),
    ):
        w2s.run(specs["top"])
    assert left_in(own_store) == [] and not list(cache.rglob("*.npy")) + list(cache.rglob("*.tmp"))


@pytest.mark.parametrize("n_bytes", [2_000, 100_000])
def test_a_full_disk_after_training_leaves_nothing(
    n_bytes: int, own_store: Path, swept: SimpleNamespace, specs: dict[str, RunSpec], full_disk: Any
) -> None:
    """It fills while the predictions are written, then while the adapters are; the trunk was there before."""
    with (
        full_disk(n_bytes),
        pytest.raises(StoreError, match="could not be written .* Nothing half-written was left"),
    ):
        w2s.run(specs["top"])
    assert left_in(own_store) == []


def test_a_damaged_record_is_retrained(own_store: Path, small_task: Task) -> None:
    spec = w2s.supervisor("tfidf", small_task)
    path = Path(w2s.run(spec).path)
    before = path.read_bytes()
    path.write_bytes(before[:-9])
    with pytest.warns(UserWarning, match="damaged record"):
        record = w2s.run(spec)
    assert record.path == str(path) and path.with_suffix(".damaged").read_bytes() == before[:-9]


def test_each_distinct_run_is_trained_once_teachers_first(
    swept: SimpleNamespace, specs: dict[str, RunSpec]
) -> None:
    """In the order asked for, and each once, though some were asked for twice."""
    written = {path.stem: path.stat().st_mtime_ns for path in swept.store.glob("*.parquet")}
    assert written.keys() == {spec.run_id for spec in specs.values()}
    for spec in specs.values():
        times = [written[step.run_id] for step in spec.lineage()]
        assert times == sorted(times)
    asked = [spec.run_id for spec in specs.values()][::-1]
    assert [record.spec.run_id for record in swept.frame["record"]] == asked
    accuracy = {name: record.metrics["accuracy"] for name, record in swept.records.items()}
    assert accuracy["top"] > 0.8 and accuracy["tfidf"] > 0.9 and accuracy["probe"] > 0.8
    p = {tuple(record.predictions["p"]) for record in swept.records.values()}
    assert len(p) == len(specs)


def test_what_is_recorded_is_read_and_nothing_is_trained(
    there: Path,
    swept: SimpleNamespace,
    specs: dict[str, RunSpec],
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*")}
    found = sweep(specs.values(), workers=2).all_records
    assert {r.digest for r in found} == {r.digest for r in swept.frame["record"]}
    assert w2s.run(specs["naive"]).digest == swept.records["naive"].digest
    assert {path: path.stat().st_mtime_ns for path in there.rglob("*")} == before
    assert capfd.readouterr().err == ""  # nothing to say


def test_what_a_process_killed_at_its_very_end_has_left_is_swept_away(
    own_store: Path, own_cache: Path, small_task: Task
) -> None:
    """The record is there, and so is the lock: nobody trains, so nobody claims the run again."""
    spec = w2s.supervisor("tfidf", small_task)
    sweep([spec], progress=False)
    (own_store / f".{spec.run_id}.lock").touch()
    (trunk := own_cache / "trunks" / "of-nobody").mkdir(parents=True)
    lock_of(trunk / "000000.npy").touch()
    sweep([spec], progress=False)
    assert left_in(own_store) == [f"{spec.run_id}.parquet"] and not left_in(trunk)
    trunk.rmdir()


def test_it_says_what_it_will_cost_before_it_starts(
    swept: SimpleNamespace,
    there: Path,
    specs: dict[str, RunSpec],
    tiny_models: Path,
    quick: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Minutes only for a model of which something is known."""
    new = specs["top"].with_seed(5)
    sweep([specs["weak"], w2s.student("tfidf", specs["weak"]), new], workers=1)
    said = capfd.readouterr().err
    assert "w2s: 2 of 3 distinct runs to train: about 0 min with 1 worker" in said
    assert "sweep: 100%" in said
    other = pinned(f"{tiny_models}/llama@2", task=specs["top"].task, **quick)
    sweep([other], workers=1, progress=False)
    assert "w2s: 1 of 1 distinct runs to train with 1 worker" in capfd.readouterr().err


def test_a_record_is_enough_for_a_teacher_and_not_for_a_start(
    own_store: Path, small_task: Task
) -> None:
    """Labels are in the record. Adapters lie beside it: where they are gone, the run is trained again."""
    read, weak, taught, probe = family(small_task)
    w2s.run(weak)
    assert missing([probe]) == [read, taught, probe]

    def recorded(spec: RunSpec, *, adapters: bool) -> None:
        """Another run's predictions under this run's name: nobody reads them here."""
        made = dataclasses.replace(w2s.run(weak), spec=spec)
        if spec == read:
            predictions = made.predictions[made.predictions["split"] == "validation"]
            losses = {"loss_before": 2.0, "loss": 1.0}
            made = dataclasses.replace(made, predictions=predictions, metrics=losses)
        touch = (
            (lambda folder: (folder / "adapter_model.safetensors").touch()) if adapters else None
        )
        store.write(made, artefacts=touch)

    recorded(read, adapters=False)
    assert missing([read]) == [] and missing([taught]) == [read, taught]
    recorded(read, adapters=True)
    assert missing([taught]) == [taught] and missing([probe]) == [taught, probe]
    recorded(taught, adapters=False)
    assert missing([taught]) == []
    assert missing([probe]) == missing([taught, probe]) == [taught, probe]
    recorded(taught, adapters=True)
    assert missing([probe]) == [probe]
    recorded(probe, adapters=False)
    assert missing([probe, taught, read, weak]) == []


def refused(spec: RunSpec, error: type[Exception], value: str, own_store: Path) -> None:
    """By `run`, and by a sweep in which another run could be trained first."""
    first = w2s.supervisor("tfidf", "movie")
    for go in (lambda: w2s.run(spec), lambda: sweep([first, spec], progress=False)):
        with pytest.raises(error, match=re.escape(value)):
            go()
        assert not own_store.exists() or left_in(own_store) == []


def test_what_cannot_be_trained_is_said_before_anything_is(
    own_store: Path, specs: dict[str, RunSpec], small_task: Task, tiny_models: Path
) -> None:
    deep = pinned(f"{tiny_models}/llama@4", task=small_task)
    refused(deep, SpecError, "depth 4", own_store)
    later = dataclasses.replace(specs["tfidf"], semantics=SEMANTICS + 1)
    refused(later, SpecError, str(SEMANTICS + 1), own_store)
    greedy = w2s.supervisor("tfidf", dataclasses.replace(small_task, n_train=200))
    refused(greedy, SpecError, "n_train", own_store)
    elsewhere = w2s.generative("smollm2-135m@1", small_task, corpus="nyyt")
    refused(elsewhere, SpecError, "nyyt", own_store)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_here_is_said_before_the_teacher_is_trained(
    own_store: Path, specs: dict[str, RunSpec]
) -> None:
    refused(dataclasses.replace(specs["naive"], device="cuda"), DeviceError, "cuda", own_store)


def test_a_file_that_has_changed_is_said_before_training(
    own_store: Path, specs: dict[str, RunSpec], tmp_path: Path
) -> None:
    path = tmp_path / "texts.csv"
    path.write_bytes(Path(specs["tfidf"].task.name).read_bytes())
    task = w2s.default_task(str(path), n_train=64, n_validation=40, n_test=80)
    spec = pin(w2s.supervisor("tfidf", task))
    path.write_text(path.read_text() + "One more.,1\n")
    refused(spec, SpecError, "texts.csv", own_store)
    path.unlink()
    refused(spec, SpecError, "texts.csv", own_store)


def test_a_store_that_cannot_be_written_is_said_before_training(
    specs: dict[str, RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "file" / "records"))
    for go in (lambda: w2s.run(specs["tfidf"]), lambda: sweep([specs["tfidf"]], workers=2)):
        with pytest.raises(StoreError, match="Nothing was trained"):
            go()


def test_settings_of_a_sweep_are_checked_even_where_nothing_is_missing(
    own_store: Path, small_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = w2s.supervisor("tfidf", small_task)
    w2s.run(spec)
    for wrong in ({"workers": 0}, {"engine": "rai"}, {"store": "publish"}):
        with pytest.raises(SpecError, match=str(*wrong.values())):
            train_missing([spec], **wrong)  # type: ignore[arg-type]
    for nothing in (lambda: sweep([]), lambda: sweep([spec], seeds=[])):
        with pytest.raises(SpecError, match="no specs to run, or no seeds"):
            nothing()
    monkeypatch.setenv("W2S_ENGINE", "lokal")
    with pytest.raises(SpecError, match="'lokal'.*'local'"):
        sweep([spec])
    assert train_missing([spec], engine="local") == set()  # what is said wins


def test_ray_that_is_not_installed_is_said_before_training(
    own_store: Path, small_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chapter's number of workers is not for a cluster: beside `W2S_ENGINE` it is no error."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("W2S_ENGINE", "ray")
    spec = w2s.supervisor("tfidf", small_task)
    with pytest.raises(DeviceError, match="needs Ray"):
        sweep([spec], workers=2)
    with pytest.raises(SpecError, match="takes no number of workers"):
        sweep([spec], workers=2, engine="ray")
    assert not list(own_store.glob("*.parquet"))
