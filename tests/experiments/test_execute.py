"""What a run learns, predicts and costs, on the real model's first blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from scipy.special import logit

import w2s_lib as w2s
from tests.experiments.conftest import left_in
from w2s_lib.models.machine import one_thread
from w2s_lib.runs.errors import SpecError, StoreError
from w2s_lib.runs.record import SPLITS
from w2s_lib.runs.settings import NoisyTruth
from w2s_lib.runs.spec import Lora, Recipe, RunSpec, Task
from w2s_lib.runs.store import weights
from w2s_lib.tasks.labels import training_labels
from w2s_lib.tasks.table import load_table, splits
from w2s_lib.training import finetune
from w2s_lib.training.execute import cost, execute
from w2s_lib.training.finetune import Data

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
        frame, halves = record.predictions, record.spec.predict_halves
        assert halves == (record.spec.role == "supervisor")
        assert set(frame["split"]) == set(SPLITS if halves else SPLITS[:2])
        for name in dict.fromkeys(frame["split"]):
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
    assert record.predictions.groupby("split").size().to_dict() == {"test": 80, "validation": 40}


def test_cost_by_hand() -> None:
    """Ten adapted blocks; two passes over 2,000 rows at three forwards each; 4,000 + 500 rows predicted, a teacher's + 2 * 2,000."""
    spec = RunSpec(model="smollm2-135m", recipe=Recipe(epochs=2))
    assert cost(spec) == 10 * (3 * 2 * 2000 + 4500)
    assert cost(dataclasses.replace(spec, predict_halves=True)) == 10 * (12_000 + 4500 + 4000)
    assert cost(dataclasses.replace(spec, lora=Lora(blocks="all"))) == 3 * cost(spec)
    assert cost(dataclasses.replace(spec, model="smollm2-135m@5")) == cost(spec) / 2
    assert cost(RunSpec(model="hf:a/b"), depth=3) == 3 * (12_000 + 4500)
    assert cost(RunSpec(model="tfidf")) == 0


def test_cost_of_other_kinds_by_hand(comparison_task: Task) -> None:
    """A comparison is two texts. Reading costs some eight blocks more for its vocabulary, and measures 500 rows twice.

    A probe costs nothing; a transfer predicts 1,100 + 200 rows of `amazon` and trains nothing.
    """
    spec = RunSpec(model="smollm2-135m")
    pairs = dataclasses.replace(spec, task=comparison_task)
    assert cost(pairs) == 2 * 10 * (3 * 2 * 64 + 80 + 40)
    read, other = (w2s.generative("smollm2-135m", "movie", corpus=name) for name in ("", "nyt"))
    assert cost(read) == cost(other) == 18 * (12_000 + 2 * 500)
    assert cost(w2s.ceiling("smollm2-135m", "movie", start=read)) == cost(spec)
    assert cost(w2s.probe("smollm2-135m@25", "movie", start=spec)) == 0
    assert cost(w2s.zero_shot("smollm2-135m", "movie")) == 0
    assert cost(w2s.transfer(spec, "amazon")) == 10 * 1300


@pytest.mark.parametrize("name", ["tfidf", "probe", "zero_shot", "top"])
def test_a_run_that_predicts_the_halves_is_the_same_run_otherwise(
    name: str, swept: SimpleNamespace, own_store: Path, specs: dict[str, RunSpec]
) -> None:
    """But for rounding: it predicts in other batches."""
    changed = dataclasses.replace(specs[name], predict_halves=not specs[name].predict_halves)
    record, other = w2s.run(changed), swept.records[name]
    assert changed.run_id != specs[name].run_id
    brief, whole = (
        (record, other) if len(record.predictions) < len(other.predictions) else (other, record)
    )
    assert set(brief.metrics) == {"accuracy", "validation_accuracy"}
    expected = whole.predictions.loc[brief.predictions.index]
    pd.testing.assert_frame_equal(brief.predictions.drop(columns="p"), expected.drop(columns="p"))
    assert (brief.predictions["p"] - expected["p"]).abs().mean() < 0.005
    with pytest.raises(SpecError, match="gives no labels"):
        w2s.student("smollm2-135m@3", brief.spec)


@pytest.fixture
def labels_of(
    there: Path, specs: dict[str, RunSpec], small_task: Task
) -> tuple[Callable[..., np.ndarray], np.ndarray]:
    """What a run of the sweep learns on the student half, and the truth there."""
    table = load_table(small_task)
    rows = splits(table, 0).student

    def given(spec: RunSpec | str) -> np.ndarray:
        spec = specs[spec] if isinstance(spec, str) else spec
        labels = training_labels(spec, table, rows, half=rows)
        assert labels.dtype == np.float32
        assert labels.tolist() == training_labels(spec, table, rows, half=rows).tolist()
        return labels

    return given, table.frame["label"].to_numpy()[rows]


def test_labels_of_truth_and_of_a_teacher(
    labels_of: Any, swept: SimpleNamespace, small_task: Task
) -> None:
    """Ground truth; the supervisor's P(y = 1) on the student half, to the bit; made 0 or 1 at one half."""
    given, truth = labels_of
    assert given("top").tolist() == truth.tolist()
    rows, soft = splits(load_table(small_task), 0).student, given("naive")
    assert soft.tolist() == swept.records["weak"].predictions["p"].loc[rows].tolist()
    assert given("hard").tolist() == (soft > 0.5).tolist()
    assert 0 < (soft > 0.5).mean() < 1  # one that says the same of every text tests nothing here


def test_centred_labels_are_as_many_yes_as_no(labels_of: Any) -> None:
    """32 of 64 are above one half and 32 below, in the teacher's order, all logits moved by as much."""
    given, _ = labels_of
    soft, centred = given("naive").astype(float), given("centred").astype(float)
    assert (centred > 0.5).sum() == (centred < 0.5).sum() == 32
    order = np.argsort(soft, kind="stable")
    assert (np.diff(centred[order]) >= 0).all()
    inside = (soft > 1e-3) & (soft < 1 - 1e-3)  # P is kept in steps of 2^-16
    moved = (logit(centred) - logit(soft))[inside]
    assert inside.sum() > 8 and np.ptp(moved) < 1e-3


def test_flips_are_as_many_errors_in_either_class_as_the_teachers(
    labels_of: Any, specs: dict[str, RunSpec]
) -> None:
    given, truth = labels_of
    hard, flipped = given("hard"), given("flipped")
    assert set(flipped) <= {0.0, 1.0} and flipped.tolist() != hard.tolist()
    for value in (0, 1):
        errors = [(labels[truth == value] != value).sum() for labels in (hard, flipped)]
        assert errors[0] == errors[1]
    assert (hard != truth).any()


def test_noise_is_an_exact_share_of_either_class_and_nested(
    labels_of: Any, specs: dict[str, RunSpec]
) -> None:
    """Of 32 rows of either class: .2 are 6 (6.4), .3 are 10 (9.6), .45 are 14 (14.4)."""
    given, truth = labels_of
    wrong = []
    for share, n in ((0.2, 6), (0.3, 10), (0.45, 14)):
        noisy = dataclasses.replace(specs["noisy"], labels=NoisyTruth(share=share))
        wrong.append(given(noisy) != truth)
        assert [wrong[-1][truth == value].sum() for value in (0, 1)] == [n, n]
    assert not (wrong[0] & ~wrong[1]).any() and not (wrong[1] & ~wrong[2]).any()


def test_flips_and_noise_are_drawn_by_the_seed(
    own_store: Path, specs: dict[str, RunSpec], small_task: Task
) -> None:
    """The same rows, of another seed's stream."""
    table = load_table(small_task)
    rows = splits(table, 0).student
    found = {
        training_labels(specs["noisy"].with_seed(seed), table, rows, half=rows).tobytes()
        for seed in range(4)
    }
    assert len(found) == 4


def test_labels_for_validation_are_centred_where_those_of_the_half_are(
    there: Path, specs: dict[str, RunSpec], small_task: Task
) -> None:
    """The centre is the half's, whatever rows are labeled."""
    table = load_table(small_task)
    parts = splits(table, 0)
    on_half, on_validation = (
        training_labels(specs["centred"], table, rows, half=parts.student)
        for rows in (parts.student, parts.validation)
    )
    both = np.concatenate([parts.student, parts.validation])
    together = training_labels(specs["centred"], table, both, half=parts.student)
    assert together.tolist() == [*on_half, *on_validation]


def test_the_halves_are_disjoint_and_each_run_learns_its_own(
    swept: SimpleNamespace, small_task: Task, specs: dict[str, RunSpec]
) -> None:
    parts = splits(load_table(small_task), 0)
    assert not set(parts.supervisor) & set(parts.student)
    assert (
        specs["weak"].half == "supervisor" and specs["naive"].half == specs["top"].half == "student"
    )


# Streams


def test_a_self_distilled_student_begins_apart_and_a_student_like_its_ceiling(
    tiny_models: Path, small_task: Task, quick: dict[str, Any]
) -> None:
    """Initial head and adapters, and the order of the texts, of models of one depth."""
    table, model = load_table(small_task), f"{tiny_models}/llama@2"
    weak = w2s.supervisor(model, small_task, **quick)
    chain = w2s.chain([model] * 3, small_task, **quick)
    itself, top = w2s.student(model, weak, **quick), w2s.ceiling(model, small_task, **quick)

    def begins(spec: RunSpec) -> tuple[bytes, bytes, bytes]:
        spec = w2s.pin(spec)
        model = finetune.build(spec, table).model
        drawn = dict(model.named_parameters())
        adapter = next(value for name, value in drawn.items() if "lora_A" in name)
        rows, length = np.arange(64), np.arange(300) % 7
        order = np.concatenate(finetune.all_batches(spec, rows, length))
        tensors = (value.detach().float().numpy() for value in (model.head.weight, adapter))
        return *(each.tobytes() for each in tensors), order.tobytes()

    first = begins(weak)
    assert all(a != b for a, b in zip(first, begins(itself), strict=True))
    assert begins(itself) == begins(top) == begins(chain[1]) and begins(chain[0]) == first
    rungs = [begins(spec) for spec in chain]
    for part in zip(*rungs, strict=True):
        assert len(set(part)) == 3
    assert begins(weak.with_seed(1)) != first


# Another task


def test_a_transfer_is_what_the_same_model_predicts_there(
    own_store: Path, specs: dict[str, RunSpec], small_task: Task, tmp_path: Path
) -> None:
    """To the bit: the model trained by hand, with its own head, asked by hand about the other task's rows."""
    brief = Recipe(epochs=1, batch_size=16)  # far from saturated, so that every P differs
    top = dataclasses.replace(specs["top"], recipe=brief)
    path, own = tmp_path / "other.csv", load_table(small_task)
    heard = own.frame[["text", "label"]].assign(text="We hear: " + own.frame["text"])
    heard.to_csv(path, index=False)
    other = w2s.default_task(str(path), n_train=64, n_validation=40, n_test=80)
    record = w2s.run(w2s.transfer(top, w2s.resolve_task(other)))
    assert {file.stem for file in own_store.glob("*.parquet")} == {top.run_id, record.spec.run_id}

    table, half = load_table(other), splits(own, 0).student
    rows = np.concatenate([splits(table, 0).test, splits(table, 0).validation])
    with one_thread("cpu"):
        trained = finetune.fit(top, Data(own, half, training_labels(top, own, half, half=half)))
        asked = dataclasses.replace(top, task=other)
        by_hand = finetune.build(asked, table, start=weights(top))
        by_hand.model.head.load_state_dict(trained.model.head.state_dict())
        expected = by_hand.predict(rows)
    assert record.predictions.index.tolist() == rows.tolist() and len(set(expected)) > 20
    assert record.predictions["p"].tolist() == expected.tolist()
    assert record.provenance["task_digest"] == table.digest != own.digest


def test_labels_of_another_table_are_refused(
    there: Path, specs: dict[str, RunSpec], small_task: Task
) -> None:
    table = load_table(small_task)
    with pytest.raises(StoreError, match="predictions of different tasks are not joined"):
        training_labels(
            specs["naive"],
            dataclasses.replace(table, digest="cd" * 32),
            splits(table, 0).student,
            half=splits(table, 0).student,
        )


def test_a_teacher_without_a_record_is_an_error(
    own_store: Path, specs: dict[str, RunSpec], small_task: Task
) -> None:
    table = load_table(small_task)
    with pytest.raises(
        StoreError, match=f"learns from {specs['weak'].run_id}, which has no record"
    ):
        training_labels(
            specs["naive"], table, splits(table, 0).student, half=splits(table, 0).student
        )


def test_a_start_without_its_adapters_is_never_a_fresh_start(
    own_store: Path, small_task: Task
) -> None:
    read = w2s.generative("smollm2-135m@1", small_task)
    with pytest.raises(
        StoreError, match=f"starts from {read.run_id}, whose adapters are not in the user's store"
    ):
        execute(w2s.ceiling("smollm2-135m@1", small_task, start=read))
    assert not own_store.exists() or left_in(own_store) == []
