"""The engine of this machine: one run after the other in this process, or `workers` processes with a core or a GPU each."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from w2s_lib.runs.errors import TrainingError
from w2s_lib.runs.spec import Continue, RunSpec
from w2s_lib.runs.store import discard_partial
from w2s_lib.training.execute import Training, execute, refuse_early


def prepare(missing: dict[str, RunSpec], workers: int | None) -> int:
    """See `engines.Engine`: by default a process for every core, or one a GPU where a run asks for CUDA."""
    refuse_early(missing.values())
    cuda = any(spec.device == "cuda" for spec in missing.values())
    slots = len(gpus()) if cuda else os.cpu_count()
    return workers or slots or 1


def map_trainings(todo: dict[str, Training], slots: int, *, progress: bool = True) -> Iterator[str]:
    """See `engines.Engine`."""
    return in_workers(todo, slots) if slots > 1 else here(todo, progress=progress)


def here(todo: dict[str, Training], *, progress: bool = True) -> Iterator[str]:
    """Trains one after the other, in this process."""
    for key, runs in todo.items():
        execute(*runs)
        yield key


def in_workers(todo: dict[str, Training], workers: int) -> Iterator[str]:
    """Trains in `workers` processes, in the order given, as far as teachers are there.

    Probes of the untouched model come first and those of finetuned ones last, in both cases the lower ones first: the states
    that one reads flow on to the next, and to the trunks of all other runs, so that each block is computed once.
    """
    waiting, running = (
        dict(sorted(todo.items(), key=lambda item: _turn(item[1][0]))),
        dict[Future[None], str](),
    )
    context = multiprocessing.get_context("spawn")
    turn = context.Value("i", 0)
    names = gpus() if any(spec.device == "cuda" for spec, *_ in todo.values()) else []
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=take_gpu, initargs=(turn, names)
    )
    try:
        while waiting or running:
            unfinished = {
                spec.run_id for key in (*waiting, *running.values()) for spec in todo[key]
            }
            ready = [
                key
                for key, (spec, *_) in waiting.items()
                if not any(step.run_id in unfinished for step in list(spec.lineage())[:-1])
            ]
            for key in ready[: workers - len(running)]:
                running[pool.submit(_work, [spec.to_json() for spec in waiting.pop(key)])] = key
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                yield running.pop(future)
    except BaseException as error:
        processes = list((pool._processes or {}).values())
        for process in processes:  # a worker would finish its run first: minutes
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        for process in processes:
            discard_partial(process.pid)
        if isinstance(error, BrokenProcessPool):
            raise TrainingError(
                "a worker process was killed, most likely for want of memory: set fewer workers than "
                f"{workers}. What it was training has no record."
            ) from error
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def gpus() -> list[str]:
    """The names of this process's GPUs, as `CUDA_VISIBLE_DEVICES` writes them."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or [str(number) for number in range(torch.cuda.device_count())])[
        : torch.cuda.device_count()
    ]


def take_gpu(turn: Any, names: list[str]) -> None:
    """In a new process: takes the next of these GPUs for its own, from the first again after the last; of none, none."""
    with turn.get_lock():
        number, turn.value = turn.value, turn.value + 1
    if names:
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]


def _turn(spec: RunSpec) -> tuple[int, float]:
    if spec.method != "probe":
        return 0, 0
    return (1 if isinstance(spec.start, Continue) else -1), spec.depth or math.inf


def _work(texts: list[str]) -> None:
    execute(*map(RunSpec.from_json, texts))
