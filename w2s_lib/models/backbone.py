"""Language models as classifiers: a 4-bit backbone of a given depth, LoRA on its top blocks, a head on its last token.

Texts are padded on the right and attention is causal, so padding is never seen by a real token and no mask is needed.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from w2s_lib.models.families import cut, skeleton, without_dropout
from w2s_lib.models.pins import explaining, require_current
from w2s_lib.runs import assets
from w2s_lib.runs.errors import AssetError, DeviceError, SpecError
from w2s_lib.runs.model_names import EMBEDDED_DEPTH, is_folder, is_hub, split_model
from w2s_lib.runs.spec import SEMANTICS, RunSpec

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what libraries print while loading; errors still rise."""
    import transformers

    level, bars = (
        transformers.logging.get_verbosity(),
        transformers.logging.is_progress_bar_enabled(),
    )
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # says on a CPU that a hub kernel is missing: harmless
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def place(name: str, revision: str) -> dict[str, Any]:
    """Where `transformers` finds a model, and which revision: the first arguments of every `from_pretrained`.

    Raises:
        SpecError: a model of the hub or a folder that is not pinned, or a folder that has changed.
        AssetError: an embedded model that cannot be had.
    """
    require_current(name, revision)
    if name in EMBEDDED_DEPTH:
        return {"pretrained_model_name_or_path": str(assets.fetch_model(name))}
    where = {"pretrained_model_name_or_path": name.removeprefix("hf:")}
    return where | ({"revision": revision} if is_hub(name) else {})


def check(spec: RunSpec) -> None:
    """Refuses, before anything is trained, what cannot be run: of a hub model, its configuration and tokenizer are fetched.

    Raises:
        DeviceError: CUDA was asked for and there is none.
        SpecError: a spec of other training semantics; a model that is not pinned or has changed, that has no tokenizer or
            no list of blocks, does not read from left to right, or has fewer blocks than asked for.
        AssetError: a model of the hub that is missing, gated or private, or cannot be fetched.
    """
    if spec.semantics != SEMANTICS:
        raise SpecError(
            f"run {spec.run_id} is of training semantics {spec.semantics}; this library trains {SEMANTICS}, so it "
            "can read that run's record and not make it"
        )
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "the run asks for device='cuda' and this machine has none; say device='cpu' to use the CPU"
        )
    name, depth = split_model(spec.model)
    if is_hub(name) or is_folder(name):
        require_current(name, spec.revision)
        most = _examined(name, spec.revision)
        if depth and depth > most:
            raise SpecError(f"depth {depth} of {name!r}: must be 1 to {most}")


@functools.lru_cache(maxsize=64)
def _examined(name: str, revision: str) -> int:
    """How many blocks a model has, once it is known that it can be used."""
    config = load_config(name, revision)
    with quiet(), explaining(name, revision):
        skeleton(config)
    tokenizer = load_tokenizer(name, revision)
    if set(tokenizer("It was good.")["input_ids"]) <= set(
        tokenizer.all_special_ids
    ):  # what is made up where no file is
        raise SpecError(
            f"{name} has no tokenizer: none of its files, such as tokenizer.json, is there"
        )
    return int(config.num_hidden_layers)


def load_config(name: str, revision: str = "") -> Any:
    """The model's configuration, every dropout at 0. Raises what `place` does, and `AssetError`."""
    from transformers import AutoConfig

    with quiet(), explaining(name, revision):
        return without_dropout(
            AutoConfig.from_pretrained(**place(name, revision), trust_remote_code=False)
        )


def load_tokenizer(name: str, revision: str = "") -> Any:
    """The model's tokenizer. It needs no token for padding: what pads is never read. Raises what `load_config` does."""
    from transformers import AutoTokenizer

    try:
        with quiet(), explaining(name, revision):
            return AutoTokenizer.from_pretrained(**place(name, revision), trust_remote_code=False)
    except AssetError as error:
        if isinstance(error.__cause__, ValueError) and "tokenizer" in str(error.__cause__):
            raise SpecError(
                f"{name} has no tokenizer: none of its files, such as tokenizer.json, is there"
            ) from error
        raise


def max_length(name: str, revision: str = "") -> int:
    """How many tokens the model has positions for."""
    return getattr(load_config(name, revision), "max_position_embeddings", None) or 2**31


def attention(device: str, precision: str) -> dict[str, str]:
    """Which attention a model is asked to use: FlashAttention 2 on CUDA in bf16, where it is installed, else PyTorch's own.

    On a CPU the eager one: on short texts PyTorch's fused backward is the slower one there.
    """
    from transformers.utils import is_flash_attn_2_available

    if device == "cpu":
        return {"attn_implementation": "eager"}
    return (
        {"attn_implementation": "flash_attention_2"}
        if precision == "bf16" and is_flash_attn_2_available()
        else {}
    )


def split_over() -> dict[str, str]:
    """`device_map` of `from_pretrained`, where W2S_DEVICE_MAP says how accelerate spreads a model's blocks over the GPUs.

    "auto" or "balanced", for a model that is too large for one GPU; a sweep then trains one run at a time unless told
    otherwise. Not yet executed: no GPU was at hand.
    """
    given = os.environ.get("W2S_DEVICE_MAP", "")
    return {"device_map": given} if given else {}


def move(module: Any, device: str) -> Any:
    """A module on a device; of one with a model that is split over GPUs, only what is on the CPU."""
    if not (device == "cuda" and split_over()):
        return module.to(device)
    for parameter in module.parameters():
        if parameter.device.type == "cpu":
            parameter.data = parameter.data.to(device)
    return module


def load_backbone(spec: RunSpec, *, causal_lm: bool = False) -> Any:
    """The pretrained model of `spec.model`, cut to its depth, frozen, in the spec's precision and quantization.

    On a CPU the NF4 blocks are dequantised once: the values are those of NF4, and a forward pass no longer pays for
    unpacking them (bitsandbytes would do it at each call). On CUDA they stay packed, on one GPU unless `split_over` says
    otherwise: by `memory.training_memory` (an estimate; no GPU was at hand) 80 GB are enough for 70 billion parameters in NF4
    with the default recipe and texts of 512 tokens: about 73 GiB, or 40 with gradient checkpointing.

    Args:
        spec: gives model, depth, quantization, precision and device.
        causal_lm: keep the language-modelling head (for `zero_shot`).

    Returns:
        A `transformers` model on the spec's device, in eval mode, without dropout.

    Raises:
        SpecError: the model is not pinned, or its folder has changed.
        AssetError: it cannot be had.
    """
    from transformers import AutoModel, AutoModelForCausalLM, BitsAndBytesConfig

    dtype, (name, depth) = DTYPES[spec.precision], split_model(spec.model)
    config = load_config(name, spec.revision)
    if depth:
        config = cut(config, 0, depth)
    options: dict[str, Any] = {"dtype": dtype, "config": config} | attention(
        spec.device, spec.precision
    )
    if spec.device == "cuda":
        options |= split_over()
    if spec.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        if spec.device == "cpu":
            options["device_map"] = {"": "cpu"}  # transformers would take a GPU, where there is one
    with quiet(), explaining(name, spec.revision):
        kind = AutoModelForCausalLM if causal_lm else AutoModel
        model = kind.from_pretrained(
            **place(name, spec.revision), trust_remote_code=False, **options
        )
        if "device_map" not in options and (spec.quantization == "none" or spec.device == "cuda"):
            model.to(spec.device)
    if causal_lm and hasattr(model, "hf_device_map"):
        model.base_model.hf_device_map = (
            model.hf_device_map
        )  # whoever takes it without its head must know as well
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
                dense = nn.Linear(
                    layer.in_features,
                    layer.out_features,
                    bias=layer.bias is not None,
                    device="meta",
                )
                weight = bnb.functional.dequantize_4bit(layer.weight.data, state).to(state.dtype)
                dense.weight = nn.Parameter(weight, requires_grad=False)
                dense.bias = layer.bias
                setattr(parent, name, dense)
