"""Pretrained language models, cut to a depth, in four bits; their configuration and tokenizer.

Texts are padded on the right and attention is causal, so padding is never seen by a real token and
no mask is needed.
"""

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from w2s_lib.models.embedded import fetch_model
from w2s_lib.models.families import cut, skeleton, without_dropout
from w2s_lib.models.pins import explaining, require_current
from w2s_lib.runs.errors import AssetError, DeviceError, SpecError, require
from w2s_lib.runs.model_names import EMBEDDED_DEPTH, is_folder, is_hub, split_model
from w2s_lib.runs.spec import SEMANTICS, RunSpec

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what libraries print while loading; errors still rise."""
    import transformers

    log = transformers.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    # It says on a CPU that a kernel of the hub is missing, which is harmless.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Loads quietly; what a library raises becomes an `AssetError` or `SpecError` of one sentence."""
    with quiet(), explaining(name):
        yield


def place(name: str, revision: str) -> dict[str, Any]:
    """Where `transformers` finds a model, and which revision: arguments of `from_pretrained`.

    No code of the model's own is ever run.

    Raises:
        SpecError: a model of the hub or a folder that is not pinned, or a folder that has changed.
        AssetError: an embedded model that cannot be had.
    """
    require_current(name, revision)
    path = str(fetch_model()) if name in EMBEDDED_DEPTH else name.removeprefix("hf:")
    where = {"pretrained_model_name_or_path": path, "trust_remote_code": False}
    return where | ({"revision": revision} if is_hub(name) else {})


def check(spec: RunSpec) -> None:
    """Refuses, before anything is trained, what cannot be run.

    Of a hub model, configuration and tokenizer are fetched.

    Raises:
        DeviceError: CUDA was asked for and there is none.
        SpecError: a spec of other training semantics; a model that is not pinned or has changed,
            that has no tokenizer or no list of blocks, does not read from left to right, or has
            fewer blocks than asked for.
        AssetError: a model of the hub that is missing, gated or private, or cannot be fetched.
    """
    if spec.semantics != SEMANTICS:
        said = f"is of training semantics {spec.semantics}; this library trains {SEMANTICS}"
        raise SpecError(f"run {spec.run_id} {said}")
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("the run asks for device='cuda' and this machine has none")
    name, depth = split_model(spec.model)
    if is_hub(name) or is_folder(name):
        require_current(name, spec.revision)
        most = _examined(name, spec.revision)
        require((depth or 1) <= most, f"depth {depth} of {name!r}: must be 1 to {most}")


@functools.lru_cache(maxsize=64)
def _examined(name: str, revision: str) -> int:
    """How many blocks a model has, once it is known that it can be used."""
    config = load_config(name, revision)
    with loading(name):
        skeleton(config)
    tokenizer = load_tokenizer(name, revision)
    # Where there is no file, some families make a tokenizer up that knows no words.
    known = set(tokenizer("It was good.")["input_ids"]) - set(tokenizer.all_special_ids)
    said = f"{name} has no tokenizer: none of its files, tokenizer.json say, is there"
    require(bool(known), said)
    return int(config.num_hidden_layers)


def load_config(name: str, revision: str = "") -> Any:
    """The model's configuration, every dropout at 0. Raises what `place` does, and `AssetError`."""
    from transformers import AutoConfig

    with loading(name):
        return without_dropout(AutoConfig.from_pretrained(**place(name, revision)))


def load_tokenizer(name: str, revision: str = "") -> Any:
    """The model's tokenizer. Raises what `load_config` does.

    It needs no token for padding: what pads is never read.
    """
    from transformers import AutoTokenizer

    with loading(name):
        return AutoTokenizer.from_pretrained(**place(name, revision))


def attention(device: str, precision: str, config: Any) -> dict[str, str]:
    """Which attention a model is asked to use.

    FlashAttention 2 on CUDA in bf16, where it is installed and the model has it, else PyTorch's own;
    on a CPU the eager one, since on short texts PyTorch's fused backward is the slower one there.
    """
    from transformers.utils import is_flash_attn_2_available

    if device == "cpu":
        return {"attn_implementation": "eager"}
    there = precision == "bf16" and is_flash_attn_2_available()
    if there and getattr(skeleton(config), "_supports_flash_attn", False):
        return {"attn_implementation": "flash_attention_2"}
    return {}


def hidden_states(backbone: Any, inputs: Tensor) -> Tensor:
    """What leaves a backbone's last block, after its norm: (n, longest, hidden).

    Args:
        backbone: a `transformers` model without its head, as it is or wrapped by peft.
        inputs: (n, longest) token ids, or (n, longest, hidden) states; right-padded.
    """
    key = "inputs_embeds" if inputs.is_floating_point() else "input_ids"
    states: Tensor = backbone(**{key: inputs}, use_cache=False).last_hidden_state
    return states


def load_backbone(spec: RunSpec, *, causal_lm: bool = False) -> Any:
    """The pretrained model of `spec.model`, cut to its depth and frozen.

    On a CPU the NF4 blocks are dequantised once: the values are those of NF4, and a forward pass no
    longer pays for unpacking them (bitsandbytes would do it at each call). On CUDA they stay
    packed.

    Args:
        spec: gives model, depth, quantization, precision and device.
        causal_lm: keep the language-modelling head (for `zero_shot`).

    Returns:
        A `transformers` model on the spec's device, in eval mode, without dropout.

    Raises:
        SpecError: the model is not pinned, or its folder has changed.
        AssetError: it cannot be had, or loaded.
    """
    from transformers import AutoModel, AutoModelForCausalLM, BitsAndBytesConfig

    dtype, (name, depth) = DTYPES[spec.precision], split_model(spec.model)
    config = load_config(name, spec.revision)
    if depth:
        config = cut(config, 0, depth)
    options = {"dtype": dtype, "config": config} | attention(spec.device, spec.precision, config)
    if spec.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        if spec.device == "cpu":  # where there is a GPU, transformers would take it
            options["device_map"] = {"": "cpu"}
    kind = AutoModelForCausalLM if causal_lm else AutoModel
    with loading(name):
        model, found = kind.from_pretrained(
            **place(name, spec.revision), output_loading_info=True, **options
        )
        if missing := sorted(found["missing_keys"]):  # they would be random, and nobody told
            lacks = f"{len(missing)} weights, {missing[0]} first"
            raise AssetError(f"cannot load {name}: its model files lack {lacks}")
    if "device_map" in options:
        dequantise(model)
    else:
        model.to(spec.device)
    return model.requires_grad_(False).eval()


def dequantise(model: nn.Module) -> None:
    """Replaces each `Linear4bit` by a dense layer that holds the same NF4 values, in place."""
    import bitsandbytes as bnb

    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if isinstance(layer, bnb.nn.Linear4bit):
            state = layer.weight.quant_state
            size = layer.in_features, layer.out_features
            dense = nn.Linear(*size, bias=layer.bias is not None, device="meta")
            weight = bnb.functional.dequantize_4bit(layer.weight.data, state).to(state.dtype)
            dense.weight = nn.Parameter(weight, requires_grad=False)
            dense.bias = layer.bias
            model.set_submodule(name, dense)
