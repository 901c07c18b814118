"""The built pages: what they show, load and link to, what is behind them, and what fails a build."""

import json
import re
import subprocess
import sys
import urllib.request
import zipfile
from html import escape

import nbformat
import pytest

from tests.chapter_text import problems
from tests.hostile import PLAIN, TEXT, nothing_ran
from tests.publishing.conftest import TOKEN, command, edit, page
from w2s_lib.publishing import pages
from w2s_lib.publishing.chapters import BookError, chapters


def test_pages_show_what_the_chapter_made(built):
    root, output = built
    html = page(root)
    assert re.search(r"<strong>Shown:</strong> 2 seeds, accuracy \d\.\d\d \[", html)
    assert sys.executable in html  # the kernel is this interpreter's, whatever others there are
    assert "published yes" in html and "an error" not in html and "%%prose" not in html
    assert html.count('class="w2s-chart"') == 2 and html.count('<svg role="img" aria-label=') == 4
    assert 'aria-label="Squares grow' in html and "<mfrac>" in html
    assert len(re.findall(r'href="reads.html"[^>]*><span[^>]*>the other', html)) == 2
    assert '<span class="kn">import</span>' in html and '<span class="n">' not in html
    assert "Some One" in page(root, "references") and "All works." in page(root, "references")
    assert re.search(r"^one +[\d.]+ +0 +2$", output, re.M), output
    assert re.search(r"^reads +[\d.]+ +0 +0$", output, re.M), output


def test_under_a_figure_stand_its_data_its_runs_and_its_code(built):
    html, known = page(built[0]), {path.stem for path in (built[0] / "records").glob("*.parquet")}
    under = html.split('<div class="w2s-behind">')[1:]
    assert len(under) == 2
    for line, code in zip(under, ("code above", "<summary>code</summary>"), strict=True):
        file = re.search(r'href="(_static/data/one-\d+-1\.csv)"[^>]* download>data</a>', line)[1]
        rows = (built[0] / "_build" / "html" / file).read_text(encoding="utf-8").splitlines()
        assert rows[0] == "x,y" and rows[1:] == ["0,0", "1,1", "2,4"]
        assert code in line
    # The first figure's cell measures, the second one uses a name that it made; neither is published.
    for line in under:
        assert "<summary>2 runs</summary>" in line and "supervisor TF-IDF" in line
        assert len(known) == 2 and all(run in line for run in known) and "#run-" not in line
    assert html.count("binding_range") == under[1].count("binding_range") == 1  # moved, not doubled


def test_a_page_and_the_status_say_what_is_behind(built):
    html, status = page(built[0]), page(built[0], "status")
    assert "2 training records of 1 kind, seeds 0, 1" in html
    assert "2 of them on this machine alone" in html and "commit" not in html
    assert "No training record" in page(built[0], "reads")
    assert re.search(r"<td[^>]*><p>2</p></td>\s*<td[^>]*><p>[\d.]+</p></td>", status)
    assert "seconds" in status and "asks whoever built them" in status
    assert not re.search("binder|colab|thebe", html + status, re.I)


def test_a_repository_with_an_address_is_linked_and_launched(built, copy):
    urls = 'urls.Repository = "https://github.com/a/b"\n[project.optional'
    edit(copy / "pyproject.toml", "[project.optional", urls)
    pages.build(chapters(copy))
    linked, plain = page(copy), page(built[0])
    assert 'href="https://github.com/a/b"' in linked and "github.com" not in plain
    launch = "https://mybinder.org/v2/gh/a/b/main?urlpath=lab/tree/book/one.md"
    assert f'href="{launch}"' in linked and "mybinder" not in plain
    assert "mybinder" not in page(copy, "status")  # it has nothing to run
    pages.verify(chapters(copy))


def test_texts_of_others_are_shown_to_the_letter(built, browser):
    """In a list of examples, a frame, a table, a chart, its tooltip and its data, and in prose; and nothing runs."""
    shown = escape(PLAIN)
    assert f'data-experiment="{shown}"' in page(built[0], "reads")
    reader = browser.new_page()
    reader.goto((built[0] / "_build" / "html" / "reads.html").as_uri())
    assert reader.locator(".w2s-examples summary").inner_text() == f"{PLAIN}, seed 300"
    quoted = reader.locator(".w2s-examples blockquote").all_text_contents()
    assert quoted == [f"{PLAIN}other"]
    frame, table, data = reader.locator("table").all()
    assert frame.locator("td").first.inner_text() == TEXT
    assert table.locator("td").first.inner_text() == PLAIN
    assert table.locator("th").first.inner_text() == PLAIN
    assert data.locator("td").first.text_content() == PLAIN
    assert f"It says: {TEXT.partition(' ')[0]}." in reader.locator("article").inner_text()
    chart = reader.locator(".w2s-chart")
    assert chart.get_attribute("data-label").startswith(TEXT)
    chart.hover()
    reader.wait_for_selector(".w2s-chart[data-live=yes]")
    chart.locator("path[aria-roledescription=square]").hover()
    assert TEXT in reader.locator("#vg-tooltip-element").inner_text()
    nothing_ran(reader)
    reader.close()


def test_a_published_archive_names_its_commit_and_holds_the_sources(copy, monkeypatch):
    for line in (["init", "-q"], ["add", "book", "_config.yml"], ["commit", "-qm", "Book"]):
        git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *line]
        subprocess.run(git, cwd=copy, check=True)
    line = ["git", "rev-parse", "HEAD"]
    run = subprocess.run(line, cwd=copy, capture_output=True, text=True, check=True)
    source = pages.assemble(chapters(copy), commit=run.stdout.strip())
    built = f"commit `{run.stdout[:12]}`"
    for chapter in chapters(copy):
        file = source / f"{chapter.name}.{'ipynb' if chapter.is_notebook else 'md'}"
        assert built in file.read_text(encoding="utf-8"), chapter.name
    status = (source / "status.md").read_text(encoding="utf-8")
    assert pages.ARCHIVE in status and "seconds" not in status
    with zipfile.ZipFile(source / pages.ARCHIVE) as archive:
        assert "book/one.md" in archive.namelist()
    packed = (source / pages.ARCHIVE).read_bytes()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    pages.assemble(chapters(copy), commit=run.stdout.strip())
    assert (source / pages.ARCHIVE).read_bytes() == packed


def test_pages_load_nothing_from_elsewhere(built):
    for path in (built[0] / "_build" / "html").glob("*.html"):
        html = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*\b(?:src|href)=[\"']([^\"']+)", html)
        assert [url for url in loaded if "//" in url] == []
        scripts = re.findall(r'<script[^>]*src="([^"]+)"', html)
        assert len(scripts) == len(set(scripts))


def test_no_token_of_the_environment_is_in_what_is_built(built):
    files = [path for path in built[0].rglob("*") if path.is_file()]
    assert any(path.suffix == ".ipynb" for path in files)
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_the_downloaded_notebook_gets_the_library_and_has_its_outputs(built, tmp_path):
    """Where no repository is named, its first cell says in words what to do."""
    path = built[0] / "_build" / "html" / "_sources" / "one.ipynb"
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert shown.count("application/vnd.vegalite.v5+json") == shown.count("image/png") == 2
    assert "text/markdown" in shown and "(reads.ipynb)" in json.dumps(notebook)
    first = tmp_path / "first.py"
    first.write_text(notebook.cells[0].source)
    run = subprocess.run([sys.executable, "-I", "-S", first], capture_output=True, text=True)
    assert "ModuleNotFoundError: w2s_lib is missing" in run.stderr and "pip install" in run.stderr
    urls = '[project]\nname = "w2s-lib"\nurls.Repository = "https://x/y"\n'
    (tmp_path / "pyproject.toml").write_text(urls)
    line = pages.how_to_install(tmp_path)
    assert line.startswith("%pip install") and line.endswith('@ git+https://x/y"')


def test_serving_the_built_book(built):
    line, variables = command(built[0], "serve", "PORT=0")
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(line, cwd=built[0], env=variables, **quiet) as server:
        try:
            url = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline()).group()
            assert "A book" in urllib.request.urlopen(url).read().decode()
        finally:
            server.terminate()


def test_what_is_wrong_in_sources_is_listed(copy):
    edit(copy / "book" / "one.md", "[words](glossary.md)", "[words](glossary.md#supervisor)")
    edit(copy / "book" / "one.md", "jupyter:\n  source_hidden: true\n---\n%load", "---\n%load")
    edit(copy / "book" / "index.md", "One 2020", "One 2021")
    edit(copy / "book" / "glossary.md", "teacher.", "teacher ([Two 2020](https://example.org/b)).")
    found = "\n".join(problem for page in chapters(copy) for problem in problems(page))
    for words in ("glossary.md#supervisor", "%load_ext", "'One 2020'", "https://example.org/b"):
        assert words in found
    assert len(found.splitlines()) == 4


def test_a_warning_fails_the_build(copy):
    edit(copy / "book" / "index.md", "(one.md)", "(none.md)")
    with pytest.raises(BookError, match="exit code 1"):
        pages.build(chapters(copy))
    assert not (copy / "_build" / "site.state").exists()


def test_verification_lists_everything_that_is_wrong(copy):
    html = copy / "_build" / "html"
    (html / "glossary.html").unlink()
    edit(html / "reads.html", "_static/data/runs.csv", "_static/data/runs.txt")
    text = re.sub(r'data-chart="\w+"', "", page(copy), count=1)
    text = text.replace("w2s-runs", "", 1).replace("w2s-data", "", 1)
    bad = "{cite:t} <script src='https://host/a.js'>"
    (html / "one.html").write_text(text + bad.replace("'", '"'), encoding="utf-8")
    with pytest.raises(BookError) as error:
        pages.verify(chapters(copy))
    for problem in (
        "glossary: there is no page",
        "one: it shows '{cite:'",
        "reads: it links to what is not there: _static/data/runs.txt, glossary.html",
        "one: it loads something from another host",
        "one: 1 of its 2 figures are not on it",
        "one: the figure 'Squares grow' is without its data, runs",
    ):
        assert problem in str(error.value)
