"""Baselines that train no language model: TF-IDF, a linear probe on frozen states, and zero-shot label-word odds."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from w2s_lib.models import backbone as models
from w2s_lib.models.classifier import PREDICT_BATCH, Classifier, FloatArray, logits_by_row, rounded
from w2s_lib.models.families import blocks_of, keep_blocks, words_head
from w2s_lib.models.lora import merge_adapters
from w2s_lib.models.machine import hardware
from w2s_lib.models.trunk import Trunk, blocks_under, inputs_at, one_a_row, only_last
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.folders import cache_dir, file_sha256, save_whole
from w2s_lib.runs.spec import Continue, RunSpec
from w2s_lib.tasks.table import TaskTable
from w2s_lib.training.finetune import adapted

STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)
"""Inverse regularisation strengths that a probe's validation set chooses from."""


class Baseline:
    """A fitted baseline: `predict` by row. It leaves nothing to save beside its record."""

    def __init__(self, p: FloatArray, trunk_seconds: float = 0.0) -> None:
        self._p, self.trunk_seconds = p, trunk_seconds
        self.snapshots: dict[float, tuple[Any, FloatArray]] = {}

    def predict(self, rows: Any, *, progress: bool = True) -> FloatArray:
        """P(y = 1) for each row, (n,) float32."""
        p: FloatArray = self._p[np.asarray(rows)]
        return p

    def save(self, folder: Path) -> None:
        """Nothing: refitting takes seconds."""


def fit_tfidf(table: TaskTable, rows: Any, labels: FloatArray) -> Baseline:
    """TF-IDF of words and word pairs, then logistic regression (scikit-learn): a supervisor of another kind.

    The vocabulary is fitted on the training rows alone. Of a comparison's two texts, the features are subtracted.

    Args:
        table: the task's texts.
        rows: (n,) rows to fit on.
        labels: (n,) P(y = 1).
    """
    texts = np.array(table.texts, dtype=object)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, lowercase=True).fit(
        texts[table.positions(rows)]
    )
    features = one_a_row(vectorizer.transform(texts), table)
    regression = LogisticRegression(
        C=10.0, max_iter=2000, fit_intercept=table.texts_a_row == 1
    )  # in either order the same
    model = fit_logistic(regression, features[rows], labels)
    return Baseline(rounded(model.predict_proba(features)[:, 1]))


def fit_logistic(model: Any, features: Any, labels: FloatArray) -> Any:
    """Fits a scikit-learn classifier to soft labels: each row once as a 1 with weight y, once as a 0 with 1 - y.

    Raises:
        SpecError: the labels are all on one side of one half.
    """
    labels = np.asarray(labels, dtype=np.float64)
    if len(np.unique(labels > 0.5)) < 2:
        raise SpecError("every label is on one side of 0.5: nothing to tell apart")
    if set(np.unique(labels)) <= {0.0, 1.0}:
        return model.fit(features, labels.astype(int))
    stack = np.vstack if isinstance(features, np.ndarray) else sparse.vstack
    return model.fit(
        stack([features, features]),
        np.repeat([1, 0], len(labels)),
        sample_weight=np.concatenate([labels, 1 - labels]),
    )


class LinearProbe:
    """Standardised features and a logistic regression: how linear is a concept in a model's states?"""

    def __init__(self, scaler: Any, model: Any, strength: float) -> None:
        self.scaler, self.model, self.strength = scaler, model, strength

    def predict(self, activations: Any) -> FloatArray:
        """P(y = 1), (n,) float32, of activations (n, hidden)."""
        return rounded(self.model.predict_proba(self.scaler.transform(activations))[:, 1])


def linear_probe(
    activations: Any,
    labels: Any,
    *,
    validation: tuple[Any, Any] | None = None,
    centred: bool = True,
) -> LinearProbe:
    """Logistic regression on frozen states. Chapters: PGR (a baseline), saliency.

    Args:
        activations: (n, hidden) last-token states.
        labels: (n,) P(y = 1), or 0/1.
        validation: (activations, 0/1 labels) that choose the regularisation from `STRENGTHS`; without it 0.01 is used.
        centred: False for differences of two texts' states: no mean is taken off and there is no intercept, so that a
            comparison has the same answer in either order.

    Raises:
        SpecError: the labels are all on one side of one half.
    """
    scaler = StandardScaler(with_mean=centred).fit(activations)
    features = scaler.transform(activations)
    best: tuple[float, LinearProbe] | None = None
    for strength in STRENGTHS if validation else (0.01,):
        model = fit_logistic(
            LogisticRegression(C=strength, max_iter=2000, fit_intercept=centred), features, labels
        )
        probe = LinearProbe(scaler, model, strength)
        score = 0.0
        if validation is not None:
            score = float(
                np.mean((probe.predict(validation[0]) > 0.5) == np.asarray(validation[1]))
            )
        if best is None or score > best[0]:
            best = score, probe
    assert best is not None
    return best[1]


def fit_probe(
    spec: RunSpec,
    table: TaskTable,
    rows: Any,
    labels: FloatArray,
    validation: tuple[Any, Any],
    *,
    every: Any = None,
    adapters: Path | None = None,
    progress: bool = True,
) -> Baseline:
    """A linear probe on the last token's state after `spec.depth` blocks, of the frozen model or of a finetuned one.

    Args:
        spec: a run with `method="probe"` and a model with a depth, as in `smollm2-135m@20`. Frozen states come from the
            trunk of that depth, those of `spec.start` from its own pass, shared by all probes of that run.
        table: the task's texts and labels.
        rows: (n,) rows to fit on.
        labels: (n,) P(y = 1).
        validation: rows, and their 0/1 labels, that choose the regularisation.
        every: the rows that will be asked for; all of the table by default.
        adapters: the folder of `spec.start`'s adapters.
        progress: show bars.
    """
    models.check(spec)
    config = models.load_config(spec.name, spec.revision)
    depth = spec.depth or config.num_hidden_layers
    if isinstance(spec.start, Continue):
        assert adapters is not None
        every = np.sort(np.union1d(np.arange(len(table.frame)) if every is None else every, rows))
        states, seconds = layer_states(spec.start.run, table, every, adapters, progress=progress)
        known = np.zeros((len(table.frame), states[depth].shape[1]), dtype=np.float32)
        known[every] = states[depth]
    else:
        trunk = Trunk(spec, table, depth, last=only_last(spec, table, config), progress=progress)
        known, seconds = trunk.last_states(np.arange(len(table.frame))), trunk.seconds
    probe = linear_probe(
        known[rows],
        labels,
        validation=(known[validation[0]], validation[1]),
        centred=table.texts_a_row == 1,
    )
    return Baseline(probe.predict(known), seconds)


def layer_states(
    run: RunSpec, table: TaskTable, rows: Any, adapters: Path, *, progress: bool = True
) -> tuple[dict[int, FloatArray], float]:
    """The last token's state after every adapted block of a finetuned model, from one pass, kept in the cache.

    Args:
        run: what the model was finetuned as.
        table: the task's texts.
        rows: (n,) rows.
        adapters: the folder with its adapters.
        progress: show bars.

    Returns:
        Layer (1 is the first block) -> (n, hidden) float32, for comparisons the first's minus the second's; and the seconds
        that it took.
    """
    key = [
        run.run_id,
        table.digest,
        hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest(),
        file_sha256(adapters / "adapter_model.safetensors"),
        hardware(run.device),
        torch.__version__,
    ]
    file = (
        cache_dir() / "states" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npz"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with FileLock(file.with_suffix(".lock")):
        if not file.is_file():
            states = {
                str(layer): x for layer, x in _pass(run, table, rows, adapters, progress).items()
            }
            save_whole(file, lambda part: np.savez(part, **states))
    with np.load(file) as arrays:
        return {int(layer): arrays[layer] for layer in arrays.files}, time.monotonic() - started


@torch.inference_mode()
def _pass(
    run: RunSpec, table: TaskTable, rows: Any, adapters: Path, progress: bool
) -> dict[int, Any]:
    with torch.random.fork_rng():
        top, inputs, boundary, _ = adapted(run, table, start=adapters, progress=progress)
    merge_adapters(top, run)
    model = models.move(Classifier(top, last_only=False), run.device).eval()
    kept: dict[int, list[Any]] = {}
    last: list[Any] = []

    def keep(layer: int, out: Any) -> None:
        states = out[0] if isinstance(out, tuple) else out
        kept.setdefault(layer, []).append(
            one_a_row(states[torch.arange(len(states)), last[0]].float().cpu().numpy(), table)
        )

    for layer, block in enumerate(blocks_of(top.get_base_model()), boundary + 1):
        block.register_forward_hook(lambda module, given, out, layer=layer: keep(layer, out))
    order = inputs.by_length(rows)
    for start in tqdm(
        range(0, len(order), PREDICT_BATCH), desc="states", leave=False, disable=not progress
    ):
        batch, length = inputs.batch(order[start : start + PREDICT_BATCH])
        last[:] = [length - 1]
        model(batch, length)
    return {layer: inputs.in_order(np.concatenate(parts), rows) for layer, parts in kept.items()}


def fit_zero_shot(
    spec: RunSpec, table: TaskTable, rows: Any, *, unlabelled: Any = None, progress: bool = True
) -> Baseline:
    """The language model's own odds of the task's two label words as its next token: no training, no labels.

    One word may be likelier than the other after any text, so the mean log-odds over `unlabelled` rows are subtracted: batch
    calibration (Zhou et al. 2024, arXiv 2309.17249), which needs no label either.

    Args:
        spec: a run with `method="zero_shot"`; `spec.task.label_words` names the words.
        table: the task's texts.
        rows: the rows that will be asked for.
        unlabelled: those of them whose mean log-odds count as even; none: raw odds.
        progress: show bars.

    Raises:
        SpecError: no label words, or one that is not a single token.
    """
    models.check(spec)
    tokenizer = models.load_tokenizer(spec.name, spec.revision)
    named = spec.task.label_words.split("/")
    x, *after = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("x", *(f"x {word}" for word in named))
    )
    if len(named) != 2 or "" in named or any(ids[:-1] != x for ids in after):
        raise SpecError(
            f"Task.label_words must be two words of one token each, 'no/yes', not {spec.task.label_words!r}"
        )
    config = models.load_config(spec.name, spec.revision)
    boundary = blocks_under(spec, table, config, n_top=10)
    inputs = inputs_at(spec, table, boundary, progress=progress)  # before the model: see `adapted`
    model, both = models.load_backbone(spec, causal_lm=True), table.texts_a_row == 2
    words = model.get_output_embeddings().weight[[ids[-1] for ids in after]]
    classifier = Classifier(
        keep_blocks(model.base_model, boundary, spec.depth or config.num_hidden_layers),
        comparison=both,
    )
    classifier.head = words_head(words, model.config, comparison=both).to(spec.device)
    odds = np.full(len(table.frame), np.nan)
    logits = logits_by_row(classifier, inputs, rows, progress=progress).double().numpy()
    odds[rows] = logits[:, 1] - logits[:, 0]
    even = 0.0 if unlabelled is None or both else float(odds[unlabelled].mean())
    return Baseline(rounded(1 / (1 + np.exp(even - odds))), inputs.seconds)
