"""The second edition's pilots: what its recipe, yardsticks and layers were chosen on.

python -m tests.benchmarks.pilot 900 > 900.jsonl    # a seed a process, about 45 minutes of one core

Two seeds that are not published, 900 and 901. Scores are of the validation rows and of those that the seed leaves
over; no test row is predicted. Only ceilings are trained, so no student can have chosen its recipe. The lines that
these printed are `book/claims/second-pilot.csv`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

import w2s_lib as w2s
from w2s_lib.measures.intervals import Floats
from w2s_lib.models.machine import one_thread
from w2s_lib.runs.spec import RunSpec
from w2s_lib.tasks.labels import training_labels
from w2s_lib.training.execute import FITS
from w2s_lib.training.finetune import Data

WHOLE, SHALLOW = "smollm2-135m", "smollm2-135m@4"
RATE = 1e-3


def candidates(seed: int) -> Iterator[tuple[str, RunSpec]]:
    """What is compared, by its question."""

    def top(
        model: str = WHOLE,
        task: str = "movie",
        blocks: int = 10,
        noise: float | None = None,
        **recipe: object,
    ):
        return w2s.ceiling(
            model,
            task,
            seed=seed,
            noise=noise,
            lora=w2s.Lora(blocks=blocks),
            recipe=w2s.Recipe(**recipe),
        )

    for depth in (16, 20, 23, 26, 29, 30):
        yield "layer of the probe", w2s.probe(f"{WHOLE}@{depth}", "movie", seed=seed)
    for rate in (RATE, RATE / 2, 2 * RATE):
        yield "learning rate", top(learning_rate=rate)
    for noise in (0.2, 0.3, 0.4):
        yield "noise", top(noise=noise)
    for rate in (RATE, 3 * RATE):
        yield "learning rate, top block", top(blocks=1, learning_rate=rate)
    for rate in (RATE, 2 * RATE):
        yield "learning rate, top four", top(blocks=4, learning_rate=rate)
    for alpha, start in ((0.5, 0.0), (0.75, 0.0), (0.75, 0.5)):
        loss = w2s.ConfidenceLoss(alpha_max=alpha, start=start)
        yield "confidence", replace(top(), loss=loss)
    for rate in (RATE, 2 * RATE):
        yield "learning rate, 4 blocks", top(SHALLOW, learning_rate=rate)
    for task in ("amazon", "tweets", "nyt"):
        for epochs in (2, 4):
            yield f"epochs, {task}", top(task=task, epochs=epochs)
    for epochs in (2, 4):
        yield "epochs, movie-preference", top(task="movie-preference", epochs=epochs)


def scores(spec: RunSpec) -> dict[str, float]:
    """Accuracy at the validation median and AUC on the rows that nobody is trained or tested on."""
    table = w2s.load_table(spec.task)
    parts = w2s.splits(table, spec.seed)
    used = np.concatenate([parts.test, parts.supervisor, parts.student])
    groups = table.frame["group"]
    asked = np.setdiff1d(np.arange(len(groups)), used)
    asked = asked[
        ~groups.iloc[asked].isin(groups.iloc[used]).to_numpy() | np.isin(asked, parts.validation)
    ]
    data = Data(
        table,
        parts.student,
        training_labels(spec, table, parts.student, half=parts.student),
        validation=parts.validation,
        validation_labels=training_labels(spec, table, parts.validation, half=parts.student),
        asked=asked,
    )
    started = time.monotonic()
    with one_thread(spec.device):
        p = FITS[spec.kind](spec, data).predict(asked).astype(np.float64)
    label = table.frame["label"].to_numpy()[asked]
    threshold = np.median(p[np.isin(asked, parts.validation)])
    return {
        "n": len(asked),
        "accuracy": float(np.mean((p > threshold) == label)),
        "accuracy_at_half": float(np.mean((p > 0.5) == label)),
        "auc": _auc(p, label),
        "log_loss": float(-np.log(np.where(label == 1, p, 1 - p).clip(2**-17)).mean()),
        "seconds": round(time.monotonic() - started, 1),
    }


def _auc(p: Floats, label: Floats) -> float:
    ones, zeros = p[label == 1][:, None], p[label == 0]
    return float(((ones > zeros) + 0.5 * (ones == zeros)).mean())


if __name__ == "__main__":
    for question, spec in candidates(int(sys.argv[1])):
        print(json.dumps({"question": question, "spec": spec.to_json()} | scores(spec)), flush=True)
