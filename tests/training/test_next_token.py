"""Generative finetuning: whose texts are read, what is measured, and how a classifier goes on from there."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import w2s_lib as w2s
from w2s_lib.measures.metrics import contrast_interval
from w2s_lib.models import backbone as models
from w2s_lib.runs import store
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import Lora, Recipe, RunSpec, Task
from w2s_lib.tasks.table import load_table, splits
from w2s_lib.training import finetune as train
from w2s_lib.training.finetune import Data
from w2s_lib.training.next_token import NextTokenFit, Reader, fit_next_token

pytestmark = [
    pytest.mark.usefixtures("own_cache", "one_thread"),
    pytest.mark.filterwarnings("ignore:.* are also among the"),
]  # the small tables are made of the same sentences
RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=2e-3)


@pytest.fixture(scope="module")
def spec(small_task: Task) -> RunSpec:
    """48 texts a half, so three batches an epoch and none left over."""
    task = dataclasses.replace(small_task, n_train=48)
    return w2s.generative("smollm2-135m@2", task, recipe=RECIPE, lora=Lora(rank=8, blocks=1))


@contextmanager
def observed() -> Iterator[list[tuple[Reader, bool, list[int]]]]:
    """What every reader is given, and whether it trains on it: torch's own hook on calls of modules."""
    seen: list[tuple[Reader, bool, list[int]]] = []

    def note(module: Any, given: Any) -> None:
        if isinstance(module, Reader):
            seen.append((module, module.training, np.asarray(given[0]).tolist()))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def read_texts(spec: RunSpec) -> tuple[NextTokenFit, set[int], set[int]]:
    """A fitted run, the places of the texts that it trained on, and of those that it only measured."""
    table = load_table(spec.task)
    parts = splits(table, spec.seed)
    with observed() as seen:
        fitted = fit_next_token(
            spec, Data(table, getattr(parts, spec.half), None, validation=parts.validation)
        )
    trained = {
        text
        for reader, trains, texts in seen
        if trains and reader is fitted.reader
        for text in texts
    }
    measured = {
        text
        for reader, trains, texts in seen
        if not trains and reader is fitted.own
        for text in texts
    }
    assert all(reader is (fitted.reader if trains else fitted.own) for reader, trains, _ in seen)
    return fitted, trained, measured


@pytest.fixture(scope="module")
def ran(
    spec: RunSpec, session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """The run by the ordinary way, in a store of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("W2S_CACHE", str(session_cache))
        patch.setenv("W2S_STORE", str(folder := tmp_path_factory.mktemp("read") / "records"))
        return SimpleNamespace(record=w2s.run(spec), folder=store.weights(spec), store=folder)


# What is read


def test_nothing_but_the_texts_of_its_half_is_learned_and_only_validation_is_measured(
    spec: RunSpec, own_cache: Path
) -> None:
    parts = splits(load_table(spec.task), 0)
    for half in ("student", "supervisor"):
        one = dataclasses.replace(spec, half=half, recipe=Recipe(epochs=1))
        _, trained, measured = read_texts(one)
        assert trained == set(getattr(parts, half)) and measured == set(parts.validation)


def test_of_comparisons_both_texts_are_read(comparison_task: Task) -> None:
    spec = w2s.generative(
        "smollm2-135m@1", comparison_task, recipe=Recipe(epochs=1), lora=Lora(rank=4)
    )
    table = load_table(comparison_task)
    fitted, trained, measured = read_texts(spec)
    parts = splits(table, 0)
    assert trained == set(table.positions(parts.student)) and measured == set(
        table.positions(parts.validation)
    )
    assert fitted.predict(parts.validation).shape == (40,)


def test_a_corpus_is_as_many_tokens_of_another_tasks_texts(spec: RunSpec) -> None:
    """Short of the half's tokens by nothing, beyond them by less than one text; no text of the task.

    Batches of two, so that each epoch leaves out one text at most.
    """
    table, corpus = load_table(spec.task), load_table(w2s.default_task("nyt"))
    control = dataclasses.replace(
        spec, model="smollm2-135m@1", labels=NextToken(corpus="nyt"), recipe=Recipe(batch_size=2)
    )
    fitted, trained, measured = read_texts(control)
    assert (
        fitted.reader.inputs.table.digest == corpus.digest
        and fitted.own.inputs.table.digest == table.digest
    )
    asked = int(fitted.own.counts(splits(table, 0).student).sum())
    counts = fitted.reader.counts(sorted(trained))
    assert asked <= counts.sum() < asked + counts.max()
    assert measured == set(splits(table, 0).validation) and not {
        corpus.texts[t] for t in trained
    } & set(table.texts)
    again, other = read_texts(control)[1], read_texts(control.with_seed(1))[1]
    assert again == trained and len(other & trained) < len(trained) / 2  # drawn by the seed
    assert fitted.metrics["loss"] != fitted.metrics["loss_before"]


def test_a_corpus_under_a_trunk_is_measured_on_the_tasks_own_texts(
    spec: RunSpec, ran: SimpleNamespace
) -> None:
    """Each reader has the frozen blocks' states of its own texts: before training all runs of a model measure alike."""
    control = dataclasses.replace(spec, labels=NextToken(corpus="nyt"), recipe=Recipe(epochs=1))
    fitted, _, _ = read_texts(control)
    assert fitted.boundary == 1 and fitted.reader.inputs is not fitted.own.inputs
    assert fitted.metrics["loss_before"] == ran.record.metrics["loss_before"]
    assert fitted.metrics["loss"] != ran.record.metrics["loss"]


def test_texts_that_the_task_has_too_are_no_other_corpus(spec: RunSpec) -> None:
    """`movie` as a control of the domain of `movie`: nothing is left to read."""
    task = w2s.default_task("movie", n_train=32, n_validation=20, n_test=20)
    with pytest.raises(SpecError, match="corpus"):
        w2s.run(w2s.generative("smollm2-135m@1", task, corpus="movie", lora=Lora(rank=4)))


# What is measured


def test_its_record_has_validation_rows_alone_and_two_losses(
    spec: RunSpec, ran: SimpleNamespace
) -> None:
    record, parts = ran.record, splits(load_table(spec.task), 0)
    frame = record.predictions
    assert (
        set(frame["split"]) == {"validation"} and frame.index.to_list() == parts.validation.tolist()
    )
    assert frame["p"].between(0, 1, inclusive="neither").all()
    assert set(record.metrics) == {"loss_before", "loss"}
    assert (
        record.metrics["loss"] < 0.8 * record.metrics["loss_before"]
    )  # 300 sentences of one make: easily learned
    assert record.spec.role == "generative"


def test_it_has_no_accuracy(ran: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="test"):
        contrast_interval([(1, [ran.record])])
    with pytest.raises(ValueError, match="test"):
        contrast_interval([(1, [ran.record]), (-1, [ran.record])])


def test_a_sweep_shows_it_with_no_accuracy(
    spec: RunSpec, ran: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2S_STORE", str(ran.store))
    row = w2s.sweep([spec], progress=False).frame.iloc[0]
    assert (row["role"], row["labels"], row["supervisor"]) == ("generative", "NextToken", "")
    assert (
        np.isnan(row["accuracy"])
        and np.isnan(row["validation_accuracy"])
        and row["record"].digest == ran.record.digest
    )


@pytest.mark.parametrize("template", ["{text} It was", "A review: {text}\nIt was"])
def test_the_loss_is_the_language_models_own_over_the_text(template: str, spec: RunSpec) -> None:
    """Before training, in float32: -ln of each token's probability given all before it, template tokens uncounted.

    A row's `p` is e^-(mean over its tokens); "loss_before" is the mean over all tokens of all rows.
    """
    task = dataclasses.replace(spec.task, template=template)
    one = dataclasses.replace(
        spec, task=task, precision="fp32", quantization="none", recipe=Recipe(epochs=1)
    )
    table, rows = load_table(task), splits(load_table(task), 0).validation[:10]
    fitted = fit_next_token(one, Data(table, splits(table, 0).student, None, validation=rows))
    tokenizer, model = models.load_tokenizer(one.name), models.load_backbone(one, causal_lm=True)
    before, after = (len(tokenizer(part)["input_ids"]) for part in template.split("{text}"))
    nats = []
    for row in rows:
        ids = tokenizer(template.replace("{text}", table.frame["text"][row]), return_tensors="pt")[
            "input_ids"
        ]
        with torch.inference_mode():
            log_p = torch.log_softmax(model(input_ids=ids).logits[0], dim=1)
        places = range(max(1, before), ids.shape[1] - after)
        nats.append([-float(log_p[place - 1, ids[0, place]]) for place in places])
    assert fitted.metrics["loss_before"] == pytest.approx(np.mean(np.concatenate(nats)), rel=1e-4)
    untrained = dataclasses.replace(one, recipe=Recipe(epochs=1, learning_rate=1e-12))
    p = fit_next_token(
        untrained, Data(table, splits(table, 0).student, None, validation=rows)
    ).predict(rows)
    assert p == pytest.approx([np.exp(-np.mean(n)) for n in nats], rel=1e-3)
    assert fitted.own.counts(rows).tolist() == [len(n) for n in nats]


def test_the_same_spec_reads_to_the_same_bits(
    spec: RunSpec, ran: SimpleNamespace, own_store: Path
) -> None:
    again = w2s.run(spec)
    assert again.predictions.equals(ran.record.predictions) and again.metrics == ran.record.metrics
    mine, theirs = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (store.weights(spec), ran.folder)
    )
    assert mine.keys() == theirs.keys() and all(
        torch.equal(mine[name], theirs[name]) for name in mine
    )
    assert not (ran.folder / "head.safetensors").exists()  # there is none


# What goes on from it


@pytest.fixture
def there(ran: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setenv("W2S_STORE", str(ran.store))
    return ran


def adapters(fitted: Any, folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir()
    fitted.save(folder)
    return load_file(folder / "adapter_model.safetensors")


def test_a_classifier_starts_from_its_adapters_with_the_head_that_it_would_have_had(
    spec: RunSpec, there: SimpleNamespace, tmp_path: Path
) -> None:
    """Before the first step: the adapters are the reader's, the head is that of the same run from pretrained weights."""
    table = load_table(spec.task)
    taught = w2s.ceiling(spec.model, spec.task, lora=spec.lora, recipe=RECIPE)
    plain = train.build(taught, table)
    started = train.build(taught, table, start=store.weights(spec))
    read, own, fresh = (
        load_file(there.folder / "adapter_model.safetensors"),
        adapters(started, tmp_path / "a"),
        adapters(plain, tmp_path / "b"),
    )
    assert read.keys() == own.keys() == fresh.keys() and len(read) == 2 * 7
    assert all(torch.equal(read[name], own[name]) for name in read)
    assert all(not torch.equal(read[name], fresh[name]) for name in read)
    assert torch.equal(plain.model.head.weight, started.model.head.weight)
    assert torch.equal(plain.model.head.bias, started.model.head.bias)


def test_a_student_that_continues_it_is_another_student(
    spec: RunSpec, there: SimpleNamespace
) -> None:
    """The same labels, half, recipe and seed; the supervisor learns from nothing read. `start` may be given as the run."""
    settings = {"recipe": Recipe(epochs=2, learning_rate=4e-3), "lora": spec.lora}
    weak = w2s.supervisor("tfidf", spec.task)
    plain = w2s.student(spec.model, weak, **settings)
    continued = w2s.student(spec.model, weak, start=spec, **settings)
    assert continued.start == w2s.Continue(run=spec) and continued.parents() == [weak, spec]
    one, other = (w2s.run(run) for run in (plain, continued))
    assert (one.predictions["p"] != other.predictions["p"]).mean() > 0.9
    assert other.spec.role == "student" and set(other.predictions["split"]) == {
        "test",
        "validation",
    }
    read, after = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (there.folder, store.weights(continued))
    )
    assert all(not torch.equal(after[name], value) for name, value in read.items())


def test_adapters_that_are_gone_are_trained_again(spec: RunSpec, own_store: Path) -> None:
    """A published record comes without them. The reader is run once more, and what continues it is the same as before."""
    child = w2s.ceiling(spec.model, spec.task, recipe=Recipe(epochs=1), lora=spec.lora, start=spec)
    first = w2s.run(child).predictions
    shutil.rmtree(own_store / spec.run_id)
    written = (own_store / f"{spec.run_id}.parquet").stat().st_mtime_ns
    w2s.run(child)  # its record is there: nobody needs the adapters
    assert (own_store / f"{spec.run_id}.parquet").stat().st_mtime_ns == written and not (
        own_store / spec.run_id
    ).exists()
    (own_store / f"{child.run_id}.parquet").unlink()
    assert w2s.run(child).predictions.equals(first)
    assert store.weights(spec) is not None
    assert (own_store / f"{spec.run_id}.parquet").stat().st_mtime_ns > written
