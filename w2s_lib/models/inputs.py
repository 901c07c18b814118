"""A task's texts as a model reads them: token ids, cut to a budget, padded in batches."""

import functools
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from w2s_lib.models import backbone as models
from w2s_lib.runs.errors import SpecError, require
from w2s_lib.runs.spec import RunSpec
from w2s_lib.tasks.table import TaskTable


@functools.lru_cache(maxsize=4)
def _tokenize(
    model: str, revision: str, template: str, texts: tuple[str, ...], max_tokens: int, cut: str
) -> list[list[int]]:
    tokenizer = models.load_tokenizer(model, revision)
    filled = [template.replace("{text}", text) for text in texts]
    ids: list[list[int]] = tokenizer(filled)["input_ids"]
    # The tokenizer's own limit is often a placeholder, so the model's counts as well.
    positions = getattr(models.load_config(model, revision), "max_position_embeddings", None)
    most = min(tokenizer.model_max_length, positions or 2**31)
    said = f"Task.max_tokens is {max_tokens}, more than the {most} that {model} reads"
    require(max_tokens <= most, said)
    too_long = [row for row, tokens in enumerate(ids) if len(tokens) > (max_tokens or most)]
    if too_long and not max_tokens:
        longest = max(too_long, key=lambda row: len(ids[row]))
        said = f"text {longest} has {len(ids[longest])} tokens, more than the {most} that {model}"
        raise SpecError(f"{said} reads; with Task.max_tokens long texts are cut")
    for row in too_long:
        ids[row] = _shortened(tokenizer, template, texts[row], max_tokens, cut)
    if too_long:
        said = f"w2s: {len(too_long):,} of {len(texts):,} texts have more than max_tokens = "
        said += f"{max_tokens} for {model}: their {cut} is cut off"
        print(said, file=sys.stderr, flush=True)
    return ids


def _shortened(tokenizer: Any, template: str, text: str, most: int, cut: str) -> list[int]:
    """The template around as many whole tokens of a text as fit; its end or its start is cut."""
    where = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    over = 1
    while over < len(where):
        kept = text[: where[-over][0]].rstrip() if cut == "end" else text[where[over][0] :].lstrip()
        ids: list[int] = tokenizer(template.replace("{text}", kept))["input_ids"]
        if len(ids) <= most:
            return ids
        over += len(ids) - most
    raise SpecError(f"Task.max_tokens is {most}, and the template alone, {template!r}, is as long")


def row_values(values: Any, table: TaskTable) -> Any:
    """Values of rows from those of texts: of a comparison the first text's minus the second's.

    Args:
        values: (n, ...), or for comparisons (2n, ...), in the order of `TaskTable.positions`.
        table: the task.
    """
    n = values.shape[0] // table.texts_a_row
    return values if table.texts_a_row == 1 else values[:n] - values[n:]


class Inputs:
    """What enters a run's first block: token ids. A row of a comparison has two texts.

    Args:
        spec: gives the model, the device and the template.
        table: all texts of the task.

    Attributes:
        ids: token ids of every text.
        text_length: tokens of every text.
        length: tokens of every row's longest text.
        seconds: what preparing the inputs took, where that is more than tokenizing.

    Raises:
        SpecError: a text is longer than the model can read.
    """

    seconds = 0.0

    def __init__(self, spec: RunSpec, table: TaskTable) -> None:
        self.spec, self.table, task = spec, table, spec.task
        self.ids = _tokenize(
            spec.name, spec.revision, task.template, tuple(table.texts), task.max_tokens, task.cut
        )
        self.text_length = np.array([len(ids) for ids in self.ids])
        self.length = self.text_length.reshape(table.texts_a_row, -1).max(axis=0)

    def by_length(self, rows: Any) -> Any:
        """The same rows, short ones first, equal ones by number: the order of a forward pass."""
        rows = np.asarray(rows)
        return rows[np.lexsort((rows, self.length[rows]))]

    def in_order(self, values: Any, rows: Any) -> Any:
        """Values (n, ...) of rows by length, in the order of `rows`."""
        return values[np.argsort(np.lexsort((rows, self.length[rows])))]

    def part(self, text: int) -> Tensor:
        """One text, (length,) or (length, hidden)."""
        return torch.tensor(self.ids[text])

    def batch(self, rows: Any) -> tuple[Tensor, Tensor]:
        """Inputs of rows on the spec's device, padded on the right, and their lengths.

        Returns:
            (n, longest[, hidden]) and (n,); 2n of each for comparisons.
        """
        return self.text_batch(self.table.positions(rows))

    def text_batch(self, texts: Any) -> tuple[Tensor, Tensor]:
        """The same of single texts, by their places in `TaskTable.texts`."""
        parts = [self.part(int(text)) for text in texts]
        padded = nn.utils.rnn.pad_sequence(parts, batch_first=True)
        length = torch.from_numpy(self.text_length[texts])
        return padded.to(self.spec.device), length.to(self.spec.device)
