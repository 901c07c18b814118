"""Backbones: cut to a depth, 4-bit, with adapters and a head; and what is refused before anything is loaded."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import pinned
from w2s_lib.models import backbone as models
from w2s_lib.models.backbone import check, load_backbone
from w2s_lib.models.families import blocks_of, keep_blocks
from w2s_lib.runs.errors import AssetError, DeviceError, SpecError
from w2s_lib.runs.spec import RunSpec

pytestmark = pytest.mark.usefixtures("own_cache", "one_thread")
REPO = Path(__file__).parents[2]
THREE = RunSpec(model="smollm2-135m@3")
IDS = torch.tensor([[504, 2159, 436, 5050, 30], [504, 1492, 436, 0, 0]])


def states(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model(input_ids=ids, use_cache=False).last_hidden_state
    return out


@pytest.fixture(scope="module")
def dense() -> Any:
    """The first three blocks as they are stored: no quantization, float32."""
    return load_backbone(dataclasses.replace(THREE, quantization="none", precision="fp32"))


def test_a_depth_is_the_first_blocks_of_the_whole_model() -> None:
    """`name@3` (num_hidden_layers=3) and the whole model cut to [0, 3) are one function, NF4 values included."""
    whole = load_backbone(RunSpec(model="smollm2-135m"))
    assert len(blocks_of(whole)) == 30
    cut, loaded = keep_blocks(whole, 0, 3), load_backbone(THREE)
    assert len(blocks_of(cut)) == len(blocks_of(loaded)) == cut.config.num_hidden_layers == 3
    assert torch.equal(states(cut), states(loaded))


def test_upper_blocks_continue_where_lower_blocks_end(dense: Any) -> None:
    """Blocks [1, 3) on the states that leave block 0 give what the three give in one go: the trunk rests on this."""
    spec = dataclasses.replace(THREE, quantization="none", precision="fp32")
    lower, upper = keep_blocks(load_backbone(spec), 0, 1), keep_blocks(load_backbone(spec), 1, 3)
    lower.norm = nn.Identity()
    with torch.inference_mode():
        out = upper(inputs_embeds=states(lower), use_cache=False).last_hidden_state
    torch.testing.assert_close(out, states(dense), atol=1e-5, rtol=1e-5)


def test_padding_on_the_right_is_never_seen(dense: Any) -> None:
    torch.testing.assert_close(
        states(dense)[1, :3], states(dense, IDS[1:, :3])[0], atol=1e-4, rtol=1e-4
    )


def test_a_backbone_is_frozen_in_eval_mode_and_of_the_dtype_asked_for() -> None:
    for precision, dtype in models.DTYPES.items():
        model = load_backbone(dataclasses.replace(THREE, precision=precision))
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        assert {p.dtype for p in model.parameters()} == {dtype}


def test_nf4_dequantised_once_is_what_bitsandbytes_computes_at_every_call(dense: Any) -> None:
    """Against bitsandbytes' own Linear4bit of the same weights, in float32: equal but for the order of sums."""
    import bitsandbytes as bnb

    quantized = load_backbone(dataclasses.replace(THREE, precision="fp32"))
    assert not any(isinstance(layer, bnb.nn.Linear4bit) for layer in quantized.modules())
    x = torch.randn(7, 576, generator=torch.Generator().manual_seed(0))
    for name in ("layers.0.self_attn.q_proj", "layers.2.mlp.gate_proj"):
        mine, source = quantized.get_submodule(name), dense.get_submodule(name)
        theirs = bnb.nn.Linear4bit(
            576,
            source.out_features,
            bias=False,
            compute_dtype=torch.float32,
            quant_type="nf4",
            compress_statistics=True,
        )
        theirs.weight = bnb.nn.Params4bit(
            source.weight.data.clone(),
            requires_grad=False,
            quant_type="nf4",
            compress_statistics=True,
        )
        theirs.to("cpu")
        torch.testing.assert_close(mine(x), theirs(x), atol=1e-4, rtol=1e-4)
        error = (mine.weight - source.weight).norm() / source.weight.norm()
        assert 0.01 < error < 0.2  # it is 4 bits, and not noise


def test_a_run_on_a_cpu_stays_there_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 4 bits and no device map, transformers would load it onto the GPU, and its inputs would be on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: pytest.fail("asked for the GPU"))
    model = load_backbone(THREE)
    assert {p.device.type for p in model.parameters()} == {"cpu"} and states(model).shape == (
        2,
        5,
        576,
    )


def test_a_depth_beyond_a_users_model(tiny_models: Path) -> None:
    for family in ("llama", "gpt2", "gpt_neox"):
        check(pinned(f"{tiny_models}/{family}@3"))
        with pytest.raises(SpecError, match=f"depth 4 .*{family}.* 1 to 3"):
            check(pinned(f"{tiny_models}/{family}@4"))


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"config\.json"):
        check(RunSpec(model=f"{tmp_path}@4", revision="a" * 64))


def test_a_model_without_a_tokenizer(tiny_models: Path, tmp_path: Path) -> None:
    """Where no file is there, some classes make up an empty tokenizer, and others raise."""
    for family in ("llama", "gpt2", "gemma"):
        folder = tmp_path / family
        shutil.copytree(
            tiny_models / family,
            folder,
            ignore=shutil.ignore_patterns("tokenizer*", "special_tokens*"),
        )
        with pytest.raises((SpecError, AssetError), match=f"{family}.*tokenizer"):
            check(pinned(folder))


def test_a_model_without_a_list_of_blocks(tiny_models: Path, tmp_path: Path) -> None:
    import transformers

    transformers.OPTConfig(num_hidden_layers=2).save_pretrained(tmp_path)
    shutil.copy(tiny_models / "llama" / "tokenizer.json", tmp_path)
    with pytest.raises(SpecError, match="OPTModel"):
        check(pinned(tmp_path))


def test_a_model_with_code_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}'
    )
    with pytest.raises(SpecError, match="code"):
        check(pinned(tmp_path))


def test_a_model_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nobodys"}')
    with pytest.raises(AssetError, match="nobodys"):
        check(pinned(tmp_path))


def test_what_is_loaded_is_pinned(tiny_models: Path, tmp_path: Path) -> None:
    """Neither `check` nor any loading takes a model whose revision nobody named, or a folder that has changed since."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_models / "llama", folder)
    spec = pinned(folder)
    load_backbone(spec)
    loads = (
        check,
        load_backbone,
        lambda spec: models.load_tokenizer(spec.name, spec.revision),
        lambda spec: models.load_config(spec.name, spec.revision),
    )
    for load in loads:
        with pytest.raises(SpecError, match=str(folder)):
            load(RunSpec(model=str(folder)))
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    for load in loads:
        with pytest.raises(SpecError, match=str(folder)):
            load(spec)
    load_backbone(pinned(folder))


# On CUDA


def test_attention_is_flash_attention_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed, on CUDA and in bf16, which it needs; else PyTorch's own, which is the default. On a CPU always eager."""
    import transformers.utils

    llama, bloom = (
        transformers.LlamaConfig(num_hidden_layers=1),
        transformers.BloomConfig(n_layer=1),
    )
    for installed, precision, config, expected in (
        (True, "bf16", llama, {"attn_implementation": "flash_attention_2"}),
        (True, "bf16", bloom, {}),
        (True, "fp32", llama, {}),
        (False, "bf16", llama, {}),
    ):
        monkeypatch.setattr(
            transformers.utils, "is_flash_attn_2_available", lambda installed=installed: installed
        )
        assert models.attention("cuda", precision, config) == expected
    assert models.attention("cpu", "bf16", llama) == {"attn_implementation": "eager"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device() -> None:
    with pytest.raises(DeviceError, match="'cuda'"):
        check(dataclasses.replace(THREE, device="cuda"))
