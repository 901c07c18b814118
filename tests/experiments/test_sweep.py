"""End to end on the real model's first blocks: runs alone and in sweeps, resumed, interrupted, refused, and their labels."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import w2s_lib as w2s
from tests.conftest import killed_after_the_first
from w2s_lib.experiments.sweep import publish, sweep, train_missing
from w2s_lib.models.pins import folder_digest
from w2s_lib.runs import store
from w2s_lib.runs.errors import AssetError, DeviceError, SpecError, StoreError, TrainingError
from w2s_lib.runs.parts import ConfidenceLoss
from w2s_lib.runs.record import SPLITS, Record
from w2s_lib.runs.spec import SEMANTICS, Flip, FromRun, Lora, Recipe, RunSpec, Task
from w2s_lib.runs.store import find
from w2s_lib.tasks.splits import splits
from w2s_lib.tasks.table import load_table
from w2s_lib.training import execute as runner
from w2s_lib.training.execute import cost, training_labels, trainings

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore:.* are also among the"),
]  # the small tables are made of the same sentences
REPO = Path(__file__).parents[2]
sweep_module = sys.modules[
    "w2s_lib.experiments.sweep"
]  # `w2s_lib.experiments.sweep` is the function
COLUMNS = [
    "run_id",
    "role",
    "model",
    "depth",
    "supervisor",
    "labels",
    "loss",
    "hard",
    "lora_blocks",
    "quantization",
    "method",
    "seed",
    "accuracy",
    "validation_accuracy",
    "seconds",
    "record",
]


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="session")
def specs(small_task: Task, quick: dict[str, Any]) -> dict[str, RunSpec]:
    """One of each kind. The supervisor learns for half as long: it must be wrong somewhere."""
    task = small_task
    weak = w2s.supervisor(
        "smollm2-135m@2",
        task,
        lora=quick["lora"],
        recipe=dataclasses.replace(quick["recipe"], epochs=3),
    )
    return {
        "weak": weak,
        "top": w2s.ceiling("smollm2-135m@3", task, **quick),
        "naive": w2s.student("smollm2-135m@3", weak, **quick),
        "hard": w2s.student("smollm2-135m@3", weak, hard=True, **quick),
        "confident": w2s.student(
            "smollm2-135m@3", weak, loss=ConfidenceLoss(alpha_max=0.75), **quick
        ),
        "flipped": w2s.student("smollm2-135m@3", Flip(run=weak), **quick),
        "tfidf": w2s.supervisor("tfidf", task),
        "taught by tfidf": w2s.student("smollm2-135m@3", w2s.supervisor("tfidf", task), **quick),
        "probe": w2s.probe("smollm2-135m@2", task),
        "zero_shot": w2s.zero_shot("smollm2-135m@2", task),
    }


@pytest.fixture(scope="session")
def swept(
    specs: dict[str, RunSpec], session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """All of them, some asked for twice and the supervisor last, by two processes."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("W2S_CACHE", str(session_cache))
        patch.setenv("W2S_STORE", str(folder / "records"))
        patch.setenv("W2S_MANIFEST", str(folder / "manifest.jsonl"))
        frame = sweep(
            [*list(specs.values())[::-1], specs["naive"], specs["weak"]], workers=2, progress=False
        ).frame
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return SimpleNamespace(
        frame=frame,
        store=folder / "records",
        manifest=lines,
        records={
            name: frame.set_index("run_id")["record"][spec.run_id] for name, spec in specs.items()
        },
    )


@pytest.fixture
def there(swept: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished sweep's store as the user's."""
    monkeypatch.setenv("W2S_STORE", str(swept.store))
    return Path(swept.store)


# What a sweep gives


def test_a_sweep_is_a_tidy_frame_with_a_row_a_run(
    swept: SimpleNamespace, specs: dict[str, RunSpec]
) -> None:
    frame = swept.frame
    assert list(frame.columns) == COLUMNS
    assert frame["run_id"].tolist() == [
        spec.run_id for spec in list(specs.values())[::-1]
    ]  # as asked for, each once
    by = frame.set_index("run_id")
    row = by.loc[specs["confident"].run_id]
    assert row[
        [
            "role",
            "model",
            "depth",
            "supervisor",
            "labels",
            "loss",
            "hard",
            "lora_blocks",
            "quantization",
            "method",
            "seed",
        ]
    ].tolist() == [
        "student",
        "smollm2-135m@3",
        3,
        "smollm2-135m@2",
        "FromRun",
        "ConfidenceLoss",
        False,
        1,
        "nf4",
        "finetune",
        0,
    ]
    roles = {name: by.loc[spec.run_id, "role"] for name, spec in specs.items()}
    assert [name for name, role in roles.items() if role == "supervisor"] == ["weak", "tfidf"]
    assert [name for name, role in roles.items() if role == "baseline"] == ["probe", "zero_shot"]
    assert roles["top"] == "ceiling" and roles["flipped"] == "student"
    assert (
        by.loc[specs["hard"].run_id, "hard"] and by.loc[specs["flipped"].run_id, "labels"] == "Flip"
    )
    assert by.loc[specs["weak"].run_id, "supervisor"] == "" and pd.isna(
        by.loc[specs["tfidf"].run_id, "depth"]
    )
    for _, row in frame.iterrows():
        assert isinstance(row["record"], Record) and row["record"].spec.run_id == row["run_id"]
        assert row["accuracy"] == row["record"].metrics["accuracy"] and row["seconds"] > 0


def test_each_distinct_run_is_trained_once_teachers_first(
    swept: SimpleNamespace, specs: dict[str, RunSpec]
) -> None:
    written = {path.stem: path.stat().st_mtime_ns for path in swept.store.glob("*.parquet")}
    assert written.keys() == {spec.run_id for spec in specs.values()}
    for spec in specs.values():
        times = [written[step.run_id] for step in spec.lineage()]
        assert times == sorted(times)
    assert [line["run_id"] for line in swept.manifest] == swept.frame["run_id"].tolist()
    for line, record in zip(swept.manifest, swept.frame["record"], strict=True):
        assert line == {
            "run_id": record.spec.run_id,
            "digest": record.digest,
            "trained": True,
            "path": record.path,
        }


def test_a_record_has_predictions_for_every_split_and_its_accuracies(
    swept: SimpleNamespace, small_task: Task
) -> None:
    table = load_table(small_task)
    parts = splits(table, 0)
    for record in swept.records.values():
        frame = record.predictions
        for name in SPLITS:
            rows = frame.index[frame["split"] == name]
            assert sorted(rows) == getattr(parts, name).tolist()
            right = ((frame.loc[rows, "p"] > 0.5) == (frame.loc[rows, "label"] == 1)).mean()
            assert record.metrics[
                "accuracy" if name == "test" else f"{name}_accuracy"
            ] == pytest.approx(right)
        assert (frame["label"].to_numpy() == table.frame["label"].to_numpy()[frame.index]).all()
        assert frame["p"].between(0, 1).all() and frame["p"].dtype == np.float32
        assert record.provenance["task_digest"] == table.digest


def test_provenance_says_what_made_it(swept: SimpleNamespace) -> None:
    made = swept.records["naive"].provenance
    assert set(made) == {
        "task_digest",
        "device",
        "hardware",
        "threads",
        "python",
        "versions",
        "seconds",
        "trunk_seconds",
        "peak_memory_bytes",
        "date",
        "commit",
    }
    assert (
        made["device"] == "cpu"
        and made["threads"] == 1
        and made["versions"]["torch"] == version("torch")
    )
    assert 1e8 < made["peak_memory_bytes"] < 8e9 and made["seconds"] > 0 and made["hardware"]


def test_a_run_with_more_threads_says_so(
    swept: SimpleNamespace,
    own_store: Path,
    checkout: Path,
    specs: dict[str, RunSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same but for rounding, and a trunk of its own: not one of the others' bits."""
    monkeypatch.setenv("W2S_THREADS", "2")
    alone, more = swept.records["weak"], w2s.run(specs["weak"], progress=False)
    assert (
        more.provenance["threads"] == 2
        and more.provenance["hardware"] == f"{alone.provenance['hardware']}, 2 threads"
    )
    np.testing.assert_allclose(more.predictions["p"], alone.predictions["p"], atol=0.02)
    assert more.provenance["trunk_seconds"] > 0
    with pytest.raises(
        SpecError, match="published records are made with one thread.*: unset W2S_THREADS"
    ):
        train_missing([specs["weak"]], store="published", progress=False)
    monkeypatch.setenv("W2S_THREADS", "")  # as one: but the record that is there is still of two
    with pytest.raises(
        StoreError,
        match=f"made with one thread.*, and .*{specs['weak'].run_id}.parquet with 2: move it away",
    ):
        train_missing([specs["weak"]], store="published", progress=False)
    assert left_in(checkout) == []
    monkeypatch.setenv("W2S_THREADS", "many")
    with pytest.raises(
        DeviceError, match="W2S_THREADS must be a whole number from 1 on, not 'many'"
    ):
        sweep([specs["top"]], progress=False)


def test_the_arms_can_be_told_apart(swept: SimpleNamespace) -> None:
    """Sanity, not science: the ceiling and the baselines that see words do well on sentences told apart by one word."""
    accuracy = {name: record.metrics["accuracy"] for name, record in swept.records.items()}
    assert accuracy["top"] > 0.8 and accuracy["tfidf"] > 0.9 and accuracy["probe"] > 0.8
    p = {name: tuple(record.predictions["p"]) for name, record in swept.records.items()}
    assert len(set(p.values())) == len(p)


def test_adapters_and_head_lie_beside_what_was_finetuned(
    swept: SimpleNamespace, specs: dict[str, RunSpec]
) -> None:
    for name, spec in specs.items():
        folder = swept.store / spec.run_id
        assert folder.is_dir() == (name not in ("tfidf", "probe", "zero_shot"))
        if folder.is_dir():
            assert load_file(folder / "head.safetensors")["weight"].shape == (2, 576)
            adapters = load_file(folder / "adapter_model.safetensors")
            assert {key.split("layers.")[1].split(".")[0] for key in adapters} == {
                str((spec.depth or 0) - 1)
            }
    assert {path.suffix for path in swept.store.rglob("*") if path.is_file()} == {
        ".parquet",
        ".safetensors",
        ".json",
    }
    assert not list(swept.store.glob(".*"))


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
    record = w2s.run(specs["confident"], progress=False)
    pd.testing.assert_frame_equal(record.predictions, swept.records["confident"].predictions)
    assert {path.stem for path in own_store.glob("*.parquet")} == {
        specs["weak"].run_id,
        specs["confident"].run_id,
    }
    weak = find(specs["weak"])
    assert weak is not None and weak.predictions.equals(swept.records["weak"].predictions)
    for name in ("weak", "confident"):
        mine, theirs = (
            load_file(root / specs[name].run_id / "adapter_model.safetensors")
            for root in (own_store, swept.store)
        )
        assert mine.keys() == theirs.keys() and all(
            torch.equal(mine[key], theirs[key]) for key in mine
        )


def test_what_is_recorded_is_read_and_nothing_is_trained(
    there: Path,
    swept: SimpleNamespace,
    specs: dict[str, RunSpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*")}
    monkeypatch.setenv("W2S_MANIFEST", str(tmp_path / "manifest.jsonl"))
    frame = sweep(specs.values(), workers=2).frame
    record = w2s.run(specs["naive"])
    assert (
        set(frame["accuracy"]) == set(swept.frame["accuracy"])
        and record.digest == swept.records["naive"].digest
    )
    assert {path: path.stat().st_mtime_ns for path in there.rglob("*")} == before
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert len(lines) == len(specs) + 1 and not any(line["trained"] for line in lines)
    assert capfd.readouterr().err == ""  # nothing to say


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
        set(record.predictions.query("split == 'student'").index) for record in frame["record"]
    )
    assert three != four
    tests = [set(record.predictions.query("split == 'test'").index) for record in frame["record"]]
    assert tests[0] == tests[1]  # test is the task's, whatever the seed


def test_it_says_what_it_will_cost_before_it_starts(
    small_task: Task, capfd: pytest.CaptureFixture[str]
) -> None:
    weak = w2s.supervisor("tfidf", small_task)
    sweep([w2s.student("tfidf", weak)], workers=1, progress=False)
    assert (
        "w2s: 2 of 2 distinct runs to train: about 0 min with 1 worker, shared trunks extra"
        in capfd.readouterr().err
    )
    sweep([weak, w2s.student("tfidf", weak, hard=True)], workers=1, progress=True)
    said = capfd.readouterr().err
    assert "w2s: 1 of 2 distinct runs to train" in said and "sweep" in said


def test_cost_by_hand() -> None:
    """Ten adapted blocks; two passes over 1,000 rows at three forwards each; 2,000 + 500 + 2 * 1,000 rows predicted."""
    spec = RunSpec(model="smollm2-135m", recipe=Recipe(epochs=2))
    assert cost(spec) == 10 * (3 * 2 * 1000 + 4500)
    assert cost(dataclasses.replace(spec, lora=Lora(blocks="all"))) == 3 * cost(spec)
    assert cost(dataclasses.replace(spec, model="smollm2-135m@5")) == cost(spec) / 2
    assert cost(RunSpec(model="tfidf")) == 0


def test_cost_of_what_came_later_by_hand(comparison_task: Task) -> None:
    """Two looks are 2,500 rows each; without the halves 2,000 are saved; a comparison is two texts.

    Reading costs some eight blocks more for its vocabulary, and measures 500 rows before and after; a probe costs nothing.
    """
    spec = RunSpec(model="smollm2-135m")
    assert cost(dataclasses.replace(spec, snapshots=(0.25, 0.5))) == 10 * (6000 + 4500 + 2 * 2500)
    assert cost(dataclasses.replace(spec, predict_halves=False)) == 10 * (6000 + 2500)
    assert cost(dataclasses.replace(spec, task=comparison_task)) == 2 * 10 * (
        3 * 2 * 64 + 80 + 40 + 2 * 64
    )
    read = w2s.generative("smollm2-135m", "movie")
    assert (
        cost(read)
        == cost(w2s.generative("smollm2-135m", "movie", corpus="nyt"))
        == 18 * (6000 + 2 * 500)
    )
    assert cost(w2s.ceiling("smollm2-135m", "movie", start=read)) == cost(spec)
    assert (
        cost(w2s.probe("smollm2-135m@25", "movie", start=spec))
        == cost(w2s.probe("smollm2-135m@25", "movie"))
        == 0
    )
    assert cost(w2s.zero_shot("smollm2-135m", "movie")) == 0


def test_runs_that_only_predict_other_things_are_one_training() -> None:
    """Whatever else differs, they are two: also a probe's predictions, which cost nothing."""
    top = w2s.ceiling("smollm2-135m", "movie")
    looked, brief = (
        dataclasses.replace(top, snapshots=(0.25, 0.5)),
        dataclasses.replace(top, predict_halves=False),
    )
    both = dataclasses.replace(looked, predict_halves=False)
    probe = w2s.probe("smollm2-135m@25", "movie")
    others = [
        top.with_seed(1),
        dataclasses.replace(top, half="supervisor"),
        dataclasses.replace(top, quantization="none"),
        probe,
        dataclasses.replace(probe, predict_halves=False),
        w2s.student("smollm2-135m", top),
        RunSpec(model="tfidf"),
    ]
    assert trainings([others[0], looked, *others[1:3], top, *others[3:], brief, both]) == {
        others[0].run_id: (others[0],),
        looked.run_id: (looked, top, brief, both),
    } | {s.run_id: (s,) for s in others[1:]}


def test_cost_of_a_shared_training_by_hand() -> None:
    """It is trained once, looked at once at each moment, and its test and validation rows are predicted for each record."""
    top = w2s.ceiling("smollm2-135m", "movie")
    looked = dataclasses.replace(top, snapshots=(0.25, 0.5), predict_halves=False)
    assert cost(top, looked) == 10 * (6000 + 4500 + 2500 + 2 * 2500) < cost(top) + cost(looked)
    assert cost(top, dataclasses.replace(top, snapshots=(0.5, 0.75)), looked) == 10 * (
        6000 + 2 * 4500 + 2500 + 3 * 2500
    )
    hub = [RunSpec(model="hf:a/b"), RunSpec(model="hf:a/b", predict_halves=False)]
    assert cost(*hub, depth=3) == 3 * (6000 + 4500 + 2500)


def test_a_run_on_the_embedded_task(own_store: Path) -> None:
    """`movie`, the first two blocks, no trunk: everything trains."""
    task = w2s.default_task("movie", n_train=64, n_validation=40, n_test=80)
    record = w2s.run(
        w2s.ceiling("smollm2-135m@2", task, recipe=Recipe(epochs=1, batch_size=16)), progress=False
    )
    assert 0.3 < record.metrics["accuracy"] < 1 and record.provenance["trunk_seconds"] == 0
    assert record.predictions.groupby("split").size().to_dict() == {
        "test": 80,
        "validation": 40,
        "supervisor": 64,
        "student": 64,
    }


# What is missing, and in which order


def order(specs: Iterable[RunSpec]) -> list[str]:
    return list(sweep_module._missing(specs))


def family(task: Task) -> tuple[RunSpec, RunSpec, RunSpec, RunSpec]:
    """A reader, a teacher, a student that starts from the reader, a probe of the student."""
    lora = Lora(blocks=1)
    read, weak = w2s.generative("smollm2-135m@2", task, lora=lora), w2s.supervisor("tfidf", task)
    taught = w2s.student("smollm2-135m@2", weak, start=read, lora=lora)
    return read, weak, taught, w2s.probe("smollm2-135m@2", task, start=taught, lora=lora)


def test_what_is_missing_comes_parents_first(own_store: Path, small_task: Task) -> None:
    """In whatever order they are asked for."""
    read, weak, taught, probe = family(small_task)
    for asked in ([probe], [probe, taught, weak, read], [taught, probe, probe]):
        found = order(asked)
        assert sorted(found) == sorted(spec.run_id for spec in (read, weak, taught, probe))
        for spec in (taught, probe):
            assert all(
                found.index(parent.run_id) < found.index(spec.run_id) for parent in spec.parents()
            )
    assert order([weak, read]) == [weak.run_id, read.run_id]


def test_a_record_is_enough_for_a_teacher_and_not_for_a_start(
    own_store: Path, small_task: Task
) -> None:
    """Labels are in the record. Adapters are beside it, and where they are not, the run is trained again for them alone."""
    read, weak, taught, probe = family(small_task)
    w2s.run(weak, progress=False)
    assert order([probe]) == [read.run_id, taught.run_id, probe.run_id]

    def recorded(spec: RunSpec, *, adapters: bool) -> None:
        """Another run's predictions under this run's name: nobody reads them here."""
        made = dataclasses.replace(w2s.run(weak, progress=False), spec=spec)
        store.write(
            made,
            artefacts=(lambda folder: (folder / "adapter_model.safetensors").touch())
            if adapters
            else None,
        )

    recorded(read, adapters=False)
    assert order([read]) == [] and order([taught]) == [read.run_id, taught.run_id]
    recorded(read, adapters=True)
    assert order([taught]) == [taught.run_id] and order([probe]) == [taught.run_id, probe.run_id]
    recorded(taught, adapters=False)
    assert order([taught]) == [] and order([probe]) == [taught.run_id, probe.run_id] == order(
        [taught, probe]
    )
    recorded(taught, adapters=True)
    assert order([probe]) == [probe.run_id]
    recorded(probe, adapters=False)
    assert order([probe, taught, read, weak]) == []


def test_a_lineage_of_adapters_in_a_sweep(
    own_store: Path, specs: dict[str, RunSpec], quick: dict[str, Any]
) -> None:
    """A reader, a student that goes on from it, and a probe of that student, by two processes, the last asked for first."""
    weak = specs["tfidf"]
    read = w2s.generative("smollm2-135m@2", weak.task, **quick | {"recipe": Recipe(epochs=1)})
    taught = w2s.student(
        "smollm2-135m@2", weak, start=read, snapshots=(0.5,), **quick | {"recipe": Recipe(epochs=1)}
    )
    probe = w2s.probe("smollm2-135m@2", weak.task, start=taught, lora=quick["lora"])
    frame = sweep([probe, taught, read], workers=2, progress=False).frame
    assert frame["role"].tolist() == ["baseline", "student", "generative"]
    times = [
        (own_store / f"{spec.run_id}.parquet").stat().st_mtime_ns for spec in (read, taught, probe)
    ]
    assert times == sorted(times) and len(list(own_store.glob("*.parquet"))) == 4
    assert set(frame["record"][1].at(0.5).predictions["split"]) == {"test", "validation"}
    assert train_missing([probe], workers=2, progress=False) == set()


# What is predicted


@pytest.mark.parametrize("name", ["tfidf", "probe", "zero_shot", "top"])
def test_a_run_that_predicts_no_half_is_the_same_run_otherwise(
    name: str, swept: SimpleNamespace, own_store: Path, specs: dict[str, RunSpec]
) -> None:
    """But for rounding: it predicts in other batches."""
    brief = dataclasses.replace(specs[name], predict_halves=False)
    record, whole = w2s.run(brief, progress=False), swept.records[name]
    assert (
        set(record.predictions["split"]) == {"test", "validation"}
        and brief.run_id != specs[name].run_id
    )
    assert set(record.metrics) == {"accuracy", "validation_accuracy"}
    expected = whole.predictions.loc[record.predictions.index]
    pd.testing.assert_frame_equal(record.predictions.drop(columns="p"), expected.drop(columns="p"))
    assert (record.predictions["p"] - expected["p"]).abs().mean() < 0.005
    with pytest.raises(SpecError, match=f"run {brief.run_id} gives no labels: it predicts no half"):
        w2s.student("smollm2-135m@3", brief)


def test_snapshots_change_nothing_in_a_record_but_themselves(
    swept: SimpleNamespace, specs: dict[str, RunSpec], own_store: Path
) -> None:
    looked = w2s.run(dataclasses.replace(specs["top"], snapshots=(0.25, 0.75)), progress=False)
    whole = swept.records["top"]
    columns = list(whole.predictions.columns)
    pd.testing.assert_frame_equal(looked.predictions[columns], whole.predictions)
    assert looked.metrics == whole.metrics and list(looked.predictions.columns) == [
        *columns,
        "p@0.25",
        "p@0.75",
    ]
    for share in (0.25, 0.75):
        early = looked.at(share)
        assert (
            early.predictions.index.tolist()
            == whole.predictions.query("split in ['test', 'validation']").index.tolist()
        )
        assert (early.predictions["p"] != whole.predictions["p"].loc[early.predictions.index]).any()
        assert early.metrics.keys() == {"accuracy", "validation_accuracy"}
    with pytest.raises(StoreError, match="no snapshot at 0.5"):
        looked.at(0.5)


@pytest.mark.parametrize("workers", [1, 2])
def test_runs_that_share_a_training_are_what_they_are_alone(
    specs: dict[str, RunSpec],
    own_store: Path,
    tmp_path: Path,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    top, tfidf = specs["top"], specs["tfidf"]
    brief = dataclasses.replace(top, snapshots=(0.5,), predict_halves=False)
    shared = [brief, top, dataclasses.replace(top, snapshots=(0.25, 0.5))]
    frame = sweep([*shared, tfidf], workers=workers, progress=False).frame.set_index("run_id")
    assert "w2s: 4 of 4 distinct runs to train, 2 trainings: about " in capfd.readouterr().err
    adapters = [
        file.read_bytes()
        for spec in shared
        for file in (own_store / spec.run_id).glob("*.safetensors")
    ]
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "alone"))
    for spec in (*shared, tfidf):
        record, alone = frame.loc[spec.run_id, "record"], w2s.run(spec, progress=False)
        pd.testing.assert_frame_equal(record.predictions, alone.predictions)
        assert record.metrics == alone.metrics and "trained_with" not in alone.provenance
        others = [run.run_id for run in shared if run != spec] if spec != tfidf else None
        assert record.provenance.get("trained_with") == others
    weights_alone = [
        file.read_bytes()
        for spec in shared
        for file in (tmp_path / "alone" / spec.run_id).glob("*.safetensors")
    ]
    assert sorted(adapters) == sorted(weights_alone) and len(adapters) == 6


# Labels


def test_labels_that_runs_learn_from(
    there: Path, swept: SimpleNamespace, specs: dict[str, RunSpec], small_task: Task
) -> None:
    """Ground truth; the supervisor's P(y = 1) on the student half, to the bit; made 0 or 1; dealt out within each class."""
    table = load_table(small_task)
    rows = splits(table, 0).student
    truth = table.frame["label"].to_numpy()[rows]
    assert training_labels(specs["top"], table, rows).tolist() == truth.tolist()
    soft = training_labels(specs["naive"], table, rows)
    assert (
        soft.tolist() == swept.records["weak"].predictions["p"].loc[rows].tolist()
        and soft.dtype == np.float32
    )
    assert training_labels(specs["hard"], table, rows).tolist() == (soft > 0.5).tolist()
    assert 0 < (soft > 0.5).mean() < 1, (
        "a supervisor that says the same of every text tests nothing here"
    )

    flipped = training_labels(specs["flipped"], table, rows)
    for value in (0, 1):
        assert sorted(flipped[truth == value]) == sorted(soft[truth == value])
    assert (flipped != soft).mean() > 0.3
    assert ((flipped > 0.5) == truth).mean() == ((soft > 0.5) == truth).mean()
    assert training_labels(specs["flipped"], table, rows).tolist() == flipped.tolist()
    hard = dataclasses.replace(specs["flipped"], labels=Flip(run=specs["weak"], hard=True))
    assert training_labels(hard, table, rows).tolist() == (flipped > 0.5).tolist()


def test_labels_that_a_run_gives_to_its_own_texts(own_store: Path, small_task: Task) -> None:
    """The third of a chain in which the second labels what it was trained on: the same rows twice, and no others."""
    chain = w2s.chain(["tfidf"] * 3, small_task, own_texts=True)
    assert [step.half for step in chain] == ["supervisor", "student", "student"]
    w2s.run(chain[-1], progress=False)
    table = load_table(small_task)
    rows, second = splits(table, 0).student, find(chain[1])
    assert second is not None
    assert (
        training_labels(chain[-1], table, rows).tolist()
        == second.predictions["p"].loc[rows].tolist()
    )
    assert set(second.predictions.query("split == 'student'").index) == set(rows)


def test_labels_of_another_table_are_refused(
    there: Path, specs: dict[str, RunSpec], small_task: Task
) -> None:
    table = load_table(small_task)
    with pytest.raises(StoreError, match="predictions of different tasks are not joined"):
        training_labels(
            specs["naive"], dataclasses.replace(table, digest="cd" * 32), splits(table, 0).student
        )


def test_a_teacher_without_a_record_is_an_error(
    own_store: Path, specs: dict[str, RunSpec], small_task: Task
) -> None:
    table = load_table(small_task)
    with pytest.raises(
        StoreError, match=f"learns from {specs['weak'].run_id}, which has no record"
    ):
        training_labels(specs["naive"], table, splits(table, 0).student)


# Interrupted


class When:
    """Does something, once, when the main thread is in a function of that name."""

    def __init__(
        self, function: str, action: Callable[[], None], *, ready: Callable[[], bool] = lambda: True
    ) -> None:
        self.function, self.action, self.ready, self.done = function, action, ready, False
        self.thread, self.stop = threading.Thread(target=self.watch), threading.Event()

    def watch(self) -> None:
        main = threading.main_thread().ident
        while not self.stop.wait(0.02):
            frame = sys._current_frames().get(main or 0)
            names = []
            while frame:
                names.append(frame.f_code.co_name)
                frame = frame.f_back
            if self.function in names and self.ready():
                self.done = True
                self.action()
                return

    def __enter__(self) -> When:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A process that a shell has put in the background ignores Ctrl-C; here it must not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def long(spec: RunSpec) -> RunSpec:
    return dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, epochs=4000))


def test_ctrl_c_in_mid_training_leaves_nothing(own_store: Path, specs: dict[str, RunSpec]) -> None:
    with When("optimise", ctrl_c) as interrupt, pytest.raises(KeyboardInterrupt):
        w2s.run(long(specs["top"]), progress=False)
    assert interrupt.done and left_in(own_store) == []


def test_ctrl_c_in_a_sweep_stops_its_workers_and_keeps_what_is_finished(
    own_store: Path, specs: dict[str, RunSpec]
) -> None:
    weak = specs["tfidf"]
    endless = [long(specs["taught by tfidf"]), long(specs["top"])]
    finished = own_store / f"{weak.run_id}.parquet"
    with (
        When("in_workers", ctrl_c, ready=finished.is_file) as interrupt,
        pytest.raises(KeyboardInterrupt),
    ):
        sweep([weak, *endless], workers=2, progress=False)
    assert interrupt.done and left_in(own_store) == [f"{weak.run_id}.parquet"]
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_an_error_that_says_why(
    own_store: Path, specs: dict[str, RunSpec]
) -> None:
    """As the system does when memory runs out; what was finished stays.

    Both are killed: of one alone, Python's pool may hear only when the other has finished its run.
    """
    finished = own_store / f"{specs['tfidf'].run_id}.parquet"

    def kill() -> None:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGKILL)

    with (
        When("in_workers", kill, ready=finished.is_file),
        pytest.raises(
            TrainingError, match="a worker process was killed, most likely for want of memory"
        ),
    ):
        sweep(
            [specs["tfidf"], long(specs["top"]), long(specs["top"]).with_seed(1)],
            workers=2,
            progress=False,
        )
    assert left_in(own_store) == [finished.name] and not multiprocessing.active_children()


def test_a_killed_sweep_is_resumed_where_it_was(own_store: Path, specs: dict[str, RunSpec]) -> None:
    """Killed in the second of three runs: the first stays as it is, and only the other two are trained."""
    chain = [specs["weak"], specs["naive"], specs["top"]]
    middle = long(chain[1])
    first = killed_after_the_first([chain[0], middle, chain[2]], own_store)
    written = first.stat().st_mtime_ns
    assert {path.name for path in own_store.glob("*.parquet")} == {first.name} and find(
        middle
    ) is None
    assert train_missing(chain, workers=1, progress=False) == {chain[1].run_id, chain[2].run_id}
    assert first.stat().st_mtime_ns == written
    assert train_missing(chain, workers=1, progress=False) == set()


# Refused before anything is trained, or stopped with nothing half-written


def nothing_is_trained(
    spec: RunSpec, error: type[Exception], match: str, own_store: Path, **options: Any
) -> None:
    """By `run`, and by a sweep in which other runs could be trained first."""
    first = (
        w2s.supervisor("tfidf", spec.task)
        if Path(spec.task.name).is_file()
        else w2s.supervisor("tfidf", "movie")
    )
    for go in (
        lambda: w2s.run(spec, progress=False),
        lambda: sweep([first, spec], progress=False, **options),
    ):
        with pytest.raises(error, match=match):
            go()
        assert not own_store.exists() or left_in(own_store) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_one_is_said_before_the_teacher_is_trained(
    own_store: Path, specs: dict[str, RunSpec]
) -> None:
    nothing_is_trained(
        dataclasses.replace(specs["naive"], device="cuda"),
        DeviceError,
        "this machine has none",
        own_store,
    )


def test_a_depth_beyond_a_users_model_is_said_before_the_teacher_is_trained(
    own_store: Path, specs: dict[str, RunSpec], tiny_models: Path
) -> None:
    folder = f"{tiny_models}/llama"
    deep = dataclasses.replace(specs["naive"], model=f"{folder}@4", revision=folder_digest(folder))
    nothing_is_trained(deep, SpecError, "depth 4 of .*: must be 1 to 3", own_store)


def test_a_model_that_is_not_pinned_is_said_before_the_teacher_is_trained(
    own_store: Path, specs: dict[str, RunSpec], tiny_models: Path
) -> None:
    loose = dataclasses.replace(specs["naive"], model=f"{tiny_models}/llama@3")
    nothing_is_trained(loose, SpecError, "nothing says which revision of .* is meant", own_store)


def test_other_training_semantics_are_read_and_never_trained(
    own_store: Path, specs: dict[str, RunSpec]
) -> None:
    later = dataclasses.replace(specs["tfidf"], semantics=SEMANTICS + 1)
    nothing_is_trained(
        later,
        SpecError,
        f"of training semantics {SEMANTICS + 1}; this library trains {SEMANTICS}",
        own_store,
    )


def test_too_few_rows_are_said_before_another_task_is_trained(
    own_store: Path, small_task: Task
) -> None:
    greedy = w2s.supervisor("tfidf", dataclasses.replace(small_task, n_train=200))
    nothing_is_trained(greedy, SpecError, "too few rows for n_train", own_store)
    with pytest.raises(SpecError, match="too few rows"):
        sweep([w2s.supervisor("tfidf", small_task), greedy], workers=1, progress=False)
    assert not own_store.exists()


def test_a_changed_file_is_another_task(
    own_store: Path, specs: dict[str, RunSpec], tmp_path: Path
) -> None:
    path = tmp_path / "texts.csv"
    path.write_bytes(Path(specs["tfidf"].task.name).read_bytes())
    spec = w2s.supervisor(
        "tfidf", w2s.default_task(str(path), n_train=64, n_validation=40, n_test=80)
    )
    path.write_text(path.read_text() + "One more.,1\n")
    nothing_is_trained(spec, SpecError, "its content has changed", own_store)
    path.unlink()
    with pytest.raises(SpecError, match="cannot read the task file .*texts.csv"):
        w2s.run(spec, progress=False)


def test_an_unwritable_store_is_said_before_training(
    specs: dict[str, RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "file" / "records"))
    executed: list[str] = []
    monkeypatch.setattr(runner, "training_labels", lambda *_: executed.append("trained"))
    for go in (
        lambda: w2s.run(specs["tfidf"]),
        lambda: sweep([specs["tfidf"]], workers=1, progress=False),
    ):
        with pytest.raises(
            StoreError, match="the store .* cannot be written: .* Nothing was trained"
        ):
            go()
    assert executed == []


@pytest.mark.parametrize("corpus", ["nyyt", "nowhere/own.csv"])
def test_an_unknown_corpus_is_said_before_another_run_is_trained(
    corpus: str, own_store: Path, small_task: Task
) -> None:
    with pytest.raises(SpecError, match=corpus):
        sweep(
            [
                w2s.supervisor("tfidf", small_task),
                w2s.generative("smollm2-135m@1", small_task, corpus=corpus),
            ],
            workers=1,
            progress=False,
        )
    assert not own_store.exists() or left_in(own_store) == []


def test_a_start_without_its_adapters_is_never_a_fresh_start(
    own_store: Path, small_task: Task
) -> None:
    read = w2s.generative("smollm2-135m@1", small_task)
    with pytest.raises(
        StoreError, match=f"starts from {read.run_id}, whose adapters are not in the user's store"
    ):
        runner.execute(w2s.ceiling("smollm2-135m@1", small_task, start=read))
    assert not own_store.exists() or left_in(own_store) == []


def test_no_specs_no_seeds_no_workers(specs: dict[str, RunSpec]) -> None:
    for go in (lambda: sweep([]), lambda: sweep([specs["weak"]], seeds=[])):
        with pytest.raises(SpecError, match="no specs to run, or no seeds"):
            go()
    with pytest.raises(SpecError, match="workers must be at least 1, not 0"):
        sweep([specs["weak"]], workers=0)
    with pytest.raises(SpecError, match="did you mean 'published'"):
        train_missing([specs["weak"]], store="publish")


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
    with pytest.raises(TrainingError, match=f"{message}.* No record was written"):
        w2s.run(spec, progress=False)
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
        w2s.run(specs["top"], progress=False)
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
        w2s.run(specs["top"], progress=False)
    assert left_in(own_store) == []


def test_a_damaged_record_is_retrained(own_store: Path, small_task: Task) -> None:
    spec = w2s.supervisor("tfidf", small_task)
    path = Path(w2s.run(spec).path)
    before = path.read_bytes()
    path.write_bytes(before[:-9])
    with pytest.warns(UserWarning, match="damaged record"):
        record = w2s.run(spec)
    assert record.path == str(path) and path.with_suffix(".damaged").read_bytes() == before[:-9]


def test_somebody_elses_damaged_record_stops_nobody(own_store: Path, small_task: Task) -> None:
    """The cost of a sweep is estimated from the records that are there, sound ones only."""
    own_store.mkdir()
    (own_store / "0123456789abcdef.parquet").write_bytes(b"PAR1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(sweep([w2s.supervisor("tfidf", small_task)], workers=1, progress=False)) == 1


def test_a_record_of_a_task_that_is_gone_stops_nobody(
    own_store: Path, small_task: Task, tmp_path: Path
) -> None:
    """Its file was moved: what it cost cannot be said any more, and nobody asked for it."""
    path = tmp_path / "gone.csv"
    path.write_bytes(Path(small_task.name).read_bytes())
    gone = w2s.ceiling(
        "smollm2-135m@1",
        w2s.default_task(str(path), n_train=32, n_validation=20, n_test=20),
        recipe=Recipe(epochs=1),
        lora=Lora(rank=2),
    )
    w2s.run(gone, progress=False)
    path.unlink()
    assert len(sweep([w2s.supervisor("tfidf", small_task)], workers=1, progress=False)) == 1


# Published


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout of its own: its published store is not the book's."""
    monkeypatch.delenv("W2S_PUBLISHED", raising=False)
    monkeypatch.setattr(store, "repository_root", lambda: tmp_path / "checkout")
    yield tmp_path / "checkout" / "book" / "results"


def test_finished_records_are_copied_to_the_published_store(
    own_store: Path, checkout: Path, small_task: Task
) -> None:
    weak = w2s.supervisor("tfidf", small_task)
    w2s.run(weak, progress=False)
    taught = w2s.student("tfidf", weak)
    assert train_missing([taught], store="published", workers=1, progress=False) == {taught.run_id}
    assert left_in(checkout) == sorted(f"{s.run_id}.parquet" for s in (weak, taught))
    for spec in (weak, taught):
        mine, theirs = (folder / f"{spec.run_id}.parquet" for folder in (own_store, checkout))
        assert mine.read_bytes() == theirs.read_bytes()
        assert publish(spec) == theirs
    for path in own_store.glob("*.parquet"):
        path.unlink()
    assert w2s.run(taught).path == str(checkout / f"{taught.run_id}.parquet")


def test_publishing_without_a_published_store_is_said_before_training(
    own_store: Path, checkout: Path, small_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    with pytest.raises(StoreError, match="no published store: .* W2S_PUBLISHED=0 hides it"):
        train_missing(
            [w2s.supervisor("tfidf", small_task)], store="published", workers=1, progress=False
        )
    assert not own_store.exists()


def test_a_run_of_labels_from_a_hard_teacher_is_another_run(specs: dict[str, RunSpec]) -> None:
    assert (
        specs["hard"].labels == FromRun(run=specs["weak"], hard=True)
        and specs["hard"].run_id != specs["naive"].run_id
    )
