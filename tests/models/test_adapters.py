"""Adapters: where they sit, that they start as nothing, and that what is saved is loaded where it fits and nowhere else."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import pinned
from w2s_lib.models.backbone import load_backbone
from w2s_lib.models.families import keep_blocks
from w2s_lib.models.lora import add_lora, load_adapters, lora_targets, merge_adapters, save_adapters
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.spec import Lora, RunSpec

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")
THREE = RunSpec(model="smollm2-135m@3")
IDS = torch.tensor([[504, 2159, 436, 5050, 30], [504, 1492, 436, 0, 0]])


def states(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model(input_ids=IDS, use_cache=False).last_hidden_state
    return out


def test_lora_sits_on_every_linear_layer_of_the_top_blocks_and_starts_as_nothing() -> None:
    spec = dataclasses.replace(THREE, lora=Lora(rank=4, alpha=8.0))
    before = states(load_backbone(spec))
    torch.manual_seed(0)
    model = add_lora(load_backbone(spec), spec, n_top=2)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    layers = {name.split(".lora_")[0] for name in trained}
    assert len(layers) == 2 * 7 and {re.findall(r"layers\.(\d+)", name)[0] for name in layers} == {
        "1",
        "2",
    }
    assert all(".lora_" in name and p.dtype == torch.bfloat16 for name, p in trained.items())
    assert all(4 in p.shape for p in trained.values())
    assert torch.equal(states(model), before)


def test_layers_that_cannot_be_adapted_are_an_error() -> None:
    backbone = torch.nn.Module()
    backbone.layers = torch.nn.ModuleList([torch.nn.LayerNorm(4)])
    with pytest.raises(SpecError, match="smollm2-135m"):
        add_lora(backbone, THREE, n_top=1)


def test_gpt2s_own_linear_layers_are_adapted_the_way_round_that_they_are(tiny_models: Path) -> None:
    """Its weights are (in, out): merged, the adapters do what they did beside them. In 4 bits its layers are ordinary ones."""
    for quantization, turned in (("none", True), ("nf4", False)):
        spec = pinned(
            tiny_models / "gpt2",
            precision="fp32",
            quantization=quantization,
            lora=Lora(rank=4, alpha=8.0),
        )
        model = adapted(spec, 0, 3, 0)
        assert model.peft_config["default"].fan_in_fan_out == turned
        layers = {
            name.split(".lora_")[0].rsplit(".", 1)[-1]
            for name, p in model.named_parameters()
            if p.requires_grad
        }
        assert layers == {"c_attn", "c_proj", "c_fc"}
        with model.disable_adapter():
            bare = states(model)
        before = states(model)
        assert merge_adapters(model, spec)
        torch.testing.assert_close(states(model), before, atol=1e-4, rtol=1e-4)
        assert (before - bare).abs().mean() > 1e-3


def test_targets_by_hand() -> None:
    """Named layers of block 13, whole numbers only, under either name of a list of blocks."""
    target = lora_targets(range(13, 14), ["q_proj", "up_proj"])
    assert all(
        re.fullmatch(target, name)
        for name in ("layers.13.self_attn.q_proj", "model.layers.13.mlp.up_proj", "h.13.up_proj")
    )
    assert not any(
        re.fullmatch(target, name)
        for name in (
            "layers.3.self_attn.q_proj",
            "layers.130.mlp.up_proj",
            "layers.13.mlp.down_proj",
            "embed.13.q_proj",
            "layers.13.norm",
        )
    )


# Saved, and loaded again


def adapted(spec: RunSpec, start: int, stop: int, seed: int) -> Any:
    """Blocks [start, stop) of three, all adapted, with adapters that do something."""
    torch.manual_seed(seed)
    model = add_lora(keep_blocks(load_backbone(spec), start, stop), spec, n_top=stop - start)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


SPEC = RunSpec(model="smollm2-135m@3", precision="fp32", lora=Lora(rank=4, alpha=8.0))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    """The top block alone is number 2 of the whole model: so it is called in the file, and so it finds its place."""
    one, other = adapted(SPEC, 2, 3, 0), adapted(SPEC, 2, 3, 1)
    save_adapters(one, 2, tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == 14 and all(".layers.2." in name for name in saved)
    assert not (tmp_path / "head.safetensors").exists()
    x = torch.randn(2, 5, 576, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mine, before = (m(inputs_embeds=x, use_cache=False).last_hidden_state for m in (one, other))
        load_adapters(other, 2, tmp_path)
        after = other(inputs_embeds=x, use_cache=False).last_hidden_state
    assert torch.equal(after, mine) and not torch.equal(before, mine)


def test_loaded_adapters_can_be_trained(tmp_path: Path) -> None:
    """As fresh ones can, and nothing else."""
    one = adapted(SPEC, 2, 3, 0)
    save_adapters(one, 2, tmp_path)
    fresh = {name for name, p in one.named_parameters() if p.requires_grad}
    other = adapted(SPEC, 2, 3, 1)
    load_adapters(other, 2, tmp_path)
    assert {name for name, p in other.named_parameters() if p.requires_grad} == fresh and len(
        fresh
    ) == 14
    assert all(p.dtype == torch.float32 for p in other.parameters())
