"""Pilots: what recipes, yardsticks, layers and tasks were chosen on.

python -m tests.benchmarks.pilot second 900 > 900.jsonl    # a seed a process, about 45 minutes of one core
python -m tests.benchmarks.pilot beyond 900 > 900.jsonl    # as long
python -m tests.benchmarks.pilot losses 900 > 900.jsonl    # as long
python -m tests.benchmarks.pilot leaderboard 900 > 900.jsonl    # some 3 minutes

Two seeds that are not published, 900 and 901. Scores are of the validation rows and of those that the seed leaves
over; no test row is scored. Only models of ground truth are trained, so no student can have chosen its recipe. The
lines that these printed are `book/claims/<edition>-pilot.csv`.

The leaderboard is another thing: there students choose their recipes, on a task that it does not report, with its
ground truth, and ten such seeds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import numpy as np

import w2s_lib as w2s
from w2s_lib.measures.intervals import Floats
from w2s_lib.models.machine import one_thread
from w2s_lib.runs.spec import Erring, RunSpec
from w2s_lib.tasks.labels import training_labels
from w2s_lib.training.execute import FITS
from w2s_lib.training.finetune import Data

WHOLE, MIDDLE, SHALLOW = "smollm2-135m", "smollm2-135m@14", "smollm2-135m@4"
RATE = 1e-3


def judged() -> dict[str, tuple[w2s.Task, str]]:
    """Tasks of the chapter on people, of whose raters five say what is true, and who supervises.

    Four blocks, and thirteen on editorials, err on more of the latter two than a rater does.
    """
    panel = {"panel": 5, "min_rating": 0.0}
    return {
        "movie": (w2s.default_task("movie", max_rating=2.5, n_test=2000, **panel), SHALLOW),
        "movie, unclear": (
            w2s.default_task(
                "movie", max_rating=1.5, n_train=900, n_validation=300, n_test=1000, **panel
            ),
            MIDDLE,
        ),
        "nyt": (
            w2s.default_task(
                "nyt", max_rating=1.5, n_train=600, n_validation=300, n_test=800, **panel
            ),
            MIDDLE,
        ),
    }


def beyond(seed: int) -> Iterator[tuple[str, RunSpec]]:
    """What is compared for *Beyond the paper*: are the second edition's rates fair on its tasks?"""
    for name, (task, weak) in judged().items():
        own = {"task": task, "seed": seed}
        for rate in (RATE, 3 * RATE):
            top = {"lora": w2s.Lora(blocks=1), "recipe": w2s.Recipe(learning_rate=rate)}
            yield f"learning rate, top block, {name}", w2s.ceiling(WHOLE, **own, **top)
        yield f"top ten, {name}", w2s.ceiling(WHOLE, **own)
        for rate in (RATE, 2 * RATE):
            recipe = w2s.Recipe(learning_rate=rate)
            yield f"learning rate, supervisor, {name}", w2s.ceiling(weak, recipe=recipe, **own)


def errors(seed: int) -> Iterator[dict[str, object]]:
    """What each kind of errors is like, at the rates of a supervisor: nobody is trained on them."""
    for name, (task, model) in judged().items():
        weak = w2s.supervisor(model, task, seed=seed)
        w2s.run(weak)
        table = w2s.load_table(task)
        half = w2s.splits(table, seed).student
        truth, share = table.frame["label"].to_numpy()[half], w2s.dissent(table)[half]
        model: object = None
        for kind in get_args(Erring):
            spec = w2s.student(SHALLOW, kind(run=weak))
            wrong = w2s.training_labels(spec, table, half, half=half) != truth
            model = wrong if model is None else model
            yield {
                "question": f"errors, {name}",
                "kind": kind.__name__,
                "wrong": float(wrong.mean()),
                "dissent where wrong": float(share[wrong].mean()),
                "dissent": float(share.mean()),
                "rows with dissent": float((share > 0).mean()),
                "also the model's": float((wrong & model).sum() / wrong.sum()),
            }


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


def losses(seed: int) -> Iterator[tuple[str, RunSpec]]:
    """Is cross-entropy's learning rate fair to the losses that the second edition shows once?"""
    for loss in (
        w2s.AdaptiveLoss,
        w2s.ReverseLoss,
        w2s.ProductLoss,
        w2s.EntropyLoss,
        w2s.WindowLoss,
    ):
        for rate in (RATE, RATE / 2, 2 * RATE):
            recipe = w2s.Recipe(learning_rate=rate)
            ceiling = w2s.ceiling(WHOLE, "movie", seed=seed, recipe=recipe)
            yield "losses", replace(ceiling, loss=loss())


def recipes() -> Iterator[tuple[str, dict[str, float]]]:
    """What each method of the leaderboard is chosen from."""
    rates = [{"rate": rate} for rate in (RATE, 3 * RATE, 10 * RATE, 30 * RATE)]
    for method in ("naive", "hard labels", "adaptive confidence", "reverse cross-entropy", "chain"):
        yield from ((method, own) for own in rates)
    for method in ("naive", "adaptive confidence", "reverse cross-entropy"):
        yield from ((method, own | {"centred": True}) for own in rates)
    for alpha in (0.25, 0.5, 0.75):
        yield from (("confidence loss", own | {"alpha": alpha}) for own in rates)
    yield "probe", {}
    yield from (("surest labels", {"share": share}) for share in (0.1, 0.25, 0.5, 0.75, 1.0))
    yield from (("stopped early", {"rate": rate}) for rate in (0.01, 0.03, 0.1))
    yield from (("self-training", {"rounds": rounds}) for rounds in (1, 3, 6))
    yield from (("nearest labels", {"k": k}) for k in (20, 50, 100, 200))


def words(recipe: dict[str, float]) -> str:
    """A recipe as it stands in the lines of the pilot."""
    return " ".join(
        name if value is True else f"{name}={value:g}" for name, value in recipe.items()
    )


def leaderboard(seed: int) -> Iterator[dict[str, object]]:
    """Each method with each of its recipes, on the test texts of a task that is not reported."""
    methods = w2s.chapter_names("leaderboard")["METHODS"]
    weak = w2s.supervisor(SHALLOW, "amazon", seed=seed)
    rows = [("supervisor", {}, weak)]
    rows += [(name, own, methods[name](weak, **own)) for name, own in recipes()]
    for name, own, arm in rows:
        runs = w2s.sweep([arm], workers=1, progress=False)
        found = {metric: getattr(runs, metric)(arm).value for metric in ("accuracy", "auc")}
        rounded = {metric: round(value, 4) for metric, value in found.items()}
        yield {"method": name, "recipe": words(own), "seed": seed} | rounded


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


QUESTIONS = {"second": candidates, "beyond": beyond, "losses": losses}

OTHERWISE = {"beyond": errors, "leaderboard": leaderboard}

if __name__ == "__main__":
    edition, seed = sys.argv[1], int(sys.argv[2])
    for line in OTHERWISE[edition](seed) if edition in OTHERWISE else ():
        print(json.dumps({"seed": seed} | line), flush=True)
    for question, spec in QUESTIONS[edition](seed) if edition in QUESTIONS else ():
        print(json.dumps({"question": question, "spec": spec.to_json()} | scores(spec)), flush=True)
