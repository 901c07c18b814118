"""Trains on this machine: in this process, or in worker processes with a core or a GPU each."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from w2s_lib.experiments.worker import Job, to_line, train
from w2s_lib.runs import errors
from w2s_lib.runs.errors import OutOfMemory, RunError, StoreUnavailable, TrainingError
from w2s_lib.runs.folders import remove_parts
from w2s_lib.runs.record import Record
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import user_store
from w2s_lib.training.execute import refuse_early

Outcome = tuple[str, RunError | None]
"""A job's name, and why it failed."""

Share = Callable[[RunSpec], float]
"""Of a GPU's memory, what a run takes."""

HEAD_ROOM, CONTEXT_BYTES = 1.2, 2**30
"""For what an allocator keeps beside what is in use; for CUDA itself, in each process."""


def prepare(missing: dict[str, RunSpec], workers: int | None) -> int:
    """Refuses what cannot be trained here; says how many runs are trained at once.

    Args:
        missing: id -> what will be trained.
        workers: None for one a core, or one a GPU where a run asks for CUDA.
    """
    refuse_early(missing.values())
    cuda = any(spec.device == "cuda" for spec in missing.values())
    # Of a machine's cores those that are ours: a cluster's scheduler gives a job some of them.
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return workers or (len(gpus()) if cuda else own) or 1


def train_jobs(jobs: dict[str, Job], slots: int, share: Share) -> Iterator[Outcome]:
    """Trains jobs, at most `slots` at once, each after its teachers.

    Jobs that need one that failed are left out. One that runs out of memory beside others on its
    GPU is tried again alone.

    Args:
        jobs: id -> what is trained, teachers first.
        slots: more than one are processes of their own.
        share: see `gpu_share`.

    Yields:
        The name of each job that has ended. Its error where it raised a `TrainingError` or where
        its worker died: that concerns this job alone.

    Raises:
        StoreUnavailable: no further job is begun; those at work have ended.
        SpecError, DeviceError, AssetError, StoreError: any other job would meet that as well, so
            all are stopped.
    """
    return _in_workers(jobs, slots, share) if slots > 1 else _in_this_process(jobs)


def _in_this_process(jobs: dict[str, Job]) -> Iterator[Outcome]:
    needed, done = _needed(jobs), set[str]()
    for name, job in jobs.items():
        if needed[name] <= done:
            try:
                train(job)
            except TrainingError as error:
                yield name, error
            else:
                done.add(name)
                yield name, None


class Packing:
    """Who may start on which GPU: runs that share one take no more memory than it has.

    Attributes:
        alone: jobs that ran out of memory beside others: each gets a GPU of its own.
    """

    def __init__(self, n_gpus: int, share: Share) -> None:
        self.share = share
        self.alone: set[str] = set()
        self._taken: list[dict[str, float]] = [{} for _ in range(n_gpus)]

    def start(self, gpu: int, name: str, spec: RunSpec) -> bool:
        """Whether a job fits on a GPU now. Where it does, its share is taken until `end`."""
        taken, needed = self._taken[gpu], 1.0 if name in self.alone else self.share(spec)
        fits = not taken or sum(taken.values()) + needed <= 1
        if fits:
            taken[name] = needed
        return fits

    def end(self, gpu: int, name: str) -> float:
        """Gives back the share that a job had, and says how large it was."""
        return self._taken[gpu].pop(name)


def _in_workers(jobs: dict[str, Job], n_workers: int, share: Share) -> Iterator[Outcome]:
    needed, done = _needed(jobs), set[str]()
    waiting = dict(sorted(jobs.items(), key=lambda item: _order(item[1][0])))
    cuda = any(spec.device == "cuda" for spec, _ in jobs.values())
    devices: list[str | None] = [*gpus()] if cuda else [None]
    events: Events = queue.SimpleQueue()
    packing = Packing(len(devices), share)
    workers: list[Worker | None] = [None] * n_workers
    n_killed = killed_for_memory()
    away: StoreUnavailable | None = None
    try:
        while True:
            ready = [name for name in waiting if needed[name] <= done]
            for number, worker in enumerate(workers):
                if worker and worker.job or not ready:
                    continue
                if packing.start(gpu := number % len(devices), name := ready[0], jobs[name][0]):
                    worker = workers[number] = worker or Worker(devices[gpu], events)
                    worker.send(ready.pop(0), waiting.pop(name))
            if not any(worker and worker.job for worker in workers):
                if away:
                    raise away
                return  # all are done, or what still waits needs a job that failed
            worker, reply = events.get()
            name, worker.job = worker.job, ""
            number = workers.index(worker)
            taken = packing.end(number % len(devices), name) if name else 0
            if reply is None:
                workers[number] = None
                n_before, n_killed = n_killed, killed_for_memory()
                if name:
                    yield name, TrainingError(worker.epitaph(name, memory=n_killed > n_before))
            elif not reply:
                done.add(name)
                yield name, None
            else:
                error = getattr(errors, reply["error"], RuntimeError)(reply["message"])
                if isinstance(error, StoreUnavailable):  # no other is begun; those at work may end
                    away, waiting = error, {}
                elif not isinstance(error, TrainingError):
                    raise error
                elif isinstance(error, OutOfMemory) and 0 < taken < 1:
                    print(f"w2s: {name} is tried again alone on its GPU: {error}", file=sys.stderr)
                    packing.alone.add(name)
                    waiting = {name: jobs[name]} | waiting
                else:
                    yield name, error
    finally:
        for worker in filter(None, workers):
            worker.stop()


class Worker:
    """A worker process, and two threads that listen to it.

    Attributes:
        job: the name of what it is training; "" while it is idle.
    """

    def __init__(self, device: str | None, events: Events) -> None:
        self.job = ""
        self.last_line = ""
        paths = [path or os.getcwd() for path in sys.path]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TQDM_DISABLE": "1"}
        if device:
            environment["CUDA_VISIBLE_DEVICES"] = device
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "w2s_lib.experiments.worker"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        self.echo = threading.Thread(target=self._echo, daemon=True)
        self.echo.start()
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def send(self, name: str, job: Job) -> None:
        """Gives it a job. Where it has died, `events` tells."""
        self.job = name
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(to_line(job))
            self.process.stdin.flush()

    def stop(self) -> None:
        """Ends it at once, and removes what it has left half-written."""
        self.process.kill()
        self.process.wait()
        remove_parts(user_store().folder)

    def epitaph(self, name: str, *, memory: bool) -> str:
        """What is known of its death.

        Args:
            name: the run that it was training.
            memory: whether the kernel has killed a process for want of memory.
        """
        remove_parts(user_store().folder)
        code = self.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        why = " for want of memory: set fewer workers" if memory and code == -signal.SIGKILL else ""
        said = f" Its last line was: {self.last_line}" if self.last_line else ""
        return f"run {name} has no record: its worker process {how}{why}.{said}"

    def _listen(self, events: Events) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.endswith("\n"):  # else it died while it replied
                events.put((self, json.loads(line)))
        self.process.wait()
        self.echo.join(timeout=5)
        events.put((self, None))

    def _echo(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            sys.stderr.write(line)
            self.last_line = line.strip() or self.last_line


Events = queue.SimpleQueue[tuple[Worker, dict[str, str] | None]]
"""Replies of workers: {} for a job done, type and message of an error, None for a death."""


def gpus() -> list[str]:
    """The names of this process's GPUs, as `CUDA_VISIBLE_DEVICES` writes them."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    return (named or [str(number) for number in range(count)])[:count]


def gpu_share(spec: RunSpec, records: Iterable[Record]) -> float:
    """Of a GPU's memory, what a run takes: as much as recorded runs like it took, with head room.

    Args:
        spec: the run.
        records: those known. They count for GPUs like the one that they were made on.

    Returns:
        Above 0, at most 1. It is 1 where no run like it was measured on a GPU, and 0 on a CPU.
    """
    if spec.device == "cpu":
        return 0.0
    made = [record.provenance for record in records if _takes(record.spec) == _takes(spec)]
    shares = [
        (HEAD_ROOM * one["peak_memory_bytes"] + CONTEXT_BYTES) / one["device_memory_bytes"]
        for one in made
        if "device_memory_bytes" in one
    ]
    return min(max(shares, default=1.0), 1.0)


def _takes(spec: RunSpec) -> tuple[object, ...]:
    """What the memory of a run depends on."""
    model = spec.kind, spec.model, spec.revision, spec.quantization, spec.precision, spec.device
    return *model, spec.lora, spec.recipe.batch_size, spec.task


def killed_for_memory() -> int:
    """Processes of this control group that the kernel has killed for want of memory, if known."""
    with contextlib.suppress(OSError):
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        for group in (line.removeprefix("0::") for line in groups if line.startswith("0::")):
            events = Path(f"/sys/fs/cgroup{group}/memory.events").read_text().split()
            return int(dict(zip(events[::2], events[1::2], strict=True))["oom_kill"])
    return 0


def _needed(jobs: dict[str, Job]) -> dict[str, set[str]]:
    """Each job's teachers among the runs of all jobs."""
    return {
        name: jobs.keys() & {parent.run_id for parent in spec.parents()}
        for name, (spec, _) in jobs.items()
    }


def _order(spec: RunSpec) -> tuple[int, float]:
    """What reads the untouched model's states first, finetuned ones' last, from the lowest block up.

    A trunk goes on from the states that a lower one has kept: so each block is computed once.
    """
    if spec.kind not in ("probe", "method"):
        return 0, 0
    return (1 if spec.continued else -1), spec.depth or math.inf
