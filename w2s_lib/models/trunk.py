"""The frozen trunk: what the blocks under the adapters compute, for every run that shares it.

With LoRA on the top blocks only, everything below is the same function in every run. Its outputs
are kept in the cache as chunks of texts; workers that need the same trunk share the chunks out
among them. Batches are a function of the task alone (all its texts by length, then row), so a run
has the same bits alone and in a sweep.
"""

import functools
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from w2s_lib.models import backbone as models
from w2s_lib.models.families import KNOWN, drop_norm, keep_blocks, skeleton, trunk_exact
from w2s_lib.models.inputs import Inputs, row_values
from w2s_lib.models.machine import hardware
from w2s_lib.runs.errors import require
from w2s_lib.runs.folders import cache_dir, intact, lock_of, locked, write_checked, writing_cache
from w2s_lib.runs.spec import SEMANTICS, RunSpec
from w2s_lib.tasks.table import TaskTable

BATCH = 64
CHUNK = 8 * BATCH
MOST_BYTES = 16 * 2**30
"""A task whose states would take more on disk has no trunk.

Not the room that there is: a run's bits would depend on it.
"""


def affordable(spec: RunSpec, table: TaskTable, config: Any) -> bool:
    """Whether a model's states of a task's texts are within `MOST_BYTES`."""
    n_tokens = int(Inputs(spec, table).text_length.sum())
    n_bytes: int = n_tokens * config.hidden_size * models.DTYPES[spec.precision].itemsize
    return n_bytes <= MOST_BYTES


def trunk_depth(spec: RunSpec, table: TaskTable, config: Any, n_top: int) -> int:
    """How many blocks the trunk under a run's top `n_top` has: 0 if inexact or too large."""
    depth = spec.depth or config.num_hidden_layers
    if trunk_exact(skeleton(config)) and affordable(spec, table, config):
        return max(0, depth - n_top)
    return 0


def only_last(spec: RunSpec, table: TaskTable, config: Any) -> bool:
    """Whether a trunk that is only probed keeps each text's last token alone.

    So where all of its states are not affordable, and on a GPU, where computing the lower blocks
    again for the next layer takes seconds and all states of seven layers a hundred gigabytes.
    """
    return spec.device == "cuda" or not affordable(spec, table, config)


class Trunk(Inputs):
    """The states that leave the first `boundary` blocks, by text: what enters the next block.

    Args:
        spec: gives model, quantization, precision and device.
        table: all texts of the task.
        boundary: how many blocks the trunk has, at least 1.
        last: keep each text's last token alone, for `last_states`: the same values, in less room.

    Attributes:
        order: all texts by length, then place: the order in which they are computed and kept.
        place: where each text stands in `order`.
        offset: where the states of each place begin, in tokens.
        files: the chunks, of `CHUNK` texts each.
        seconds: what computing the missing chunks took; 0 where all were there.
    """

    def __init__(
        self, spec: RunSpec, table: TaskTable, boundary: int, *, last: bool = False
    ) -> None:
        super().__init__(spec, table)
        self.boundary, self.last = boundary, last
        self.order = np.argsort(self.text_length, kind="stable")
        self.place = np.argsort(self.order)
        kept_tokens = np.ones_like(self.order) if last else self.text_length[self.order]
        self.offset = np.concatenate([[0], np.cumsum(kept_tokens)])
        folder = self._folder(boundary)
        if last:
            folder = folder.with_name(f"{folder.name}-last")
        self.files = [folder / f"{start:06d}.npy" for start in range(0, len(self.order), CHUNK)]
        if not all(map(intact, self.files)):
            started = time.monotonic()
            self._fill()
            self.seconds = time.monotonic() - started
        self.chunks = [np.load(file, mmap_mode="r") for file in self.files]

    def part(self, text: int) -> Tensor:
        """The trunk's states of one text, (length, hidden)."""
        place = self.place[text]
        start = self.offset[place // CHUNK * CHUNK]
        first, after = self.offset[place] - start, self.offset[place + 1] - start
        states = np.array(self.chunks[place // CHUNK][first:after])
        return torch.from_numpy(states).view(models.DTYPES[self.spec.precision])

    def last_states(self, rows: Any) -> Any:
        """The trunk's output at each row's last token, (n, hidden) float32; see `row_values`."""
        texts = self.table.positions(rows)
        states = np.stack([self.part(int(text))[-1].float().numpy() for text in texts])
        return row_values(states, self.table)

    def _folder(self, boundary: int) -> Path:
        spec = self.spec
        key = [SEMANTICS, spec.name, boundary, spec.quantization, spec.precision]
        key += [hardware(spec.device), torch.__version__, spec.task.template, self.table.digest]
        if spec.task.max_tokens:
            key += [spec.task.max_tokens, spec.task.cut]
        if spec.revision:
            key += [spec.revision]
        return cache_dir() / "trunks" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]

    def _fill(self) -> None:
        """Computes the missing chunks: first what nobody works on, then what others have left."""
        with writing_cache():
            self.files[0].parent.mkdir(parents=True, exist_ok=True)
        # A lower trunk that is there, or begun, is a head start: its states would have flowed on.
        first = next((b for b in range(self.boundary - 1, 0, -1) if self._folder(b).is_dir()), 0)
        below = inputs_at(self.spec, self.table, first)
        # The frozen model's: whatever the run starts from, or is, does not fit this depth.
        same = ("revision", "quantization", "precision", "device")
        frozen = {name: getattr(self.spec, name) for name in same}
        whole = models.load_backbone(RunSpec(model=f"{self.spec.name}@{self.boundary}", **frozen))
        said = f"the first blocks of a {whole.config.model_type!r} cannot be run alone: {KNOWN}"
        require(trunk_exact(whole), said)
        model = drop_norm(keep_blocks(whole, first, self.boundary))
        title = f"trunk of {self.boundary} blocks"
        with tqdm(total=len(self.files), desc=title, leave=False, disable=None) as bar:
            for wait in (False, True):
                for number, file in enumerate(self.files):
                    with writing_cache(), locked(lock_of(file), wait=wait) as mine:
                        if mine and not intact(file):
                            texts = self.order[number * CHUNK :][:CHUNK]
                            states = self._compute(model, below, texts)
                            write_checked(file, functools.partial(np.save, arr=states))
                            bar.update()

    @torch.inference_mode()
    def _compute(self, model: Any, below: Inputs, texts: Any) -> Any:
        parts = []
        for start in range(0, len(texts), BATCH):
            inputs, length = below.text_batch(texts[start : start + BATCH])
            for state, n in zip(models.hidden_states(model, inputs), length.tolist(), strict=True):
                parts.append(state[n - 1 if self.last else 0 : n])
        kept_as = torch.int16 if self.spec.precision == "bf16" else torch.float32
        return torch.cat(parts).cpu().view(kept_as).numpy()


def inputs_at(spec: RunSpec, table: TaskTable, boundary: int) -> Inputs:
    """What enters block `boundary`: the trunk's states, or token ids before the first one."""
    return Trunk(spec, table, boundary) if boundary else Inputs(spec, table)
