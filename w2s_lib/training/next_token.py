"""Generative finetuning: the same adapters, trained on the next token of a half's texts, before any label is seen.

The idea (Burns et al. 2023, section 5.2.2): what a task is about becomes more salient to a model that has first read its
texts. No label enters, and no text of test. Chapter: generative supervision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from w2s_lib.models import backbone as models
from w2s_lib.models.classifier import FloatArray
from w2s_lib.models.lora import save_adapters
from w2s_lib.models.memory import checkpoint_where_needed
from w2s_lib.models.trunk import Inputs, inputs_at
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.spec import NextToken, RunSpec
from w2s_lib.tasks.table import TaskTable, default_task, load_table
from w2s_lib.training.finetune import adapted, advice_on_memory, all_batches, optimise

PREDICT_BATCH = 16


class Reader(nn.Module):
    """A backbone and its own language-modelling head, frozen, over the tokens of the text (not those of the template).

    Args:
        backbone: the peft model.
        words: the language-modelling head.
        inputs: the texts.
    """

    def __init__(self, backbone: Any, words: Any, inputs: Inputs) -> None:
        super().__init__()
        self.backbone, self.words, self.inputs = backbone, words, inputs
        spec, (before, after) = inputs.spec, inputs.spec.task.template.split("{text}")
        tokenizer = models.load_tokenizer(spec.name, spec.revision)
        self.margins = [
            len(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (before, after)
        ]
        self.margins[0] += len(
            tokenizer("")["input_ids"]
        )  # a token that begins every text, in some families

    def counts(self, texts: Any) -> Any:
        """How many tokens of each text are predicted, (n,): all but its first."""
        lengths = self.inputs.text_length[np.asarray(texts)]
        return np.maximum(lengths - max(1, self.margins[0]) - self.margins[1], 0)

    def forward(self, texts: Any) -> tuple[Tensor, Tensor]:
        """Nats of each predicted token, (tokens,), and the place in `texts` of the text that it is of, (tokens,)."""
        states, length = self.inputs.text_batch(texts)
        key = "inputs_embeds" if states.is_floating_point() else "input_ids"
        hidden = self.backbone(**{key: states}, use_cache=False).last_hidden_state.to(
            states.device
        )  # it may be split
        ids = nn.utils.rnn.pad_sequence(
            [torch.tensor(self.inputs.ids[int(t)]) for t in texts], batch_first=True
        )
        ids = ids.to(hidden.device)
        place = torch.arange(1, ids.shape[1], device=hidden.device)[
            None
        ]  # of the token that is predicted
        counted = (place >= max(1, self.margins[0])) & (place < (length - self.margins[1])[:, None])
        logits = self.words(hidden[:, :-1][counted]).float()
        nats = cross_entropy(logits, ids[:, 1:][counted].to(logits.device), reduction="none")
        return nats, counted.nonzero()[:, 0]


class NextTokenFit:
    """A model that has read the half's texts.

    Attributes:
        metrics: "loss_before" and "loss", nats a token on the validation texts, before and after.
    """

    def __init__(self, spec: RunSpec, reader: Reader, own: Reader, boundary: int) -> None:
        self.spec, self.reader, self.own, self.boundary = spec, reader, own, boundary
        self.trunk_seconds = sum(inputs.seconds for inputs in {reader.inputs, own.inputs})
        self.metrics: dict[str, float] = {}
        self.after: dict[int, float] = {}
        self.snapshots: dict[float, tuple[Any, FloatArray]] = {}
        self.notes: dict[str, Any] = {}

    def predict(self, rows: Any, *, progress: bool = True) -> FloatArray:
        """The geometric mean of the probabilities that the model gives to a row's tokens, (n,) float32, of watched rows."""
        return np.array([self.after[int(row)] for row in rows], dtype=np.float32)

    @torch.inference_mode()
    def measure(self, rows: Any) -> tuple[FloatArray, float]:
        """What `predict` gives, as the model is now, and the mean over all tokens of the rows, in nats."""
        self.own.eval()
        table = self.own.inputs.table
        texts = table.positions(rows)
        nats, counts = np.zeros(len(texts)), self.own.counts(texts)
        for start in range(0, len(texts), PREDICT_BATCH):
            values, place = self.own(texts[start : start + PREDICT_BATCH])
            np.add.at(nats, start + place.cpu().numpy(), values.double().cpu().numpy())
        by_row = [part.reshape(table.texts_a_row, -1).sum(axis=0) for part in (nats, counts)]
        return np.exp(-by_row[0] / np.maximum(by_row[1], 1)).astype(np.float32), float(
            nats.sum() / counts.sum()
        )

    def save(self, folder: Path) -> None:
        """Writes the adapters."""
        save_adapters(self.reader.backbone, self.boundary, folder)


def fit_next_token(
    spec: RunSpec, table: TaskTable, rows: Any, watch: Any, *, progress: bool = True
) -> NextTokenFit:
    """Trains a run whose labels are `NextToken`.

    Args:
        spec: the run.
        table: its task's texts.
        rows: (n,) rows of its half.
        watch: validation rows, whose texts' loss is measured before and after.
        progress: show bars.

    Raises:
        SpecError: a corpus that has fewer tokens than the half.
        TrainingError: out of memory, or a loss that is not finite.
    """
    models.check(spec)
    assert isinstance(spec.labels, NextToken)
    corpus = load_table(default_task(spec.labels.corpus)) if spec.labels.corpus else table
    with advice_on_memory(spec):
        with torch.random.fork_rng():
            top, inputs, boundary, words = adapted(spec, corpus, causal_lm=True, progress=progress)
        reader = models.move(Reader(top, words, inputs), spec.device)
        own, texts = reader, table.positions(rows)
        if corpus is not table:
            own = Reader(top, words, inputs_at(spec, table, boundary, progress=progress))
            texts = _as_many_tokens(
                reader, int(own.counts(texts).sum()), apart_from=set(map(str.casefold, table.texts))
            )
        fitted = NextTokenFit(spec, reader, own, boundary)
        fitted.notes = checkpoint_where_needed(top, spec, int(inputs.text_length[texts].max()))
        before, fitted.metrics["loss_before"] = fitted.measure(watch)
        fitted.snapshots[0.0] = np.asarray(watch), before
        optimise(
            reader,
            spec,
            all_batches(spec, texts, inputs.text_length),
            lambda batch, done: reader(batch)[0].mean(),
            progress=progress,
        )
        after, fitted.metrics["loss"] = fitted.measure(watch)
        fitted.after = dict(zip(map(int, watch), after, strict=True))
    return fitted


def _as_many_tokens(reader: Reader, n_tokens: int, *, apart_from: set[str]) -> Any:
    """Texts of the reader's table, drawn by the run's seed, until they have `n_tokens`; none that the task has too."""
    table, seed = reader.inputs.table, reader.inputs.spec.seed
    texts, rng = table.texts, np.random.default_rng([seed, 3])
    order = np.array(
        [t for t in rng.permutation(len(texts)) if texts[t].casefold() not in apart_from],
        dtype=np.int64,
    )
    total = np.cumsum(reader.counts(order))
    if not len(order) or total[-1] < n_tokens:
        raise SpecError(
            f"the corpus {table.task.name!r} has {total[-1] if len(order) else 0:,} tokens in texts that are not "
            f"the task's too; the half has {n_tokens:,}"
        )
    return order[: int(np.searchsorted(total, n_tokens)) + 1]
