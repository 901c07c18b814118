"""Low-rank adapters (LoRA, peft), saved and loaded under the block numbers of the whole model."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from w2s_lib.models.backbone import quiet
from w2s_lib.models.families import blocks_of
from w2s_lib.runs.errors import require
from w2s_lib.runs.model_names import is_hub
from w2s_lib.runs.spec import RunSpec


def lora_targets(numbers: range, names: Iterable[str]) -> str:
    """A regular expression for peft: the named linear layers of the blocks with these numbers."""
    return rf"(.*\.)?(layers|h)\.({'|'.join(map(str, numbers))})\..*({'|'.join(names)})"


def add_lora(backbone: Any, spec: RunSpec, *, n_top: int) -> Any:
    """Wraps the top `n_top` blocks with LoRA on every linear layer, in the backbone's own dtype.

    Returns:
        The peft model. Its adapters are drawn from torch's global generator: seed it first.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D  # GPT-2's; its weight is (in, out)

    blocks = blocks_of(backbone)
    linear = (nn.Linear, Conv1D)
    named = blocks.named_modules()
    layers = {name.rpartition(".")[2]: layer for name, layer in named if isinstance(layer, linear)}
    require(bool(layers), f"{spec.name} has no linear layers to adapt")
    turned = any(isinstance(layer, Conv1D) for layer in layers.values())
    config = LoraConfig(
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,
        lora_dropout=0.0,
        fan_in_fan_out=turned,
        revision=spec.revision if is_hub(spec.name) else None,
        target_modules=lora_targets(range(len(blocks) - n_top, len(blocks)), sorted(layers)),
    )
    with quiet():
        return get_peft_model(backbone, config, autocast_adapter_dtype=False)


def merge_adapters(backbone: Any, spec: RunSpec) -> bool:
    """Adds the adapters into dense layers; says whether it did: in 4 bits they would be lost."""
    dense = spec.device == "cpu" or spec.quantization == "none"
    if dense:
        backbone.merge_adapter()
    return dense


def save_adapters(
    backbone: Any, boundary: int, folder: Path, *, head: nn.Module | None = None
) -> None:
    """Writes adapters in peft's own format, and `head.safetensors`.

    Args:
        backbone: the peft model; its first block is number `boundary` of the whole one.
        boundary: added to the blocks' numbers in the file.
        folder: where to.
        head: a classifier's head.
    """
    from peft import get_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # With the embedding layers peft would ask the hub whether they are new.
    state = get_peft_model_state_dict(backbone, save_embedding_layers=False)
    shifted = {_renumbered(name, boundary): value.contiguous() for name, value in state.items()}
    config = backbone.peft_config["default"]
    n_blocks = len(blocks_of(backbone.get_base_model()))
    names = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in shifted}
    config.target_modules = lora_targets(range(boundary, boundary + n_blocks), sorted(names))
    try:
        save_file(shifted, folder / "adapter_model.safetensors")
        if head is not None:
            save_file(head.state_dict(), folder / "head.safetensors")
    except SafetensorError as error:  # a full disk, which it does not call an OSError
        raise OSError(str(error)) from error
    config.save_pretrained(str(folder))


def load_adapters(backbone: Any, boundary: int, folder: Path) -> None:
    """Puts saved adapters into a peft model, in place of its fresh ones."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(folder / "adapter_model.safetensors")
    loaded = {_renumbered(name, -boundary): value for name, value in saved.items()}
    own = get_peft_model_state_dict(backbone, save_embedding_layers=False)
    assert loaded.keys() == own.keys()  # peft would leave fresh what the file lacks
    set_peft_model_state_dict(backbone, loaded)


def _renumbered(name: str, by: int) -> str:
    number = r"(?<=\.layers\.)\d+|(?<=\.h\.)\d+"
    return re.sub(number, lambda found: str(int(found[0]) + by), name)
