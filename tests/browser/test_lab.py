"""The PGR chapter in a real JupyterLab.

As `make lab` opens it, run again with other seeds, and downloaded.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from tests.figures.test_plots import mime
from tests.figures.test_toys import TOYS
from tests.hostile import CELL, PLAIN, TEXT, nothing_ran
from w2s_lib.publishing.chapters import Chapter, chapters, planned_names
from w2s_lib.publishing.pages import downloadable

ROOT = Path(__file__).parents[2]
MINUTE = 60_000
pytestmark = pytest.mark.xdist_group("lab")  # which share one JupyterLab
FOLDED_OUTPUT = ("hide-cell", "hide-output")
SETTINGS = {  # every cell is drawn, also those that are not on the screen; and no question about news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    """The address of JupyterLab, started by the verb of `make lab` on a book of one chapter.

    And the book.
    """
    root = tmp_path_factory.mktemp("Bücher mit Platz")
    shutil.copy(ROOT / "pyproject.toml", root)
    book = root / "book"
    (book / "profiles").mkdir(parents=True)
    for name in (
        "pgr.md",
        "jupytext.toml",
        "references.bib",
        "constraints.txt",
        "profiles/laptop.yaml",
    ):
        shutil.copy(ROOT / "book" / name, book / name)
    (book / "_toc.yml").write_text("format: jb-book\nroot: pgr\n")
    for name, values in SETTINGS.items():
        path = root / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    options = {"allow_root": True, "open_browser": False}
    (root / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": options}))
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JUPYTER_TOKEN": "token",
        "JUPYTER_CONFIG_DIR": str(root),
        "JUPYTER_DATA_DIR": str(root / "data"),  # no notebook is trusted from before
        "JUPYTERLAB_SETTINGS_DIR": str(root / "settings"),
    }
    with (root / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "w2s_lib", "lab", f"PORT={port}"],
            cwd=root,
            env=environment,
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None, (root / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/api/status?token=token")
                break
            except OSError:
                time.sleep(0.5)
        yield address, book
    finally:
        urllib.request.urlopen(
            urllib.request.Request(f"{address}/api/shutdown?token=token", data=b"", method="POST")
        )
        server.wait(60)


@pytest.fixture
def opened(lab, browser):
    """Opens a notebook and waits until its charts are drawn."""
    pages = []

    def open_notebook(name, n_charts=3):
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(MINUTE)
        pages.append(page)
        page.goto(f"{lab[0]}/lab/tree/{name}?token=token&reset")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=2 * MINUTE)
        if n_charts:
            drawn = page.locator(".jp-Notebook .vega-embed").nth(n_charts - 1)
            drawn.wait_for(timeout=2 * MINUTE)
        return page

    yield open_notebook
    for page in pages:
        page.close()


def prose(page):
    """All that is rendered as text."""
    return "\n".join(page.locator(".jp-Notebook .jp-RenderedMarkdown").all_inner_texts())


def check_shown(page):
    """Numbers in the prose, no raw field, live charts, answers folded."""
    text = prose(page)
    assert re.search(r"it recovers [−]?\d+% \[.+%\]", text)
    assert not re.search(r"\{\{|\{glue|\{cite|\{doc", text)
    assert page.locator(".jp-Notebook .vega-embed canvas, .vega-embed svg").count() >= 3
    answers = page.locator(".jp-RenderedMarkdown details")
    assert answers.count() == 2 and page.locator("details[open]").count() == 0
    assert answers.last.locator("summary").is_visible()
    assert not answers.last.locator("p").is_visible()


def check_slider(page):
    """Moving the ceiling changes the number that the chart shows."""
    chart = page.locator(".vega-embed:has(input[type=range])").first
    chart.scroll_into_view_if_needed()
    drawing = chart.locator("canvas, svg").first
    before = drawing.screenshot()
    slider = chart.locator("input[type=range]").last
    slider.focus()
    slider.press("End")
    for _ in range(60):
        if drawing.screenshot() != before:
            return
        page.wait_for_timeout(500)
    pytest.fail("the slider changed nothing")


def start_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def run_all(page):
    start_all(page)
    # Running a cell clears its output first; the answers are what comes last.
    page.locator(".jp-RenderedMarkdown details").last.wait_for(state="detached", timeout=MINUTE)
    page.locator(".jp-RenderedMarkdown details").nth(1).wait_for(timeout=5 * MINUTE)


def test_chapters_are_written_as_jupyterlab_saves_and_shows_them():
    notebooks = [page for page in chapters(ROOT) if page.is_notebook]
    heads = {page.text.split("\n---\n")[0] for page in notebooks}
    assert len(heads) == 1  # the PGR chapter's, which JupyterLab leaves as it is
    # A folded output opens when its cell is run, so an answer stands in <details>.
    assert not [page.name for page in notebooks for t in FOLDED_OUTPUT if page.cells(t)]


@pytest.mark.timeout(1200)
def test_a_chapter_is_there_before_it_is_run_and_answers_other_seeds(lab, opened):
    page = opened("pgr.ipynb")
    check_shown(page)
    assert page.locator(".jp-mod-dirty").count() == 0  # to look at it is no edit
    check_slider(page)
    first = prose(page)
    run_all(page)
    check_shown(page)
    seeds = planned_names(Chapter("pgr", ROOT), {})["seeds"]
    assert prose(page) == first and f"over {len(seeds)} seeds" in first
    page.locator(".jp-InputPlaceholder").first.click()
    editor = page.locator(".jp-CodeCell .cm-content").first
    source = lab[1].joinpath("pgr.md").read_text(encoding="utf-8")
    cell = re.search(r"^task_name = .*?(?=^```)", source, re.M | re.S)[0].rstrip()
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(re.sub(r"\nseeds = list\(.*?\)\)", "\nseeds = [300, 301]", cell))
    run_all(page)
    assert "over 2 seeds" in prose(page) and prose(page) != first
    page.keyboard.press("Control+S")
    for _ in range(60):
        if "\nseeds = [300, 301]" in lab[1].joinpath("pgr.md").read_text(encoding="utf-8"):
            break
        page.wait_for_timeout(1000)
    else:
        pytest.fail("the edit did not reach the chapter")


def test_a_downloaded_notebook_that_nobody_trusts(lab, opened):
    made = downloadable(Chapter("pgr", lab[1].parent), {"pgr"})
    nbformat.write(made, lab[1] / "downloaded.ipynb")
    page = opened("downloaded.ipynb")
    check_shown(page)
    check_slider(page)


def test_every_toy_is_live_in_a_notebook_that_nobody_trusts(lab, opened):
    """Its outputs alone: no cell has been run here, and no kernel is asked."""
    notebook = nbformat.v4.new_notebook()  # with a kernel named, or Lab's question would cover it
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    for name, make in TOYS.items():
        output = nbformat.v4.new_output("display_data", mime(make()))
        notebook.cells.append(nbformat.v4.new_code_cell(f"# {name}", outputs=[output]))
    nbformat.write(notebook, lab[1] / "toys.ipynb")
    page = opened("toys.ipynb")
    toys = page.locator(".jp-Notebook .vega-embed")
    toys.nth(len(TOYS) - 1).wait_for(timeout=MINUTE)
    for i, name in enumerate(TOYS):
        toy = toys.nth(i)
        toy.scroll_into_view_if_needed()
        drawing, slider = toy.locator("canvas, svg").first, toy.locator("input[type=range]").last
        slider.press("Home")
        page.wait_for_timeout(1000)
        before = drawing.screenshot()
        slider.press("End")
        for _ in range(30):
            page.wait_for_timeout(500)
            if drawing.screenshot() != before:
                break
        else:
            pytest.fail(f"the slider of {name} changed nothing")


def test_texts_of_others_do_nothing_in_a_notebook_that_is_trusted(lab, opened):
    """It is executed here, so that Lab runs the script of an output; of a text it runs none."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    script = 'from IPython.display import HTML\n\nHTML("<script>window.trusted = 1</script>")'
    prose = '%%prose\nIt says: {{hostile.partition(" ")[0]}}.'
    for source in (script, "%load_ext w2s_lib", CELL, prose):
        notebook.cells.append(nbformat.v4.new_code_cell(source))
    nbformat.write(notebook, lab[1] / "hostile.ipynb")
    page = opened("hostile.ipynb", n_charts=0)
    page.get_by_text("| Idle").wait_for(timeout=2 * MINUTE)  # before, Lab would ask for a kernel
    start_all(page)
    said = page.locator(".jp-RenderedMarkdown")
    said.wait_for(timeout=5 * MINUTE)
    assert said.inner_text() == f"It says: {TEXT.partition(' ')[0]}."
    assert page.locator(".w2s-examples summary").inner_text() == f"{PLAIN}, seed 300"
    frame, table = page.locator(".jp-OutputArea table").all()
    assert frame.locator("td").first.inner_text() == TEXT
    assert table.locator("td").first.inner_text() == PLAIN
    page.locator(".vega-embed canvas").hover()
    tip = page.locator("#vg-tooltip-element")
    tip.wait_for()
    assert TEXT in tip.inner_text()
    assert page.evaluate("window.trusted") == 1
    nothing_ran(page)
