"""A worker process of a sweep: `python -m w2s_lib.experiments.worker`, started by `local.py`.

It reads jobs from standard input and answers on standard output, one JSON line each. When its input
ends, its parent is gone, however it went, and the worker ends too.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback

from w2s_lib.runs.folders import remove_parts
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import claim, find, user_store, weights

Job = dict[RunSpec, bool]
"""Runs that share one training -> whether another run starts from their adapters."""

POLL_SECONDS = 1.0
"""How often a process looks whether another one has finished a run."""


def train(job: Job) -> set[str]:
    """Trains the runs of a job that have no record yet, each once among all processes.

    A run that another process is training is waited for. Where that one dies, it is trained here.

    Returns:
        The ids of the runs that were trained here.
    """
    waiting = False
    while missing := _missing(job):
        with contextlib.ExitStack() as claims:
            ids = sorted(spec.run_id for spec in missing)
            if all(claims.enter_context(claim(run_id)) for run_id in ids):
                missing = _missing(job)  # another process may just have finished them
                if missing:
                    from w2s_lib.training.execute import execute  # loads torch

                    execute(*missing)
                return {spec.run_id for spec in missing}
        if not waiting:
            print(f"w2s: waiting for another process that trains {', '.join(ids)}", file=sys.stderr)
        waiting = True
        time.sleep(POLL_SECONDS)
    return set()


def _missing(job: Job) -> list[RunSpec]:
    return [
        spec
        for spec, adapters in job.items()
        if find(spec) is None or (adapters and weights(spec) is None)
    ]


def to_line(job: Job) -> str:
    """A job as one line of JSON."""
    return json.dumps({spec.to_json(): adapters for spec, adapters in job.items()}) + "\n"


def from_line(line: str) -> Job:
    """The inverse of `to_line`."""
    return {RunSpec.from_json(text): adapters for text, adapters in json.loads(line).items()}


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
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _listen(jobs: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    remove_parts(user_store().folder, of=os.getpid())
    os._exit(1)


if __name__ == "__main__":
    main()
