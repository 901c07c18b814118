"""The book's chapters.

Find them, give them parameters, plan and train their runs, and know when one is stale.

A chapter is a MyST Markdown notebook named in `book/_toc.yml`. A `Job` is a chapter with the
parameters to execute it with, a profile's among them (`book/profiles/`); its `inputs` is a hash of
all that the result depends on.
`execution.py` executes jobs, `pages.py` makes the pages.
"""

import hashlib
import linecache
import os
import sys
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from w2s_lib.runs.errors import SpecError, nearest

Parameters = dict[str, Any]


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
    def text(self) -> str:
        """The Markdown itself, as it is now."""
        return self.source.read_text(encoding="utf-8")

    @property
    def is_notebook(self) -> bool:
        """Whether there is something to execute: a jupytext header that names a kernel."""
        head = self.text.split("\n---", 1)[0]
        return head.startswith("---") and "\nkernelspec:" in head

    @property
    def executed(self) -> Path:
        """The executed notebook that the page is made of."""
        return self.root / "_build" / "executed" / f"{self.name}.ipynb"

    @property
    def title(self) -> str:
        """Its first heading."""
        return self.text.partition("\n# ")[2].partition("\n")[0]

    def notebook(self) -> Any:
        """The chapter as a notebook, not executed."""
        return deepcopy(_parsed(self.text))

    def cells(self, tag: str) -> list[str]:
        """The sources of the cells that bear `tag`."""
        cells = _parsed(self.text).cells
        return [cell.source for cell in cells if tag in cell.metadata.get("tags", [])]

    def defaults(self) -> Parameters:
        """What the `parameters` cell sets: names and values."""
        space: Parameters = {}
        exec("\n".join(self.cells("parameters")), {}, space)  # noqa: S102  a chapter is a program
        return {name: value for name, value in space.items() if not name.startswith("_")}


@cache
def _parsed(text: str) -> Any:
    """A chapter's text as a notebook. It is kept: a plan asks for each some twenty times."""
    import jupytext

    return jupytext.reads(text, "md:myst")


@dataclass(frozen=True)
class Job:
    """A notebook to execute.

    Attributes:
        chapter: the notebook.
        parameters: what its `parameters` cell is overridden with.
        banner: Markdown shown under its title.
        variant: what the result's name says after the chapter's.
    """

    chapter: Chapter
    parameters: Parameters
    banner: str = ""
    variant: str = ""

    @property
    def name(self) -> str:
        """The chapter's name and the variant."""
        return f"{self.chapter.name}{self.variant}"

    def built(self, suffix: str, folder: str = "executed") -> Path:
        """Where the executed notebook (`.ipynb`) and what belongs to it lie."""
        return self.chapter.root / "_build" / folder / f"{self.name}{suffix}"

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
        from w2s_lib.runs.store import published_store, user_store

        book = self.chapter.root / "book"
        files = [self.chapter.source, book / "constraints.txt", *sorted(book.glob("claims*/*"))]
        if self.chapter.cells("specs"):
            stores = [store for store in (user_store().folder, published_store()) if store]
            names = [f"{run_id}.parquet" for run_id in sorted(self.run_ids)]
            files += [store / name for name in names for store in stores]
        else:
            files += sorted(book.glob("*.*")) + sorted((book / "results").glob("*.parquet"))
        hidden = os.environ.get("W2S_PUBLISHED")
        settings = sorted(self.parameters.items()), hidden, self.banner, sorted(self.run_ids)
        made_of = repr((settings, sys.version, state_of([*library(), *files])))
        return hashlib.sha256(made_of.encode()).hexdigest()


def state_of(files: Iterable[Path]) -> str:
    """A hash of the names and contents of files, and of which are there."""
    from w2s_lib.runs.folders import file_sha256  # here: `make help` needs nothing installed

    there = [(file.name, file_sha256(file)) for file in files if file.is_file()]
    return hashlib.sha256(repr(there).encode()).hexdigest()


def library() -> list[Path]:
    """The files of this library, on any of which what it makes may depend."""
    return sorted(Path(__file__).parents[1].rglob("*.py"))


def from_yaml(text: str | bytes, where: str) -> Any:
    """What YAML makes of a text, or of a file's content.

    Raises:
        UsageError: it is no YAML; the message begins with `where`.
    """
    import yaml  # here, so that `make help` needs nothing installed

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # Of a date that is none, say, the loader raises what Python's own types do.
        raise UsageError(f"{where} is not YAML: {' '.join(str(error).split())}") from None


def chapters(root: Path) -> list[Chapter]:
    """Every page in `book/_toc.yml`, in reading order."""
    from sphinx_external_toc.parsing import parse_toc_yaml

    toc = root / "book" / "_toc.yml"
    if not toc.exists():
        raise UsageError(f"There is no {toc}: run this at the root of the repository.")
    found = [Chapter(name, root) for name in parse_toc_yaml(toc)]
    if absent := [chapter.name for chapter in found if not chapter.source.exists()]:
        raise BookError(f"book/_toc.yml names pages that do not exist: {', '.join(absent)}")
    return found


def notebooks(root: Path) -> list[Chapter]:
    """Every notebook in `book/`, also those that `_toc.yml` does not name yet: their runs are planned."""
    pages = [Chapter(file.stem, root) for file in sorted((root / "book").glob("*.md"))]
    return [page for page in pages if page.is_notebook]


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
                name = f"{chapter.name}.md[{tag}]"
                # `w2s.method` reads it there.
                linecache.cache[name] = len(source), None, source.splitlines(True), name
                exec(compile(source, name, "exec"), space)  # noqa: S102  likewise
        except Exception as error:
            said = f"its `{tag}` cell failed: {type(error).__name__}: {error}"
            raise BookError(f"{chapter.name}: {said}") from error
        space.update(given)
    return space


def planned_specs(chapter: Chapter, parameters: Parameters) -> list[Any]:
    """Every `RunSpec` that a chapter asks for: what its `specs` cell calls `specs`."""
    return list(planned_names(chapter, parameters).get("specs", []))


def train(jobs: list[Job], *, store: Literal["user", "published"], workers: int | None) -> set[str]:
    """Trains the runs of all these chapters that have no record yet, in one sweep.

    Returns:
        The ids of the runs that were trained.
    """
    specs = [spec for job in jobs for spec in job.specs]
    if not specs:
        return set()
    from w2s_lib.experiments.sweep import train_missing

    try:
        return train_missing(specs, store=store, workers=workers)
    except (SpecError, RuntimeError, OSError) as error:
        names = ", ".join(dict.fromkeys(job.chapter.name for job in jobs if job.specs))
        raise BookError(f"{names}: training stopped: {error}") from error


BESIDE = ("workers", "variants", "banner")
"""What a profile may set that is no chapter's parameter.

`variants`: a list of further settings, each a set of runs of its own, that `plan` and `run` take as
well; the pages show the profile without them. `banner`: Markdown that stands under the title of
every page made with the profile."""


def load_profile(root: Path, profile: str) -> Parameters:
    """The parameters in `book/profiles/<profile>.yaml`, or in a file of that path.

    Raises:
        UsageError: no such profile, or one that sets what no chapter takes.
    """
    folder = root / "book" / "profiles"
    path = Path(profile) if profile.endswith(".yaml") else folder / f"{profile}.yaml"
    if not path.is_file():
        known = sorted(other.stem for other in folder.glob("*.yaml"))
        raise UsageError(f"Unknown profile {profile!r}: {nearest(profile, known)}")
    values: Parameters = from_yaml(path.read_bytes(), path.name) or {}
    variants = values.get("variants", []) if isinstance(values, dict) else None
    if not isinstance(variants, list) or not all(isinstance(each, dict) for each in variants):
        raise UsageError(f"{path.name} must set names; `variants` is a list of such settings")
    taken = {name for page in notebooks(root) for name in page.defaults()}
    for name in sorted((values.keys() - {*BESIDE}).union(*variants) - taken, key=str):
        allowed = nearest(str(name), sorted(taken | {*BESIDE}))
        raise UsageError(f"{path.name} sets {name!r}, which no chapter takes: {allowed}")
    return values


def resolve(
    pages: list[Chapter], *, profile: str, overrides: Parameters, variant: Parameters | None = None
) -> list[Job]:
    """The jobs whose parameters are the profile's values, then a variant's, then the overrides.

    A profile may name what only some chapters take; an override that no chapter takes is an error.
    """
    defaults = {chapter: chapter.defaults() for chapter in pages}
    known = {name for own in defaults.values() for name in own}
    for name in overrides.keys() - known:
        allowed = sorted(known | {"chapters", "engine", "profile", "workers"})
        raise UsageError(f"Unknown parameter {name!r}: {nearest(name, allowed)}")
    jobs = []
    values = load_profile(pages[0].root, profile) if pages else {}
    values = values | (variant or {}) | overrides
    for chapter, own in defaults.items():
        given = {}
        for name, usual in own.items():
            value = values.get(name, usual)
            if isinstance(usual, list) and not isinstance(value, list):
                value = [value]
            if value != usual:  # or the page would show a cell that changes nothing
                given[name] = value
        jobs.append(Job(chapter, given, banner=values.get("banner", "")))
    return jobs
