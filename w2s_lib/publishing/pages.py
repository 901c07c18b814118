"""The pages: lay executed chapters out as a Sphinx source tree, build and verify them."""

import hashlib
import html as html_text
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat

from w2s_lib.figures.style import MIME
from w2s_lib.publishing import sources
from w2s_lib.publishing.chapters import BookError, Chapter, library, state_of
from w2s_lib.publishing.prose import listing
from w2s_lib.runs.folders import temporary

NOT_PAGES = shutil.ignore_patterns(
    "results", "profiles", "_ext", "*.toml", "constraints.txt", "*.ipynb", ".*", "__pycache__"
)
LABELS = {"parameters": "Parameters", "specs": "Set-up: the runs"}
"""What the page calls these cells, folded and unfolded."""
INSTALL = """\
# This notebook needs w2s_lib, the library of the book that it comes from.
from importlib.util import find_spec

if find_spec("w2s_lib") is None:
    {}"""


ARCHIVE = "_static/data/source.zip"
BEHIND = ("data", "runs", "code")
"""What stands under each figure: `book/_ext/behind.py`."""


def assemble(pages: list[Chapter], *, commit: str = "") -> Path:
    """Copies `book/` to `_build/src`, with notebooks executed and links as Sphinx reads them.

    Args:
        pages: of the book.
        commit: of a published archive: its pages name it, and hold all sources as they are there.
    """
    root = pages[0].root
    target = root / "_build" / "src"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "book", target, ignore=NOT_PAGES)
    notebooks = {page.name for page in pages if page.is_notebook}
    for page in pages:
        source = target / f"{page.name}.md"
        if page.is_notebook:
            source.unlink()
            notebook = downloadable(page, notebooks, commit=commit)
            # On one line: nbformat's indentation is a fifth of a notebook with charts.
            text = json.dumps(notebook, ensure_ascii=False, sort_keys=True)
            source.with_suffix(".ipynb").write_text(text, encoding="utf-8")
        else:
            text = source.read_text(encoding="utf-8")
            if page.name == "references":
                text += "\n" + listing(root / "book" / "references.bib")
            if page.name == "status":
                text += status(pages, commit=commit)
            if commit:
                text += f'\n<div class="w2s-sources">\n\n{sources.built_from(commit)}\n\n</div>\n'
            source.write_text(relinked(text, notebooks), encoding="utf-8")
    shutil.copytree(tables(root), target / "_static" / "data")
    if commit:
        command = ["git", "archive", "--format=zip", "-9", f"--output={target / ARCHIVE}", commit]
        # Dates in a zip file are local ones: the same bytes everywhere need one time zone.
        subprocess.run(command, cwd=root, check=True, env=os.environ | {"TZ": "UTC"})
    return target


def status(pages: list[Chapter], *, commit: str = "") -> str:
    """What `assemble` adds to the page of that name; in a local build also how long chapters took."""
    chapters = [page for page in pages if page.is_notebook]
    made = {c.name: sources.unpacked(nbformat.read(c.executed, 4)) for c in chapters}
    states = {page.name: page.executed.with_suffix(".state").read_text() for page in chapters}
    took = {} if commit else {name: text.partition("\n")[2] for name, text in states.items()}
    get = sources.how_to_get(pages[0].root, archive=ARCHIVE if commit else "")
    return f"\n{sources.status(made, took)}\n\n## How to get the code\n\n{get}\n"


def relinked(text: str, notebooks: set[str]) -> str:
    """Markdown whose links to chapters lead to the notebooks that Sphinx builds them from."""
    names = "|".join(map(re.escape, notebooks))
    return re.sub(rf"\]\(({names})\.md\)", r"](\1.ipynb)", text)


def downloadable(page: Chapter, notebooks: set[str], *, commit: str = "") -> Any:
    """The executed notebook, with a first cell that gets the library where it is missing.

    A last one says which records are behind it.
    """
    notebook = nbformat.read(page.executed, as_version=4)
    for cell in notebook.cells:
        for tag in LABELS.keys() & set(cell.metadata.get("tags", [])):
            prompts = ("code_prompt_show", "code_prompt_hide")
            cell.metadata["mystnb"] = dict.fromkeys(prompts, LABELS[tag])
        if cell.cell_type == "markdown":
            cell.source = relinked(cell.source, notebooks)
        for output in cell.get("outputs", []):
            if text := output.get("data", {}).get("text/markdown"):
                output.data["text/markdown"] = relinked(text, notebooks)
    first = nbformat.v4.new_code_cell(INSTALL.format(how_to_install(page.root)), id="install")
    first.metadata |= {"tags": ["remove-cell"], "jupyter": {"source_hidden": True}}
    notebook.cells.insert(0, first)
    last = sources.words(sources.unpacked(notebook), commit=commit)
    notebook.cells.append(nbformat.v4.new_markdown_cell(last, id="sources"))
    return notebook


def how_to_install(root: Path) -> str:
    """The line that installs the library, where `pyproject.toml` names the repository.

    Else one that says how.
    """
    if url := sources.repository(root):
        return f'%pip install -q "w2s-lib[book] @ git+{url}"'
    how = "the book's page Status says how to get it; then run in it: python -m pip install -e '.[book]'"
    return f'raise ModuleNotFoundError("w2s_lib is missing: {how}")'


def tables(root: Path) -> Path:
    """A folder with all published records as a few files, made anew after any change."""
    results, made = root / "book" / "results", root / "_build" / "published"
    records = sorted(results.glob("*.parquet"))
    made_of = [*library(), *sorted((root / "book").glob("*.md")), *records]
    inputs, stamp = state_of(made_of), root / "_build" / "published.state"
    if not stamp.exists() or stamp.read_text() != inputs:
        from w2s_lib.publishing.tables import planned_runs, write_tables

        stamp.unlink(missing_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        write_tables(results, made, planned_runs(root))
        stamp.write_text(inputs)
    return made


def build(pages: list[Chapter], *, commit: str = "") -> bool:
    """Builds the pages, always all of them, and returns whether there was anything to do.

    `commit`: see `assemble`.

    A warning is an error (`-W`): a broken reference or an empty number is only a warning to Sphinx.
    Building a part would repeat no warning of a page that it leaves alone, and would not see that
    an extension has changed.
    """
    source, root = assemble(pages, commit=commit), pages[0].root
    extensions = sorted((root / "book" / "_ext").glob("*.py"))
    # The page of that name says how long chapters took, which makes no page stale.
    files = [path for path in sorted(source.rglob("*")) if path.name != "status.md"]
    settings = [root / "_config.yml", root / "pyproject.toml", root / "book" / "status.md"]
    inputs = state_of([*settings, *files, *extensions])
    stamp = root / "_build" / "site.state"
    if stamp.exists() and stamp.read_text() == inputs:
        return False
    stamp.unlink(missing_ok=True)
    # Under a name of its own: what is there stays whole until the new one is, and a builder that
    # outlives a killed `make` is in nobody's way.
    with temporary(root / "_build") as part:
        command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(source)]
        command += ["--config", "_config.yml", "--path-output", str(part)]
        command += ["-W", "-n", "--keep-going", "-q"]
        if code := subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL).returncode:
            said = f"failed with exit code {code}; its warnings, errors here, are above."
            raise BookError(f"jupyter-book {said}")
        shutil.rmtree(html := root / "_build" / "html", ignore_errors=True)
        (part / "_build" / "html").rename(html)
    stamp.write_text(inputs)
    return True


def verify(pages: list[Chapter]) -> None:
    """Holds the built pages against what the chapters made.

    Raises:
        BookError: lists every page that is missing, figure that is not on its page, thing loaded
            from another host, link to a file that is not there, and raw role.
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
    if raw := re.search(r"%%prose|\{(?:glue|cite|doc|ref|eq)[:}]", html):
        yield f"it shows {raw[0]!r}, which is no text"
    if re.search(
        r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//|cdn\.jsdelivr\.net', html
    ):
        yield "it loads something from another host (as a chart without the book's theme does)"
    links = set(map(html_text.unescape, re.findall(r'<[^>]+\s(?:href|src)="([^"#?]+)', html)))
    links = {link for link in links if not re.match(r"[a-z][a-z0-9+.-]*:|//", link)}
    if dead := sorted(link for link in links if not (path.parent / unquote(link)).exists()):
        yield f"it links to what is not there: {', '.join(dead)}"
    if page.is_notebook:
        hidden, charts = {"remove-cell", "remove-output"}, []
        for cell in json.loads(page.executed.read_text(encoding="utf-8"))["cells"]:
            if not hidden & set(cell["metadata"].get("tags", [])):
                made = [output.get("data", {}) for output in cell.get("outputs", [])]
                charts += [data[MIME] for data in made if MIME in data]
        wanted = Counter(map(chart_id, charts))
        if missing := wanted - Counter(re.findall(r'data-chart="(\w+)"', html)):
            yield f"{missing.total()} of its {wanted.total()} figures are not on it"
        for spec in charts:
            mark = f'data-figure="{chart_id(spec)}"'
            if lacks := [part for part in BEHIND if f'class="w2s-{part}" {mark}' not in html]:
                yield f"the figure {finding(spec)!r} is without its {', '.join(lacks)}"


def chart_id(spec: Any) -> str:
    """The name that `book/_ext/vega_charts.py` gives to a chart on its page."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]


def finding(spec: Any) -> str:
    """What a chart says: its description, else its title."""
    given = spec.get("description") or spec.get("title") or ""
    given = given["text"] if isinstance(given, dict) else given
    return " ".join(given) if isinstance(given, list) else str(given)
