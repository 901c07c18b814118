"""How cost grows: with the number of texts, the depth, the length of a text, and the number of records in the store."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .common import MODEL, UNPUBLISHED, cold, long_texts, measured

EXAMPLES, DEPTHS, LENGTHS, RECORDS = (
    (500, 1000, 2000, 4000),
    (2, 4, 8, 16, 30),
    (16, 32, 64, 128, 256),
    (100, 1000, 10_000),
)


def epoch(model: str, n: int, blocks: int | str) -> dict[str, Any]:
    """Seconds of one epoch on `n` texts of `movie`, the trunk being there, and of predicting 1,000."""
    import w2s_lib as w2s
    from w2s_lib.models.machine import one_thread
    from w2s_lib.training import finetune as train
    from w2s_lib.training.finetune import Data

    task = w2s.default_task("movie")
    spec = w2s.ceiling(
        model, task, recipe=w2s.Recipe(epochs=1), lora=w2s.Lora(blocks=blocks), seed=UNPUBLISHED
    )
    table = w2s.load_table(task)
    rows = np.random.default_rng(0).permutation(len(table.frame))
    labels = table.frame["label"].to_numpy(np.float32)
    with one_thread("cpu"):
        train.build(spec, table)  # the trunk
        started = time.monotonic()
        fitted = train.fit(spec, Data(table, rows[:n], labels[rows[:n]]))
        middle = time.monotonic()
        fitted.predict(rows[-1000:])
    return {"train": middle - started, "predict": time.monotonic() - middle}


def of_length(length: int) -> dict[str, Any]:
    """Seconds of one epoch on 160 texts of about `length` tokens, the trunk being there."""
    import w2s_lib as w2s
    from w2s_lib.models.machine import one_thread
    from w2s_lib.training import finetune as train
    from w2s_lib.training.finetune import Data

    with tempfile.TemporaryDirectory() as folder:
        path = long_texts(Path(folder), 400, length)
        task = w2s.default_task(str(path), n_train=100, n_validation=50, n_test=100)
        spec = w2s.ceiling(MODEL, task, recipe=w2s.Recipe(epochs=1), seed=UNPUBLISHED)
        table = w2s.load_table(task)
        with one_thread("cpu"):
            fitted = train.build(spec, table)
            started = time.monotonic()
            train.fit(
                spec, Data(table, np.arange(160), table.frame["label"].to_numpy(np.float32)[:160])
            )
            seconds = time.monotonic() - started
    return {"train": seconds, "tokens": float(fitted.inputs.text_length.mean())}


def store(n: int) -> dict[str, Any]:
    """Seconds to find out which of `n` runs are recorded, and to read and verify 100 of them."""
    import pandas as pd

    import w2s_lib as w2s
    from w2s_lib.runs.store import find, recorded, user_store, write

    rng = np.random.default_rng(0)
    weak = w2s.supervisor(f"{MODEL}@2", "movie")
    naive = w2s.student(MODEL, weak)
    made = [naive.with_seed(seed) for seed in range(n)]
    rows = pd.Index(range(4500), name="row")
    frame = pd.DataFrame(
        {
            "split": ["test"] * 4500,
            "label": np.int8(1),
            "p": rng.random(4500, dtype=np.float32),
            "group": np.int32(0),
        },
        index=rows,
    )
    for spec in made[:100]:
        write(w2s.Record(spec, frame, {"accuracy": 1.0}, {}))
    for spec in made[100:]:  # where a record lies is what is looked up: its content does not matter
        (user_store().folder / f"{spec.run_id}.parquet").touch()
    fresh = [dataclasses.replace(spec) for spec in made]  # nothing remembered
    started = time.monotonic()
    assert {spec.run_id for spec in fresh} <= recorded()
    middle = time.monotonic()
    assert all(find(spec) for spec in made[:100])
    return {"lookup": middle - started, "read_100": time.monotonic() - middle}


def measure() -> dict[str, Any]:
    """Each of the four, in fresh processes."""
    found: dict[str, Any] = {}
    with cold(trunks=True):
        found["examples"] = [{"texts": n, **measured(epoch, MODEL, n, 10)} for n in EXAMPLES]
        found["depth"] = [
            {"blocks": d, "adapted": str(blocks), **measured(epoch, f"{MODEL}@{d}", 500, blocks)}
            for d in DEPTHS
            for blocks in (10, "all")
            if not (blocks == "all" and d <= 10)
        ]
    with cold():
        found["length"] = [{"length": n, **measured(of_length, n)} for n in LENGTHS]
    for n in RECORDS:
        with cold():
            found.setdefault("records", []).append({"records": n, **measured(store, n)})
    return found
