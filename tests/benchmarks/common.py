"""What the benchmarks share: a fresh process for each measurement, an empty cache, and one file for all results."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book" / "benchmarks.json"
MODEL = "smollm2-135m"
UNPUBLISHED = 200
"""The first of the seeds that no published record has."""


def measured(job: Callable[..., Any], *args: Any, threads: int = 1) -> dict[str, Any]:
    """What `job(*args)` returns, a dictionary, with the `seconds` it took and the `peak_gib` of its process.

    Args:
        job: a function at the top of a module: it runs in a process of its own, whose imports are not counted.
        *args: for it.
        threads: of that process's matrix products.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found: dict[str, Any] = pool.submit(_job, job, args, threads).result()
    return found


def _job(job: Callable[..., Any], args: tuple[Any, ...], threads: int) -> dict[str, Any]:
    import torch
    import transformers  # noqa: F401  what everybody has to load

    torch.set_num_threads(threads)
    started = time.monotonic()
    found = job(*args) or {}
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = (
        int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**20
    )  # `getrusage` would begin with the memory of the parent
    return {"seconds": time.monotonic() - started, "peak_gib": peak, **found}


@contextlib.contextmanager
def cold(trunks: bool = False) -> Iterator[Path]:
    """An empty store, and a cache with the model and the data but no trunks, for this process and its children.

    Args:
        trunks: link the folder of trunks as well, so that they are warm.
    """
    from w2s_lib.models.embedded import fetch_model
    from w2s_lib.tasks.embedded import fetch_data

    warm = fetch_model().parent
    fetch_data()
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        for entry in warm.iterdir():
            if entry.is_dir() and (trunks or entry.name != "trunks"):
                (cache / entry.name).symlink_to(entry, target_is_directory=True)
        os.environ |= {
            "W2S_CACHE": str(cache),
            "W2S_STORE": str(Path(folder) / "records"),
            "W2S_PUBLISHED": "0",
        }
        try:
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ.update(before)


def keep(name: str, result: dict[str, Any]) -> None:
    """Writes one benchmark's result into `book/benchmarks.json`, beside the others, with where and when it was measured."""
    from w2s_lib.models.machine import cpu_model
    from w2s_lib.training.execute import PACKAGES

    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    where = {
        "machine": cpu_model(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {package: version(package) for package in PACKAGES},
    }
    found[name] = where | result
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def matmul_rate(threads: int, hidden: int, wide: int, device: str) -> dict[str, float]:
    """Floating-point operations a second of a bf16 matrix product in the shape of a block's widest layer."""
    import torch

    torch.set_num_threads(threads)
    tokens = 1024 if device == "cpu" else 8192
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    a, b = (
        torch.randn(*shape, device=device).bfloat16()
        for shape in ((tokens, hidden), (hidden, wide))
    )
    best = float("inf")
    for _ in range(40):
        wait()
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        wait()
        best = min(best, (time.perf_counter() - started) / 10)
    return {"flops": 2 * tokens * hidden * wide / best}


def long_texts(folder: Path, n: int, length: int) -> Path:
    """A file of `n` texts of about `length` tokens each, words of `movie` in random order, with labels that mean nothing."""
    import numpy as np
    import pandas as pd

    import w2s_lib as w2s

    words = w2s.load_table(w2s.default_task("movie")).frame["text"].str.split().explode().to_numpy()
    rng = np.random.default_rng(length)
    texts = [" ".join(rng.choice(words, max(1, round((length - 3) / 1.35)))) for _ in range(n)]
    path = folder / f"long-{length}.csv"
    pd.DataFrame({"text": texts, "label": np.arange(n) % 2}).to_csv(path, index=False)
    return path


def block_flops(config: Any) -> float:
    """Floating-point operations to take one token through one Llama-like block, forward, attention's scores left out."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    weights = (
        config.hidden_size * head * heads + config.num_attention_heads * head * config.hidden_size
    )
    return 2.0 * (weights + 3 * config.hidden_size * config.intermediate_size)
