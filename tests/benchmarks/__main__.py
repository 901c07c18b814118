"""Measures speed and memory into `book/benchmarks.json`, which the book's page on performance shows.

    python -m tests.benchmarks                 # all: about an hour on two idle cores
    python -m tests.benchmarks growth student  # some
"""

from __future__ import annotations

import sys

from . import growth, student, sweep
from .common import keep

PARTS = {"student": student, "sweep": sweep, "growth": growth}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        print(f"{name} ...", flush=True)
        keep(name, PARTS[name].measure())
