"""Two hundred small runs in one notebook: memory stays flat, no file stays open, the output stays small."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import w2s_lib as w2s
from tests.conftest import Count, pinned
from w2s_lib.runs.spec import RunSpec, Task

pytestmark = pytest.mark.torture
REPO = Path(__file__).parents[2]
CELLS = """
import json, os, threading, time
from pathlib import Path
import psutil
import w2s_lib as w2s

me, store, seen = psutil.Process(), Path(os.environ["W2S_STORE"]), []
specs = [w2s.RunSpec.from_json(line) for line in open("specs")]

def watch():
    while True:
        seen.append((len(list(store.glob("*.parquet"))), me.memory_info().rss, me.num_fds()))
        time.sleep(0.2)

threading.Thread(target=watch, daemon=True).start()
---
runs = w2s.sweep(specs, workers=1)
runs
---
print(json.dumps(seen))
"""


@pytest.fixture
def specs(small_task: Task, tiny_models: Path) -> list[RunSpec]:
    """Under each seed a finetuned model, a student of it, a probe and a count of words."""
    brief = {"lora": w2s.Lora(rank=2, blocks=1), "recipe": w2s.Recipe(epochs=1)}
    own: dict[str, Any] = {"task": small_task, "precision": "fp32", "quantization": "none"}
    model, found = tiny_models / "llama", []
    for seed in range(50):
        own["seed"] = seed
        weak = {"half": "supervisor", "predict_halves": True}
        found.append(pinned(f"{model}@2", **own, **brief, **weak))
        found.append(pinned(model, **own, **brief, labels=w2s.FromRun(run=found[-1])))
        found.append(pinned(f"{model}@2", **own, method="probe"))
        found.append(w2s.supervisor("tfidf", small_task, seed=seed))
    return found


def test_many_runs_in_one_notebook(
    specs: list[RunSpec], own_store: Path, own_cache: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, record_property: Count,
) -> None:  # fmt: skip
    """Memory and files are those between runs: the medians over ten recorded runs, after 50 and at the end."""
    (tmp_path / "specs").write_text("\n".join(spec.to_json() for spec in specs))
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS.split("---\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=None, resources=where, coalesce_streams=True).execute()
    assert len(list(own_store.glob("*.parquet"))) == len(specs)
    shown = notebook.cells[1].outputs
    n_bytes = len(json.dumps(shown))
    record_property("runs in one notebook", len(specs))
    assert len(shown) <= 4 and n_bytes < 20_000, [str(output)[:200] for output in shown]
    seen = json.loads(notebook.cells[2].outputs[-1]["text"])
    early, late = (
        [row for row in seen if first <= row[0] < first + 10] for first in (50, len(specs) - 10)
    )
    (memory, files), (memory_late, files_late) = (
        (median(row[1] for row in rows), median(row[2] for row in rows)) for rows in (early, late)
    )
    print(f"memory {memory / 2**20:.1f} MiB after 50 runs, {memory_late / 2**20:.1f} at the end")
    print(f"open files {files} after 50 runs, {files_late} at the end")
    # A file that each run leaves open would be 140; the kernel's own come and go.
    assert abs(memory_late / memory - 1) < 0.05 and files_late < files + 5
