"""What differs between families of language models: blocks, last norm, what may be run alone.

Listed is what tests compare with the family's own forward. A family that is not listed here is
trained and predicted all the same, by its own forward from the token ids on: slower, and as exact.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from w2s_lib.runs.errors import SpecError, require

TRUNK_EXACT = "llama mistral qwen2 qwen3 smollm3 gpt_neox gpt2 gemma gemma2 gemma3_text".split()
"""Families whose first blocks, run alone, hand on what the whole model computes: `trunk_exact`."""
KNOWN = f"these families are known: {', '.join(TRUNK_EXACT)}"
LAST_TOKEN_EXACT = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma")
"""Families whose top block `classifier.last_token` computes for the last token alone.

Not GPT-NeoX and GPT-2, whose forward runs every block that is there, nor Gemma 2 and 3, whose
blocks have two norms more and (2) capped attention.
"""
NORMS = {"gpt_neox": "final_layer_norm", "gpt2": "ln_f"}
"""What a family calls the norm after its last block, where that is not `norm`."""
BY_BLOCK = ("layer_types", "no_rope_layers")
"""Lists in a configuration that have an entry a block."""


def blocks_of(backbone: Any) -> nn.ModuleList:
    """The list of a backbone's transformer blocks. Raises `SpecError` where there is none."""
    for name in ("layers", "h"):
        if isinstance(blocks := getattr(backbone, name, None), nn.ModuleList):
            return blocks
    said = f"no list of blocks in a {type(backbone).__name__}, so no depth and no top to adapt"
    raise SpecError(f"{said}: {KNOWN}")


def trunk_exact(backbone: Any) -> bool:
    """Whether a model's first blocks, run alone, hand on exactly what the whole model computes.

    Nothing may be added to, or scaled in, `inputs_embeds` (GPT-2 adds positions, which
    `keep_blocks` takes out of an upper slice; Gemma scales its embeddings, which it must do in
    their own layer), and no block may depend on its own number.
    """
    kind = backbone.config.model_type
    scaled = not kind.startswith("gemma") or hasattr(backbone.get_input_embeddings(), "embed_scale")
    numbered = getattr(backbone.config, "scale_attn_by_inverse_layer_idx", False)
    return kind in TRUNK_EXACT and scaled and not numbered


def last_token_exact(backbone: Any) -> bool:
    """Whether `classifier.last_token` computes what the top block does for the last token."""
    return backbone.config.model_type in LAST_TOKEN_EXACT


def window_of(attention: Any) -> int | None:
    """How many tokens back, itself included, a token of a Llama-like block reads; None: all."""
    of_all = attention.config.sliding_window if attention.config.model_type == "mistral" else None
    window: int | None = getattr(attention, "sliding_window", of_all)
    return window


def cut(config: Any, start: int, stop: int) -> Any:
    """A copy of a configuration, of the blocks [start, stop) alone."""
    config = copy.deepcopy(config)
    config.num_hidden_layers = stop - start
    for name in BY_BLOCK:
        if getattr(config, name, None):
            setattr(config, name, getattr(config, name)[start:stop])
    return config


def keep_blocks(backbone: Any, start: int, stop: int) -> Any:
    """Cuts a backbone for which `trunk_exact` is true to its blocks [start, stop), in place.

    They are renumbered from 0.
    """
    blocks = blocks_of(backbone)
    if (start, stop) == (0, len(blocks)):
        return backbone
    del blocks[stop:], blocks[:start]
    for number, block in enumerate(blocks):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", number)  # noqa: B010 -- of modules of many classes
    backbone.config = cut(backbone.config, start, stop)
    if start and backbone.config.model_type == "gpt2":  # what enters has its positions already
        backbone.wpe.weight.data.zero_()
    return backbone


def drop_norm(backbone: Any) -> Any:
    """Leaves out, in place, the norm after the last block, which a next block would not see."""
    setattr(backbone, NORMS.get(backbone.config.model_type, "norm"), nn.Identity())
    return backbone


def without_dropout(config: Any) -> Any:
    """The configuration with every dropout at 0, in place: a trunk could not have any."""
    for name, value in vars(config).items():
        if name.endswith(("dropout", "_pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def capped(words: nn.Module, config: Any) -> nn.Module:
    """A language-modelling head as its family applies it: Gemma 2 caps its logits, in place."""
    if cap := getattr(config, "final_logit_softcapping", None):  # so that none exceeds the bound
        words.register_forward_hook(lambda head, states, logits: cap * torch.tanh(logits / cap))
    return words


def words_head(words: Tensor, config: Any, *, comparison: bool) -> nn.Module:
    """The logits of two words from a state, frozen, in float32.

    For comparisons the second word's minus the first's.

    Args:
        words: (2, hidden), the words' rows of the language-modelling head.
        config: the model's.
        comparison: (n, hidden) -> (n, 1) in place of (n, 2).
    """

    def frozen(weight: Tensor) -> nn.Linear:
        layer = nn.Linear(weight.shape[1], len(weight), bias=False, device="meta")
        layer.weight = nn.Parameter(weight.float(), requires_grad=False)
        return layer

    if not comparison:
        return capped(frozen(words), config)
    if not getattr(config, "final_logit_softcapping", None):
        return frozen(words[1:] - words[:1])
    difference = torch.tensor([[-1.0, 1.0]], device=words.device)
    return nn.Sequential(capped(frozen(words), config), frozen(difference))


def skeleton(config: Any) -> Any:
    """The model of a configuration with one block, on torch's meta device: shapes and no weights.

    Raises:
        SpecError: no language model that reads from left to right, or one without a list of blocks.
    """
    from transformers import AutoModel
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.model_type
    both_ways = getattr(config, "use_bidirectional_attention", False)
    said = "does not read from left to right, so its last token does not stand for the text"
    left_to_right = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not both_ways
    require(left_to_right, f"a model of the family {kind!r} {said}: {KNOWN}")
    has_blocks = bool(getattr(config, "num_hidden_layers", None))
    require(has_blocks, f"no list of blocks in a configuration of the family {kind!r}: {KNOWN}")
    with torch.device("meta"):
        model = AutoModel.from_config(cut(config, 0, 1), trust_remote_code=False)
    blocks_of(model)
    return model
