"""`make rehearsal`: the profiles for a hub and a GPU, on this CPU, with small random models.

Everything else is real: the clients, their requests, the names, the commands, the chapters, the
pages. It ends with what was loaded, trained and asked; with an error at the first step that fails.
"""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.common import keep
from tests.rehearsal.hub import Hub
from tests.rehearsal.stage import EXECUTE, OVERRIDES, ROOT, UNCLEAR, Stage, stage
from tests.rehearsal.stock import MODELS
from tests.rehearsal.test_faults import PARAMETERS
from w2s_lib.tasks.catalogue import HUB_TASKS

INTERRUPTED_AFTER = 3
"""Records that are there when the first run is interrupted."""


def main() -> int:
    """All steps, a line each."""
    started = time.monotonic()
    # A shell has what it starts in the background ignore it, and so what that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {what}", flush=True)

    with tempfile.TemporaryDirectory(prefix="w2s-rehearsal-") as folder:
        with stage(Path(folder)) as there:
            assert there.load_tasks() == list(HUB_TASKS)
            say(f"{len(HUB_TASKS)} tasks loaded by datasets")
            for profile in ("gpu-small", "gpu"):
                settings = (f"PROFILE={profile}", f"WORKERS={os.cpu_count()}", *OVERRIDES, *UNCLEAR)
                say(f"{profile}: plan\n{there.told('-m', 'w2s_lib', 'plan', *settings)}")
                n_before = len(there.records)
                say(f"{profile}: run, interrupted: {interrupted(there, settings)}")
                say(f"{profile}: run, resumed: {resumed(there, settings)}")
                n_trained = len(there.records) - n_before
                say(f"{profile}: {n_trained} runs; each chapter by papermill, in each set of runs")
                print(there.told("-c", EXECUTE, *settings))
            settings = ("PROFILE=gpu-small", f"WORKERS={os.cpu_count()}", *OVERRIDES, *UNCLEAR)
            there.told("-m", "w2s_lib", "book", *settings)
            assert (there.root / "_build" / "html" / "pgr.html").is_file()
            say("the book is built from these records")
            check_requests(there.hub)
            asked = collections.Counter(
                f"{r.origin} {r.method} {r.status}" for r in there.hub.asked
            )
            say(f"{len(there.hub.asked)} requests: {dict(asked)}")
            say(f"{len(MODELS)} models: {', '.join(MODELS)}")
            n_requests, n_runs = len(there.hub.asked), len(there.records)
    faults = ["pytest", "-m", "rehearsal or not rehearsal", "tests/rehearsal/test_faults.py"]
    code = subprocess.call([sys.executable, "-m", *faults], cwd=ROOT)
    say("faults of the hub: " + ("one failed" if code else "each survived, or said in a sentence"))
    done = {
        "tasks loaded by datasets, from Parquet": len(HUB_TASKS),
        "models loaded by transformers": len(MODELS),
        "runs of two profiles, each interrupted and resumed": n_runs,
        "requests": n_requests,
        "faults of the hub, for models, datasets and files": len(PARAMETERS),
    }
    if not code:
        rows = [{"what": what, "n": n} for what, n in done.items()]
        keep("rehearsal", {"seconds": time.monotonic() - started, "rows": rows})
    return code


def interrupted(there: Stage, settings: tuple[str, ...]) -> str:
    """Starts the runs and stops them, as Ctrl-C does, when some have been recorded."""
    before = len(there.records)
    process = there.start("-m", "w2s_lib", "run", *settings)
    while process.poll() is None and len(there.records) < before + INTERRUPTED_AFTER:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate()
    if process.returncode != 130:
        raise RuntimeError(f"interrupted, it ended with {process.returncode}:\n{printed}")
    return f"{len(there.records) - before} records"


def resumed(there: Stage, settings: tuple[str, ...]) -> str:
    """Starts them again; what was recorded stays as it was, and in the end nothing is missing."""
    before = there.records
    there.told("-m", "w2s_lib", "run", *settings)
    after = there.records
    assert before.items() <= after.items(), "a record was trained again"
    n_asked = len(there.hub.asked)
    assert "Nothing to train" in there.told("-m", "w2s_lib", "plan", *settings)
    assert len(there.hub.asked) == n_asked, "a plan asked the hub"
    return f"{len(after) - len(before)} more"


def check_requests(hub: Hub) -> None:
    """Every model was loaded, large files came from the storage, and the token stayed at the hub."""
    told = {
        origin: {r.token for r in hub.asked if r.origin == origin} for origin in ("hub", "storage")
    }
    assert told == {"hub": {"Bearer hf_rehearsal"}, "storage": {""}}, told
    for name in MODELS:
        path = f"/models/{name}/model.safetensors"
        assert any(r.path.startswith(path) for r in hub.asked if r.origin == "storage"), path


if __name__ == "__main__":
    sys.exit(main())
