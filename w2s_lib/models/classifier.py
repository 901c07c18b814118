"""A language model as a classifier of texts by their last token: forward, predict, save."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from w2s_lib.models.backbone import hidden_states
from w2s_lib.models.families import blocks_of, last_token_exact, window_of
from w2s_lib.models.inputs import Inputs
from w2s_lib.models.lora import merge_adapters, save_adapters
from w2s_lib.runs.record import P_STEP, FloatArray
from w2s_lib.runs.spec import RunSpec

PREDICT_BATCH = 64


class Classifier(nn.Module):
    """A backbone and a linear head on the last real token's final state.

    Only that token's state is read, so the top block is computed for it alone where the family
    allows: its keys and values for all tokens, the rest for one. That is a tenth of the work of ten
    blocks, and half of two.

    Args:
        backbone: a `transformers` model after `families.keep_blocks`, as it is or wrapped by peft.
        last_only: False runs the top block for every token, for comparison.
        comparison: a row is two texts; the head is one number, a reward r, and the logit of "the
            first is better" is r(first) - r(second) (Bradley & Terry 1952).
    """

    def __init__(self, backbone: Any, *, last_only: bool = True, comparison: bool = False) -> None:
        super().__init__()
        base = backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone
        self.backbone = backbone
        # float32, whatever the backbone is
        self.head: nn.Module = nn.Linear(base.config.hidden_size, 1 if comparison else 2)
        self.last_only = last_only and last_token_exact(base)
        if self.last_only:
            # The family's own forward stops before the top block and norm: `forward` runs them.
            base.config.num_hidden_layers -= 1
            self.norm, base.norm = base.norm, nn.Identity()
            self.rotary = base.rotary_emb
            self.top = [blocks_of(base)[-1]]  # in a list: the block stays a module of the backbone

    def forward(self, inputs: Tensor, length: Tensor) -> Tensor:
        """Logits (n, 2) in float32.

        Args:
            inputs: (n, longest) token ids, or (n, longest, hidden) states that enter the first
                block; right-padded. For comparisons (2n, ...): first texts, then second ones.
            length: real tokens in each text.
        """
        hidden = hidden_states(self.backbone, inputs)
        if self.last_only:
            position = torch.arange(hidden.shape[1], device=hidden.device)[None]
            last = self.norm(last_token(self.top[0], hidden, length, self.rotary(hidden, position)))
        else:
            last = hidden[torch.arange(len(length), device=hidden.device), length - 1]
        logits: Tensor = self.head(last.float())
        if logits.shape[1] == 2:
            return logits
        first, second = logits[:, 0].chunk(2)  # rewards
        return torch.stack([second, first], dim=1)  # of which softmax is sigmoid(first - second)


def last_token(block: Any, hidden: Tensor, length: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """What a Llama-like block hands on for each row's last token alone, (n, hidden).

    Args:
        block: a decoder block of a family in `families.LAST_TOKEN_EXACT`.
        hidden: (n, longest, hidden), what enters the block, right-padded.
        length: (n,) real tokens in each row.
        rotary: cosine and sine of the positions, each (1, longest, head).
    """
    attention, (n, longest, _) = block.self_attn, hidden.shape
    row, last = torch.arange(n, device=hidden.device), length - 1

    def heads(states: Tensor, kind: str) -> Any:
        projected = getattr(attention, f"{kind}_proj")(states)
        by_head = projected.view(*states.shape[:-1], -1, attention.head_dim)
        norm = getattr(attention, f"{kind}_norm", nn.Identity())  # Qwen3 normalises q and k
        return norm(by_head)

    def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if not getattr(attention, "use_rope", True):  # in SmolLM3 one block of four
            return states
        left, right = states.chunk(2, dim=-1)
        return states * cos + torch.cat([-right, left], dim=-1) * sin

    states = block.input_layernorm(hidden)
    cos, sin = (angle[0, :, None] for angle in rotary)  # (longest, 1, head)
    query = rotated(heads(states[row, last], "q"), cos[last], sin[last])
    key, value = rotated(heads(states, "k"), cos, sin), heads(states, "v")
    # Query heads that share one key head stand together.
    query = query.view(n, key.shape[2], -1, attention.head_dim)
    scores = torch.einsum("ngqd,ntgd->ngqt", query, key) * attention.scaling
    position = torch.arange(longest, device=hidden.device)
    unread = position > last[:, None]
    if window := window_of(attention):
        unread = unread | (position <= last[:, None] - window)
    masked = scores.float().masked_fill(unread[:, None, None], -torch.inf)
    weights = masked.softmax(dim=-1).to(value.dtype)
    read = torch.einsum("ngqt,ntgd->ngqd", weights, value).reshape(n, -1)
    after = hidden[row, last] + attention.o_proj(read)
    result: Tensor = after + block.mlp(block.post_attention_layernorm(after))
    return result


@torch.inference_mode()
def logits_by_row(model: Classifier, inputs: Inputs, rows: Any) -> Tensor:
    """(n, 2) float32 on the CPU, in the order of `rows`.

    Batches are a function of the set of rows alone.
    """
    order = inputs.by_length(rows)
    starts = tqdm(range(0, len(order), PREDICT_BATCH), desc="predict", leave=False, disable=None)
    parts = [model(*inputs.batch(order[i : i + PREDICT_BATCH])).cpu() for i in starts]
    logits: Tensor = inputs.in_order(torch.cat(parts), rows)
    return logits


class Fitted:
    """A fitted run: what finetuning, next-token reading, TF-IDF, a probe and zero-shot each give.

    Attributes:
        trunk_seconds: what the shared states took that were not in the cache.
        metrics: what it is worth, where that is not an accuracy; then nothing else is counted.
        notes: what provenance says of how it was trained.
    """

    def __init__(self, trunk_seconds: float) -> None:
        self.trunk_seconds = trunk_seconds
        self.metrics: dict[str, float] = {}
        self.notes: dict[str, Any] = {}

    def predict(self, rows: Any) -> FloatArray:
        """P(y = 1) of rows, (n,) float32."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Writes what is kept beside the record: nothing of what is refitted in seconds."""


class Finetuned(Fitted):
    """A fitted classifier: predicts by row, and keeps its adapter and head as safetensors.

    Attributes:
        model: the `Classifier`; its first block is number `boundary` of the backbone.
        inputs: what enters that block.
    """

    def __init__(self, spec: RunSpec, model: Classifier, inputs: Inputs, boundary: int) -> None:
        super().__init__(inputs.seconds)
        self.spec, self.model, self.inputs, self.boundary = spec, model, inputs, boundary
        self.merged = False

    def logits(self, rows: Any) -> Tensor:
        """(n, 2) float32, in the order of `rows`.

        Dense layers take up their adapters first, in their own precision: the model can still
        predict, and train no more.
        """
        self.model.eval()
        self.merged = self.merged or merge_adapters(self.model.backbone, self.spec)
        return logits_by_row(self.model, self.inputs, rows)

    def predict(self, rows: Any) -> FloatArray:
        """P(y = 1) for each row, (n,) float32, rounded to `P_STEP`."""
        return rounded(torch.softmax(self.logits(rows), dim=1)[:, 1].numpy())

    def save(self, folder: Path) -> None:
        """Writes the adapters in peft's own format, and `head.safetensors`."""
        save_adapters(self.model.backbone, self.boundary, folder, head=self.model.head)


def rounded(p: Any) -> FloatArray:
    """Probabilities as records keep them: float32, to the nearest `P_STEP`."""
    return (np.round(np.asarray(p, dtype=np.float64) / P_STEP) * P_STEP).astype(np.float32)
