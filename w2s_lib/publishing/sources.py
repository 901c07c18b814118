"""What is behind a page: which records its numbers and figures are made of, when and where.

As an IPython extension, which `execution.py` loads into the kernel, it follows the records through
a notebook's cells: a figure rests on those that its own cell measured, and on those of the cells
that made the names it uses. The executed notebook keeps the answer in its metadata; `words` and
`status` say it on the pages, and `book/_ext/behind.py` under each figure.
"""

import ast
import json
import tomllib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from w2s_lib.runs.model_names import short_name
from w2s_lib.runs.record import Record, row_of
from w2s_lib.runs.store import published_store, read

MIME = "application/vnd.w2s.sources+json"
"""Of the output in which a cell says what it used, until `gather` takes it out."""
KEY = "w2s"
"""Of a notebook's metadata."""
USUAL = ("GroundTruth", "FromRun", "XentLoss", "finetune", "transfer")
"""What goes without saying."""
PACKAGES = ("torch", "transformers", "peft", "numpy", "pandas", "altair", "jupyter-book")


def load_ipython_extension(shell: Any) -> None:
    """Follows records through the cells of a notebook, and tells with each cell which it used."""
    from w2s_lib.experiments.results import LISTENERS, Results

    rows: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    made_of: dict[str, set[str]] = {}

    def listen(records: Iterable[Record]) -> None:
        for record in records:
            if record.spec.run_id not in rows:
                rows[record.spec.run_id] = _row(record)
            used.add(record.spec.run_id)

    def publish(result: Any) -> None:
        if not result.success:
            return
        loaded, written = _names(shell.transform_cell(result.info.raw_cell))
        # A sweep is a shelf: who takes one thing from it does not use all that others took.
        shelves = {name for name in loaded if isinstance(shell.user_ns.get(name), Results)}
        own = used.union(*(made_of[name] for name in loaded & made_of.keys() - shelves))
        made_of.update(dict.fromkeys(written, own))
        if own:
            told = {run_id: rows[run_id] for run_id in sorted(own)}
            shell.display_pub.publish({MIME: told})
        used.clear()

    LISTENERS.append(listen)
    shell.events.register("post_run_cell", publish)


def _row(record: Record) -> dict[str, Any]:
    """A run in few words: its arm, seed, machine and date, and whether this record is published."""
    row = row_of(record)
    teacher = f" of {short_name(row['supervisor'])}" if row["supervisor"] else ""
    special = [row[name] for name in ("labels", "loss", "method") if row[name] not in USUAL]
    arm = ", ".join([f"{row['role']} {short_name(row['model'])}{teacher}", row["task"], *special])
    made = {name: row[name] for name in ("seed", "hardware", "date")}
    return {"arm": arm, **made, "published": bool(record.rules) or _is_published(record)}


def _is_published(record: Record) -> bool:
    """Whether a record of the user's store is what was published, and no later training of it."""
    store = published_store()
    path = store / f"{record.spec.run_id}.parquet" if store else None
    return bool(path and path.is_file() and read(path).provenance == record.provenance)


def _names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell uses, and those that it sets."""
    used, written = set[str](), set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else written).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            written.add(node.name)
    return used, written


def gather(notebook: Any, charts: str) -> None:
    """Moves what the cells say of their sources into the notebook's metadata.

    Args:
        notebook: executed with this extension; its metadata gets what `unpacked` gives, packed: of
            hundreds of runs it would be half of a notebook.
        charts: the MIME type of a chart.
    """
    runs: dict[str, Any] = {}
    figures: dict[str, list[str]] = {}
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        told = [out["data"].pop(MIME) for out in outputs if MIME in out.get("data", {})]
        for one in told:
            runs |= one
        if outputs:
            cell.outputs = [out for out in outputs if out.get("data") != {}]
        if any(charts in out.get("data", {}) for out in outputs):
            figures[cell.id] = sorted({run_id for one in told for run_id in one})
    versions = {"Python": notebook.metadata.get("language_info", {}).get("version", "")}
    versions |= {name: version(name) for name in PACKAGES}
    places = {run: place for place, run in enumerate(sorted(runs))}
    kinds: dict[str, int] = {}
    packed = []
    for run in places:
        kind = {name: value for name, value in runs[run].items() if name != "seed"}
        packed.append([run, runs[run]["seed"], kinds.setdefault(json.dumps(kind), len(kinds))])
    notebook.metadata[KEY] = {
        "kinds": [json.loads(kind) for kind in kinds],
        "runs": packed,
        "figures": {cell: [places[run] for run in own] for cell, own in figures.items()},
        "versions": versions,
    }


def unpacked(notebook: Any) -> dict[str, Any]:
    """What `gather` knows of an executed notebook's sources.

    Returns:
        `runs` (id -> arm, seed, hardware, date, published, by rising id), `figures` (id of a cell
        with a chart -> ids) and `versions`.
    """
    made = notebook.metadata[KEY]
    runs = {run: made["kinds"][kind] | {"seed": seed} for run, seed, kind in made["runs"]}
    ids = list(runs)
    figures = {cell: [ids[place] for place in own] for cell, own in made["figures"].items()}
    return {"runs": runs, "figures": figures, "versions": made["versions"]}


def words(made: dict[str, Any], *, commit: str = "") -> str:
    """The last lines of a page: the records behind it, their seeds, machines and dates.

    Args:
        made: what `unpacked` gives.
        commit: named where a published archive is made; a local build would be stale after each.
    """
    runs = pd.DataFrame(made["runs"].values())
    if runs.empty:
        text = "No training record was read for it."
    else:
        dates = " to ".join(sorted({runs["date"].min(), runs["date"].max()}))
        own = (~runs["published"].astype(bool)).sum()
        what = f"{_count(len(runs), 'training record')} of {_count(runs['arm'].nunique(), 'kind')}"
        where = " and ".join(sorted(set(runs["hardware"])))
        known = f"{own} of them on this machine alone, not published" if own else "all published"
        text = f"{what}, {_span(runs['seed'])}, made on {where}, {dates}; {known}."
    at = f" {built_from(commit)}" if commit else ""
    more = "[With which versions, and how to get the code](status.md)."
    return f'<div class="w2s-sources">\n\n**Behind this page.** {text}{at} {more}\n\n</div>'


def built_from(commit: str) -> str:
    """Which commit a published page is of, in words."""
    return f"Built from commit `{commit[:12]}`."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def _span(seeds: Any) -> str:
    """Seeds in words: those in a row by their ends."""
    found = sorted(set(seeds))
    row = len(found) > 2 and found[-1] - found[0] == len(found) - 1
    listed = f"{found[0]} to {found[-1]}" if row else ", ".join(map(str, found))
    return f"{'seeds' if len(found) > 1 else 'seed'} {listed}"


def status(made: dict[str, dict[str, Any]], seconds: dict[str, str] | None = None) -> str:
    """How each chapter was executed, as Markdown: a table, then the versions of the packages.

    Args:
        made: chapter -> see `words`.
        seconds: chapter -> how long it took, in local builds.
    """
    head = ["chapter", "records read", "trained here", *(["seconds"] if seconds else [])]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, one in made.items():
        there = sum(run["published"] for run in one["runs"].values())
        took = [seconds[name]] if seconds else []
        rows.append([f"[]({name}.md)", f"{there}", f"{len(one['runs']) - there}", *took])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    of: dict[str, list[str]] = {}
    for name, one in made.items():
        known = ", ".join(f"{package} {number}" for package, number in one["versions"].items())
        of.setdefault(known, []).append(name)
    alike = len(of) == 1
    versions = [f"- {'all' if alike else ', '.join(pages)}: {v}" for v, pages in of.items()]
    return f"{table}\n\nExecuted with:\n\n" + "\n".join(versions)


def how_to_get(root: Path, *, archive: str = "") -> str:
    """How to get the code, as Markdown.

    Args:
        root: of the checkout, whose `pyproject.toml` may name the repository.
        archive: where the pages have a copy of the sources.
    """
    run = "`make book` in it builds these pages, `make lab` opens them as notebooks."
    if url := repository(root):
        return f"The repository is at <{url}>. {run}"
    if archive:
        return f'<a href="{archive}" download>All sources of this book</a>, with its records. {run}'
    return (
        "These pages were built in a checkout of the repository, in the folder where `make book` was "
        f"run. {run} The repository has no public address yet, so who has the pages alone asks "
        "whoever built them for it. What the pages hold themselves: each executed notebook, behind "
        'the download button at its top, and <a href="_static/data/runs.csv" download>every run</a> as '
        "a file."
    )


def repository(root: Path) -> str:
    """The repository's address in `pyproject.toml`; "" where it names none."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    url: str = project.get("urls", {}).get("Repository", "")
    return url
