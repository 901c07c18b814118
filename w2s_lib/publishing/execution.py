"""Executing chapters, each by papermill in a kernel of its own.

One that nothing has changed for is left alone.

What comes out is scrubbed of timestamps, so that the same code on the same records gives the same
bytes.
"""

import json
import os
import re
import shutil
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from w2s_lib.figures.style import MIME
from w2s_lib.publishing import sources
from w2s_lib.publishing.chapters import BookError, Chapter, Job, state_of, train

Row = tuple[str, float | None, int, int]
"""Chapter, seconds (None: unchanged), runs read, runs trained."""
WIDGET = "application/vnd.jupyter.widget-view+json"
# A styled table has a random id, and Python's own description of it an address in memory.
STEADY = {
    "text/html": (r"\bT_[0-9a-f]{5}(?=[_ \"])", "T-{}"),
    "text/plain": (r" at 0x[0-9a-f]+>", ">"),
}


def execute(jobs: list[Job], *, workers: int | None) -> list[Row]:
    """Trains what is missing and executes what has changed, in parallel.

    Returns a row for every job.

    Raises:
        BookError: a chapter failed. No further one is started, and its partial notebook stays in
            `_build/partial`.
    """
    stale = [job for job in jobs if not is_current(job)]
    for job in stale:
        job.built(".state").unlink(missing_ok=True)
    trained = train(stale, store="user", workers=workers)
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        # The inputs as they are now, since a source may be edited meanwhile.
        running = [pool.submit(execute_one, job, job.inputs()) for job in stale]
        try:
            seconds = dict(future.result() for future in as_completed(running))
        except Exception:
            pool.shutdown(cancel_futures=True)
            raise
    rows: list[Row] = []
    for job in jobs:  # a run that several chapters share counts as trained for the first of them
        own = job.run_ids & trained
        trained -= own
        rows.append((job.name, seconds.get(job.name), len(job.run_ids - own), len(own)))
    return rows


def end_with_parent() -> None:
    """Ends this process when the one that started it has ended, however: its kernel ends with it."""

    def watch() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def is_current(job: Job) -> bool:
    """Whether the executed notebook is there, as it was made, from what is there now."""
    stamp = job.built(".state")
    return stamp.exists() and stamp.read_text().partition("\n")[0] == _stamp(job, job.inputs())


def _stamp(job: Job, inputs: str) -> str:
    return f"{inputs} {state_of([job.built('.ipynb')])}"


def execute_one(job: Job, inputs: str) -> tuple[str, float]:
    """Executes one notebook with a kernel of this interpreter.

    Returns its name, and the seconds it took.
    """
    import nbformat
    from papermill.execute import execute_notebook
    from traitlets.config import Config

    chapter, started = job.chapter, time.perf_counter()
    partial = job.built(".ipynb", "partial")
    for folder in (partial.parent, job.built("").parent):
        folder.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)  # of an earlier failure
    notebook = chapter.notebook()
    if job.banner:
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(job.banner))
    options = {"kernel_name": "python3", "cwd": chapter.source.parent, "coalesce_streams": True}
    options |= dict.fromkeys(("record_timing", "store_widget_state", "progress_bar"), False)
    options["shutdown_kernel"] = "immediate"
    options["extra_arguments"] = [f"--IPKernelApp.extra_extensions={sources.__name__}"]
    try:
        # By TCP, other users of the machine could listen. By default two kernels of one folder
        # would share their sockets.
        with tempfile.TemporaryDirectory(prefix="w2s-") as sockets:
            local = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
            notebook = execute_notebook(notebook, partial, job.parameters, config=local, **options)
    except Exception as error:
        why = failure(chapter, partial, error)
        raise BookError(f"{why}\nThe notebook up to there: {partial}") from None
    nbformat.write(scrub(notebook, chapter.name), job.built(".ipynb"))
    partial.unlink()
    seconds = time.perf_counter() - started
    job.built(".state").write_text(f"{_stamp(job, inputs)}\n{seconds:.1f}")
    print(f"{job.name}: executed in {seconds:.1f} s", flush=True)
    return job.name, seconds


def pair(jobs: list[Job], *, workers: int | None) -> None:
    """Puts executed notebooks beside their sources for JupyterLab.

    It pairs them by `book/jupytext.toml`.

    A notebook that is there is left as it is, unless its source was edited by other means since
    then.
    """
    absent = [job for job in jobs if _lacks_pair(job.chapter.source)]
    execute(absent, workers=workers)
    for job in absent:
        source = job.chapter.source
        shutil.copy(job.built(".ipynb"), source.with_suffix(".ipynb"))
        shutil.copystat(source, source.with_suffix(".ipynb"))  # jupytext compares their times


def _lacks_pair(source: Path) -> bool:
    target = source.with_suffix(".ipynb")
    return not target.exists() or target.stat().st_mtime < source.stat().st_mtime - 1


def failure(chapter: Chapter, partial: Path, error: Exception) -> str:
    """Which cell failed, by its number among the code cells and its first line; and why."""
    reason = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
    cells = json.loads(partial.read_text())["cells"] if partial.exists() else []
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    cells = [cell for cell in cells if cell["metadata"]["papermill"]["start_time"]]
    if not cells:
        return f"{chapter.name}: {reason}"
    first = "".join(cells[-1]["source"]).strip().splitlines()[0]
    return f"{chapter.name}: code cell {len(cells)} (`{first}`) failed: {reason}"


def scrub(notebook: Any, name: str) -> Any:
    """Takes out what differs from one execution to the next.

    Times, random ids, addresses in memory, progress widgets.
    """
    notebook.metadata.pop("papermill", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name.replace('/', '-')[:50]}-{number}"
        cell.metadata.pop("papermill", None)
        if "outputs" in cell:
            cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
            for output in cell.outputs:
                data = output.get("data", {})
                for kind in STEADY.keys() & data.keys():
                    pattern, steady = STEADY[kind]
                    data[kind] = re.sub(pattern, steady.format(cell.id), data[kind])
    sources.gather(notebook, MIME)
    return notebook
