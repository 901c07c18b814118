"""Measures speed and memory into `book/benchmarks.json`, which the book's page on performance shows.

python -m tests.benchmarks                 # all: about an hour on two idle cores
python -m tests.benchmarks growth student  # some
python -m tests.benchmarks gpu             # needs a CUDA device; only when it is asked for
"""

from __future__ import annotations

import sys

from tests.benchmarks import gpu, growth, overhead, student, sweep

from .common import keep

PARTS = {"student": student, "sweep": sweep, "growth": growth, "overhead": overhead, "gpu": gpu}

if __name__ == "__main__":
    for name in sys.argv[1:] or [part for part in PARTS if part != "gpu"]:
        print(f"{name} ...", flush=True)
        keep(name, PARTS[name].measure())
