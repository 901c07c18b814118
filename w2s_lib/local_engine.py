"""The engine of this machine: one run after the other in this process, or `workers` processes of one thread or one GPU each."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from .models import split_over
from .runner import execute, refuse_early
from .spec import RunSpec
from .store import discard_partial
from .train import TrainingError


def prepare(missing: dict[str, RunSpec], workers: int | None) -> int:
    """See `engines.Engine`: by default a process a core, or one a GPU where a run asks for CUDA."""
    refuse_early(missing.values())
    cuda = any(spec.device == "cuda" for spec in missing.values())
    slots = os.cpu_count() if not cuda else 1 if split_over() else len(gpus())
    return workers or slots or 1


def map_runs(missing: dict[str, RunSpec], slots: int, *, progress: bool = True) -> Iterator[str]:
    """See `engines.Engine`."""
    return in_workers(missing, slots) if slots > 1 else here(missing, progress=progress)


def here(missing: dict[str, RunSpec], *, progress: bool = True) -> Iterator[str]:
    """Trains one after the other, in this process."""
    for run_id, spec in missing.items():
        execute(spec, progress=progress)
        yield run_id


def in_workers(missing: dict[str, RunSpec], workers: int) -> Iterator[str]:
    """Trains in `workers` processes, in the order given, as far as teachers are there.

    Probes come last, the lower ones first: the states that one reads flow on to the next.
    """
    layer = {run_id: (spec.depth or math.inf) if spec.method == "probe" else 0 for run_id, spec in missing.items()}
    waiting, running = {run_id: missing[run_id] for run_id in sorted(missing, key=layer.__getitem__)}, dict[Future[str], str]()
    context = multiprocessing.get_context("spawn")
    turn = context.Value("i", 0)
    names = gpus() if any(spec.device == "cuda" for spec in missing.values()) else []
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=take_gpu, initargs=(turn, names))
    try:
        while waiting or running:
            unfinished = set(waiting) | set(running.values())
            ready = [i for i, s in waiting.items() if not any(step.run_id in unfinished for step in list(s.lineage())[:-1])]
            for run_id in ready[:workers - len(running)]:
                running[pool.submit(_work, waiting.pop(run_id).to_json())] = run_id
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                running.pop(future)
                yield future.result()
    except BaseException as error:
        processes = list((pool._processes or {}).values())
        for process in processes:  # a worker would finish its run first: minutes
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        for process in processes:
            discard_partial(process.pid)
        if isinstance(error, BrokenProcessPool):
            raise TrainingError("a worker process was killed, most likely for want of memory: set fewer workers than "
                                f"{workers}. What it was training has no record.") from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def gpus() -> list[str]:
    """The names of this process's GPUs, as `CUDA_VISIBLE_DEVICES` writes them."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or [str(number) for number in range(torch.cuda.device_count())])[:torch.cuda.device_count()]


def take_gpu(turn: Any, names: list[str]) -> None:
    """In a new process: takes the next of these GPUs for its own, from the first again after the last; of none, none."""
    with turn.get_lock():
        number, turn.value = turn.value, turn.value + 1
    if names:
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]


def _work(text: str) -> str:
    spec = RunSpec.from_json(text)
    execute(spec, progress=False)
    return spec.run_id
