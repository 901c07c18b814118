"""The book's chapters: find them, give them parameters, plan their runs, execute them, and know when not to.

A chapter is a MyST Markdown notebook named in `book/_toc.yml`. Each is executed by papermill in a process of its own,
scrubbed of timestamps so that the same code on the same records gives the same bytes, and left alone when nothing that
it depends on has changed. `build.py` makes the pages from the result.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

from w2s_lib.parts import nearest

Parameters = dict[str, Any]


class BookError(RuntimeError):
    """The book cannot be made; the message says which chapter, which cell and why."""


class UsageError(ValueError):
    """The command line asks for something that does not exist."""


@dataclass(frozen=True)
class Chapter:
    """A page of the book: its name in `_toc.yml` and the root of the repository that holds it."""

    name: str
    root: Path

    @property
    def source(self) -> Path:
        """The Markdown file."""
        return self.root / "book" / f"{self.name}.md"

    @property
    def is_notebook(self) -> bool:
        """Whether there is something to execute: a jupytext header that names a kernel."""
        head, _, _ = self.source.read_text(encoding="utf-8").partition("\n---")
        return head.startswith("---") and "\nkernelspec:" in head

    def built(self, suffix: str, folder: str = "executed") -> Path:
        """Where the executed notebook (`.ipynb`) and what belongs to it lie."""
        return self.root / "_build" / folder / f"{self.name}{suffix}"

    def notebook(self) -> Any:
        """The chapter as a notebook, not executed."""
        import jupytext

        return jupytext.read(self.source)

    def cells(self, tag: str) -> list[str]:
        """The sources of the code cells that bear `tag`."""
        return [c.source for c in self.notebook().cells if tag in c.metadata.get("tags", [])]

    def defaults(self) -> Parameters:
        """The names that the `parameters` cell assigns, with their values where these are literals."""
        found: Parameters = {}
        for node in ast.walk(ast.parse("\n".join(self.cells("parameters")))):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets if isinstance(node, (ast.Assign, ast.AnnAssign)) else []:
                if isinstance(target, ast.Name) and node.value is not None:
                    try:
                        found[target.id] = ast.literal_eval(node.value)
                    except ValueError:
                        found[target.id] = ...
        return found


def chapters(root: Path) -> list[Chapter]:
    """Every page in `book/_toc.yml`, in reading order."""

    def files(node: Any) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key in ("root", "file"):
                yield value
            elif isinstance(value, (dict, list)):
                yield from files(value)

    toc = root / "book" / "_toc.yml"
    if not toc.exists():
        raise UsageError(f"There is no {toc}: run this at the root of the repository.")
    found = [Chapter(name.removesuffix(".md"), root) for name in files(yaml.safe_load(toc.read_text(encoding="utf-8")))]
    if absent := [c.name for c in found if not c.source.exists()]:
        raise BookError(f"book/_toc.yml names pages that do not exist: {', '.join(absent)}.")
    return found


@dataclass(frozen=True)
class Job:
    """A notebook to execute: its parameters, and whether it may read the published records."""

    chapter: Chapter
    parameters: Parameters
    published: bool = True

    def environment(self) -> dict[str, str]:
        """What the library is told: which store to read, where to note the records read and the values reported."""
        built = self.chapter.built
        notes = {"W2S_MANIFEST": str(built(".jsonl")), "W2S_REPORT": str(built(".report.json"))}
        return notes if self.published else notes | {"W2S_PUBLISHED": "0"}

    def state(self) -> str:
        """A hash of all that the executed notebook depends on, the records that it read included."""
        records = [Path(line["path"]) for line in manifest(self.chapter)]
        common = [self.chapter.root / "book" / name for name in ("constraints.txt", "claims.yaml")]
        settings = repr([self.parameters, self.environment(), os.environ.get("W2S_PUBLISHED"), sys.version, records])
        library = sorted(Path(__file__).parent.glob("*.py"))
        files = [self.chapter.source, self.chapter.built(".ipynb"), *common, *library, *records]
        return digest(settings.encode(), *(f.read_bytes() if f.exists() else b"absent" for f in files))


def digest(*parts: bytes) -> str:
    """SHA-256 of several byte strings, their borders included."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def resolve(notebooks: list[Chapter], *, profile: str, overrides: Parameters) -> list[Job]:
    """The jobs whose parameters are the profile's values, then the overrides.

    A profile may name what only some chapters take; an override that no chapter takes is an error.
    """
    defaults = {chapter: chapter.defaults() for chapter in notebooks}
    known = {name for names in defaults.values() for name in names}
    for name in overrides.keys() - known:
        raise UsageError(f"Unknown parameter {name!r}: {nearest(name, sorted(known | {'chapters', 'profile', 'workers'}))}")
    jobs = []
    for chapter, own in defaults.items():
        values = load_profile(chapter.root, profile) | overrides
        taken = {key: value for key, value in values.items() if key in own}
        for key, value in taken.items():
            taken[key] = [value] if isinstance(own[key], list) and not isinstance(value, list) else value
        # What equals the chapter's own default is not injected, so the page shows no cell that changes nothing.
        jobs.append(Job(chapter, {key: value for key, value in taken.items() if value != own[key]}))
    return jobs


def load_profile(root: Path, profile: str) -> Parameters:
    """The parameters in `book/profiles/<profile>.yaml`."""
    path = root / "book" / "profiles" / f"{profile}.yaml"
    if not path.exists():
        raise UsageError(f"Unknown profile {profile!r}: {nearest(profile, sorted(p.stem for p in path.parent.glob('*.yaml')))}")
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def planned_specs(chapter: Chapter, parameters: Parameters) -> list[Any]:
    """Every `RunSpec` of a chapter, from its cells tagged `parameters` and `specs` alone: nothing is trained or drawn."""
    space: dict[str, Any] = {"__name__": "__plan__"}
    for tag, given in (("parameters", parameters), ("specs", {})):
        try:
            for source in chapter.cells(tag):
                exec(compile(source, f"{chapter.name}.md[{tag}]", "exec"), space)
        except Exception as error:
            raise BookError(f"{chapter.name}: its `{tag}` cell failed: {type(error).__name__}: {error}") from error
        space.update(given)
    return list(space.get("specs", []))


def train(jobs: list[Job], *, store: str, workers: int) -> None:
    """Trains the runs that have no record yet, a chapter at a time, with the progress in this terminal."""
    for job in jobs:
        if specs := planned_specs(job.chapter, job.parameters):
            with environment(job.environment()):
                importlib.import_module("w2s_lib.sweep").train_missing(specs, store=store, workers=workers)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for a while."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def manifest(chapter: Chapter) -> list[dict[str, Any]]:
    """What `sweep` noted of the chapter's records: run_id, digest, trained, path."""
    path = chapter.built(".jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def count_runs(chapter: Chapter) -> tuple[int, int]:
    """How many distinct runs a chapter took from records, and how many had to be trained."""
    lines = manifest(chapter)
    trained = {line["run_id"] for line in lines if line["trained"]}
    return len({line["run_id"] for line in lines} - trained), len(trained)


def execute(jobs: list[Job], *, workers: int) -> list[tuple[str, float | None, int, int]]:
    """Executes what has changed, in parallel; returns rows of chapter, seconds (None: unchanged), runs read, runs trained.

    Raises:
        BookError: a chapter failed. No further one is started, and its partial notebook stays in `_build/partial`.
    """
    stamp = {job.chapter: job.chapter.built(".state") for job in jobs}
    stale = [j for j in jobs if not stamp[j.chapter].exists() or stamp[j.chapter].read_text() != j.state()]
    for job in stale:
        job.chapter.built("").parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".jsonl", ".report.json", ".state"):
            job.chapter.built(suffix).unlink(missing_ok=True)
    train(stale, store="user", workers=workers)
    seconds: dict[Chapter, float] = {}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(execute_one, job): job for job in stale}
        for future in as_completed(running):
            job = running[future]
            try:
                seconds[job.chapter] = future.result()
            except Exception:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            stamp[job.chapter].write_text(job.state())
    return [(job.chapter.name, seconds.get(job.chapter), *count_runs(job.chapter)) for job in jobs]


def execute_one(job: Job) -> float:
    """Executes one notebook with this interpreter's kernel and returns the seconds it took (in a process of its own)."""
    import nbformat
    import papermill
    from traitlets.config import Config

    os.environ.update(job.environment())
    chapter, started = job.chapter, time.perf_counter()
    partial = chapter.built(".ipynb", "partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    steady = {"coalesce_streams": True, "record_timing": False, "store_widget_state": False}
    local = Config(KernelManager={"transport": "ipc"})  # by TCP other users of the machine could listen
    try:
        notebook = papermill.execute_notebook(
            chapter.notebook(), partial, job.parameters, kernel_name="python3", progress_bar=False,
            cwd=chapter.source.parent, config=local, **steady,
        )
    except Exception as error:
        raise BookError(f"{failure(chapter, partial, error)}\nThe partial notebook: {partial}") from None
    nbformat.write(scrub(notebook, chapter.name), chapter.built(".ipynb"))
    partial.unlink()
    return time.perf_counter() - started


def failure(chapter: Chapter, partial: Path, error: Exception) -> str:
    """Which cell of a chapter failed, by its number among the code cells and its first line, and with what."""
    reason = f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else f"{type(error).__name__}: {error}"
    cells = json.loads(partial.read_text())["cells"] if partial.exists() else []
    for number, cell in enumerate((c for c in cells if c["cell_type"] == "code"), 1):
        if cell["metadata"].get("papermill", {}).get("status") in ("failed", "running"):
            first = "".join(cell["source"]).strip().splitlines()[0]
            return f"{chapter.name}: code cell {number} (`{first}`) failed: {reason}"
    return f"{chapter.name}: {reason}"


def scrub(notebook: Any, name: str) -> Any:
    """Takes out what differs from one execution to the next: papermill's times, random cell ids, progress widgets."""
    notebook.metadata.pop("papermill", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{name.replace('/', '-')[:50]}-{number}"
        cell.metadata.pop("papermill", None)
        if "outputs" in cell:
            widget = "application/vnd.jupyter.widget-view+json"
            cell.outputs = [output for output in cell.outputs if widget not in output.get("data", {})]
    return notebook
