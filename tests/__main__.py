"""Every check, sketches, the rehearsal of the hub, faults, the proof of the CUDA path.

python -m tests            # linter, format, import rules, types, all tests but those in a browser
python -m tests browser    # the built book in a browser, which has to be there
python -m tests try        # each chapter as a sketch, and with each knob of "What to tweak" turned
python -m tests rehearsal  # the profiles for a hub and a GPU, on this CPU, from a hub on this machine
python -m tests torture    # kills, races and full disks, all of them (an hour or so)
python -m tests gpu-check  # on a box with a GPU: its tests, its benchmark, then records
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.chapter_text import Listed, knobs, script
from w2s_lib import __main__ as cli
from w2s_lib.publishing.chapters import Chapter, Job, chapters, load_profile, resolve

MODULE = [sys.executable, "-m"]
SPREAD = "--dist loadgroup --no-loadscope-reorder --max-worker-restart 0".split()
CHECKS = [
    [*MODULE, "ruff", "check", "."],
    [*MODULE, "ruff", "format", "--check", "--quiet", "."],
    [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
    [*MODULE, "mypy"],
    [*MODULE, "codespell_lib", "README.md", "book", "tests", "w2s_lib"],
]
TORTURE = [
    "tests/experiments/test_torture.py",
    "tests/experiments/test_workers.py",
    "tests/experiments/test_ray.py",
    "tests/experiments/test_many.py",
    "tests/experiments/test_endurance.py",
    "tests/rehearsal/test_cluster.py",
    "tests/publishing/test_audit.py",
    "tests/models/test_embedded_files.py",
    "tests/publishing/test_execution.py",
]
# In a chapter an import stands where it is first needed, and a last expression is there to be shown.
LINT = [*MODULE, "ruff", "check", "--quiet", "--ignore", "E402,E501,B018"]


def test() -> int:
    """Runs every check, all of them even where one fails; the tests, which wait a lot, beside them."""
    failed, suite = [], [*MODULE, "pytest", "-n", "2", *SPREAD, "--ignore", "tests/browser"]
    with subprocess.Popen(suite) as tests:
        for page in chapters(Path.cwd()):
            command = [*LINT, "--stdin-filename", f"book/{page.name}.py", "-"]
            if page.is_notebook and subprocess.run(command, input=script(page).encode()).returncode:
                failed.append(f"chapter {page.name}")
        failed += [" ".join(step) for step in CHECKS if subprocess.call(step)]
    failed += [" ".join(suite)] if tests.returncode else []
    print("\n".join(["Failed:", *failed]) if failed else "Linter, types and tests passed.")
    return 1 if failed else 0


def browser(settings: list[str]) -> int:
    """Opens every page; where there is no browser or no built book, it fails."""
    os.environ["W2S_REQUIRE_BROWSER"] = "1"
    return subprocess.call([*MODULE, "pytest", "-n", "2", *SPREAD, "tests/browser", *settings])


def tried(options: cli.Options) -> tuple[list[Job], int | None]:
    """Chapters with the profile `quick`: as it is, and with their knobs turned; how many may train.

    Without a knob, a chapter of which the profile changes nothing is what `make book` executes. Where
    a chapter lists a method for its reader to enter, that is run as well.
    """
    options = {"profile": "quick"} | options
    profile = str(options["profile"])
    sketch = load_profile(Path.cwd(), profile)
    jobs, workers = cli.take_jobs(options)
    found = [replace(job, variant=f" {profile}") for job in jobs if job.parameters]
    for job in jobs:
        if "\n```python\n@w2s.method\n" in job.chapter.text:
            listed = Listed(job.chapter.name, job.chapter.root)
            found.append(replace(job, chapter=listed, variant=f" {profile} with listings"))
        for together in turned(job.chapter):
            given = cli.read_settings(together)
            if "sizes" in given:  # the other sizes stay a sketch's
                given["sizes"] = sketch.get("sizes", {}) | given["sizes"]
            (changed,) = resolve([job.chapter], profile=profile, overrides=given)
            # As the name of a file, whose braces papermill would fill in.
            words = re.sub(r"[^\w=.,@-]+", " ", f" {profile} {together}")
            found.append(replace(changed, variant=words.rstrip()))
    return found, workers


def turned(chapter: Chapter) -> list[str]:
    """A chapter's knobs in as few rounds as can turn each of them once."""
    rounds: list[dict[str, str]] = []
    for knob in knobs(chapter):
        name = knob.partition("=")[0]
        free = next((one for one in rounds if name not in one), None)
        if free is None:
            rounds.append(free := {})
        free[name] = knob
    return [" ".join(one.values()) for one in rounds]


def try_out(settings: list[str]) -> int:
    """Executes what is tried."""
    from w2s_lib.publishing import execution

    jobs, workers = tried(cli.read_settings(settings))
    with cli.alone():
        cli.print_table(execution.execute(jobs, workers=workers))
    return 0


def rehearse(settings: list[str]) -> int:
    """Rehearses what needs a hub and a GPU."""
    if settings:
        print(f"error: the rehearsal has no settings: {' '.join(settings)}", file=sys.stderr)
        return 2
    return subprocess.call([*MODULE, "tests.rehearsal"])


def gpu_check(settings: list[str]) -> int:
    """Stops at the first step that fails; the last one resumes where it stopped."""
    import torch

    if not torch.cuda.is_available():
        print("error: gpu-check needs a CUDA device, and torch sees none", file=sys.stderr)
        return 1
    records = ["w2s_lib", "records", "PROFILE=gpu-embedded", "CHAPTERS=pgr", *settings]
    tests = ["pytest", "-m", "gpu", "tests/training/test_gpu.py"]
    for step in (tests, ["tests.benchmarks", "gpu"], records):
        if code := subprocess.call([*MODULE, *step]):
            return code
    return 0


def torture(settings: list[str]) -> int:
    """Kills, races, full disks, many runs, a cluster: all; `make test` draws a sample. Not while records train."""
    os.environ["W2S_TORTURE"] = "all"
    options = ["-p", "tests.counts", "--keep-counts", "torture", "-m", "", "--timeout", "7200"]
    return subprocess.call([*MODULE, "pytest", *options, *TORTURE, *settings])


if __name__ == "__main__":
    verb, *settings = sys.argv[1:] or ["test"]
    named = {
        "browser": browser,
        "try": try_out,
        "rehearsal": rehearse,
        "torture": torture,
        "gpu-check": gpu_check,
    }
    sys.exit(named[verb](settings) if verb in named else test())
