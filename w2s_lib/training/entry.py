"""A method of somebody's own, called in a process of its own: it sees its arguments and no more.

That is hygiene and no security boundary: its code can read whatever the user can. Chapter:
leaderboard.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from w2s_lib.models.classifier import rounded
from w2s_lib.runs.errors import TrainingError
from w2s_lib.runs.method import Method
from w2s_lib.runs.record import FloatArray
from w2s_lib.runs.spec import Relabelled, RunSpec
from w2s_lib.tasks.table import TaskTable
from w2s_lib.training.baselines import Baseline, frozen_states
from w2s_lib.training.finetune import Data

SECONDS = 120
"""How long a method may compute, with one thread; for a core it may wait longer."""
WAITS = 20
"""How much longer at most: a factor."""
ALONE = """
import json, resource, sys, numpy
source, name, settings, seconds, given, found = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
space = {}
exec(compile(source, "<method>", "exec"), space)
with numpy.load(given) as arrays:
    told, asked = (
        one.tolist() if one.dtype.kind == "U" else one
        for one in (arrays["given"], arrays["unlabeled"])
    )
    p = space[name](told, arrays["labels"], asked, int(arrays["seed"]), **json.loads(settings))
numpy.save(found, numpy.asarray(p, dtype=float), allow_pickle=False)
"""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def fit_entry(spec: RunSpec, data: Data) -> Baseline:
    """Calls a run's method with what a student may know, and keeps what it answers.

    The texts that are asked about come in an order drawn at random, test and validation mixed.

    Raises:
        TrainingError: see `called`.
    """
    assert isinstance(spec.method, Method)
    given, asked, seconds = _given(spec, spec.method, data.table, data.rows, data.asked)
    p = np.full(len(data.table.frame), np.nan, dtype=np.float32)
    p[asked] = called(spec.method, given | {"labels": data.labels})
    return Baseline(p, seconds)


def relabelled(
    spec: RunSpec, table: TaskTable, rows: Any, labels: FloatArray, *, asked: Any
) -> FloatArray:
    """The labels that a run's method makes of its teacher's: (n,) P(y = 1).

    Args:
        spec: a run whose labels are `Relabelled`.
        table: its task.
        rows: (n,) rows that are labelled.
        labels: (n,) the teacher's P(y = 1).
        asked: (m,) rows whose texts, or states, it is given without labels.

    Raises:
        TrainingError: see `called`.
    """
    assert isinstance(spec.labels, Relabelled)
    given, _, _ = _given(spec, spec.labels.method, table, rows, asked)
    return called(spec.labels.method, given | {"labels": labels}, answers=len(rows))


def _given(
    spec: RunSpec, method: Method, table: TaskTable, rows: Any, asked: Any
) -> tuple[dict[str, Any], Any, float]:
    """A method's arguments but the labels; `asked` in the order of them; seconds for the states."""
    asked, seconds = np.random.default_rng([*spec.stream, 4]).permutation(asked), 0.0
    if method.sees == "states":
        states, seconds = frozen_states(spec, table)
        seen = {"given": states[rows], "unlabeled": states[asked]}
    else:  # as wide as the longest of these texts: of a whole table that can be gigabytes
        texts = table.frame["text" if table.texts_a_row == 1 else ["text", "text_b"]]
        some = {"given": rows, "unlabeled": asked}
        seen = {name: texts.iloc[where].to_numpy(dtype=str) for name, where in some.items()}
    return seen | {"seed": np.array(spec.seed)}, asked, seconds


def called(
    method: Method, given: dict[str, Any], *, answers: int | None = None, seconds: int = SECONDS
) -> FloatArray:
    """What a method answers: P(y = 1).

    Args:
        method: the method.
        given: its arguments as arrays: `given`, `labels`, `unlabeled`, `seed`.
        answers: how many answers it has to give: (m,), as many as are unlabeled, by default.
        seconds: how long it may compute.

    Raises:
        TrainingError: it failed, or computed for more than `seconds`; its answer has another shape,
            or a value that is not in [0, 1].
    """
    said = f"method {method.name!r}"
    with tempfile.TemporaryDirectory() as folder:
        there, found = Path(folder) / "given.npz", Path(folder) / "found.npy"
        np.savez(there, **given)
        own = [method.source, method.name, method.settings, str(seconds)]
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", ALONE, *own, str(there), str(found)],
                capture_output=True,
                text=True,
                timeout=WAITS * seconds,
                env={"PATH": os.environ.get("PATH", "")} | ONE_THREAD,  # no token among them
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            raise TrainingError(f"{said} was not done after {WAITS * seconds} seconds") from None
        if -done.returncode in (signal.SIGXCPU, signal.SIGKILL):
            raise TrainingError(f"{said} was stopped: it may compute for {seconds} seconds")
        if done.returncode:
            last = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1]
            raise TrainingError(f"{said} failed: {last:.300}")
        p = np.load(found)
    shape = (len(given["unlabeled"]) if answers is None else answers,)
    if p.shape != shape:
        raise TrainingError(f"{said} gave an array of shape {p.shape}, not {shape}: one P a text")
    wrong = ~((p >= 0) & (p <= 1))
    if wrong.any():
        gave = f"{p[wrong][0]:g} and the like for {wrong.sum()} of {len(p)} texts"
        raise TrainingError(f"{said} gave {gave}: P(y = 1) has to be in [0, 1]")
    return rounded(p)
