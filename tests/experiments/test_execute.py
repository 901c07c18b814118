"""What a run learns, predicts and costs, on the real model's first blocks."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

import w2s_lib as w2s
from tests.experiments.conftest import left_in
from w2s_lib.experiments.sweep import sweep
from w2s_lib.runs.errors import SpecError, StoreError
from w2s_lib.runs.record import SPLITS
from w2s_lib.runs.spec import Flip, Lora, Recipe, RunSpec, Task
from w2s_lib.runs.store import find
from w2s_lib.tasks.splits import splits
from w2s_lib.tasks.table import load_table
from w2s_lib.training.execute import cost, execute, training_labels, trainings

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore:.* are also among the"),
]  # the small tables are made of the same sentences


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
        "weights",
    }
    assert (
        made["device"] == "cpu"
        and made["threads"] == 1
        and made["versions"]["torch"] == version("torch")
    )
    assert 1e8 < made["peak_memory_bytes"] < 8e9 and made["seconds"] > 0 and made["hardware"]


def test_adapters_and_head_lie_beside_what_was_finetuned(
    swept: SimpleNamespace, specs: dict[str, RunSpec]
) -> None:
    for name, spec in specs.items():
        folders = list((swept.store / spec.run_id).glob("*"))
        assert len(folders) == (name not in ("tfidf", "probe", "zero_shot"))
        for folder in folders:
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


def test_a_run_on_the_embedded_task(own_store: Path) -> None:
    """`movie`, the first two blocks, no trunk: everything trains."""
    task = w2s.default_task("movie", n_train=64, n_validation=40, n_test=80)
    record = w2s.run(w2s.ceiling("smollm2-135m@2", task, recipe=Recipe(epochs=1, batch_size=16)))
    assert 0.3 < record.metrics["accuracy"] < 1 and record.provenance["trunk_seconds"] == 0
    assert record.predictions.groupby("split").size().to_dict() == {
        "test": 80,
        "validation": 40,
        "supervisor": 64,
        "student": 64,
    }


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


@pytest.mark.parametrize("name", ["probe", "zero_shot", "top"])
def test_a_run_that_predicts_no_half_is_the_same_run_otherwise(
    name: str, swept: SimpleNamespace, own_store: Path, specs: dict[str, RunSpec]
) -> None:
    """But for rounding: it predicts in other batches."""
    brief = dataclasses.replace(specs[name], predict_halves=False)
    record, whole = w2s.run(brief), swept.records[name]
    assert (
        set(record.predictions["split"]) == {"test", "validation"}
        and brief.run_id != specs[name].run_id
    )
    assert set(record.metrics) == {"accuracy", "validation_accuracy"}
    expected = whole.predictions.loc[record.predictions.index]
    pd.testing.assert_frame_equal(record.predictions.drop(columns="p"), expected.drop(columns="p"))
    assert (record.predictions["p"] - expected["p"]).abs().mean() < 0.005
    with pytest.raises(SpecError, match="gives no labels"):
        w2s.student("smollm2-135m@3", brief)


def test_snapshots_change_nothing_in_a_record_but_themselves(
    swept: SimpleNamespace, specs: dict[str, RunSpec], own_store: Path
) -> None:
    looked = w2s.run(dataclasses.replace(specs["top"], snapshots=(0.25, 0.75)))
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
        for file in (own_store / spec.run_id).glob("*/*.safetensors")
    ]
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "alone"))
    for spec in (*shared, tfidf):
        record, alone = frame.loc[spec.run_id, "record"], w2s.run(spec)
        pd.testing.assert_frame_equal(record.predictions, alone.predictions)
        assert record.metrics == alone.metrics and "trained_with" not in alone.provenance
        others = [run.run_id for run in shared if run != spec] if spec != tfidf else None
        assert record.provenance.get("trained_with") == others
    weights_alone = [
        file.read_bytes()
        for spec in shared
        for file in (tmp_path / "alone" / spec.run_id).glob("*/*.safetensors")
    ]
    assert sorted(adapters) == sorted(weights_alone) and len(adapters) == 6


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
    w2s.run(chain[-1])
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


def test_a_start_without_its_adapters_is_never_a_fresh_start(
    own_store: Path, small_task: Task
) -> None:
    read = w2s.generative("smollm2-135m@1", small_task)
    with pytest.raises(
        StoreError, match=f"starts from {read.run_id}, whose adapters are not in the user's store"
    ):
        execute(w2s.ceiling("smollm2-135m@1", small_task, start=read))
    assert not own_store.exists() or left_in(own_store) == []
