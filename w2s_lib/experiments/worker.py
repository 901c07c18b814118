"""A worker process of a sweep: `python -m w2s_lib.experiments.worker`, started by `local.py`.

It reads jobs from standard input and answers on standard output, one JSON line each. When its input
ends, its parent is gone, however it went, and the worker ends too.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback

from w2s_lib.models.machine import free_gpu
from w2s_lib.runs.folders import remove_parts
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import find, patiently, user_store, weights

Job = tuple[RunSpec, bool]
"""A run, and whether another one starts from its adapters."""

POLL_SECONDS = 1.0
"""How often a process looks whether another one has finished a run."""


def train(job: Job) -> bool:
    """Trains a run that has no record yet, once among all processes; says whether it was done here.

    A run that another process is training is waited for. Where that one dies, it is trained here.
    """
    waiting, (spec, _) = False, job
    while _missing(job):
        with user_store().claim(spec.run_id) as mine:
            if mine and (missing := _missing(job)):  # another process may just have finished it
                from w2s_lib.training.execute import execute  # loads torch

                free_gpu()  # of what a run that failed has left
                execute(spec)
                free_gpu()
            if mine:
                return missing
        if not waiting:
            print(f"w2s: waiting for another process that trains {spec.run_id}", file=sys.stderr)
        waiting = True
        time.sleep(POLL_SECONDS)
    return False


def _missing(job: Job) -> bool:
    spec, adapters = job
    return patiently(lambda: find(spec) is None or (adapters and weights(spec) is None))


def to_line(job: Job) -> str:
    """A job as one line of JSON."""
    return json.dumps([job[0].to_json(), job[1]]) + "\n"


def from_line(line: str) -> Job:
    """The inverse of `to_line`."""
    text, adapters = json.loads(line)
    return RunSpec.from_json(text), adapters


def main() -> None:
    """Trains what comes in, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the parent's to handle
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what any library prints is no reply
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        reply = {}
        try:
            train(from_line(jobs.get()))
        except Exception as error:
            traceback.print_exc()
            reply = {"error": type(error).__name__, "message": str(error)}
        if reply:
            free_gpu()  # here, where what an error holds is free: the GPU may be shared
        print(json.dumps(reply), file=replies, flush=True)


def _listen(jobs: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    remove_parts(user_store().folder, of=os.getpid())
    os._exit(1)


if __name__ == "__main__":
    main()
