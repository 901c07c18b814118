"""Generative finetuning: the same adapters, trained on the next token of a half's texts.

The idea (Burns et al. 2023, section 5.2.2): what a task is about becomes more salient to a model
that has first read its texts. No label enters, and no text of test. Chapter: generative
supervision.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from w2s_lib.models import backbone as models
from w2s_lib.models.classifier import Fitted
from w2s_lib.models.inputs import Inputs
from w2s_lib.models.lora import save_adapters
from w2s_lib.models.trunk import inputs_at
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.record import FloatArray
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import RunSpec
from w2s_lib.tasks.table import default_task, load_table
from w2s_lib.training.finetune import Data, adapted, explained_out_of_memory, optimise

PREDICT_BATCH = 16


class Reader(nn.Module):
    """A backbone and its own language-modelling head, frozen, over the tokens of a text.

    The template's tokens are read and not predicted.

    Args:
        backbone: the peft model.
        words: the language-modelling head.
        inputs: the texts.
    """

    def __init__(self, backbone: Any, words: Any, inputs: Inputs) -> None:
        super().__init__()
        self.backbone, self.words, self.inputs = backbone, words, inputs
        spec = inputs.spec
        tokenizer = models.load_tokenizer(spec.name, spec.revision)
        before, after = (
            len(tokenizer(part, add_special_tokens=False)["input_ids"])
            for part in spec.task.template.split("{text}")
        )
        before += len(tokenizer("")["input_ids"])  # in some families a token begins every text
        self.first, self.n_after = max(1, before), after

    def counts(self, texts: Any) -> Any:
        """How many tokens of each text are predicted, (n,): all but its first."""
        lengths = self.inputs.text_length[np.asarray(texts)]
        return np.maximum(lengths - self.first - self.n_after, 0)

    def forward(self, texts: Any) -> tuple[Tensor, Tensor]:
        """Nats of each predicted token, (tokens,), and the place in `texts` of its text."""
        inputs, length = self.inputs.text_batch(texts)
        hidden = models.hidden_states(self.backbone, inputs)
        ids = nn.utils.rnn.pad_sequence(
            [torch.tensor(self.inputs.ids[int(t)]) for t in texts], batch_first=True
        ).to(hidden.device)
        predicted = torch.arange(1, ids.shape[1], device=hidden.device)[None]
        counted = (predicted >= self.first) & (predicted < (length - self.n_after)[:, None])
        logits = self.words(hidden[:, :-1][counted]).float()
        nats = cross_entropy(logits, ids[:, 1:][counted], reduction="none")
        return nats, counted.nonzero()[:, 0]


class NextTokenFit(Fitted):
    """A model that has read the half's texts.

    Attributes:
        metrics: "loss_before" and "loss", nats a token on the validation texts, before and after.
    """

    def __init__(self, reader: Reader, own: Reader, boundary: int) -> None:
        super().__init__(sum(inputs.seconds for inputs in {reader.inputs, own.inputs}))
        self.reader, self.own, self.boundary = reader, own, boundary
        self.after: dict[int, float] = {}

    def predict(self, rows: Any) -> FloatArray:
        """The geometric mean of a row's tokens' probabilities, (n,) float32, of validation rows."""
        return np.array([self.after[int(row)] for row in rows], dtype=np.float32)

    @torch.inference_mode()
    def measure(self, rows: Any) -> tuple[FloatArray, float]:
        """What `predict` gives, as the model is now; and the mean nats over the rows' tokens."""
        self.own.eval()
        table = self.own.inputs.table
        texts = table.positions(rows)
        nats, counts = np.zeros(len(texts)), self.own.counts(texts)
        for start in range(0, len(texts), PREDICT_BATCH):
            values, place = self.own(texts[start : start + PREDICT_BATCH])
            np.add.at(nats, start + place.cpu().numpy(), values.double().cpu().numpy())
        row_nats, row_counts = (
            part.reshape(table.texts_a_row, -1).sum(axis=0) for part in (nats, counts)
        )
        p = np.exp(-row_nats / np.maximum(row_counts, 1)).astype(np.float32)
        return p, float(nats.sum() / counts.sum())

    def save(self, folder: Path) -> None:
        """Writes the adapters."""
        save_adapters(self.reader.backbone, self.boundary, folder)


def fit_next_token(spec: RunSpec, data: Data) -> NextTokenFit:
    """Trains a run whose labels are `NextToken`.

    Args:
        spec: the run.
        data: its rows; the validation rows' loss is measured before and after.

    Raises:
        SpecError: a corpus that has fewer tokens than the half.
        TrainingError: out of memory, or a loss that is not finite.
    """
    assert isinstance(spec.labels, NextToken)
    table = data.table
    corpus = load_table(default_task(spec.labels.corpus)) if spec.labels.corpus else table
    with explained_out_of_memory(spec):
        with torch.random.fork_rng():
            top, inputs, boundary, words = adapted(spec, corpus, causal_lm=True)
        reader = Reader(top, words, inputs).to(spec.device)
        own, texts = reader, table.positions(data.rows)
        if corpus is not table:
            own = Reader(top, words, inputs_at(spec, table, boundary))
            n_tokens, known = int(own.counts(texts).sum()), set(map(str.casefold, table.texts))
            texts = _as_many_tokens(reader, n_tokens, apart_from=known)

        def loss_of(batch: Any, done: float) -> Tensor:
            nats: Tensor = reader(batch)[0]
            return nats.mean()

        fitted = NextTokenFit(reader, own, boundary)
        fitted.metrics["loss_before"] = fitted.measure(data.validation)[1]
        fitted.notes = optimise(reader, spec, texts, inputs.text_length, loss_of)
        after, fitted.metrics["loss"] = fitted.measure(data.validation)
        fitted.after = dict(zip(map(int, data.validation), after, strict=True))
    return fitted


def _as_many_tokens(reader: Reader, n_tokens: int, *, apart_from: set[str]) -> Any:
    """Texts of the reader's table, drawn by the run's seed, until they have `n_tokens`.

    None of them is one that the task has too.
    """
    table, stream = reader.inputs.table, reader.inputs.spec.stream
    texts, drawn = table.texts, np.random.default_rng([*stream, 3]).permutation(len(table.texts))
    order = np.array([t for t in drawn if texts[t].casefold() not in apart_from], dtype=np.int64)
    total = np.cumsum(reader.counts(order))
    if not len(order) or total[-1] < n_tokens:
        there = f"{total[-1] if len(order) else 0:,} tokens in texts that are not the task's too"
        raise SpecError(f"the corpus {table.task.name!r} has {there}; the half has {n_tokens:,}")
    return order[: int(np.searchsorted(total, n_tokens)) + 1]
