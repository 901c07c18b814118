"""Families of language models: each is cut and run in two parts as its own forward says, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import pinned, small_tokenizer
from w2s_lib.models import backbone as models
from w2s_lib.models.backbone import load_backbone
from w2s_lib.models.families import (
    LAST_TOKEN_EXACT,
    TRUNK_EXACT,
    blocks_of,
    cut,
    drop_norm,
    keep_blocks,
    skeleton,
    trunk_exact,
    without_dropout,
)
from w2s_lib.models.inputs import Inputs
from w2s_lib.models.trunk import Trunk
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.spec import Lora, Recipe, RunSpec, Task
from w2s_lib.tasks.table import TaskTable
from w2s_lib.training import finetune as train

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")
FAMILIES = [
    "llama",
    "mistral",
    "qwen2",
    "qwen2_window",
    "qwen3",
    "smollm3",
    "gpt_neox",
    "gpt2",
    "gemma",
    "gemma2",
    "gemma3",
]
IDS = torch.tensor([[504, 2159, 436, 5050, 30, 7, 8, 9], [504, 1492, 436, 0, 0, 0, 0, 0]])
RECIPE = Recipe(epochs=1, batch_size=16, learning_rate=1e-2)
QUICK: dict[str, Any] = {"recipe": RECIPE, "lora": Lora(rank=4, alpha=8.0, blocks=1)}


def states(model: Any, ids: Any = IDS, **given: Any) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model(
            **(given or {"input_ids": ids}), use_cache=False
        ).last_hidden_state
    return out


def dense(folder: Path | str, **settings: Any) -> RunSpec:
    return pinned(folder, precision="fp32", quantization="none", **settings)


def by_hand(folder: Path) -> Any:
    """The model as `transformers` loads it, with nothing of ours, and every state that leaves a block."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False, output_hidden_states=True)


def test_every_family_of_the_lists_is_tested(tiny_models: Path) -> None:
    kinds = {models.load_config(*_named(tiny_models / family)).model_type for family in FAMILIES}
    assert kinds == set(TRUNK_EXACT) > set(LAST_TOKEN_EXACT)


def _named(folder: Path) -> tuple[str, str]:
    spec = pinned(folder)
    return spec.name, spec.revision


# Blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_a_depth_is_the_first_blocks_of_the_whole_model(family: str, tiny_models: Path) -> None:
    """The state after two blocks, before a norm, as the whole model has it on its way."""
    theirs = by_hand(tiny_models / family)
    short = drop_norm(load_backbone(dense(f"{tiny_models}/{family}@2")))
    assert len(blocks_of(short)) == short.config.num_hidden_layers == 2
    torch.testing.assert_close(states(short), theirs.hidden_states[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("boundary", [1, 2])
def test_upper_blocks_continue_where_lower_blocks_end(
    family: str, boundary: int, tiny_models: Path
) -> None:
    """In two parts, and in three with a head start, what the family's own forward computes in one; windows included."""
    spec = dense(tiny_models / family)
    theirs = by_hand(tiny_models / family)
    parts = [
        drop_norm(keep_blocks(load_backbone(spec), start, stop)) for start, stop in ((0, 1), (1, 2))
    ]
    upper = keep_blocks(load_backbone(spec), boundary, 3)
    assert (
        trunk_exact(upper)
        and len(blocks_of(upper)) == upper.config.num_hidden_layers == 3 - boundary
    )
    x = states(parts[0])
    if boundary == 2:
        x = states(parts[1], inputs_embeds=x)
    torch.testing.assert_close(x, theirs.hidden_states[boundary], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        states(upper, inputs_embeds=x), theirs.last_hidden_state, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("family", ["mistral", "qwen2_window", "gemma2", "gemma3"])
def test_the_windows_of_the_test_models_matter(family: str, tiny_models: Path) -> None:
    """Else the tests above would say nothing of them: what stood eight tokens back changes nothing in one block."""
    first = int(family == "qwen2_window")  # its windows begin in the second block
    model = drop_norm(keep_blocks(load_backbone(dense(tiny_models / family)), first, first + 1))
    x = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[0, 0] += 1.0
    one, two = (states(model, inputs_embeds=value) for value in (x, other))
    assert torch.equal(one[0, 4:], two[0, 4:]) and not torch.equal(one[0, 3], two[0, 3])


def test_a_family_whose_lower_blocks_cannot_be_run_alone_is_refused_by_name(
    tiny_models: Path, tmp_path: Path, table: TaskTable, small_task: Task
) -> None:
    """GPT-2 with attention scaled by a block's number; and it trains without a trunk."""
    spec = pinned(_gpt2(tmp_path, scale_attn_by_inverse_layer_idx=True), task=small_task, **QUICK)
    assert not trunk_exact(load_backbone(spec))
    with pytest.raises(SpecError, match="'gpt2'.* llama, mistral"):
        Trunk(spec, table, 2)
    built = train.build(spec, table)
    assert built.boundary == 0 and type(built.inputs) is Inputs


def _gpt2(folder: Path, **settings: Any) -> Path:
    import transformers as tf

    torch.manual_seed(0)
    tf.GPT2LMHeadModel(
        tf.GPT2Config(
            n_embd=32,
            n_layer=3,
            n_head=2,
            vocab_size=600,
            bos_token_id=1,
            eos_token_id=2,
            **settings,
        )
    ).save_pretrained(folder / "model")
    small_tokenizer().save_pretrained(folder / "model")
    return folder / "model"


def test_a_gemma_that_does_not_scale_in_its_embedding_has_no_trunk(tiny_models: Path) -> None:
    """Where a release of `transformers` scales what enters the first block instead, the states would be scaled twice."""
    model = load_backbone(dense(tiny_models / "gemma"))
    assert trunk_exact(model)
    del model.embed_tokens.embed_scale
    assert not trunk_exact(model)


def test_a_configuration_is_cut_with_its_lists() -> None:
    from transformers import SmolLM3Config

    whole = SmolLM3Config(num_hidden_layers=4)
    upper = cut(whole, 2, 4)
    assert (upper.num_hidden_layers, upper.no_rope_layers, len(upper.layer_types)) == (2, [1, 0], 2)
    assert whole.num_hidden_layers == 4 and whole.no_rope_layers == [1, 1, 1, 0]


def test_dropout_is_off_in_whatever_a_family_calls_it(tmp_path: Path) -> None:
    """GPT-2 comes with dropout of a tenth; in training mode, too, a frozen model gives one answer."""
    from transformers import AutoModel, GPT2Config

    config = GPT2Config()
    assert (config.attn_pdrop, config.embd_pdrop, config.resid_pdrop) == (0.1, 0.1, 0.1)
    without_dropout(config)
    assert (config.attn_pdrop, config.embd_pdrop, config.resid_pdrop) == (0.0, 0.0, 0.0)
    folder = _gpt2(tmp_path)
    ids = IDS % 600
    ours, theirs = load_backbone(dense(folder)).train(), AutoModel.from_pretrained(folder).train()
    one, two = (model(input_ids=ids, use_cache=False).last_hidden_state for model in (ours, ours))
    assert torch.equal(one, two)
    assert not torch.equal(
        *(theirs(input_ids=ids, use_cache=False).last_hidden_state for _ in range(2))
    )


@pytest.mark.parametrize(
    "kind, settings, message",
    [
        ("BertConfig", {}, "BertModel"),
        ("ModernBertConfig", {}, "'modernbert'"),
        ("Gemma3TextConfig", {"use_bidirectional_attention": True}, "'gemma3_text'"),
        ("T5Config", {}, "'t5'"),
        ("OPTConfig", {}, "OPTModel.* llama, mistral"),
        ("Gemma3Config", {}, "'gemma3'"),
    ],
)
def test_architectures_that_cannot_be_used_are_refused_by_name(
    kind: str, settings: dict[str, Any], message: str
) -> None:
    import transformers

    with pytest.raises(SpecError, match=message):
        skeleton(getattr(transformers, kind)(**settings))
