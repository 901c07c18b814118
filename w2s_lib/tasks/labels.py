"""What a run learns: ground truth, its teacher's labels, or ground truth with errors of some kind.

Chapter: people.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from w2s_lib.measures.metrics import answers, rows_of
from w2s_lib.runs import spec as kinds
from w2s_lib.runs.errors import StoreError, require
from w2s_lib.runs.record import P_STEP, FloatArray, Record, predicted_label
from w2s_lib.runs.settings import NoisyTruth
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import find
from w2s_lib.tasks.table import TaskTable, load_table


def training_labels(spec: RunSpec, table: TaskTable, rows: Any, *, half: Any) -> FloatArray:
    """P(y = 1) that a run learns for rows: ground truth or its teacher's, or what is made of them.

    Args:
        spec: the run.
        table: its task.
        rows: (n,) rows that are labeled.
        half: (m,) all rows of `spec.half`: there `Centred` labels have their centre, and kinds of
            errors their number.

    Returns:
        (n,) float32; of `Relabelled` labels those that their method is given.

    Raises:
        StoreError: the teacher's record is of another task, or lacks a row.
        SpecError: fewer rows of a class with an error of that kind than the teacher makes errors.
    """
    truth: FloatArray = table.frame["label"].to_numpy(np.float32)[rows]
    if isinstance(spec.labels, NoisyTruth):
        shares = dict.fromkeys((0, 1), spec.labels.share)
        return _wrong_first(truth, shares, _shuffled(truth, spec))
    if spec.teacher is None:
        return truth
    teacher = find(spec.teacher)
    if teacher is None:
        said = f"{spec.teacher.run_id}, which has no record"
        raise StoreError(f"run {spec.run_id} learns from {said}")

    def given(rows: Any) -> FloatArray:
        return np.array(teacher.labels(rows, task_digest=table.digest), dtype=np.float32)

    labels = given(rows)
    if isinstance(spec.labels, kinds.Hard):
        return predicted_label(labels).astype(np.float32)
    if isinstance(spec.labels, (kinds.FromRun, kinds.Relabelled)):
        return labels
    if isinstance(spec.labels, kinds.Centred):
        centre = np.median(_logit(given(half)))
        centred: FloatArray = expit(_logit(labels) - centre).astype(np.float32)
        return centred
    if isinstance(spec.labels, kinds.Flip):
        wrong, of = predicted_label(labels) != truth, truth
    else:
        of, own = table.frame["label"].to_numpy()[half], given(half)
        if isinstance(spec.labels, kinds.ModelErrors):
            return (labels > np.median(own)).astype(np.float32)
        wrong = (own > np.median(own)) != of
    shares = {k: float(wrong[of == k].mean()) for k in (0, 1)}
    return _wrong_first(truth, shares, _order(spec, table, rows, truth))


def own_texts(record: Record) -> pd.DataFrame:
    """The texts that a run learned from: what it was told, what is true, what it says itself.

    Args:
        record: of a run with `predict_halves`.

    Returns:
        By row of the task's table: `truth`, 0 or 1; `told`, P(y = 1) that it learned; `said`, its
        own answer, 0 or 1, at the median of its P on validation texts.

    Raises:
        SpecError: it has not been asked about them; a function made its labels, which no record
            keeps; see `training_labels`.
    """
    spec, table = record.spec, load_table(record.spec.task)
    made = isinstance(spec.labels, kinds.Relabelled)
    require(not made, f"what run {spec.run_id} was told is in no record: its labels were made")
    require(spec.predict_halves, f"run {spec.run_id} answers no texts that it learned from")
    rows = rows_of(record, spec.half).sort_index()  # as in `splits`, when it was trained
    told = training_labels(spec, table, rows.index, half=rows.index)
    said = answers(record)[rows.index].astype(int)
    return pd.DataFrame({"truth": rows["label"].astype(int), "told": told, "said": said})


def _logit(p: FloatArray) -> FloatArray:
    """In float64; what is rounded to 0 or 1 is taken half a step inside."""
    inside: FloatArray = logit(p.astype(np.float64).clip(P_STEP / 2, 1 - P_STEP / 2))
    return inside


def _shuffled(truth: FloatArray, spec: RunSpec) -> Any:
    """(n,) an order of the rows of either class, drawn at random."""
    order, rng = np.empty(len(truth)), np.random.default_rng([*spec.stream, 2])
    for value in (0, 1):
        rows = rng.permutation(np.flatnonzero(truth == value))
        order[rows] = np.arange(len(rows))
    return order


def _wrong_first(truth: FloatArray, shares: dict[int, float], order: Any) -> FloatArray:
    """0/1 labels, (n,), of which a share of either class is wrong: those of the lowest `order`, (n,).

    Raises:
        SpecError: some of them have no order: an infinite one.
    """
    labels = truth.copy()
    for value, share in shares.items():
        rows = np.flatnonzero(truth == value)
        first = rows[np.argsort(order[rows], kind="stable")][: round(share * len(rows))]
        there = int(np.isfinite(order[rows]).sum())
        said = f"{len(first)} of {len(rows)} rows of class {value} are to be labelled wrong, and of"
        require(len(first) <= there, f"{said} {there} a rater says so: the arms cannot be matched")
        labels[first] = 1 - value
    return labels


def _order(spec: RunSpec, table: TaskTable, rows: Any, truth: FloatArray) -> Any:
    """(n,) float: the rows with the lowest are labelled wrong first; infinite: never."""
    if isinstance(spec.labels, (kinds.Flip, kinds.CoinErrors)):
        return _shuffled(truth, spec)
    texts = table.frame["text"].iloc[rows]
    if isinstance(spec.labels, kinds.LengthErrors):
        return -texts.str.len().to_numpy(dtype=float)
    if isinstance(spec.labels, kinds.WordErrors):
        return -texts.map(_mean_weight).to_numpy(dtype=float)
    require(bool(spec.task.panel), f"RaterErrors needs raters who are on no panel: {spec.task!r}")
    # Of exponential waiting times the shortest: a draw without replacement, their rates the weights.
    waits = np.random.default_rng([*spec.stream, 3]).exponential(size=len(rows))
    with np.errstate(divide="ignore"):
        return waits / dissent(table)[rows]


def dissent(table: TaskTable) -> FloatArray:
    """(rows,) the share of each row's raters whose rating contradicts its label; 0 is neutral.

    Raises:
        SpecError: the task has no raters.
    """
    require(len(table.ratings) > 0, f"the rows of {table.task.name!r} have no raters")
    against = np.sign(1 - 2 * table.frame["label"].to_numpy(dtype=float))
    pairs = zip(table.ratings, against, strict=True)
    return np.array([np.mean(np.sign(ratings) == sign) for ratings, sign in pairs])


def _mean_weight(text: str) -> float:
    """The mean of the weights of a text's words, from 0 to 1: the first bytes of their SHA-256."""
    words = re.findall(r"\w+", text.lower()) or [""]
    drawn = [int.from_bytes(hashlib.sha256(word.encode()).digest()[:6], "big") for word in words]
    return float(np.mean(drawn)) / 2**48
