"""Language models as classifiers: a 4-bit backbone of a given depth, LoRA on its top blocks, a head on its last token.

Texts are padded on the right and attention is causal, so padding is never seen by a real token and no mask is needed.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import assets
from .names import EMBEDDED_DEPTH, split_model
from .spec import SEMANTICS, RunSpec, SpecError, nearest

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TRUNK_EXACT = ("llama", "mistral", "qwen2", "qwen3")
"""Families whose first blocks, run alone, hand on exactly what the whole model computes: nothing is added to or scaled
in `inputs_embeds`, and no block depends on its own number."""
LAST_TOKEN_EXACT = ("llama", "qwen2", "qwen3")
"""Families whose top block `classifier.last_token` computes for the last token alone."""


class DeviceError(RuntimeError):
    """What was asked for is not here. Nothing falls back to something else."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what libraries print while loading; errors still rise."""
    import transformers

    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # says on a CPU that a hub kernel is missing: harmless
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def source(model: str) -> str:
    """Where `transformers` finds the weights of `model`: a folder, or a hub's name."""
    name, _ = split_model(model)
    if name in EMBEDDED_DEPTH:
        return str(assets.fetch_model(name))
    return name.removeprefix("hf:")


def check(spec: RunSpec) -> None:
    """Refuses, before anything is loaded, a device that is not here and a depth that the model does not have.

    Raises:
        DeviceError: CUDA was asked for and there is none.
        SpecError: the folder has no model in it, or fewer blocks than asked for; a spec of other training semantics.
    """
    if spec.semantics != SEMANTICS:
        raise SpecError(f"run {spec.run_id} is of training semantics {spec.semantics}; this library trains {SEMANTICS}, so it "
                        "can read that run's record and not make it")
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("the run asks for device='cuda' and this machine has none; say device='cpu' to use the CPU")
    name, depth = split_model(spec.model)
    if "/" in name and not name.startswith("hf:"):
        config = Path(name) / "config.json"
        if not config.is_file():
            raise SpecError(f"no model in {name!r}: there is no config.json")
        most = json.loads(config.read_text(encoding="utf-8")).get("num_hidden_layers")
        if depth and most and depth > most:
            raise SpecError(f"depth {depth} of {name!r}: must be 1 to {most}")


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer."""
    from transformers import AutoTokenizer

    with quiet():
        return AutoTokenizer.from_pretrained(source(model))


def max_length(model: str) -> int:
    """How many tokens the model has positions for."""
    from transformers import AutoConfig

    with quiet():
        config = AutoConfig.from_pretrained(source(model))
    return getattr(config, "max_position_embeddings", None) or 2**31


def load_backbone(spec: RunSpec, *, causal_lm: bool = False) -> Any:
    """The pretrained model of `spec.model`, cut to its depth, frozen, in the spec's precision and quantization.

    On a CPU the NF4 blocks are dequantised once: the values are those of NF4, and a forward pass no longer pays for
    unpacking them (bitsandbytes would do it at each call).

    Args:
        spec: gives model, depth, quantization, precision and device.
        causal_lm: keep the language-modelling head (for `zero_shot`).

    Returns:
        A `transformers` model on the spec's device, in eval mode.
    """
    from transformers import AutoModel, AutoModelForCausalLM, BitsAndBytesConfig

    dtype = DTYPES[spec.precision]
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": False}
    if spec.device == "cpu":
        options["attn_implementation"] = "eager"  # on short texts PyTorch's fused backward is the slower one on a CPU
    if spec.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    if depth := split_model(spec.model)[1]:
        options["num_hidden_layers"] = depth
    with quiet():
        kind = AutoModelForCausalLM if causal_lm else AutoModel
        model = kind.from_pretrained(source(spec.model), **options)
        if spec.quantization == "none" or spec.device == "cuda":
            model.to(spec.device)
    if spec.quantization == "nf4" and spec.device == "cpu":
        dequantise(model)
    return model.requires_grad_(False).eval()


def dequantise(model: nn.Module) -> None:
    """Replaces each `Linear4bit` by a dense layer that holds the same NF4 values, in place."""
    import bitsandbytes as bnb

    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, bnb.nn.Linear4bit):
                state = layer.weight.quant_state
                dense = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
                weight = bnb.functional.dequantize_4bit(layer.weight.data, state).to(state.dtype)
                dense.weight = nn.Parameter(weight, requires_grad=False)
                dense.bias = layer.bias
                setattr(parent, name, dense)


def blocks_of(backbone: Any) -> nn.ModuleList:
    """The list of a backbone's transformer blocks, whatever its family calls it."""
    for name in ("layers", "h"):
        found = getattr(backbone, name, None)
        if isinstance(found, nn.ModuleList):
            return found
    raise SpecError(f"no list of blocks in a {type(backbone).__name__}: {nearest(backbone.config.model_type, TRUNK_EXACT)}")


def keep_blocks(backbone: Any, start: int, stop: int) -> Any:
    """Cuts a backbone of a family in `TRUNK_EXACT` to its blocks [start, stop), in place, renumbered from 0."""
    if (start, stop) == (0, len(blocks_of(backbone))):
        return backbone
    kept = blocks_of(backbone)[start:stop]
    for number, block in enumerate(kept):
        attention: Any = block.self_attn
        attention.layer_idx = number
    backbone.layers = kept
    backbone.config = copy.deepcopy(backbone.config)
    backbone.config.num_hidden_layers = len(kept)
    if getattr(backbone.config, "layer_types", None):
        backbone.config.layer_types = backbone.config.layer_types[start:stop]
    return backbone
