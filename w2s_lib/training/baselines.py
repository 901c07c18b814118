"""Baselines that train no language model: TF-IDF, a linear probe, zero-shot label-word odds."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from tqdm import tqdm

from w2s_lib.models import backbone as models
from w2s_lib.models.classifier import PREDICT_BATCH, Classifier, Fitted, logits_by_row, rounded
from w2s_lib.models.families import blocks_of, keep_blocks, words_head
from w2s_lib.models.inputs import row_values
from w2s_lib.models.lora import merge_adapters
from w2s_lib.models.machine import hardware
from w2s_lib.models.trunk import Trunk, inputs_at, only_last, trunk_depth
from w2s_lib.runs import folders
from w2s_lib.runs.errors import SpecError, TrainingError
from w2s_lib.runs.record import FloatArray, predicted_label
from w2s_lib.runs.spec import RunSpec
from w2s_lib.tasks.table import TaskTable
from w2s_lib.training.finetune import Data, adapted

# scikit-learn is imported where it is used: whoever finetunes or plans would wait a second for it.

STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)
"""Inverse regularisation strengths that a probe's validation set chooses from."""


class Baseline(Fitted):
    """A fitted baseline: `predict` by row. It leaves nothing to save beside its record."""

    def __init__(self, p: FloatArray, trunk_seconds: float = 0.0) -> None:
        super().__init__(trunk_seconds)
        self._p = p

    def predict(self, rows: Any) -> FloatArray:
        """P(y = 1) for each row, (n,) float32."""
        p: FloatArray = self._p[np.asarray(rows)]
        return p


def fit_tfidf(spec: RunSpec, data: Data) -> Baseline:
    """TF-IDF of words and word pairs, then logistic regression: a supervisor of another kind.

    The vocabulary is fitted on the training rows alone. Of a comparison's two texts, the features
    are subtracted, and there is no intercept: in either order the answer is the same.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    table, rows = data.table, data.rows
    texts = np.array(table.texts, dtype=object)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, lowercase=True)
    vectorizer.fit(texts[table.positions(rows)])
    features = row_values(vectorizer.transform(texts), table)
    regression = LogisticRegression(C=10.0, max_iter=2000, fit_intercept=table.texts_a_row == 1)
    model = fit_logistic(regression, features[rows], data.labels)
    return Baseline(rounded(model.predict_proba(features)[:, 1]))


def fit_logistic(model: Any, features: Any, labels: FloatArray) -> Any:
    """Fits a scikit-learn classifier to soft labels.

    Each row counts once as a 1 with weight y, once as a 0 with weight 1 - y.

    Raises:
        TrainingError: every label is 0, or every one is 1.
    """
    labels = np.asarray(labels, dtype=np.float64)
    if np.unique(labels).tolist() in ([0.0], [1.0]):
        raise TrainingError(f"every label is {labels[0]:.0f}: nothing to tell apart")
    if set(np.unique(labels)) <= {0.0, 1.0}:
        return model.fit(features, labels.astype(int))
    stack = np.vstack if isinstance(features, np.ndarray) else sparse.vstack
    return model.fit(
        stack([features, features]),
        np.repeat([1, 0], len(labels)),
        sample_weight=np.concatenate([labels, 1 - labels]),
    )


class LinearProbe:
    """Standardised features and a logistic regression: how linear is a concept in the states?"""

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
        validation: (activations, 0/1 labels) that choose the regularisation from `STRENGTHS`; of
            equally good ones the strongest. Without it 0.01 is used.
        centred: False for differences of two texts' states: no mean is taken off and there is no
            intercept, so that a comparison has the same answer in either order.

    Raises:
        TrainingError: every label is 0, or every one is 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(with_mean=centred).fit(activations)
    features = scaler.transform(activations)

    def fitted(strength: float) -> LinearProbe:
        model = LogisticRegression(C=strength, max_iter=2000, fit_intercept=centred)
        return LinearProbe(scaler, fit_logistic(model, features, labels), strength)

    if validation is None:
        return fitted(0.01)
    held, truth = validation[0], np.asarray(validation[1])
    return max(
        map(fitted, STRENGTHS), key=lambda p: np.mean(predicted_label(p.predict(held)) == truth)
    )


def fit_probe(spec: RunSpec, data: Data) -> Baseline:
    """A linear probe on the last token's state after `spec.depth` blocks.

    Frozen states come from the trunk of that depth; those of a finetuned model, `spec.start`, from
    its own pass, shared by all probes of that run.

    Args:
        spec: a run with `method="probe"` and a model with a depth, as in `smollm2-135m@20`.
        data: rows and labels; the validation labels choose the regularisation.
    """
    table, rows = data.table, data.rows
    if spec.continued:
        assert data.adapters is not None
        asked = np.union1d(data.asked, rows)
        states, seconds = layer_states(spec.continued, table, asked, data.adapters)
        layer = states[depth_of(spec)]
        known = np.zeros((len(table.frame), layer.shape[1]), dtype=np.float32)
        known[asked] = layer
    else:
        known, seconds = frozen_states(spec, table)
    probe = linear_probe(
        known[rows],
        data.labels,
        validation=(known[data.validation], predicted_label(data.validation_labels)),
        centred=table.texts_a_row == 1,
    )
    return Baseline(probe.predict(known), seconds)


def depth_of(spec: RunSpec) -> int:
    """The layer whose states are meant: the last one, where the model's name does not say."""
    depth: int = spec.depth or models.load_config(spec.name, spec.revision).num_hidden_layers
    return depth


def frozen_states(spec: RunSpec, table: TaskTable) -> tuple[FloatArray, float]:
    """The last token's state of each row in the untouched model, (rows, hidden); and the seconds."""
    config = models.load_config(spec.name, spec.revision)
    trunk = Trunk(spec, table, depth_of(spec), last=only_last(spec, table, config))
    return trunk.last_states(np.arange(len(table.frame))), trunk.seconds


def layer_states(
    run: RunSpec, table: TaskTable, rows: Any, adapters: Path
) -> tuple[dict[int, FloatArray], float]:
    """The last token's state after every adapted block of a finetuned model, kept in the cache.

    Args:
        run: what the model was finetuned as.
        table: the task's texts.
        rows: (n,) rows.
        adapters: the folder with its adapters.

    Returns:
        Layer (1 is the first block) -> (n, hidden) float32, for comparisons the first's minus the
        second's; and the seconds that it took.
    """
    of_rows = hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest()
    of_adapters = folders.file_sha256(adapters / "adapter_model.safetensors")
    machine = [hardware(run.device), torch.__version__]
    key = [run.run_id, table.digest, of_rows, of_adapters, *machine]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    file = folders.cache_dir() / "states" / f"{name}.npz"
    started = time.monotonic()
    with folders.writing_cache(), folders.locked(folders.lock_of(file), wait=True):
        if not folders.intact(file):
            states = _compute_layer_states(run, table, rows, adapters)
            named = {str(layer): values for layer, values in states.items()}
            folders.write_checked(file, lambda part: np.savez(part, **named))
    with np.load(file) as arrays:
        return {int(layer): arrays[layer] for layer in arrays.files}, time.monotonic() - started


@torch.inference_mode()
def _compute_layer_states(
    run: RunSpec, table: TaskTable, rows: Any, adapters: Path
) -> dict[int, Any]:
    with torch.random.fork_rng():
        top, inputs, boundary, _ = adapted(run, table, start=adapters)
        model = Classifier(top, last_only=False)
    merge_adapters(top, run)
    model.to(run.device).eval()
    kept: dict[int, list[Any]] = {}
    last = torch.empty(0)

    def keep(layer: int, out: Any) -> None:
        states = out[0] if isinstance(out, tuple) else out
        of_texts = states[torch.arange(len(states)), last].float().cpu().numpy()
        kept.setdefault(layer, []).append(row_values(of_texts, table))

    for layer, block in enumerate(blocks_of(top.get_base_model()), boundary + 1):
        block.register_forward_hook(lambda module, given, out, layer=layer: keep(layer, out))
    order = inputs.by_length(rows)
    for start in tqdm(
        range(0, len(order), PREDICT_BATCH), desc="states", leave=False, disable=None
    ):
        batch, length = inputs.batch(order[start : start + PREDICT_BATCH])
        last = length - 1
        model(batch, length)
    return {layer: inputs.in_order(np.concatenate(parts), rows) for layer, parts in kept.items()}


def fit_zero_shot(spec: RunSpec, data: Data) -> Baseline:
    """The language model's own odds of the task's two label words as its next token: no labels.

    One word may be likelier than the other after any text, so the mean log-odds over the training
    rows, whose labels are not looked at, are subtracted: batch calibration (Zhou et al. 2024,
    arXiv 2309.17249). In comparisons the two texts have one and the same bias: nothing is.

    Args:
        spec: a run with `method="zero_shot"`; `spec.task.label_words` names the words.
        data: the rows that are asked for, and those that calibrate; none: raw odds.

    Raises:
        SpecError: no label words, or one that is not a single token.
    """
    table, comparison = data.table, data.table.texts_a_row == 2
    config = models.load_config(spec.name, spec.revision)
    depth = spec.depth or config.num_hidden_layers
    tokens = label_tokens(spec)
    boundary = trunk_depth(spec, table, config, n_top=10)
    inputs = inputs_at(spec, table, boundary)  # before the model: see `adapted`
    model = models.load_backbone(spec, causal_lm=True)
    words = model.get_output_embeddings().weight[tokens]
    classifier = Classifier(keep_blocks(model.base_model, boundary, depth), comparison=comparison)
    classifier.head = words_head(words, model.config, comparison=comparison).to(spec.device)
    rows = np.union1d(data.asked, data.rows)
    odds = np.full(len(table.frame), np.nan)
    logits = logits_by_row(classifier, inputs, rows).double().numpy()
    odds[rows] = logits[:, 1] - logits[:, 0]
    even = 0.0 if comparison or not len(data.rows) else float(odds[data.rows].mean())
    return Baseline(rounded(1 / (1 + np.exp(even - odds))), inputs.seconds)


def label_tokens(spec: RunSpec) -> list[int]:
    """The token of each of the task's two label words, after a space.

    Raises:
        SpecError: they are not two words, or not of one token each in the model's tokenizer.
    """
    tokenizer = models.load_tokenizer(spec.name, spec.revision)
    words = spec.task.label_words.split("/")
    x, *after = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("x", *(f"x {word}" for word in words))
    )
    if len(words) != 2 or "" in words or any(ids[:-1] != x for ids in after):
        said = f"each of one token of {spec.name}: not {spec.task.label_words!r}"
        raise SpecError(f"Task.label_words must be two words, such as no/yes, {said}")
    return [ids[-1] for ids in after]
