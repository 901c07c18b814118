"""The book's chapters.

Find them, give them parameters, plan and train their runs, and know when one is stale.

A chapter is a MyST Markdown notebook named in `book/_toc.yml`. A `Job` is a chapter with the
parameters to execute it with; its `inputs` is a hash of all that the result depends on.
`execution.py` executes jobs, `pages.py` makes the pages.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from w2s_lib.publishing.prose import fields
from w2s_lib.runs.errors import SpecError

Parameters = dict[str, Any]
FOLDED = {
    "remove-input": {"source_hidden": True},
    "hide-input": {"source_hidden": True},
    "hide-cell": {"source_hidden": True, "outputs_hidden": True},
}
"""What folds a cell on the page, and what folds it in JupyterLab: cells bear both."""


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
    def executed(self) -> Path:
        """The executed notebook that the page is made of."""
        return self.root / "_build" / "executed" / f"{self.name}.ipynb"

    def notebook(self) -> Any:
        """The chapter as a notebook, not executed."""
        import jupytext

        return jupytext.read(self.source)

    def cells(self, tag: str) -> list[str]:
        """The sources of the cells that bear `tag`."""
        return [
            cell.source for cell in self.notebook().cells if tag in cell.metadata.get("tags", [])
        ]

    def knobs(self) -> list[str]:
        """The settings in the first column of the table under "What to tweak"."""
        text = self.source.read_text(encoding="utf-8")
        section = text.partition("\n## What to tweak\n")[2].partition("\n## ")[0]
        return re.findall(r"^\|\s*`([^`|]+)`\s*\|", section, re.M)

    def unfolded(self) -> list[str]:
        """The first lines of cells folded on the page but not in JupyterLab, or of bare prose."""
        found = []
        for cell in self.notebook().cells:
            tags = cell.metadata.get("tags", [])
            wanted = [FOLDED[tag] for tag in tags if tag in FOLDED]
            prose = fields(cell.source) is not None and "remove-input" not in tags
            jupyter = cell.metadata.get("jupyter", {})
            if prose or any(not want.items() <= jupyter.items() for want in wanted):
                found.append(cell.source.strip().splitlines()[0])
        return found

    def script(self) -> str:
        """The code as a linter reads it: of a prose cell the expressions of its fields are left."""
        import jupytext

        notebook = self.notebook()
        for cell in notebook.cells:
            if (expressions := fields(cell.source)) is not None:
                cell.source = "\n".join(expressions)
        return str(jupytext.writes(notebook, "py:percent"))

    def defaults(self) -> Parameters:
        """What the `parameters` cell sets.

        Its names, and their values where these are literals (else `...`).
        """
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
    """A notebook to execute.

    Attributes:
        chapter: the notebook.
        parameters: what its `parameters` cell is overridden with.
        published: whether it may read the published records.
        banner: Markdown shown under its title.
        folder: where in `_build` the result goes.
        variant: what the result's name says after the chapter's.
    """

    chapter: Chapter
    parameters: Parameters
    published: bool = True
    banner: str = ""
    folder: str = "executed"
    variant: str = ""

    @property
    def name(self) -> str:
        """The chapter's name and the variant."""
        return f"{self.chapter.name}{self.variant}"

    def built(self, suffix: str, folder: str = "") -> Path:
        """Where the executed notebook (`.ipynb`) and what belongs to it lie."""
        return self.chapter.root / "_build" / (folder or self.folder) / f"{self.name}{suffix}"

    def environment(self) -> dict[str, str]:
        """What the library is told."""
        return {} if self.published else {"W2S_PUBLISHED": "0"}

    @cached_property
    def specs(self) -> list[Any]:
        """The runs that the chapter asks for, pinned: nothing is trained."""
        from w2s_lib.models.pins import pin

        return [pin(spec) for spec in planned_specs(self.chapter, self.parameters)]

    @cached_property
    def run_ids(self) -> set[str]:
        """The ids of these runs, and of those that they learn from."""
        return {step.run_id for spec in self.specs for step in spec.lineage()}

    def inputs(self) -> str:
        """A hash of all that the executed notebook depends on.

        That is the chapter, its parameters, the library, the claims and the records of its runs;
        for a page without a `specs` cell, which reads what the others have made, all of the book
        and every published record.
        """
        book = self.chapter.root / "book"
        files = [self.chapter.source, book / "constraints.txt", *sorted(book.glob("claims*/*"))]
        files += sorted(Path(__file__).parents[1].rglob("*.py"))
        if self.chapter.cells("specs"):
            files += [record for run_id in sorted(self.run_ids) for record in records(self, run_id)]
        else:
            files += sorted(book.glob("*.*")) + sorted((book / "results").glob("*.parquet"))
        hidden = os.environ.get("W2S_PUBLISHED") if self.published else "0"
        settings = sorted(self.parameters.items()), hidden, self.banner, sorted(self.run_ids)
        names = "\n".join(f"{file.name} {file.is_file()}" for file in files)
        contents = (file.read_bytes() for file in files if file.is_file())
        return digest(repr(settings).encode(), sys.version.encode(), names.encode(), *contents)


def records(job: Job, run_id: str) -> Iterator[Path]:
    """Where a run's record may lie on this machine."""
    from w2s_lib.runs.store import published_store, user_store

    with environment(job.environment()):
        for folder in (user_store().folder, published_store()):
            if folder is not None:
                yield folder / f"{run_id}.parquet"


def digest(*parts: bytes) -> str:
    """SHA-256 of several byte strings, their borders included."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def from_yaml(text: str, where: str) -> Any:
    """What YAML makes of a text.

    Raises:
        UsageError: it is no YAML; the message begins with `where`.
    """
    import yaml  # here, so that `make help` needs nothing installed

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not YAML: {' '.join(str(error).split())}") from None


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

    found = [
        Chapter(name, root) for name in names(from_yaml(toc.read_text(encoding="utf-8"), str(toc)))
    ]
    if absent := [chapter.name for chapter in found if not chapter.source.exists()]:
        raise BookError(f"book/_toc.yml names pages that do not exist: {', '.join(absent)}")
    return found


def planned_names(chapter: Chapter, parameters: Parameters) -> dict[str, Any]:
    """The names of a chapter's cells tagged `parameters` and `specs`, executed alone.

    Nothing is trained.

    Raises:
        BookError: one of the cells failed.
    """
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
    """Every `RunSpec` that a chapter asks for: what its `specs` cell calls `specs`."""
    return list(planned_names(chapter, parameters).get("specs", []))


def train(jobs: list[Job], *, store: str, workers: int | None) -> set[str]:
    """Trains the runs of all these chapters that have no record yet, in one sweep.

    Returns:
        The ids of the runs that were trained.
    """
    plans = [(job, job.specs) for job in jobs]  # all planned before any is trained
    trained: set[str] = set()
    for hidden in (False, True):
        mine = [(job, specs) for job, specs in plans if specs and job.published is not hidden]
        if not mine:
            continue
        from w2s_lib.experiments.sweep import train_missing

        try:
            with environment({"W2S_PUBLISHED": "0"} if hidden else {}):
                trained |= train_missing(
                    [spec for _, specs in mine for spec in specs], store=store, workers=workers
                )
        except (SpecError, RuntimeError, OSError) as error:
            names = ", ".join(dict.fromkeys(job.chapter.name for job, _ in mine))
            raise BookError(f"{names}: training stopped: {error}") from error
    return trained


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
