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
from w2s_lib.runs.spec import RunSpec
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
    seed = int(arrays["seed"])
    own = json.loads(settings)
    p = space[name](arrays["states"], arrays["labels"], arrays["unlabeled"], seed, **own)
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
    states, seconds = frozen_states(spec, data.table)
    asked = np.random.default_rng([*spec.stream, 4]).permutation(data.asked)
    given = {"states": states[data.rows], "labels": data.labels, "unlabeled": states[asked]}
    p = np.full(len(states), np.nan, dtype=np.float32)
    p[asked] = called(spec.method, given | {"seed": np.array(spec.seed)})
    return Baseline(p, seconds)


def called(method: Method, given: dict[str, Any], *, seconds: int = SECONDS) -> FloatArray:
    """What a method answers: (m,) P(y = 1).

    Raises:
        TrainingError: it failed, or computed for more than `seconds`; its answer has another shape than
            (m,), or a value that is not in [0, 1].
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
    shape = (len(given["unlabeled"]),)
    if p.shape != shape:
        raise TrainingError(f"{said} gave an array of shape {p.shape}, not {shape}: one P a text")
    wrong = ~((p >= 0) & (p <= 1))
    if wrong.any():
        gave = f"{p[wrong][0]:g} and the like for {wrong.sum()} of {len(p)} texts"
        raise TrainingError(f"{said} gave {gave}: P(y = 1) has to be in [0, 1]")
    return rounded(p)
