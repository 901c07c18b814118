"""One student on a GPU, ours against the plain way, on a model of the 1B class.

Its weights are drawn at random, in the shape of SmolLM2-1.7B: that is as fast as the trained one, and needs no hub. Its
accuracy means nothing and is not shown.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from .common import long_texts
from .student import compare

SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
SIZES = {"n_train": 2000, "n_validation": 500, "n_test": 2000}


def random_model(folder: Path, shape: dict[str, Any]) -> Path:
    """Saves a model of random weights with the embedded model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from w2s_lib.models.embedded import fetch_model

    tokenizer = AutoTokenizer.from_pretrained(str(fetch_model()))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, dtype="bfloat16", **shape
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(
    device: str = "cuda", shape: dict[str, Any] = SHAPE, sizes: dict[str, int] = SIZES
) -> dict[str, Any]:
    """Both ways on one GPU.

    Raises:
        DeviceError: there is none.
    """
    import torch

    import w2s_lib as w2s
    from w2s_lib.models.machine import hardware
    from w2s_lib.runs.errors import DeviceError

    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("this benchmark needs a CUDA device, and torch sees none")
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder) / "model", shape)
        path = long_texts(
            Path(folder), 2 * sizes["n_train"] + sizes["n_validation"] + sizes["n_test"] + 100, 128
        )
        found = compare(str(model), w2s.default_task(str(path), **sizes), device)
    for row in found["rows"]:
        del row["test accuracy"]
    del found["ours_minus_plain"], found["covers"]
    return found | {"gpu": hardware(device), "shape": shape}
