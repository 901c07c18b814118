"""The pages: lay the executed chapters out as a Sphinx source tree, build it, verify it, serve it."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from w2s_lib.book import BookError, Chapter, digest

VEGALITE = "application/vnd.vegalite.v6+json"
NOT_PAGES = shutil.ignore_patterns("results", "profiles", "_ext", "constraints.txt", ".*", "__pycache__")


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
    return target


def build(pages: list[Chapter]) -> bool:
    """Builds the pages, always all of them, and returns whether there was anything to do.

    A warning is an error (`-W`): a broken reference or an empty number is only a warning to Sphinx. A partial build would
    repeat no warning of a page that it leaves alone, and does not see that an extension has changed.
    """
    source = assemble(pages)
    root = pages[0].root
    files = [p for top in (source, root / "book" / "_ext") for p in sorted(top.rglob("*")) if p.is_file()]
    files = [root / "_config.yml", *(p for p in files if p.suffix != ".pyc")]
    stamp, inputs = root / "_build" / "site.state", digest(*(str(p).encode() + p.read_bytes() for p in files))
    if stamp.exists() and stamp.read_text() == inputs:
        return False
    stamp.unlink(missing_ok=True)
    for folder in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(root / "_build" / folder, ignore_errors=True)
    tool = str(Path(sys.executable).with_name("jupyter-book"))
    command = [tool, "build", str(source), "--config", "_config.yml", "--path-output", ".", *"-W -n --keep-going -q".split()]
    if code := subprocess.run(command, cwd=root).returncode:
        raise BookError(f"jupyter-book failed with exit code {code}; its warnings, errors here, are above.")
    stamp.write_text(inputs)
    return True


def verify(pages: list[Chapter]) -> None:
    """Holds the built pages against what the chapters made.

    Raises:
        BookError: lists every page that is missing, figure that is on no page, glued value that is empty or not there,
            and error among the outputs.
    """
    site = pages[0].root / "_build" / "html"
    paths = {page: site / f"{page.name}.html" for page in pages}
    html = {page: path.read_text(encoding="utf-8") if path.exists() else "" for page, path in paths.items()}
    drawn = {page: Counter(re.findall(r'data-chart="(\w+)"', text)) for page, text in html.items()}
    problems = [f"{page.name}: there is no page {path}" for page, path in paths.items() if not path.exists()]
    for page in (p for p in pages if p.is_notebook and html[p]):
        outputs = page_outputs(page)
        made = Counter(chart_id(o["data"][VEGALITE]) for o in outputs if VEGALITE in o.get("data", {}))
        missing = sum((made - drawn[page]).values())
        problems += [f"{page.name}: {missing} of {sum(made.values())} figures are not on the page"] * (missing > 0)
        errors = [o for o in outputs if o["output_type"] == "error" or "Traceback (most recent" in str(o.get("text"))]
        problems += [f"{page.name}: {len(errors)} outputs are errors"] * bool(errors)
    for page, text in html.items():
        wanted = len(re.findall(r"\{glue:(?:text|md)\}`[^`]+`", page.source.read_text(encoding="utf-8")))
        shown = [value.strip() for value in re.findall(r'<span class="pasted-text">(.*?)</span>', text, re.S)]
        if text and len([value for value in shown if value and value != "nan"]) < wanted:
            problems.append(f"{page.name}: glues {wanted} values, but shows {len(shown)}, of them {shown.count('')} empty")
        if "Traceback (most recent call last)" in text or 'class="problematic"' in text:
            problems.append(f"{page.name}: the page shows a traceback or a broken reference")
    if problems:
        raise BookError("The built book is not whole:\n  " + "\n  ".join(problems))


def page_outputs(page: Chapter) -> list[Any]:
    """The outputs of an executed chapter that its page is to show."""
    cells = json.loads(page.built(".ipynb").read_text(encoding="utf-8"))["cells"]
    hidden = {"remove-cell", "remove-output"}
    return [o for c in cells if not hidden & set(c["metadata"].get("tags", [])) for o in c.get("outputs", [])]


def chart_id(spec: Any) -> str:
    """The name that `book/_ext/vega_charts.py` gives to a chart on its page."""
    import hashlib

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
