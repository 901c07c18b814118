"""The book's chapters: find them, give them parameters, plan and train their runs, and know when one is stale.

A chapter is a MyST Markdown notebook named in `book/_toc.yml`. A `Job` is a chapter with the parameters to execute it
with; its `state` is a hash of all that the result depends on. `build.py` executes jobs and makes the pages.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s_lib.publishing.prose import fields
from w2s_lib.runs.errors import SpecError

Parameters = dict[str, Any]
Row = tuple[
    str, float | None, int, int
]  # chapter, seconds (None: unchanged), runs read, runs trained


class BookError(RuntimeError):
    """The book cannot be made; the message says which chapter, which cell and why."""


class UsageError(ValueError):
    """The command line asks for something that does not exist."""


@dataclass(frozen=True)
class Chapter:
    """A page of the book: its name in `_toc.yml`, and the root of the repository that holds it."""

    name: str
    root: Path

    @property
    def source(self) -> Path:
        """The Markdown file."""
        return self.root / "book" / f"{self.name}.md"

    @property
    def is_notebook(self) -> bool:
        """Whether there is something to execute: a jupytext header that names a kernel."""
        head = self.source.read_text(encoding="utf-8").split("\n---", 1)[0]
        return head.startswith("---") and "\nkernelspec:" in head

    @property
    def gathers(self) -> bool:
        """Whether it is a notebook without a `specs` cell: it trains nothing, and reads what the others have reported."""
        return self.is_notebook and not self.cells("specs")

    def gathered(self) -> list[Path]:
        """What a page that gathers depends on: other notebooks, their reports, contents, benchmarks, every published record."""
        others = [page for page in chapters(self.root) if page.is_notebook and not page.gathers]
        book = self.root / "book"
        common = [book / name for name in ("_toc.yml", "references.bib", "benchmarks.json")]
        records = sorted((book / "results").glob("*.parquet"))
        return [
            *common,
            *(page.source for page in others),
            *(page.built(".report.json") for page in others),
            *records,
        ]

    def built(self, suffix: str, folder: str = "executed") -> Path:
        """Where the executed notebook (`.ipynb`) and what belongs to it lie."""
        return self.root / "_build" / folder / f"{self.name}{suffix}"

    def notebook(self) -> Any:
        """The chapter as a notebook, not executed."""
        import jupytext

        return jupytext.read(self.source)

    def cells(self, tag: str) -> list[str]:
        """The sources of the cells that bear `tag`."""
        return [
            cell.source for cell in self.notebook().cells if tag in cell.metadata.get("tags", [])
        ]

    def script(self) -> str:
        """The code as a linter reads it: of a prose cell the expressions of its fields are left."""
        import jupytext

        notebook = self.notebook()
        for cell in notebook.cells:
            if (expressions := fields(cell.source)) is not None:
                cell.source = "\n".join(expressions)
        return str(jupytext.writes(notebook, "py:percent"))

    def defaults(self) -> Parameters:
        """What the `parameters` cell sets: its names, and their values where these are literals (else `...`)."""
        found: Parameters = {}
        for node in ast.walk(ast.parse("\n".join(self.cells("parameters")))):
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    try:
                        found[ast.unparse(target)] = ast.literal_eval(node.value)
                    except ValueError:
                        found[ast.unparse(target)] = ...
        return found


@dataclass(frozen=True)
class Job:
    """A notebook to execute, its parameters, and whether it may read the published records."""

    chapter: Chapter
    parameters: Parameters
    published: bool = True

    def environment(self) -> dict[str, str]:
        """What the library is told: where to note the records it reads and the values it reports."""
        built = self.chapter.built
        notes = {"W2S_MANIFEST": str(built(".jsonl")), "W2S_REPORT": str(built(".report.json"))}
        return notes if self.published else notes | {"W2S_PUBLISHED": "0"}

    def state(self) -> str:
        """A hash of all that the executed notebook depends on, the records that it read included, and of itself."""
        records = sorted({line["path"] for line in self.manifest() if "path" in line})
        hidden = self.environment().get("W2S_PUBLISHED", os.environ.get("W2S_PUBLISHED"))
        common = [
            self.chapter.root / "book" / name for name in ("constraints.txt", "claims/first.yaml")
        ]
        library = sorted(Path(__file__).parents[1].rglob("*.py"))
        gathered = self.chapter.gathered() if self.chapter.gathers else []
        files = [
            self.chapter.source,
            self.chapter.built(".ipynb"),
            *common,
            *library,
            *map(Path, records),
            *gathered,
        ]
        settings = repr(
            [sorted(self.parameters.items()), hidden, sys.version, records, *map(str, gathered)]
        ).encode()
        return digest(
            settings, *(file.read_bytes() if file.exists() else b"absent" for file in files)
        )

    def manifest(self) -> list[dict[str, Any]]:
        """What was noted: run_id, whether it was trained, where its record was read; of what is not there, only the path."""
        path = self.chapter.built(".jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def row(self, seconds: float | None) -> Row:
        """The chapter's line in the closing table; a run that was trained and then read counts as trained."""
        runs = [line for line in self.manifest() if "run_id" in line]
        trained = {line["run_id"] for line in runs if line["trained"]}
        read = {line["run_id"] for line in runs} - trained
        return self.chapter.name, seconds, len(read), len(trained)


def digest(*parts: bytes) -> str:
    """SHA-256 of several byte strings, their borders included."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def from_yaml(text: str) -> Any:
    """What YAML makes of a text."""
    import yaml  # here, so that `make help` needs nothing installed

    return yaml.safe_load(text)


def chapters(root: Path) -> list[Chapter]:
    """Every page in `book/_toc.yml`, in reading order."""
    toc = root / "book" / "_toc.yml"
    if not toc.exists():
        raise UsageError(f"There is no {toc}: run this at the root of the repository.")

    def names(node: Any) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key in ("root", "file"):
                yield value.removesuffix(".md")
            elif isinstance(value, (dict, list)):
                yield from names(value)

    found = [Chapter(name, root) for name in names(from_yaml(toc.read_text(encoding="utf-8")))]
    if absent := [chapter.name for chapter in found if not chapter.source.exists()]:
        raise BookError(f"book/_toc.yml names pages that do not exist: {', '.join(absent)}")
    return found


def planned_names(chapter: Chapter, parameters: Parameters) -> dict[str, Any]:
    """What a chapter's cells tagged `parameters` and `specs` define, and no other cell: nothing is trained."""
    space: dict[str, Any] = {"__name__": "__plan__"}
    for tag, given in (("parameters", parameters), ("specs", {})):
        try:
            for source in chapter.cells(tag):
                exec(compile(source, f"{chapter.name}.md[{tag}]", "exec"), space)  # noqa: S102
        except Exception as error:
            raise BookError(
                f"{chapter.name}: its `{tag}` cell failed: {type(error).__name__}: {error}"
            ) from error
        space.update(given)
    return space


def planned_specs(chapter: Chapter, parameters: Parameters) -> list[Any]:
    """Every `RunSpec` that a chapter asks for: see `planned_names`."""
    return list(planned_names(chapter, parameters).get("specs", []))


def train(jobs: list[Job], *, store: str, workers: int | None) -> None:
    """Trains the runs of all these chapters that have no record yet, in one sweep, with the progress in this terminal.

    A run that several chapters share counts as trained for the first of them.
    """
    plans = [
        (job, planned_specs(job.chapter, job.parameters)) for job in jobs
    ]  # all planned before any is trained
    for hidden in (False, True):
        mine = [(job, specs) for job, specs in plans if specs and job.published is not hidden]
        if not mine:
            continue
        try:
            with environment({"W2S_PUBLISHED": "0"} if hidden else {}):
                trained = importlib.import_module("w2s_lib.experiments.sweep").train_missing(
                    [spec for _, specs in mine for spec in specs], store=store, workers=workers
                )
        except (SpecError, RuntimeError, OSError) as error:
            raise BookError(
                f"{', '.join(job.chapter.name for job, _ in mine)}: training stopped: {error}"
            ) from error
        for job, specs in mine if store == "user" else ():
            own = trained & {step.run_id for spec in specs for step in spec.lineage()}
            trained -= own
            if own:
                job.chapter.built(".jsonl").parent.mkdir(parents=True, exist_ok=True)
                with job.chapter.built(".jsonl").open("a", encoding="utf-8") as file:
                    file.writelines(
                        json.dumps({"run_id": run_id, "trained": True}) + "\n"
                        for run_id in sorted(own)
                    )


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
