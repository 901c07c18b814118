"""The frozen trunk: what the blocks under the adapters compute, once for a model and a task, for every run that shares it.

With LoRA on the top blocks only, everything below is the same function in every run. Its outputs are kept in the cache as
chunks of texts; workers that need the same trunk share the chunks out among them. Batches are a function of the task
alone (all its texts by length, then row), so a run has the same bits alone and in a sweep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from tqdm.auto import tqdm

from w2s_lib.models import backbone as models
from w2s_lib.models.families import drop_norm, keep_blocks, require_trunk, skeleton, trunk_exact
from w2s_lib.models.machine import hardware
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.folders import cache_dir, save_whole
from w2s_lib.runs.spec import SEMANTICS, RunSpec
from w2s_lib.tasks.table import TaskTable

BATCH = 64
CHUNK = 8 * BATCH
MOST_BYTES = 16 * 2**30
"""A task whose states would take more on disk has no trunk. Not the room that there is: a run's bits would depend on it."""


@functools.lru_cache(maxsize=4)
def _tokenize(
    model: str, revision: str, template: str, texts: tuple[str, ...], max_tokens: int, cut: str
) -> list[list[int]]:
    tokenizer = models.load_tokenizer(model, revision)
    ids: list[list[int]] = tokenizer([template.replace("{text}", text) for text in texts])[
        "input_ids"
    ]
    most = min(
        tokenizer.model_max_length, models.max_length(model, revision)
    )  # the first is often a placeholder
    if max_tokens > most:
        raise SpecError(f"Task.max_tokens is {max_tokens}, more than the {most} that {model} reads")
    long = [row for row, tokens in enumerate(ids) if len(tokens) > (max_tokens or most)]
    if long and not max_tokens:
        longest = max(long, key=lambda row: len(ids[row]))
        raise SpecError(
            f"text {longest} has {len(ids[longest])} tokens, more than the {most} that {model} reads; with "
            "Task.max_tokens long texts are cut"
        )
    for row in long:
        ids[row] = _shortened(tokenizer, template, texts[row], max_tokens, cut)
    if long:
        print(
            f"w2s: {len(long):,} of {len(texts):,} texts have more than max_tokens = {max_tokens} for {model}: their {cut} "
            "is cut off",
            file=sys.stderr,
            flush=True,
        )
    return ids


def _shortened(tokenizer: Any, template: str, text: str, most: int, cut: str) -> list[int]:
    """The template around as much of a text as fits: whole tokens of it, from its end or its start on, are left out."""
    where = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    over = 1
    while over < len(where):
        kept = text[: where[-over][0]].rstrip() if cut == "end" else text[where[over][0] :].lstrip()
        ids: list[int] = tokenizer(template.replace("{text}", kept))["input_ids"]
        if len(ids) <= most:
            return ids
        over += len(ids) - most
    raise SpecError(f"Task.max_tokens is {most}, and the template alone, {template!r}, is as long")


def one_a_row(values: Any, table: TaskTable) -> Any:
    """Values of texts, (n, ...) or (2n, ...) in the order of `TaskTable.positions`, as values of rows: first minus second."""
    n = values.shape[0] // table.texts_a_row
    return values if table.texts_a_row == 1 else values[:n] - values[n:]


class Inputs:
    """What enters a run's first block: token ids. A row of a comparison has two texts, any other has one.

    Args:
        spec: gives the model, the device and the template.
        table: all texts of the task.

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
        self.length = self.text_length.reshape(table.texts_a_row, -1).max(
            axis=0
        )  # of a row: its longer text's

    def by_length(self, rows: Any) -> Any:
        """The same rows, short texts first, equal ones by row: the order of every forward-only pass."""
        rows = np.asarray(rows)
        return rows[np.lexsort((rows, self.length[rows]))]

    def in_order(self, values: Any, rows: Any) -> Any:
        """Values (n, ...) of rows by length, in the order of `rows`."""
        return values[np.argsort(np.lexsort((rows, self.length[rows])))]

    def part(self, text: int) -> Tensor:
        """One text, (length,) or (length, hidden)."""
        return torch.tensor(self.ids[text])

    def batch(self, rows: Any) -> tuple[Tensor, Tensor]:
        """Inputs (n, longest[, hidden]) padded on the right, and lengths (n,), on the spec's device; 2n for comparisons."""
        return self.text_batch(self.table.positions(rows))

    def text_batch(self, texts: Any) -> tuple[Tensor, Tensor]:
        """The same of single texts, by their places in `TaskTable.texts`."""
        parts = nn.utils.rnn.pad_sequence(
            [self.part(int(text)) for text in texts], batch_first=True
        )
        return parts.to(self.spec.device), torch.from_numpy(self.text_length[texts]).to(
            self.spec.device
        )


def affordable(spec: RunSpec, table: TaskTable, config: Any) -> bool:
    """Whether the states of a task's texts, of a model with this configuration, are within `MOST_BYTES`."""
    n_bytes: int = (
        int(Inputs(spec, table).text_length.sum())
        * config.hidden_size
        * models.DTYPES[spec.precision].itemsize
    )
    return n_bytes <= MOST_BYTES


def blocks_under(spec: RunSpec, table: TaskTable, config: Any, n_top: int) -> int:
    """How many blocks lie under a run's top `n_top`, and so in its trunk: none where there is no exact, affordable one."""
    depth = spec.depth or config.num_hidden_layers
    return (
        max(0, depth - n_top)
        if trunk_exact(skeleton(config)) and affordable(spec, table, config)
        else 0
    )


def only_last(spec: RunSpec, table: TaskTable, config: Any) -> bool:
    """Whether a trunk that is only probed keeps each text's last token alone.

    So where all of its states are not affordable, and on a GPU, where computing the lower blocks again for the next layer takes
    seconds and all states of seven layers a hundred gigabytes.
    """
    return spec.device == "cuda" or not affordable(spec, table, config)


class Trunk(Inputs):
    """The states that leave the first `boundary` blocks, by text: what enters a run's first adapted block.

    Args:
        spec: gives model, quantization, precision and device.
        table: all texts of the task.
        boundary: how many blocks the trunk has, at least 1.
        last: keep each text's last token alone, for `last_states`: the same values, in less room.
        progress: show a bar while the trunk is computed.

    Attributes:
        seconds: what computing the missing chunks took; 0 where all were there.
    """

    def __init__(
        self,
        spec: RunSpec,
        table: TaskTable,
        boundary: int,
        *,
        last: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__(spec, table)
        self.boundary, self.last = boundary, last
        self.order = np.lexsort((np.arange(len(self.ids)), self.text_length))
        self.place = np.argsort(self.order)
        self.offset = np.concatenate(
            [[0], np.cumsum(np.ones_like(self.order) if last else self.text_length[self.order])]
        )
        folder = self._folder(boundary)
        folder = folder.with_name(folder.name + "-last") if last else folder
        self.files = [folder / f"{start:06d}.npy" for start in range(0, len(self.order), CHUNK)]
        if not all(file.is_file() for file in self.files):
            started = time.monotonic()
            self._fill(progress)
            self.seconds = time.monotonic() - started
        self.chunks = [np.load(file, mmap_mode="r") for file in self.files]

    def part(self, text: int) -> Tensor:
        """The trunk's states of one text, (length, hidden)."""
        place = self.place[text]
        start = self.offset[place // CHUNK * CHUNK]
        states = np.array(
            self.chunks[place // CHUNK][self.offset[place] - start : self.offset[place + 1] - start]
        )
        return torch.from_numpy(states).view(models.DTYPES[self.spec.precision])

    def last_states(self, rows: Any) -> Any:
        """The trunk's output at each row's last token, (n, hidden) float32; for comparisons the first's minus the second's."""
        texts = self.table.positions(rows)
        return one_a_row(
            np.stack([self.part(int(text))[-1].float().numpy() for text in texts]), self.table
        )

    def _folder(self, boundary: int) -> Path:
        spec = self.spec
        key = [
            SEMANTICS,
            spec.name,
            boundary,
            spec.quantization,
            spec.precision,
            hardware(spec.device),
            torch.__version__,
            spec.task.template,
            self.table.digest,
        ]
        if spec.task.max_tokens:
            key += [spec.task.max_tokens, spec.task.cut]
        if spec.revision:
            key += [spec.revision]
        return cache_dir() / "trunks" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]

    def _fill(self, progress: bool) -> None:
        """Computes the chunks that are missing: first what nobody works on, then what others have left."""
        self.files[0].parent.mkdir(parents=True, exist_ok=True)
        # A lower boundary that is there, or begun, is a head start: its states are what would have flowed on.
        first = next((b for b in range(self.boundary - 1, 0, -1) if self._folder(b).is_dir()), 0)
        below = inputs_at(self.spec, self.table, first, progress=progress)
        model = models.load_backbone(
            dataclasses.replace(self.spec, model=f"{self.spec.name}@{self.boundary}")
        )
        require_trunk(model, self.spec.name)
        model = drop_norm(
            keep_blocks(model, first, self.boundary)
        )  # what leaves the last block, before the final norm
        with tqdm(
            total=len(self.files),
            desc=f"trunk of {self.boundary} blocks",
            leave=False,
            disable=not progress,
        ) as bar:
            for timeout in (0, -1):
                for number, file in enumerate(self.files):
                    with (
                        contextlib.suppress(Timeout),
                        FileLock(file.with_suffix(".lock"), timeout=timeout),
                    ):
                        if not file.is_file():
                            states = self._compute(
                                model, below, self.order[number * CHUNK :][:CHUNK]
                            )
                            save_whole(file, functools.partial(np.save, arr=states))
                            bar.update()

    @torch.inference_mode()
    def _compute(self, model: Any, below: Inputs, texts: Any) -> Any:
        parts = []
        for start in range(0, len(texts), BATCH):
            inputs, length = below.text_batch(texts[start : start + BATCH])
            key = "inputs_embeds" if inputs.is_floating_point() else "input_ids"
            states = model(**{key: inputs}, use_cache=False).last_hidden_state
            parts += [
                state[n - 1 if self.last else 0 : n]
                for state, n in zip(states, length.tolist(), strict=True)
            ]
        return (
            torch.cat(parts)
            .cpu()
            .view(torch.int16 if self.spec.precision == "bf16" else torch.float32)
            .numpy()
        )


def inputs_at(spec: RunSpec, table: TaskTable, boundary: int, *, progress: bool = True) -> Inputs:
    """What enters block number `boundary`: the trunk's states, or token ids where it is the first one."""
    return Trunk(spec, table, boundary, progress=progress) if boundary else Inputs(spec, table)
