"""The book itself: execute the chapters, lay them out as a Sphinx source tree, build the pages, verify and serve them.

Each chapter is executed by papermill in a process of its own and scrubbed of timestamps, so that the same code on the
same records gives the same bytes; one that nothing has changed for is left alone.
"""

from __future__ import annotations

import functools
import hashlib
import html as html_text
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from w2s_lib.figures.style import MIME
from w2s_lib.publishing.chapters import BookError, Chapter, Job, Row, digest, train

TABLES = ("runs.csv", "runs.parquet", "predictions.parquet")
WIDGET = "application/vnd.jupyter.widget-view+json"
# A styled table has a random id, and Python's own description of it an address in memory.
STEADY = {
    "text/html": (r"\bT_[0-9a-f]{5}(?=[_ \"])", "T-{}"),
    "text/plain": (r" at 0x[0-9a-f]+>", ">"),
}
NOT_PAGES = shutil.ignore_patterns(
    "results", "profiles", "_ext", "constraints.txt", ".*", "__pycache__"
)


def execute(jobs: list[Job], *, workers: int | None) -> list[Row]:
    """Trains what is missing and executes what has changed, in parallel; returns a row for every chapter.

    Pages that gather what the others report come in a second round, when all others have been executed.

    Raises:
        BookError: a chapter failed. No further one is started, and its partial notebook stays in `_build/partial`.
    """
    seconds: dict[Chapter, float] = {}
    for gathers in (False, True):
        seconds |= execute_stale(
            [job for job in jobs if job.chapter.gathers == gathers], workers=workers
        )
    return [job.row(seconds.get(job.chapter)) for job in jobs]


def execute_stale(jobs: list[Job], *, workers: int | None) -> dict[Chapter, float]:
    """One round of `execute`: the seconds of the chapters that were not as they were."""
    stamps = {job.chapter: job.chapter.built(".state") for job in jobs}
    stale = [
        job
        for job in jobs
        if not (s := stamps[job.chapter]).exists() or s.read_text() != job.state()
    ]
    for job in stale:
        job.chapter.built("").parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".jsonl", ".report.json", ".state"):
            job.chapter.built(suffix).unlink(missing_ok=True)
    train(stale, store="user", workers=workers)
    seconds: dict[Chapter, float] = {}
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        running = {pool.submit(execute_one, job): job for job in stale}
        for future in as_completed(running):
            job = running[future]
            if error := future.exception():
                for other in running:
                    other.cancel()
                raise error
            seconds[job.chapter] = future.result()
            stamps[job.chapter].write_text(job.state())
            print(f"{job.chapter.name}: executed in {seconds[job.chapter]:.1f} s", flush=True)
    return seconds


def execute_one(job: Job) -> float:
    """Executes one notebook with this interpreter's kernel, in a process of its own; returns the seconds it took."""
    import nbformat
    from papermill.execute import execute_notebook
    from traitlets.config import Config

    os.environ.update(job.environment())
    chapter, started = job.chapter, time.perf_counter()
    partial = chapter.built(".ipynb", "partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    steady = {
        "coalesce_streams": True,
        "record_timing": False,
        "store_widget_state": False,
        "progress_bar": False,
    }
    options = {
        "kernel_name": "python3",
        "cwd": chapter.source.parent,
        "shutdown_kernel": "immediate",
    }
    try:
        # By TCP, other users of the machine could listen. By default two kernels of one folder would share their sockets.
        with tempfile.TemporaryDirectory(prefix="w2s-") as sockets:
            local = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
            notebook = execute_notebook(
                chapter.notebook(), partial, job.parameters, config=local, **options, **steady
            )
    except Exception as error:
        raise BookError(
            f"{failure(chapter, partial, error)}\nThe notebook up to there: {partial}"
        ) from None
    nbformat.write(scrub(notebook, chapter.name), chapter.built(".ipynb"))
    partial.unlink()
    return time.perf_counter() - started


def failure(chapter: Chapter, partial: Path, error: Exception) -> str:
    """Which cell failed, the last that was started, by its number among the code cells and its first line; and why."""
    reason = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
    cells = json.loads(partial.read_text())["cells"] if partial.exists() else []
    cells = [
        cell
        for cell in cells
        if cell["cell_type"] == "code" and cell["metadata"]["papermill"]["start_time"]
    ]
    if not cells:
        return f"{chapter.name}: {reason}"
    first = "".join(cells[-1]["source"]).strip().splitlines()[0]
    return f"{chapter.name}: code cell {len(cells)} (`{first}`) failed: {reason}"


def scrub(notebook: Any, name: str) -> Any:
    """Takes out what differs from one execution to the next: times, random ids, addresses in memory, progress widgets."""
    notebook.metadata.pop("papermill", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name.replace('/', '-')[:50]}-{number}"
        cell.metadata.pop("papermill", None)
        if "outputs" in cell:
            cell.outputs = [
                output for output in cell.outputs if WIDGET not in output.get("data", {})
            ]
            for output in cell.outputs:
                data = output.get("data", {})
                for kind in STEADY.keys() & data.keys():
                    pattern, steady = STEADY[kind]
                    data[kind] = re.sub(pattern, steady.format(cell.id), data[kind])
    return notebook


def assemble(pages: list[Chapter]) -> Path:
    """Copies `book/` to `_build/src`, each notebook replaced by its executed self."""
    root = pages[0].root
    target = root / "_build" / "src"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "book", target, ignore=NOT_PAGES)
    for page in pages:
        if page.is_notebook:
            (target / f"{page.name}.md").unlink()
            shutil.copy(page.built(".ipynb"), target / f"{page.name}.ipynb")
    (target / "_static").mkdir(exist_ok=True)
    for table in tables(root):
        shutil.copy(table, target / "_static")
    return target


def tables(root: Path) -> list[Path]:
    """All published records as one CSV and two Parquet files, made anew when a record or the library has changed."""
    results, made = root / "book" / "results", root / "_build" / "published"
    library, records = (
        sorted(Path(__file__).parents[1].rglob("*.py")),
        sorted(results.glob("*.parquet")),
    )
    inputs = digest(
        *(part for file in [*library, *records] for part in (file.name.encode(), file.read_bytes()))
    )
    stamp = made / "state"
    if not stamp.exists() or stamp.read_text() != inputs:
        from w2s_lib.publishing.tables import write_tables

        stamp.unlink(missing_ok=True)
        try:
            write_tables(results, made)
        except RuntimeError as error:
            raise BookError(f"The published records cannot be listed: {error}") from error
        stamp.write_text(inputs)
    return [made / name for name in TABLES]


def build(pages: list[Chapter]) -> bool:
    """Builds the pages, always all of them, and returns whether there was anything to do.

    A warning is an error (`-W`): a broken reference or an empty number is only a warning to Sphinx. Building a part
    would repeat no warning of a page that it leaves alone, and would not see that an extension has changed.
    """
    source, root = assemble(pages), pages[0].root
    files = [root / "_config.yml", *source.rglob("*"), *(root / "book" / "_ext").glob("*.py")]
    inputs = digest(*(str(f).encode() + f.read_bytes() for f in sorted(files) if f.is_file()))
    stamp = root / "_build" / "site.state"
    if stamp.exists() and stamp.read_text() == inputs:
        return False
    stamp.unlink(missing_ok=True)
    for folder in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(root / "_build" / folder, ignore_errors=True)
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        str(source),
        "--config",
        "_config.yml",
    ]
    command += ["--path-output", ".", "-W", "-n", "--keep-going", "-q"]
    if code := subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL).returncode:
        raise BookError(
            f"jupyter-book failed with exit code {code}; its warnings, errors here, are above."
        )
    stamp.write_text(inputs)
    return True


def verify(pages: list[Chapter]) -> None:
    """Holds the built pages against what the chapters made.

    Raises:
        BookError: lists every page that is missing, figure that is not on its page, glued value that is empty or not
            shown, thing loaded from another host, link to a file that is not there, and error among the outputs.
    """
    problems = [f"{page.name}: {problem}" for page in pages for problem in page_problems(page)]
    if problems:
        raise BookError("The built book is not whole:\n  " + "\n  ".join(problems))


def page_problems(page: Chapter) -> Iterator[str]:
    """What is wrong with one built page."""
    path = page.root / "_build" / "html" / f"{page.name}.html"
    if not path.exists():
        yield f"there is no page {path}"
        return
    html = path.read_text(encoding="utf-8")
    wanted = re.findall(r"\{glue:text\}`([^`]+)`", page.source.read_text(encoding="utf-8"))
    shown = [
        value
        for value in re.findall(r'class="pasted-text">(.*?)</span>', html, re.S)
        if value.strip()
    ]
    if len(shown) < len(wanted):
        yield f"{len(wanted)} values are glued ({', '.join(wanted)}), but only {len(shown)} are shown"
    if "Traceback (most recent call last)" in html or 'class="problematic"' in html:
        yield "it shows a traceback or a broken reference"
    if re.search(
        r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//|cdn\.jsdelivr\.net', html
    ):
        yield "it loads something from another host (a chart drawn before `w2s_lib.figures.style.use_theme` does)"
    links = {
        html_text.unescape(link) for link in re.findall(r'<[^>]+\s(?:href|src)="([^"#?]+)', html)
    }
    links = {link for link in links if not re.match(r"[a-z][a-z0-9+.-]*:|//", link)}
    if dead := sorted(link for link in links if not (path.parent / unquote(link)).exists()):
        yield f"it links to what is not there: {', '.join(dead)}"
    if page.is_notebook:
        cells = json.loads(page.built(".ipynb").read_text(encoding="utf-8"))["cells"]
        cells = [
            c
            for c in cells
            if not {"remove-cell", "remove-output"} & set(c["metadata"].get("tags", []))
        ]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        made = Counter(chart_id(o["data"][MIME]) for o in outputs if MIME in o.get("data", {}))
        if missing := made - Counter(re.findall(r'data-chart="(\w+)"', html)):
            yield f"{missing.total()} of its {made.total()} figures are not on it"
        if any(output["output_type"] == "error" for output in outputs):
            yield "an output is an error"


def chart_id(spec: Any) -> str:
    """The name that `book/_ext/vega_charts.py` gives to a chart on its page."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]


def serve(root: Path, port: int) -> None:
    """Serves the built book on this machine only, until it is interrupted."""
    site = root / "_build" / "html"
    if not (site / "index.html").exists():
        raise BookError("There is no built book yet: run `make book` first.")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"The book is at http://127.0.0.1:{server.server_port}/ (Ctrl-C stops)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
