"""`make test` and `make gpu-check`: every check of this repository, and the proof of the CUDA path.

python -m tests            # linter, format, import rules, types, all tests
python -m tests gpu-check  # on a box with a GPU: its tests, its benchmark, then records
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from w2s_lib.publishing.chapters import chapters

MODULE = [sys.executable, "-m"]
STEPS = [
    [*MODULE, "ruff", "check", "."],
    [*MODULE, "ruff", "format", "--check", "--quiet", "."],
    [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
    [*MODULE, "mypy"],
    [*MODULE, "pytest", "-n", "2", "--dist", "loadfile", "--max-worker-restart", "0"],
]
# In a chapter an import stands where it is first needed, and a last expression is there to be shown.
LINT = [*MODULE, "ruff", "check", "--quiet", "--ignore", "E402,E501,B018"]


def test() -> int:
    """Runs every check, all of them even where one fails."""
    failed = []
    for page in chapters(Path.cwd()):
        command = [*LINT, "--stdin-filename", f"book/{page.name}.py", "-"]
        if page.is_notebook and subprocess.run(command, input=page.script().encode()).returncode:
            failed.append(f"chapter {page.name}")
    failed += [" ".join(step) for step in STEPS if subprocess.call(step)]
    print("\n".join(["Failed:", *failed]) if failed else "Linter, types and tests passed.")
    return 1 if failed else 0


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


if __name__ == "__main__":
    sys.exit(gpu_check(sys.argv[2:]) if sys.argv[1:2] == ["gpu-check"] else test())
