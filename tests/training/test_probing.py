"""The baselines: soft labels in a logistic regression, a probe on frozen states, TF-IDF, and zero-shot odds."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

import w2s_lib as w2s
from w2s_lib.models import backbone as models
from w2s_lib.runs import store
from w2s_lib.runs.errors import SpecError, TrainingError
from w2s_lib.runs.record import P_STEP
from w2s_lib.runs.spec import Continue, Lora, RunSpec, Task
from w2s_lib.tasks.table import TaskTable, splits
from w2s_lib.training import baselines as probing
from w2s_lib.training import finetune as train
from w2s_lib.training.baselines import (
    fit_logistic,
    fit_probe,
    fit_tfidf,
    fit_zero_shot,
    layer_states,
    linear_probe,
)
from w2s_lib.training.execute import refuse_early
from w2s_lib.training.finetune import Data, no_rows

TFIDF = RunSpec(model="tfidf")
pytestmark = pytest.mark.usefixtures("one_thread")


def accuracy(p: Any, table: TaskTable, rows: Any) -> float:
    return float(((p > 0.5) == (table.frame["label"].to_numpy()[rows] == 1)).mean())


# Soft labels


def test_soft_labels_by_hand() -> None:
    """With nothing to go by, the best constant is the labels' mean: (0.9 + 0.2 + 0.4) / 3 = 1/2, (1 + 1 + 1/4) / 3 = 3/4."""
    for labels, mean in (
        ([0.9, 0.2, 0.4], 0.5),
        ([1.0, 1.0, 0.25], 0.75),
        ([1.0, 0.0, 0.0], 1 / 3),
    ):
        model = fit_logistic(LogisticRegression(), np.zeros((3, 2)), np.array(labels))
        assert model.predict_proba(np.zeros((1, 2)))[0, 1] == pytest.approx(mean, abs=1e-3)


def test_a_soft_label_is_rows_of_either_label_in_that_share() -> None:
    """y = 3/4 is three rows of label 1 and one of label 0, at a quarter of the weight each."""
    x = np.array([[0.0], [1.0], [2.0]])
    soft = fit_logistic(LogisticRegression(C=4.0, tol=1e-8), x, np.array([0.25, 0.75, 0.75]))
    four = np.repeat(x, 4, axis=0)
    hard = fit_logistic(
        LogisticRegression(C=1.0, tol=1e-8), four, np.array([0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0.0])
    )
    assert soft.coef_ == pytest.approx(hard.coef_, abs=1e-3) and soft.intercept_ == pytest.approx(
        hard.intercept_, abs=1e-3
    )


@pytest.mark.parametrize("label", [0, 1])
def test_one_label_for_all_is_refused(label: int) -> None:
    with pytest.raises(TrainingError, match=f"every label is {label}"):
        fit_logistic(LogisticRegression(), np.eye(3), np.full(3, label))


def test_soft_labels_on_one_side_still_tell_texts_apart() -> None:
    fitted = fit_logistic(LogisticRegression(), np.eye(3), np.array([0.6, 0.9, 1.0]))
    assert list(fitted.predict_proba(np.eye(3))[:, 1].argsort()) == [0, 1, 2]


# The linear probe


def directions(n: int, seed: int) -> tuple[Any, Any]:
    """States of five numbers, of very different sizes; the label is the sign of the second, which is a small one."""
    x = np.random.default_rng(seed).normal(size=(n, 5)) * [100, 0.1, 1, 1, 1]
    return x, (x[:, 1] > 0).astype(int)


def test_a_probe_finds_a_direction_whatever_its_size() -> None:
    (x, y), (other, truth) = directions(400, 0), directions(400, 1)
    probe = linear_probe(x, y)
    p = probe.predict(other)
    assert p.dtype == np.float32 and p.shape == (400,) and ((p > 0.5) == truth).mean() > 0.9
    assert np.argmax(np.abs(probe.model.coef_)) == 1
    assert (p.astype(np.float64) / P_STEP % 1 == 0).all()


def test_a_probe_chooses_its_strength_on_validation() -> None:
    """Labels that are noise but for one direction: validation prefers what generalises, the first of equals."""
    x, y = directions(60, 0)
    validation = directions(500, 1)
    chosen = linear_probe(x, y, validation=validation)
    scores = {}
    for strength in probing.STRENGTHS:
        scaler = chosen.scaler
        model = fit_logistic(LogisticRegression(C=strength, max_iter=2000), scaler.transform(x), y)
        found = probing.LinearProbe(scaler, model, strength).predict(validation[0])
        scores[strength] = ((found > 0.5) == validation[1]).mean()
    assert chosen.strength == max(scores, key=lambda strength: scores[strength])
    assert linear_probe(x, y).strength == 0.01


def test_a_probe_on_the_real_models_states(
    table: TaskTable, small_task: Task, own_cache: Path
) -> None:
    """The states are those of the plain model after that block, at the last token."""
    spec = RunSpec(model="smollm2-135m@2", task=small_task, method="probe")
    parts = splits(table, 0)
    labels = table.frame["label"].to_numpy(np.float32)[parts.student]
    truth = table.frame["label"].to_numpy()[parts.validation]
    probe = fit_probe(
        spec, Data(table, parts.student, labels, parts.validation, validation_labels=truth)
    )
    p = probe.predict(parts.test)
    assert accuracy(p, table, parts.test) > 0.85
    states = probing.Trunk(spec, table, 2).last_states(np.arange(5))
    model = models.load_backbone(spec)
    model.norm = torch.nn.Identity()
    tokenizer = models.load_tokenizer("smollm2-135m")
    for row in range(5):
        ids = tokenizer(
            small_task.template.replace("{text}", table.frame["text"][row]), return_tensors="pt"
        )["input_ids"]
        with torch.inference_mode():
            expected = (
                model(input_ids=ids, use_cache=False).last_hidden_state[0, -1].float().numpy()
            )
        assert np.abs(states[row] - expected).mean() < 0.02 * np.abs(expected).mean() + 0.01


# A probe on a finetuned run


@pytest.fixture(scope="module")
def finetuned(
    small_task: Task,
    quick: dict[str, Any],
    session_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> SimpleNamespace:
    """Two adapted blocks of three, after 24 steps, in a store of its own."""
    recipe = dataclasses.replace(quick["recipe"], epochs=6)
    spec = w2s.ceiling("smollm2-135m@3", small_task, lora=Lora(rank=8, blocks=2), recipe=recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("W2S_CACHE", str(session_cache))
        patch.setenv("W2S_STORE", str(folder := tmp_path_factory.mktemp("finetuned") / "records"))
        return SimpleNamespace(
            spec=spec, record=w2s.run(spec), store=folder, weights=store.weights(spec)
        )


@pytest.fixture
def there(
    finetuned: SimpleNamespace, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    monkeypatch.setenv("W2S_STORE", str(finetuned.store))
    return finetuned


def test_the_top_states_are_what_the_classifiers_head_sees(
    there: SimpleNamespace, table: TaskTable
) -> None:
    """The final norm and the run's own head on them give the log-odds of its record, within bf16."""
    rows = there.record.predictions.index.to_numpy()[::3]
    states, _ = layer_states(there.spec, table, rows, there.weights)
    assert sorted(states) == [2, 3] and all(
        x.shape == (len(rows), 576) and x.dtype == np.float32 for x in states.values()
    )
    norm, head = (
        models.load_backbone(there.spec).norm,
        load_file(there.weights / "head.safetensors"),
    )
    with torch.inference_mode():
        seen = norm(torch.from_numpy(states[3]).to(torch.bfloat16)).float()
        logits = seen @ head["weight"].T + head["bias"]
    odds = (logits[:, 1] - logits[:, 0]).numpy()
    p = there.record.predictions["p"].loc[rows].to_numpy().astype(float)
    clear = (p > 0.001) & (p < 0.999)  # beyond them rounding shows
    expected = np.log(p[clear] / (1 - p[clear]))
    assert clear.sum() > 20 and np.std(expected) > 0.2
    assert np.abs(odds[clear] - expected).mean() < 0.05 * np.std(expected)


def test_states_stand_in_the_order_in_which_rows_are_asked_for(
    there: SimpleNamespace, table: TaskTable
) -> None:
    rows = np.random.default_rng(0).permutation(300)[:40]
    one, other = (layer_states(there.spec, table, r, there.weights)[0] for r in (rows, rows[::-1]))
    for layer, x in one.items():
        assert np.array_equal(x, other[layer][::-1])
        assert len({row.tobytes() for row in x}) == 40


def test_below_what_training_changed_there_is_nothing_new(
    there: SimpleNamespace, table: TaskTable, tmp_path: Path
) -> None:
    """With adapters that are still nothing, the states are those of the frozen model; after training they are not."""
    rows = np.arange(40)
    fresh = there.spec.with_seed(8)
    train.build(fresh, table).save(tmp_path)
    untrained, _ = layer_states(fresh, table, rows, tmp_path)
    trained, _ = layer_states(there.spec, table, rows, there.weights)
    for layer in (2, 3):
        frozen = probing.Trunk(fresh, table, layer).last_states(rows)
        scale = np.abs(frozen).mean()
        assert (
            np.abs(untrained[layer] - frozen).mean()
            < 0.02 * scale
            < np.abs(trained[layer] - frozen).mean()
        )


def test_probes_of_one_run_share_one_pass(there: SimpleNamespace, own_cache: Path) -> None:
    """Layer 2 and layer 3: one file of states more, for the same run; the probes differ, from each other and the frozen one."""

    def kept() -> set[Path]:
        return set((own_cache / "states").glob("*"))

    settings = {"lora": there.spec.lora, "start": there.spec}
    two, three = (
        w2s.probe(f"smollm2-135m@{layer}", there.spec.task, **settings) for layer in (2, 3)
    )
    assert two.start == Continue(run=there.spec) and two.method == "probe"
    before = kept()
    found = [w2s.run(two)]
    after = kept()
    found += [w2s.run(spec) for spec in (three, w2s.probe("smollm2-135m@3", there.spec.task))]
    assert len({file for file in after - before if file.suffix == ".npz"}) == 1 and kept() == after
    assert all(record.metrics["accuracy"] > 0.8 for record in found)
    assert len({tuple(record.predictions["p"]) for record in found}) == 3


def test_the_states_of_a_run_whose_adapters_are_gone(
    there: SimpleNamespace, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is there, as a published one would be: it is trained again, and the probe is the same as before."""
    monkeypatch.setenv("W2S_STORE", str(own_store))
    own_store.mkdir()
    shutil.copy(there.record.path, own_store)
    assert store.find(there.spec) is not None and store.weights(there.spec) is None
    probe = w2s.probe("smollm2-135m@2", there.spec.task, lora=there.spec.lora, start=there.spec)
    record = w2s.run(probe)
    assert store.weights(there.spec) is not None
    monkeypatch.setenv("W2S_STORE", str(there.store))
    assert record.predictions.equals(w2s.run(probe).predictions)


# TF-IDF


def test_tfidf_learns_the_words(table: TaskTable) -> None:
    parts = splits(table, 0)
    labels = table.frame["label"].to_numpy(np.float32)[parts.supervisor]
    p = fit_tfidf(TFIDF, Data(table, parts.supervisor, labels)).predict(parts.test)
    assert p.dtype == np.float32 and accuracy(p, table, parts.test) > 0.9
    inverted = fit_tfidf(TFIDF, Data(table, parts.supervisor, 1 - 0.8 * labels)).predict(
        parts.test
    )  # soft, and the wrong way round
    assert accuracy(inverted, table, parts.test) < 0.1


def test_tfidf_takes_its_vocabulary_from_the_training_rows_alone(table: TaskTable) -> None:
    """Words that only other rows have say nothing: adding some changes no prediction of theirs."""
    parts = splits(table, 0)
    labels = table.frame["label"].to_numpy(np.float32)[parts.supervisor]
    other = table.frame.copy()
    other.loc[parts.test, "text"] += " zzyzx quux"
    before, after = (
        fit_tfidf(TFIDF, Data(t, parts.supervisor, labels)).predict(parts.test)
        for t in (table, dataclasses.replace(table, frame=other))
    )
    assert before.tolist() == after.tolist()


# Zero-shot


def test_zero_shot_is_the_language_models_own_odds(
    table: TaskTable, small_task: Task, own_cache: Path
) -> None:
    """P(y = 1) = P(great) / (P(great) + P(terrible)) as the next token, by the causal language model itself."""
    spec = RunSpec(model="smollm2-135m@3", task=small_task, method="zero_shot", precision="fp32")
    rows = np.arange(40, 0, -1)
    p = fit_zero_shot(spec, Data(table, no_rows(), None, asked=rows)).predict(rows)
    tokenizer, model = (
        models.load_tokenizer("smollm2-135m"),
        models.load_backbone(spec, causal_lm=True),
    )
    (bad,), (good,) = (
        tokenizer(word, add_special_tokens=False)["input_ids"] for word in (" terrible", " great")
    )
    assert p.shape == (40,) and len(set(p.tolist())) > 5
    for row, found in list(zip(rows, p, strict=True))[:8]:
        ids = tokenizer(f"{table.frame['text'][row]} It was", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            odds = model(input_ids=ids).logits[0, -1]
        assert found == pytest.approx(1 / (1 + math.exp(float(odds[bad] - odds[good]))), abs=2e-3)


def test_zero_shot_is_calibrated_on_unlabelled_rows(
    table: TaskTable, small_task: Task, own_cache: Path
) -> None:
    """The rows' own mean log-odds count as even: every log-odds is moved by one number, and their mean there is 0."""
    spec = RunSpec(model="smollm2-135m@2", task=small_task, method="zero_shot")
    rows = np.arange(60)
    raw, even = (
        fit_zero_shot(spec, Data(table, some, None, asked=rows)).predict(rows).astype(float)
        for some in (no_rows(), rows[:20])
    )
    raw, even = (np.log(p / (1 - p)) for p in (raw, even))
    assert even[:20].mean() == pytest.approx(0, abs=1e-3) and abs(raw[:20].mean()) > 0.01
    assert np.std(raw - even) < 0.02 * abs(raw[:20].mean())  # but for rounding


@pytest.mark.parametrize(
    "words", ["great", "terrible/great/fine", "unspeakable!/great", "/great", ""]
)
def test_label_words_that_are_not_two_tokens_are_refused(words: str, small_task: Task) -> None:
    """Before anything is trained."""
    task = dataclasses.replace(small_task, label_words=words)
    with pytest.raises(SpecError, match="Task.label_words"):
        refuse_early([RunSpec(model="smollm2-135m@2", task=task, method="zero_shot")])
