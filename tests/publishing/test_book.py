"""The toolchain on a small book: a chapter that trains two runs and shows charts.

One that reads; two without code.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from dataclasses import replace
from html import escape
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from tests.chapter_text import problems
from tests.conftest import processes, sentences, until
from tests.hostile import CELL, PLAIN, TEXT, nothing_ran
from w2s_lib import __main__ as cli
from w2s_lib.publishing import execution, pages
from w2s_lib.publishing.chapters import (
    BookError,
    Chapter,
    Job,
    UsageError,
    chapters,
    load_profile,
    planned_specs,
    resolve,
)
from w2s_lib.runs.record import accuracies, to_parquet
from w2s_lib.runs.store import read

ROOT = Path(__file__).parents[2]
HEADER = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {name: python3, display_name: Python 3, language: python}
---
"""
ONE = (
    HEADER
    + r"""
# Chapter one

See [the other](reads.md), the [words](glossary.md) and [One 2020](https://example.org/a). $\frac{a}{\hat{b}}$

```{code-cell} ipython3
:tags: [parameters]
seeds: list[int] = [0, 1]  # two are enough here
n: int = 3  # points
```

```{code-cell} ipython3
:tags: [specs]
import w2s_lib as w2s

task = w2s.default_task("SENTENCES", n_train=64, n_validation=40, n_test=80)
arm = w2s.supervisor("tfidf", task)
specs = [arm.with_seed(seed) for seed in seeds]
```

```{code-cell} ipython3
---
tags: [hide-input]
jupyter:
  source_hidden: true
---
%load_ext w2s_lib
import os
import sys

import altair as alt

w2s.use_theme()
runs = w2s.sweep(specs)
print("an", "error", file=sys.stderr)
runs
```

```{code-cell} ipython3
---
tags: [remove-input]
jupyter:
  source_hidden: true
---
%%prose
**Shown:** {{len(seeds)}} seeds, accuracy {{runs.accuracy(arm):.2f}}, by {{sys.executable}};
see [the other](reads.md), published {{os.environ.get("W2S_PUBLISHED", "yes")}}.
```

```{code-cell} ipython3
rows = [{"x": i, "y": i * i} for i in range(n)]
score = runs.accuracy(arm).value
alt.Chart(alt.Data(values=rows), title="Squares grow").mark_line().encode(x="x:Q", y="y:Q")
```

```{code-cell} ipython3
---
tags: [hide-input]
jupyter:
  source_hidden: true
---
top = alt.param(name="top", value=2, bind=alt.binding_range(min=0, max=3, step=1, name="top "))
chart = alt.Chart(alt.Data(values=rows), width=700, name="said", description="Points up to a limit")
chart.mark_point().encode(x="x:Q", y="y:Q").transform_filter("datum.x <= top").add_params(top)
```

## What to tweak

| knob | what should happen |
|---|---|
| `N=4` | more points |
| `SEEDS=0 N=2` | fewer |
"""
)
READS = (
    HEADER
    + r"""
# A page without runs of its own

All runs: <a href="_static/data/runs.csv" download>runs.csv</a>. More in [one](one.md).

```{code-cell} ipython3
1 + 1
```

```{code-cell} ipython3"""
    + CELL
    + """```

```{code-cell} ipython3
---
tags: [remove-input]
jupyter:
  source_hidden: true
---
%load_ext w2s_lib
```

```{code-cell} ipython3
---
tags: [remove-input]
jupyter:
  source_hidden: true
---
%%prose
It says: {{hostile.partition(" ")[0]}}.
```
"""
)
FILES = {
    "_toc.yml": "format: jb-book\nroot: index\nchapters:\n"
    "- file: reads\n- file: one\n- file: glossary\n- file: references\n- file: status\n",
    "index.md": "# A book\n\nIt begins with [one](one.md), and cites [One 2020](https://example.org/a).\n",
    "glossary.md": "# Glossary\n\n:::{glossary}\nsupervisor\n  The teacher.\n:::\n",
    "status.md": "# Status\n\nHow it was made.\n",
    "references.md": "# References\n\nAll works.\n",
    "references.bib": "@misc{one2020, title={A}, author={One, Some}, year={2021}, url={https://example.org/a}}\n",
    "one.md": ONE,
    "reads.md": READS,
    "constraints.txt": "",
    "profiles/laptop.yaml": "seeds: [0, 1]\nworkers: 2\n",
    "profiles/quick.yaml": "seeds: [1]\nbanner: '> **A sketch.**'\n",
}


def sample(root):
    """Writes the book at `root` with this repository's configuration and extensions."""
    data = root / "sätze.csv"
    sentences().to_csv(data, index=False)
    for name, text in FILES.items():
        path = root / "book" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("SENTENCES", str(data)), encoding="utf-8")
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name)
    (root / "book" / "results").mkdir()
    for record in sorted((ROOT / "book" / "results").glob("*.parquet"))[:2]:
        shutil.copy(record, root / "book" / "results")
    for name in ("_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    return root


def command(root, *arguments):
    """The command that the Makefile calls, and an environment with this library and an own store."""
    variables = {"PYTHONPATH": str(ROOT), "W2S_STORE": str(root / "records")}
    return [sys.executable, "-m", "w2s_lib", *arguments], os.environ | variables


def make(root, *arguments):
    """Runs a verb at `root`."""
    line, variables = command(root, *arguments)
    return subprocess.run(
        line, cwd=root, env=variables, capture_output=True, text=True, encoding="utf-8"
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sample book, built in a folder whose name has a space and an umlaut."""
    root = sample(tmp_path_factory.mktemp("Ein Büchlein"))
    done = make(root, "book")
    assert done.returncode == 0, done.stdout + done.stderr
    return root, done.stdout


@pytest.fixture
def copy(built, tmp_path, monkeypatch):
    """A copy of the built book to spoil, with its records."""
    root = shutil.copytree(built[0], tmp_path / "copy")
    monkeypatch.setenv("W2S_STORE", str(root / "records"))
    return root


@pytest.fixture
def job(copy):
    return Job(Chapter("one", copy), {})


def page(root, name="one"):
    return (root / "_build" / "html" / f"{name}.html").read_text(encoding="utf-8")


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_pages_show_what_the_chapter_made(built):
    root, output = built
    html = page(root)
    assert re.search(r"<strong>Shown:</strong> 2 seeds, accuracy \d\.\d\d \[", html)
    assert sys.executable in html  # the kernel is this interpreter's, whatever others there are
    assert "published yes" in html and "an error" not in html and "%%prose" not in html
    assert html.count('class="w2s-chart"') == 2 and html.count('<svg role="img" aria-label=') == 4
    assert 'aria-label="Squares grow' in html and "<mfrac>" in html
    assert len(re.findall(r'href="reads.html"[^>]*><span[^>]*>the other', html)) == 2
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
    for page in chapters(copy):
        file = source / f"{page.name}.{'ipynb' if page.is_notebook else 'md'}"
        assert built in file.read_text(encoding="utf-8"), page.name
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


def test_nothing_is_done_twice(copy):
    again = make(copy, "book")
    assert again.returncode == 0 and "6 pages unchanged and verified" in again.stdout
    assert re.search(r"^one +unchanged +2 +0$", again.stdout, re.M)


def test_two_builds_in_one_checkout_wait_for_each_other(copy):
    edit(copy / "book" / "index.md", "A book", "One book")
    line, variables = command(copy, "book")
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(line, cwd=copy, env=variables, **quiet) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("pages built" in text for text in said) == [False, True], said
    assert "One book" in page(copy, "index")


def test_a_book_killed_at_any_moment(copy):
    """No page mixes old and new, and the next one makes it whole."""
    (line, variables), rng = command(copy, "book"), np.random.default_rng(0)
    title = shown = "Chapter one"
    for number in range(10 if os.environ.get("W2S_TORTURE") == "all" else 1):
        edit(copy / "book" / "one.md", f"# {title}", f"# {(title := f'Chapter, draft {number}')}")
        process = subprocess.Popen(line, cwd=copy, env=variables, stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(1, 20))
        process.kill()
        process.wait()
        site = [path.read_text("utf-8") for path in (copy / "_build" / "html").glob("*.html")]
        if site and title in site[0]:
            shown = title
        assert all(shown in html for html in site)
    # A builder that was left writes where nobody looks.
    until(lambda: not processes("W2S_STORE", variables["W2S_STORE"]), seconds=120)
    assert make(copy, "book").returncode == 0
    assert all(title in page(copy, name) for name in ("one", "reads", "index"))
    assert not [path for path in (copy / "_build").iterdir() if ".part" in path.name]


def test_executors_and_kernels_end_with_make(copy):
    """In the middle of a cell that would take ten minutes."""
    edit(copy / "book" / "one.md", "rows = [", "import time; time.sleep(600)\nrows = [")
    line, variables = command(copy, "book")
    process = subprocess.Popen(line, cwd=copy, env=variables, stdout=subprocess.DEVNULL)

    def there():
        return executors(variables["W2S_STORE"])

    until(lambda: any("ipykernel" in words for words in there()), seconds=120)
    process.kill()
    process.wait()
    until(lambda: not there(), seconds=120)


def executors(store):
    """The commands of processes that execute chapters with a store."""
    return [words for words in processes("W2S_STORE", store) if "jupyter-book" not in words]


def test_executing_again_gives_the_same_bytes(job):
    first = job.built(".ipynb").read_bytes()
    execution.execute_one(job, job.inputs())
    assert job.built(".ipynb").read_bytes() == first


def record(root):
    return next((root / "records").glob("*.parquet"))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: record(root).write_bytes(b"other"),
        lambda root: record(root).unlink(),
        lambda root: (root / "book" / "constraints.txt").write_text("numpy==1\n"),
        lambda root: edit(root / "book" / "one.md", "Chapter one", "Chapter 1"),
        lambda root: edit(root / "_build" / "executed" / "one.ipynb", "Chapter one", "Chapter 1"),
    ],
    ids=["record changed", "record gone", "constraints", "source", "executed notebook"],
)
def test_a_chapter_is_stale_when_what_it_depends_on_changes(copy, change):
    assert execution.is_current(Job(Chapter("one", copy), {}))
    change(copy)
    assert not execution.is_current(Job(Chapter("one", copy), {}))


def test_a_page_without_runs_is_stale_when_another_chapter_or_a_published_record_changes(copy):
    here = Job(Chapter("reads", copy), {})
    states = [here.inputs()]
    edit(copy / "book" / "one.md", "two are enough", "two suffice")
    states.append(here.inputs())
    next((copy / "book" / "results").glob("*.parquet")).unlink()
    assert len({*states, here.inputs()}) == 3


def test_a_chapter_is_stale_when_asked_for_otherwise(job, monkeypatch):
    given, sketch = replace(job, parameters={"n": 4}), replace(job, banner="A sketch")
    states = {one.inputs() for one in (job, given, sketch)}
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    assert len(states | {job.inputs()}) == 4


def test_a_change_in_any_room_of_the_library_makes_pages_stale(job, tmp_path):
    library = shutil.copytree(ROOT / "w2s_lib", tmp_path / "w2s_lib")
    rooms = sorted(folder for folder in library.iterdir() if (folder / "__init__.py").exists())
    code = (
        "import sys; from pathlib import Path; from w2s_lib.publishing.chapters import Chapter, Job\n"
        "job = Job(Chapter('one', Path(sys.argv[1])), {})\n"
        "for room in ['', *sys.argv[2:]]:\n"
        "    if room: Path(room, '__init__.py').write_text('# changed')\n"
        "    print(job.inputs())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, job.chapter.root, *rooms],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(rooms) == 8 and len(set(run.stdout.split())) == 9


def test_a_failing_chapter_is_named_with_its_cell_and_error(copy):
    edit(copy / "book" / "one.md", "rows = [", "# a comment\nrows = 1 / 0 and [")
    done = make(copy, "book")
    assert done.returncode == 1
    assert "one: code cell 5 (`# a comment`) failed: ZeroDivisionError" in done.stderr
    partial = copy / "_build" / "partial" / "one.ipynb"
    assert str(partial) in done.stderr and "2 seeds" in partial.read_text(encoding="utf-8")


def test_a_dying_kernel_is_named_with_its_cell(job):
    edit(job.chapter.source, "rows = [", "os._exit(1)\nrows = [")
    with pytest.raises(BookError, match=r"code cell 5 \(`os._exit\(1\)`\) failed: DeadKernelError"):
        execution.execute_one(job, job.inputs())


def test_a_field_that_the_notebook_does_not_have_fails_the_chapter_by_its_name(job):
    edit(job.chapter.source, "{{len(seeds)}}", "{{len(sedes)}}")
    with pytest.raises(BookError, match="one: .* there is no 'sedes': did you mean 'seeds'"):
        execution.execute_one(job, job.inputs())


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


def test_planning_executes_the_two_tagged_cells_and_no_other(job):
    assert [spec.seed for spec in planned_specs(job.chapter, {"seeds": [7]})] == [7]
    edit(job.chapter.source, "specs = ", "specs = 1 / 0 + ")
    with pytest.raises(BookError, match="one: its `specs` cell failed: ZeroDivisionError"):
        planned_specs(job.chapter, {})


def test_parameters_are_the_profiles_then_the_overrides(job):
    def parameters(**overrides):
        return resolve([job.chapter], profile="laptop", overrides=overrides)[0].parameters

    assert job.chapter.defaults() == {"seeds": [0, 1], "n": 3}
    assert parameters() == {}
    assert parameters(n=4, seeds=3) == {"n": 4, "seeds": [3]}
    with pytest.raises(UsageError, match="'seed': did you mean 'seeds'"):
        parameters(seed=1)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed: 1", "'seed'"),
        ("variants: [{n: 4}, {nn: 4}]", "'nn'"),
        ("- 1", "mine.yaml"),
        ("variants: {n: 4}", "variants"),
        ("seeds: [0", "mine.yaml is not YAML"),
        ("seeds: !!python/object/apply:os.abort []", "mine.yaml is not YAML"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused(job, text, named):
    own = job.chapter.root / "mine.yaml"
    own.write_text(text)
    with pytest.raises(UsageError, match=named):
        load_profile(job.chapter.root, str(own))


def test_a_profile_may_have_variants(job):
    own = job.chapter.root / "mine.yaml"
    own.write_text("n: 4\nvariants: [{n: 5}]")
    for variant, n in ((None, 4), ({"n": 5}, 5)):
        (found,) = resolve([job.chapter], profile=str(own), overrides={}, variant=variant)
        assert found.parameters == {"n": n}


def test_a_sketch_says_so_and_every_knob_is_tried(copy):
    _, variables = command(copy)
    line = [sys.executable, "-m", "tests", "try", "CHAPTERS=one"]
    done = subprocess.run(line, cwd=copy, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("one quick", "one quick N=4", "one quick SEEDS=0 N=2"):
        text = (copy / "_build" / "executed" / f"{name}.ipynb").read_text(encoding="utf-8")
        assert "**A sketch.**" in text and "1 seeds" in text


def test_retraining_all_hides_the_published_records(copy):
    done = make(copy, "retrain", "ALL=1", "CHAPTERS=one", "SEEDS=0")
    assert done.returncode == 0, done.stderr
    assert "published 0" in page(copy) and "1 seeds" in page(copy)
    assert re.search(r"^reads +unchanged +0 +0$", done.stdout, re.M)


def test_an_audit_trains_again_what_it_draws_and_tells_what_is_false(copy):
    """In a store of that day, though the user's own holds the runs."""
    results = copy / "book" / "results"
    for file in results.iterdir():
        file.unlink()
    (true,) = (read(file) for file in sorted((copy / "records").glob("*.parquet"))[:1])
    p = true.predictions["p"].to_numpy()[::-1]
    forged = replace(true, predictions=true.predictions.assign(p=p))
    forged = replace(forged, metrics=accuracies(forged.predictions))
    (results / Path(true.path).name).write_bytes(to_parquet(forged))
    done = make(copy, "audit", "DATE=2026-12-01")
    assert done.returncode == 1, done.stderr
    assert f"{true.spec.run_id} is not what its record says" in done.stdout
    (row,) = pd.read_csv(copy / "book" / "audit.csv").to_dict("records")
    assert row["date"] == "2026-12-01" and not row["holds"] and row["moved"] > 0
    assert (copy / "records" / "again" / "2026-12-01" / Path(true.path).name).is_file()


WRONG = {
    "bok": "did you mean 'book'",
    "book PROFIL=gpu": "did you mean 'profile'",
    "book CHAPTERS=onee": "did you mean 'one'",
    "book PROFILE=latop": "did you mean 'laptop'",
    "book WORKERS=many": "'many'",
    "book SEEDS=[0": "SEEDS is not YAML",
    "book SEEDS": "'SEEDS' has no value",
    "retrain CHAPTERS=one": "only with ALL=1",
    "audit DATE=soon": "YYYY-MM-DD, not 'soon'",
    "serve PROT=1": "did you mean 'port'",
    "serve PORT=abc": "'abc'",
}


def test_what_is_not_understood_exits_with_2_and_names_it(copy):
    """All in one process, at the root of the book."""
    code = """
import sys
from w2s_lib.__main__ import main
for line in sys.argv[1:]:
    print(main(line.split()), file=sys.stderr)
"""
    line, variables = [sys.executable, "-c", code, *WRONG], command(copy)[1]
    run = subprocess.run(line, cwd=copy, env=variables, capture_output=True, text=True)
    said = run.stderr.splitlines()
    assert said[1::2] == ["2"] * len(WRONG), run.stderr
    assert [
        text for text, part in zip(said[::2], WRONG.values(), strict=True) if part not in text
    ] == []
    assert make(copy, "bok").returncode == 2


def test_settings_are_read_as_papermill_reads_yaml():
    read = cli.read_settings("SEEDS=0,1 N=[2,3] -f own.yaml alpha=0.5")
    assert read == {"seeds": [0, 1], "n": [2, 3], "profile": "own.yaml", "alpha": 0.5}


def test_a_cluster_takes_no_number_of_workers_from_a_profile(copy):
    """In a process of its own, since the root of the book is where that is started."""
    code = """
import os
from w2s_lib.__main__ import take_jobs
def workers(**given): return take_jobs({"chapters": "one", **given})[1]
print(workers(), workers(workers=3), workers(engine="ray"), os.environ["W2S_ENGINE"])
"""
    variables = {**command(copy)[1], "W2S_ENGINE": "local"}
    line = [sys.executable, "-c", code]
    told = subprocess.check_output(line, cwd=copy, env=variables, text=True)
    assert told.split() == ["2", "3", "None", "ray"]


def test_serving_the_built_book(built):
    line, variables = command(built[0], "serve", "PORT=0")
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(line, cwd=built[0], env=variables, **quiet) as server:
        try:
            url = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline()).group()
            assert "A book" in urllib.request.urlopen(url).read().decode()
        finally:
            server.terminate()


def test_every_make_target_is_one_call_of_its_verb():
    stamps = ["-o", ".venv/book.stamp", "-o", ".venv/lab.stamp", "-o", ".venv/test.stamp"]
    for verb in cli.VERBS:
        line = ["make", "-n", *stamps, verb, "N=1"]
        run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
        assert run.stdout.count(f"-m w2s_lib {verb} N=1") == 1, run.stdout


def test_help_needs_nothing_installed_and_may_be_cut_off():
    line = f'"{sys.executable}" -S -m w2s_lib help'
    listed = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [line.split()[1] for line in listed.stdout.splitlines()[: len(cli.VERBS)]]
    assert names == list(cli.VERBS)
    cut = subprocess.run(f"{line} | true", shell=True, cwd=ROOT, capture_output=True, text=True)
    assert cut.stderr == ""


def test_no_executed_notebook_is_committed():
    tracked = subprocess.run(
        ["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True
    )
    assert tracked.stdout == ""
