"""The classifier: it reads the last real token, computes only what that needs, predicts by row, and is saved as peft's."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import pinned
from w2s_lib.models.backbone import load_backbone
from w2s_lib.models.classifier import Classifier, Finetuned, rounded
from w2s_lib.models.families import blocks_of, keep_blocks
from w2s_lib.models.inputs import Inputs
from w2s_lib.models.lora import add_lora
from w2s_lib.models.machine import one_thread
from w2s_lib.runs.spec import Lora, RunSpec, Task
from w2s_lib.tasks.table import TaskTable, splits
from w2s_lib.training import finetune as train
from w2s_lib.training.finetune import Data

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")
IDS, LENGTH = (
    torch.tensor([[504, 2159, 436, 5050, 30], [504, 1492, 436, 0, 0], [30, 0, 0, 0, 0]]),
    torch.tensor([5, 3, 1]),
)
EVERY = np.arange(300)


def pair(spec: RunSpec, n_top: int = 1) -> tuple[Classifier, Classifier]:
    """The same model twice, with adapters that do something: as it is, and with its top block run for every token."""
    made = []
    for last_only in (True, False):
        torch.manual_seed(0)
        backbone = load_backbone(spec)
        model = Classifier(
            add_lora(keep_blocks(backbone, 0, len(blocks_of(backbone))), spec, n_top=n_top),
            last_only=last_only,
        )
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        made.append(model)
    return made[0], made[1]


@pytest.mark.parametrize(
    "model, last_only",
    [
        ("llama", True),
        ("qwen2", True),
        ("qwen2_window", True),
        ("qwen3", True),
        ("mistral", True),
        ("smollm3", True),
        ("smollm3@2", True),
        ("gemma", True),
        ("gemma2", False),
        ("gemma3", False),
        ("gpt_neox", False),
        ("gpt2", False),
        ("llama@2", True),
        ("llama@1", True),
        ("smollm2-135m@3", True),
        ("smollm2-135m@1", True),
    ],
)
def test_the_last_token_alone_is_what_the_familys_own_forward_computes(
    model: str, last_only: bool, tiny_models: Path
) -> None:
    """Logits and the gradients of every adapter, in float32, texts of several lengths in one batch."""
    name = model if model.startswith("smollm2") else f"{tiny_models}/{model}"
    spec = pinned(name, precision="fp32", quantization="none", lora=Lora(rank=2))
    short, whole = pair(spec)
    assert (short.last_only, whole.last_only) == (last_only, False)
    a, b = short(IDS, LENGTH), whole(IDS, LENGTH)
    assert a.shape == (3, 2) and a.dtype == torch.float32
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    for logits in (a, b):
        (logits[:, 1] * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    mine, theirs = (
        {n: p.grad for n, p in m.named_parameters() if p.requires_grad} for m in (short, whole)
    )
    assert mine.keys() == theirs.keys() and any(".lora_" in n for n in mine)
    for n, gradient in theirs.items():
        torch.testing.assert_close(mine[n], gradient, atol=1e-4, rtol=1e-3)
    assert all(n.startswith("head.") or re.search(r"(layers|h)\.\d+\..*lora", n) for n in mine)


def test_padding_is_never_seen() -> None:
    """A text alone, and the same text in a batch with longer ones."""
    model, _ = pair(RunSpec(model="smollm2-135m@2", precision="fp32"))
    with torch.inference_mode():
        together = model(IDS, LENGTH)
        for row, n in enumerate(LENGTH.tolist()):
            torch.testing.assert_close(
                model(IDS[row : row + 1, :n], LENGTH[row : row + 1])[0],
                together[row],
                atol=1e-4,
                rtol=1e-4,
            )


def test_the_head_reads_the_last_real_token_in_float32() -> None:
    spec = RunSpec(model="smollm2-135m@2")
    model = Classifier(load_backbone(spec))
    assert model.head.weight.dtype == torch.float32
    with torch.inference_mode():
        hidden = load_backbone(spec)(input_ids=IDS, use_cache=False).last_hidden_state
        expected = model.head(torch.stack([hidden[0, 4], hidden[1, 2], hidden[2, 0]]).float())
        torch.testing.assert_close(model(IDS, LENGTH), expected, atol=0.05, rtol=0)


# Fitted, on the real model's first three blocks


@pytest.fixture(scope="module")
def fitted(
    small_task: Task, quick: dict[str, Any], table: TaskTable, session_cache: Path
) -> Finetuned:
    with pytest.MonkeyPatch.context() as patch, one_thread("cpu"):
        patch.setenv("W2S_CACHE", str(session_cache))
        spec = RunSpec(model="smollm2-135m@3", task=small_task, **quick)
        rows = splits(table, 0).student
        return train.fit(spec, Data(table, rows, table.frame["label"].to_numpy(np.float32)[rows]))


def test_predictions_do_not_depend_on_the_order_in_which_they_are_asked_for(
    fitted: Finetuned,
) -> None:
    rows = np.random.default_rng(0).permutation(300)[:90]
    p = fitted.predict(rows)
    assert p.dtype == np.float32 and p.shape == (90,) and ((p >= 0) & (p <= 1)).all()
    assert fitted.predict(rows[::-1]).tolist() == p[::-1].tolist()


def test_probabilities_are_the_softmax_of_the_logits(fitted: Finetuned) -> None:
    logits = fitted.logits(EVERY[:50])
    p = fitted.predict(EVERY[:50])
    assert np.abs(torch.sigmoid(logits[:, 1] - logits[:, 0]).numpy() - p).max() <= 2**-17 + 1e-7


def test_labels_read_from_a_record_are_the_labels_that_were_made() -> None:
    """Predictions are rounded once, to a step that float32 holds exactly, ends included."""
    p = rounded([0.0, 1.0, 0.5, 1 / 3, 1 - 1e-9])
    assert p.dtype == np.float32 and p.tolist() == rounded(p).tolist()
    assert p.tolist() == [0.0, 1.0, 0.5, 21845 / 65536, 1.0]


def test_saved_adapters_are_pefts_own_and_give_the_same_logits(
    fitted: Finetuned, tmp_path: Path
) -> None:
    """Loaded by `peft.PeftModel` onto the plain model, run from the tokens, with the head from its file.

    Before and after it has predicted: predicting merges the adapters, and must not change what is saved.
    """
    from peft import PeftModel
    from safetensors.torch import load_file

    spec, tokens = fitted.spec, Inputs(fitted.spec, fitted.inputs.table)
    logits = fitted.logits(EVERY[:80])
    fitted.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "head.safetensors",
    ]
    loaded = Classifier(
        PeftModel.from_pretrained(load_backbone(spec), str(tmp_path)), last_only=False
    ).eval()
    bare = Classifier(load_backbone(spec), last_only=False).eval()
    found = []
    for model in (loaded, bare):
        model.head.load_state_dict(load_file(tmp_path / "head.safetensors"))
        with torch.inference_mode():
            found.append(
                torch.cat([model(*tokens.batch(EVERY[i : i + 20])) for i in range(0, 80, 20)])
            )
    error, without = ((other - logits).abs().mean() for other in found)
    assert error < 0.05 * logits.std() and without > 0.3 * logits.std()  # the adapters did matter
    assert torch.equal(fitted.logits(EVERY[:80]), logits)


def test_what_is_saved_does_not_depend_on_having_predicted(
    small_task: Task, quick: dict[str, Any], table: TaskTable, tmp_path: Path
) -> None:
    spec = dataclasses.replace(RunSpec(model="smollm2-135m@2", task=small_task, **quick), seed=1)
    model = train.build(spec, table)
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        model.save(tmp_path / name)
        model.predict(EVERY[:9])
    for file in sorted((tmp_path / "before").iterdir()):
        assert file.read_bytes() == (tmp_path / "after" / file.name).read_bytes()
