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
from collections.abc import Iterator
from pathlib import Path

from w2s_lib.experiments.worker import Job, to_line, train
from w2s_lib.runs import errors
from w2s_lib.runs.errors import TrainingError
from w2s_lib.runs.folders import remove_parts
from w2s_lib.runs.spec import Continue, RunSpec
from w2s_lib.runs.store import user_store
from w2s_lib.training.execute import refuse_early

Outcome = tuple[str, TrainingError | None]
"""A job's name, and why it failed."""


def prepare(missing: dict[str, RunSpec], workers: int | None) -> int:
    """Refuses what cannot be trained here; says how many runs are trained at once.

    Args:
        missing: id -> what will be trained.
        workers: None for one a core, or one a GPU where a run asks for CUDA.
    """
    refuse_early(missing.values())
    cuda = any(spec.device == "cuda" for spec in missing.values())
    return workers or (len(gpus()) if cuda else os.cpu_count()) or 1


def train_jobs(jobs: dict[str, Job], slots: int) -> Iterator[Outcome]:
    """Trains jobs, at most `slots` at once, each after its teachers.

    Jobs that need one that failed are left out.

    Args:
        jobs: id -> what is trained, teachers first.
        slots: more than one are processes of their own.

    Yields:
        The name of each job that has ended. Its error where it raised a `TrainingError` or where
        its worker died: that concerns this job alone.

    Raises:
        SpecError, DeviceError, AssetError, StoreError: any other job would meet that as well, so
            all are stopped.
    """
    return _in_workers(jobs, slots) if slots > 1 else _in_this_process(jobs)


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


def _in_workers(jobs: dict[str, Job], n_workers: int) -> Iterator[Outcome]:
    needed, done = _needed(jobs), set[str]()
    waiting = dict(sorted(jobs.items(), key=lambda item: _order(item[1][0])))
    cuda = any(spec.device == "cuda" for spec, _ in jobs.values())
    devices = gpus() if cuda else []
    events: Events = queue.SimpleQueue()
    workers: list[Worker | None] = [None] * n_workers
    n_killed = killed_for_memory()
    try:
        while True:
            ready = [name for name in waiting if needed[name] <= done]
            for number, worker in enumerate(workers):
                if ready and not (worker and worker.job):
                    device = devices[number % len(devices)] if devices else None
                    worker = workers[number] = worker or Worker(device, events)
                    worker.send(name := ready.pop(0), waiting.pop(name))
            if not any(worker and worker.job for worker in workers):
                return  # all are done, or what still waits needs a job that failed
            worker, reply = events.get()
            name, worker.job = worker.job, ""
            if reply is None:
                workers[workers.index(worker)] = None
                n_before, n_killed = n_killed, killed_for_memory()
                if name:
                    yield name, TrainingError(worker.epitaph(name, memory=n_killed > n_before))
            elif not reply:
                done.add(name)
                yield name, None
            else:
                error = getattr(errors, reply["error"], RuntimeError)(reply["message"])
                if not isinstance(error, TrainingError):
                    raise error
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
    """Probes of the untouched model first, of finetuned ones last, both from the lowest block up.

    A trunk goes on from the states that a lower one has kept: so each block is computed once.
    """
    if spec.method != "probe":
        return 0, 0
    return (1 if isinstance(spec.start, Continue) else -1), spec.depth or math.inf
