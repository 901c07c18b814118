"""Where a rehearsal takes place: a hub with the profiles' models and tasks, and a copy of the checkout."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rehearsal.hub import Hub, serving
from tests.rehearsal.stock import MODELS, stock
from w2s_lib.models.embedded import fetch_model
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.embedded import fetch_data

ROOT = Path(__file__).parents[2]
N_ROWS = 180
"""Of a task, over all splits that it uses."""
SIZES = "SIZES={n_train: 24, n_validation: 20, n_test: 32}"
UNCLEAR = ("OTHER_TASK=movie", "MAX_RATING=0.6", "UNCLEAR=0.6")
"""Where the chapter on people is among them: of clearer texts raters err less than random models."""
OVERRIDES = ("SEEDS=0", "DEVICE=cpu", SIZES)
"""What is asked for in place of what the profiles ask for: parameters of the chapters, as a user gives them."""

EVERY_TASK = """
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.table import default_task, load_table, splits

for name in HUB_TASKS:
    splits(load_table(default_task(name, n_train=24, n_validation=20, n_test=32)), 0)
print("\\n", *HUB_TASKS)
"""
EXECUTE = """
import sys
from dataclasses import replace
from w2s_lib import __main__ as cli
from w2s_lib.publishing import execution

if __name__ == "__main__":
    jobs, workers = cli.take_jobs(cli.read_settings(sys.argv[1:]), runs=True)
    of_runs = [replace(job, variant=f" {n}") for n, job in enumerate(jobs) if job.specs]
    cli.print_table(execution.execute(of_runs, workers=workers))
"""


@dataclass(frozen=True)
class Stage:
    """A hub, a copy of the checkout, and the variables with which processes there find the hub."""

    hub: Hub
    root: Path
    environment: dict[str, str]

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Starts Python in the copy; what it prints is captured."""
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def told(self, *command: str) -> str:
        """What Python prints in the copy. Raises `RuntimeError` with it where the process fails."""
        process = self.start(*command)
        printed, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{printed}")
        return printed

    def load_tasks(self) -> list[str]:
        """Has every declared task loaded and split, in the copy; gives their names."""
        return self.told("-c", EVERY_TASK).splitlines()[-1].split()

    @property
    def records(self) -> dict[str, bytes]:
        """The user's store: name -> content."""
        files = sorted((self.root / ".w2s" / "records").glob("*.parquet"))
        return {file.stem: file.read_bytes() for file in files}


@contextlib.contextmanager
def stage(
    folder: Path, *, models: Iterable[str] = MODELS, tasks: Iterable[str] = HUB_TASKS
) -> Iterator[Stage]:
    """A stage in an empty folder, until the end of the block.

    Args:
        folder: for the copy, the hub's caches and ours; of ours, the embedded assets are there.
        models: names of the hub that are served.
        tasks: whose datasets are served.
    """
    root, cache = folder / "book of a rehearsal", folder / "cache"
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    for name in filter(None, names.split("\0")):
        if not name.startswith(("tests/", ".")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    cache.mkdir()
    for asset in (fetch_model(), fetch_data()):
        (cache / asset.name).symlink_to(asset, target_is_directory=True)
    with serving(stock(N_ROWS, models=models, tasks=tasks)) as hub:
        found = hub.environment(folder / "hf", token="hf_rehearsal")
        found = {name: value for name, value in found.items() if not name.startswith("W2S_")}
        paths = {"PYTHONPATH": str(root), "W2S_CACHE": str(cache), "TQDM_DISABLE": "1"}
        yield Stage(hub, root, found | paths)
