"""Families of language models in whole runs: each is trained, saved, probed, asked and read as `transformers` says."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import w2s_lib as w2s
from tests.conftest import pinned, small_tokenizer
from tests.models.test_families import FAMILIES, QUICK, dense, states
from w2s_lib.models import backbone as models
from w2s_lib.models.backbone import load_backbone
from w2s_lib.models.families import last_token_exact
from w2s_lib.models.inputs import Inputs
from w2s_lib.models.pins import folder_digest
from w2s_lib.models.trunk import Trunk
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import Lora, Recipe, Task
from w2s_lib.tasks.table import TaskTable, load_table, splits
from w2s_lib.training import baselines as probing
from w2s_lib.training import finetune as train
from w2s_lib.training.finetune import Data, no_rows

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_trained_saved_and_predicts(
    family: str,
    quantization: str,
    tiny_models: Path,
    table: TaskTable,
    small_task: Task,
    tmp_path: Path,
) -> None:
    """Trained on the trunk; then plain `transformers` with peft's own loader says the same of the tokens, in float32."""
    from peft import PeftModel
    from transformers import AutoModel

    spec = pinned(
        tiny_models / family, task=small_task, quantization=quantization, precision="fp32", **QUICK
    )
    rows = splits(table, 0).student
    fitted = train.fit(spec, Data(table, rows, table.frame["label"].to_numpy(np.float32)[rows]))
    assert fitted.boundary == 2 and isinstance(fitted.inputs, Trunk)
    assert fitted.model.last_only == last_token_exact(load_backbone(spec))
    fitted.save(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved and all((".layers.2." in name) != (".h.2." in name) for name in saved)
    plain = AutoModel.from_pretrained(tiny_models / family, dtype=torch.float32)
    base = load_backbone(spec) if quantization == "nf4" else plain
    tuned, head = (
        PeftModel.from_pretrained(base, str(tmp_path)).eval(),
        load_file(tmp_path / "head.safetensors"),
    )
    tokens, asked = Inputs(spec, table), rows[:12]
    with torch.inference_mode():
        logits, bare = [], []
        for row in asked:
            ids = torch.tensor([tokens.ids[row]])
            last = states(tuned, ids)[0, -1]
            logits.append(head["weight"] @ last + head["bias"])
            with tuned.disable_adapter():
                bare.append(head["weight"] @ states(tuned, ids)[0, -1] + head["bias"])
    found = fitted.logits(asked)
    torch.testing.assert_close(found, torch.stack(logits), atol=1e-4, rtol=0)
    assert (torch.stack(bare) - found).abs().mean() > 1e-3  # four steps are few, and do something


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_adapters_find_their_place_again(
    family: str, tiny_models: Path, table: TaskTable, small_task: Task, tmp_path: Path
) -> None:
    """Loaded under the trunk's numbering into another draw of adapters: the same logits of the same head."""
    spec = pinned(f"{tiny_models}/{family}", task=small_task, **QUICK)
    one = train.build(spec, table)
    for name, parameter in one.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    one.save(tmp_path)
    other, fresh = (
        train.build(spec.with_seed(1), table, start=start) for start in (tmp_path, None)
    )
    for model in (other, fresh):
        model.model.head.load_state_dict(one.model.head.state_dict())
    logits, again, without = (m.logits(np.arange(20)) for m in (one, other, fresh))
    assert torch.equal(logits, again) and not torch.equal(logits, without)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_probed(
    family: str, tiny_models: Path, table: TaskTable, small_task: Task
) -> None:
    """The probe's states are the family's own after that block, at the last token; a depth alone, and the whole model."""
    spec = dense(f"{tiny_models}/{family}@2", task=small_task, method="probe")
    rows = np.arange(6)
    found = Trunk(spec, table, 2).last_states(rows)
    from transformers import AutoModel

    model = AutoModel.from_pretrained(
        tiny_models / family, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = Inputs(spec, table).ids
    for row, state in zip(rows, found, strict=True):
        with torch.inference_mode():
            theirs = model(
                input_ids=torch.tensor([ids[row]]), use_cache=False, output_hidden_states=True
            ).hidden_states[2]
        np.testing.assert_allclose(state, theirs[0, -1].numpy(), atol=1e-4, rtol=1e-4)
    parts = splits(table, 0)
    truth = table.frame["label"].to_numpy(np.float32)
    for one in (spec, dataclasses.replace(spec, model=spec.name)):
        data = Data(
            table,
            parts.student,
            truth[parts.student],
            validation=parts.validation,
            validation_labels=truth[parts.validation],
        )
        p = probing.fit_probe(one, data).predict(parts.test)
        assert len(set(p.tolist())) > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_its_own_zero_shot_odds(
    family: str, tiny_models: Path, table: TaskTable, small_task: Task
) -> None:
    """Those of the causal language model as `transformers` has it, caps on its logits included."""
    from transformers import AutoModelForCausalLM

    spec = dense(tiny_models / family, task=small_task, method="zero_shot")
    rows = np.arange(5)
    p = probing.fit_zero_shot(spec, Data(table, no_rows(), None, asked=rows)).predict(rows)
    model = AutoModelForCausalLM.from_pretrained(tiny_models / family, dtype=torch.float32).eval()
    tokenizer = models.load_tokenizer(spec.name, spec.revision)
    (bad,), (good,) = (tokenizer(word)["input_ids"] for word in (" terrible", " great"))
    for row, found in zip(rows, p, strict=True):
        with torch.inference_mode():
            odds = model(input_ids=torch.tensor([Inputs(spec, table).ids[row]])).logits[0, -1]
        assert found == pytest.approx(torch.sigmoid(odds[good] - odds[bad]).item(), abs=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads(
    family: str, tiny_models: Path, table: TaskTable, small_task: Task
) -> None:
    """Before it has learned anything, nats a token are the causal language model's own loss; afterwards fewer."""
    from transformers import AutoModelForCausalLM

    from w2s_lib.training import next_token

    task = dataclasses.replace(small_task, template="{text}")
    recipe = Recipe(epochs=1, batch_size=16, learning_rate=3e-3)
    spec = dense(
        tiny_models / family,
        task=task,
        labels=NextToken(),
        recipe=recipe,
        lora=Lora(rank=4, alpha=8.0, blocks=2),
    )
    parts = splits(table, 0)
    watch = parts.validation[:10]
    fitted = next_token.fit_next_token(spec, Data(table, parts.student, None, validation=watch))
    model = AutoModelForCausalLM.from_pretrained(tiny_models / family, dtype=torch.float32).eval()
    nats, n = 0.0, 0
    for ids in (Inputs(spec, table).ids[row] for row in watch):
        tokens = torch.tensor([ids])
        with torch.inference_mode():
            nats += model(input_ids=tokens, labels=tokens).loss.item() * (len(ids) - 1)
        n += len(ids) - 1
    assert fitted.metrics["loss_before"] == pytest.approx(nats / n, rel=1e-4)
    assert fitted.metrics["loss"] < fitted.metrics["loss_before"]


def test_zero_shot_odds_of_a_comparison_are_capped_before_they_are_subtracted(
    tiny_models: Path, comparison_task: Task
) -> None:
    from transformers import AutoModelForCausalLM

    spec = dense(tiny_models / "gemma2", task=comparison_task, method="zero_shot")
    table, rows = load_table(comparison_task), np.arange(3)
    p = probing.fit_zero_shot(spec, Data(table, no_rows(), None, asked=rows)).predict(rows)
    model = AutoModelForCausalLM.from_pretrained(tiny_models / "gemma2", dtype=torch.float32).eval()
    tokenizer, ids = models.load_tokenizer(spec.name, spec.revision), Inputs(spec, table).ids
    bad, good = (
        tokenizer(" " + word)["input_ids"] for word in comparison_task.label_words.split("/")
    )
    for row, found in zip(rows, p, strict=True):
        with torch.inference_mode():
            first, second = (
                model(input_ids=torch.tensor([ids[t]])).logits[0, -1]
                for t in (row, row + len(table.frame))
            )
        reward = [float((odds[good] - odds[bad])[0]) for odds in (first, second)]
        assert found == pytest.approx(1 / (1 + np.exp(reward[1] - reward[0])), abs=2e-3)


def test_a_run_of_a_folder_from_spec_to_record_and_back(
    tiny_models: Path, small_task: Task, tmp_path: Path
) -> None:
    """As of a hub model: supervisor, student, a reader that is continued, a probe of it; a changed model is another run."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_models / "gpt_neox", folder)
    weak = w2s.supervisor(f"{folder}@1", small_task, **QUICK)
    read = w2s.generative(f"{folder}@3", small_task, **QUICK)
    student = w2s.student(f"{folder}@3", weak, start=read, **QUICK)
    probe = w2s.probe(f"{folder}@3", small_task, start=student, lora=QUICK["lora"])
    records = [w2s.run(spec) for spec in (student, probe)]
    assert all(record.metrics["accuracy"] >= 0 for record in records)
    student, probe = (record.spec for record in records)
    assert {run.revision for run in probe.lineage()} == {folder_digest(str(folder))}
    (folder / "generation_config.json").write_text("{}")
    assert w2s.run(student).digest == records[0].digest
    assert student.teacher and w2s.pin(weak).run_id != student.teacher.run_id
    with pytest.raises(SpecError, match=student.revision[:16]):
        w2s.run(dataclasses.replace(student.teacher, half="student"))
    with pytest.raises(SpecError, match="revision"):
        w2s.student(f"{folder}@3", weak, start=student.continued, **QUICK)


def test_a_tokenizer_without_padding_and_with_a_first_token(
    tiny_models: Path, small_task: Task, table: TaskTable, tmp_path: Path
) -> None:
    """No token for padding is needed. A token that begins every text is neither read as text nor predicted."""
    from tokenizers.processors import TemplateProcessing

    from w2s_lib.training.next_token import Reader

    folder = tmp_path / "model"
    shutil.copytree(tiny_models / "llama", folder)
    tokenizer = small_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.save_pretrained(folder)
    task = dataclasses.replace(small_task, template="Here: {text} It was")
    spec = pinned(folder, task=task)
    models.check(spec)
    assert models.load_tokenizer(spec.name, spec.revision).pad_token is None
    inputs = Inputs(spec, table)
    assert all(ids[0] == 1 for ids in inputs.ids)
    reader = Reader(None, None, inputs)
    before, after = (
        len(
            models.load_tokenizer(spec.name, spec.revision)(part, add_special_tokens=False)[
                "input_ids"
            ]
        )
        for part in ("Here: ", " It was")
    )
    assert reader.counts([0])[0] == len(inputs.ids[0]) - 1 - before - after
