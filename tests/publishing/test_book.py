"""The toolchain on a book of four pages: a chapter with a glued number, a chart and a record; one that gathers; two more."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from w2s_lib import __main__ as cli
from w2s_lib.publishing import pages as build
from w2s_lib.publishing.chapters import (
    BookError,
    Chapter,
    Job,
    UsageError,
    chapters,
    environment,
    planned_specs,
)
from w2s_lib.publishing.profiles import load_profile, resolve
from w2s_lib.runs.record import Record
from w2s_lib.runs.spec import RunSpec, Task
from w2s_lib.runs.store import find, write

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

The value is {glue:text}`value`, of {glue:text}`interpreter`; see {eq}`eq-one`.

```{code-cell} ipython3
:tags: [parameters]
seeds: list[int] = [0, 1]  # two are enough here
n: int = 3  # points
```

```{code-cell} ipython3
:tags: [specs]
specs: list[object] = []
```

```{code-cell} ipython3
:tags: [remove-input]
import json
import os
import sys
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd

import w2s_lib.figures.style as theme
from w2s_lib.publishing.report import report

theme.use_theme()
record = next(Path("results").glob("*.parquet")).resolve()
note = {"run_id": "aaaa", "digest": "0", "trained": False, "path": str(record)}
with open(os.environ["W2S_MANIFEST"], "a") as file:
    file.write(json.dumps(note) + "\n")
report("value", np.float32(0.8123), ".2f")
report("interpreter", sys.executable)
print(len(seeds), "seeds", os.environ.get("W2S_PUBLISHED"))
print("to the error stream", file=sys.stderr)
```

```{code-cell} ipython3
rows = [{"x": i, "y": i * i} for i in range(n)]
pd.DataFrame(rows).style.hide(axis="index")
```

```{code-cell} ipython3
alt.Chart(alt.Data(values=rows), title="Squares grow").mark_line().encode(x="x:Q", y="y:Q")
```

```{code-cell} ipython3
top = alt.param(name="top", value=2, bind=alt.binding_range(min=0, max=3, step=1, name="top "))
chart = alt.Chart(alt.Data(values=rows), width=700, description="Points up to a limit that the reader sets")
chart.mark_point().encode(x="x:Q", y="y:Q").transform_filter("datum.x <= top").add_params(top)
```

```{math}
:label: eq-one
\mathrm{PGR} = \frac{\text{student} - \text{weak}}{\hat{c} - \text{weak}}
```
"""
)
GATHERS = (
    HEADER
    + r"""
# What the others say

Chapter one says {glue:text}`said`. All runs: <a href="_static/runs.csv" download>runs.csv</a>.

```{code-cell} ipython3
import w2s_lib as w2s

w2s.report("said", w2s.reports()["one"]["value"]["text"])
```
"""
)
PAGES = {
    "_toc.yml": "format: jb-book\nroot: index\nchapters:\n- file: gathers\n- file: one\n- file: glossary\n",
    "index.md": "# A book\n\nIt cites {cite:t}`someone2020` and says {glue:text}`one.ipynb::value:s` of $\\hat{p}_i$.\n",
    "glossary.md": "# Glossary\n\n:::{glossary}\nsupervisor\n  The teacher.\n:::\n\n```{bibliography}\n```\n",
    "references.bib": "@article{someone2020, title={A}, author={Some One}, journal={B}, year={2020}}\n",
    "one.md": ONE,
    "gathers.md": GATHERS,
    "constraints.txt": "",
    "profiles/laptop.yaml": "seeds: [0, 1]\nworkers: 2\n",
}
SPEC = RunSpec(model="tfidf", half="supervisor", task=Task(n_train=16))


def sample(root):
    """Writes the book at `root` with this repository's configuration and extensions."""
    for name, text in PAGES.items():
        path = root / "book" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name)
    shutil.copy(ROOT / "_config.yml", root)
    publish(root)
    return root


def publish(root, accuracy=0.5):
    """A published record at `root`."""
    rows = {
        "split": ["test", "test", "student"],
        "label": [0, 1, 1],
        "p": [0.1, 0.2, 0.9],
        "group": [0, 1, 2],
    }
    made = {
        "task_digest": "0",
        "seconds": 1.5,
        "hardware": "a machine",
        "date": "2026-01-02",
        "commit": "0" * 40,
    }
    frame = pd.DataFrame(rows, index=pd.Index([5, 6, 7], name="row"))
    frame = frame.astype({"label": "int8", "p": "float32", "group": "int32"})
    return Path(
        write(
            Record(SPEC, frame, {"accuracy": accuracy}, made), store=root / "book" / "results"
        ).path
    )


def command(*arguments):
    """The command that the Makefile calls, and an environment in which it finds this library."""
    return [sys.executable, "-m", "w2s_lib", *arguments], os.environ | {"PYTHONPATH": str(ROOT)}


def make(root, *arguments):
    """Runs a verb at `root`."""
    line, environment = command(*arguments)
    return subprocess.run(
        line, cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sample book, built."""
    root = sample(tmp_path_factory.mktemp("book"))
    done = make(root, "book")
    assert done.returncode == 0, done.stdout + done.stderr
    return root, done.stdout


@pytest.fixture
def copy(built, tmp_path):
    """A copy of the built book to spoil."""
    return shutil.copytree(built[0], tmp_path / "copy")


@pytest.fixture
def job(tmp_path):
    """The sample's chapter, not executed."""
    return Job(Chapter("one", sample(tmp_path)), {})


def page(root, name="one"):
    return (root / "_build" / "html" / f"{name}.html").read_text()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_pages_show_what_the_chapter_made(built):
    root, output = built
    html = page(root)
    assert '<span class="pasted-text">0.81</span>' in html
    assert (
        sys.executable in html
    )  # the kernel is this interpreter's, whatever kernels the machine has installed
    assert "2 seeds None" in html and "to the error stream" not in html
    assert html.count('class="w2s-chart"') == 2 and html.count('<svg role="img" aria-label=') == 2
    assert 'aria-label="Squares grow"' in html
    assert "<mfrac>" in html and "Traceback" not in html
    assert '<span class="pasted-text">0.81</span>' in page(root, "index") and "One" in page(
        root, "glossary"
    )
    assert re.search(r"^one +[\d.]+ +1 +0$", output, re.M) and re.search(
        r"^gathers +[\d.]+ +0 +0$", output, re.M
    ), output
    assert "index.html" in output
    assert (
        json.loads((root / "_build" / "executed" / "one.report.json").read_text())["value"]["text"]
        == "0.81"
    )


def test_pages_load_nothing_from_elsewhere(built):
    for path in (built[0] / "_build" / "html").glob("*.html"):
        html = path.read_text()
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*\b(?:src|href)=[\"']([^\"']+)", html)
        assert [url for url in loaded if "//" in url] == []
        assert "MathJax" not in html and "binder" not in html.lower()
        scripts = re.findall(r'<script[^>]*src="([^"]+)"', html)
        assert len(scripts) == len(set(scripts))


def test_nothing_is_done_twice(built):
    again = make(built[0], "book")
    assert again.returncode == 0 and "4 pages unchanged and verified" in again.stdout
    assert re.search(r"^one +unchanged +1 +0$", again.stdout, re.M)
    assert re.search(r"^gathers +unchanged +0 +0$", again.stdout, re.M)


def test_a_page_that_gathers_comes_after_the_chapters_that_report(built):
    """Though it is before them in the contents."""
    assert [chapter.name for chapter in chapters(built[0])] == [
        "index",
        "gathers",
        "one",
        "glossary",
    ]
    assert built[1].index("one: executed in") < built[1].index("gathers: executed in")
    assert '<span class="pasted-text">0.81</span>' in page(built[0], "gathers")
    gathers = Chapter("gathers", built[0])
    assert (
        gathers.gathers
        and not Chapter("one", built[0]).gathers
        and not Chapter("glossary", built[0]).gathers
    )
    assert planned_specs(gathers, {}) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda root: edit(root / "_build" / "executed" / "one.report.json", "0.81", "0.82"),
        lambda root: publish(root, accuracy=1.0),
        lambda root: edit(root / "book" / "one.md", "two are enough", "two suffice"),
        lambda root: edit(root / "book" / "_toc.yml", "- file: glossary\n", ""),
        lambda root: edit(root / "book" / "references.bib", "2020}", "2021}"),
    ],
    ids=["a report", "a record", "a chapter", "the contents", "the references"],
)
def test_a_page_that_gathers_is_stale_when_what_it_gathers_changes(copy, change):
    here = Job(Chapter("gathers", copy), {})
    before = here.state()
    assert here.state() == before
    change(copy)
    assert here.state() != before


def test_published_runs_are_offered_as_files(built):
    folder = built[0] / "_build" / "html" / "_static"
    assert sorted(path.name for path in folder.glob("*.parquet")) == [
        "predictions.parquet",
        "runs.parquet",
    ]
    runs = pd.read_csv(folder / "runs.csv")
    assert list(runs["run_id"]) == [SPEC.run_id] and list(runs["hardware"]) == ["a machine"]
    assert list(pd.read_parquet(folder / "predictions.parquet")["row"]) == [5, 6, 7]


def test_tables_are_made_anew_only_when_a_record_has_changed(copy):
    table = build.tables(copy)[0]
    before = table.stat().st_mtime_ns
    assert build.tables(copy)[0].stat().st_mtime_ns == before
    publish(copy, accuracy=1.0)
    assert "1.0" in build.tables(copy)[0].read_text() and table.stat().st_mtime_ns != before


def test_a_damaged_record_fails_the_build(copy):
    path = publish(copy)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BookError, match=f"cannot be listed: damaged record .*{SPEC.run_id}"):
        build.build(chapters(copy))


def test_executing_again_gives_the_same_bytes(built, job):
    build.execute([job], workers=1)
    first = (built[0] / "_build" / "executed" / "one.ipynb").read_bytes()
    assert (job.chapter.built(".ipynb")).read_bytes() == first


def test_chapters_are_executed_side_by_side(tmp_path):
    """Each kernel has sockets of its own: with shared ones, kernels get each other's messages and hang."""
    root = sample(tmp_path)
    jobs = [
        Job(Chapter(name, root), {"n": n}) for n, name in enumerate(("two", "three", "four"), 2)
    ]
    for job in jobs:
        shutil.copy(root / "book" / "one.md", job.chapter.source)
    assert [row[0] for row in build.execute(jobs, workers=1)] == ["two", "three", "four"]
    assert all(job.chapter.built(".report.json").exists() for job in jobs)
    assert list(root.rglob("kernel*")) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda root: publish(root, accuracy=1.0),
        lambda root: publish(root).unlink(),
        lambda root: (root / "book" / "constraints.txt").write_text("numpy==1\n"),
        lambda root: edit(root / "book" / "one.md", "Chapter one", "Chapter 1"),
        lambda root: edit(root / "_build" / "executed" / "one.ipynb", "Chapter one", "Chapter 1"),
    ],
    ids=["record changed", "record gone", "constraints", "source", "executed notebook"],
)
def test_a_chapter_is_stale_when_what_it_depends_on_changes(copy, change):
    here = Job(Chapter("one", copy), {})
    edit(here.chapter.built(".jsonl"), json.loads(here.chapter.built(".jsonl").read_text())["path"],
         str(publish(copy)))  # fmt: skip
    before = here.state()
    assert here.state() == before
    change(copy)
    assert here.state() != before


def test_a_chapter_is_stale_when_asked_for_otherwise(copy, monkeypatch):
    here = Job(Chapter("one", copy), {})
    hidden = replace(here, published=False)
    assert len({here.state(), hidden.state(), replace(here, parameters={"n": 4}).state()}) == 3
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    assert here.state() == hidden.state()


def test_a_failing_chapter_is_named_with_its_cell_and_error(job):
    edit(job.chapter.source, "rows = [", "# a comment\nrows = 1 / 0 and [")
    done = make(job.chapter.root, "book")
    assert done.returncode == 1
    assert (
        "one: code cell 4 (`# a comment`) failed: ZeroDivisionError: division by zero"
        in done.stderr
    )
    partial = job.chapter.built(".ipynb", "partial")
    assert str(partial) in done.stderr and "2 seeds" in partial.read_text()
    assert not job.chapter.built(".ipynb").exists()


def test_a_dying_kernel_is_named_with_its_cell(job):
    edit(job.chapter.source, "rows = [", "os._exit(1)\nrows = [")
    with pytest.raises(
        BookError, match=r"one: code cell 4 \(`os._exit\(1\)`\) failed: DeadKernelError"
    ):
        build.execute([job], workers=1)


def test_a_warning_fails_the_build(copy):
    edit(copy / "book" / "index.md", "one.ipynb::value:s", "one.ipynb::no_such_value:s")
    with pytest.raises(BookError, match="exit code 1"):
        build.build(chapters(copy))
    assert not (copy / "_build" / "site.state").exists()


def test_verification_lists_everything_that_is_wrong(copy):
    html = copy / "_build" / "html"
    (html / "glossary.html").unlink()
    edit(
        html / "one.html",
        '<span class="pasted-text">0.81</span>',
        '<span class="pasted-text"></span>',
    )
    edit(html / "gathers.html", "_static/runs.csv", "_static/runs.txt")
    text = page(copy)
    (html / "one.html").write_text(
        re.sub(r'data-chart="\w+"', "", text, count=1) + "Traceback (most recent call last)"
        '<script src="https://host/a.js">'
    )
    with pytest.raises(BookError) as error:
        build.verify(chapters(copy))
    for problem in (
        "glossary: there is no page",
        "one: 2 values are glued (value, interpreter), but only 1 are shown",
        "one: it shows a traceback",
        "gathers: it links to what is not there: _static/runs.txt, glossary.html",
        "one: it loads something from another host",
        "one: 1 of its 2 figures are not on it",
    ):
        assert problem in str(error.value)


def test_a_run_that_was_trained_and_then_read_counts_as_trained(job):
    job.chapter.built("").parent.mkdir(parents=True)
    lines = [
        {"run_id": "a", "trained": True},
        *({"run_id": i, "trained": False, "path": "p"} for i in "abb"),
    ]
    job.chapter.built(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert job.row(1.5) == ("one", 1.5, 1, 1)


def test_a_page_in_the_contents_must_exist(copy):
    (copy / "book" / "glossary.md").unlink()
    with pytest.raises(BookError, match="pages that do not exist: glossary"):
        chapters(copy)


def test_planning_executes_the_two_tagged_cells_and_no_other(job):
    assert planned_specs(job.chapter, {}) == []
    edit(job.chapter.source, "import json", "raise SystemExit('executed')")
    edit(
        job.chapter.source, "specs: list[object] = []", "specs = [f'run {seed}' for seed in seeds]"
    )
    assert planned_specs(job.chapter, {"seeds": [7]}) == ["run 7"]
    edit(job.chapter.source, "specs = ", "specs = 1 / 0 + ")
    with pytest.raises(BookError, match="one: its `specs` cell failed: ZeroDivisionError"):
        planned_specs(job.chapter, {})


def test_parameters_are_the_profiles_then_the_overrides(job):
    def parameters(**overrides):
        return resolve([job.chapter], profile="laptop", overrides=overrides)[0].parameters

    assert job.chapter.defaults() == {"seeds": [0, 1], "n": 3}
    assert parameters() == {}
    assert parameters(n=4, seeds=3) == {"n": 4, "seeds": [3]}
    with pytest.raises(UsageError, match="Unknown parameter 'seed': did you mean 'seeds'"):
        parameters(seed=1)


def test_a_profile_that_sets_what_no_chapter_takes(job):
    """Also in a variant, and by the path of a file of one's own."""
    own = job.chapter.root / "mine.yaml"
    for text, wrong in (("seed: 1", "seed"), ("variants: [{n: 4}, {nn: 4}]", "nn")):
        own.write_text(text)
        with pytest.raises(
            UsageError, match=f"mine.yaml sets '{wrong}', which no chapter takes: did you mean"
        ):
            load_profile(job.chapter.root, str(own))
    for text in ("- 1", "variants: {n: 4}"):
        own.write_text(text)
        with pytest.raises(UsageError, match="must set parameters by their names"):
            load_profile(job.chapter.root, str(own))
    own.write_text("n: 4\nworkers: 1\nvariants: [{n: 5}]")
    assert load_profile(job.chapter.root, str(own)) == {
        "n": 4,
        "workers": 1,
        "variants": [{"n": 5}],
    }
    found = [
        resolve([job.chapter], profile=str(own), overrides={}, variant=v)[0].parameters
        for v in (None, {"n": 5})
    ]
    assert found == [{"n": 4}, {"n": 5}]


def test_retraining_hides_the_published_records_and_takes_one_seed(job):
    few = cli.one_seed(job)
    assert few.parameters == {"seeds": [0]} and few.environment()["W2S_PUBLISHED"] == "0"
    build.execute([few], workers=1)
    assert "1 seeds 0" in few.chapter.built(".ipynb").read_text()
    assert "W2S_PUBLISHED" not in os.environ


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bok"], "did you mean 'book'"),
        (["book", "PROFIL=gpu"], "did you mean 'profile'"),
        (["book", "CHAPTERS=onee"], "did you mean 'one'"),
        (["book", "PROFILE=latop"], "did you mean 'laptop'"),
        (["serve", "PROT=1"], "did you mean 'port'"),
    ],
)
def test_what_is_not_understood_exits_with_2_and_the_nearest_name(
    job, monkeypatch, capsys, arguments, message
):
    monkeypatch.setattr(cli, "ROOT", job.chapter.root)
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_settings_are_read_as_papermill_reads_yaml(job, monkeypatch):
    seen = {}
    monkeypatch.setitem(cli.VERBS, "book", (lambda options: seen.update(options) or 0, None))
    assert cli.main(["book", "SEEDS=0,1", "N=[2, 3]", "PROFILE=gpu", "alpha=0.5"]) == 0
    assert seen == {"seeds": [0, 1], "n": [2, 3], "profile": "gpu", "alpha": 0.5}


def test_a_cluster_takes_no_number_of_workers_from_a_profile(job, monkeypatch):
    monkeypatch.setattr(cli, "ROOT", job.chapter.root)
    monkeypatch.delenv("W2S_ENGINE", raising=False)
    assert cli.take_jobs({"chapters": "one"})[1] == 2
    with environment({}):
        assert cli.take_jobs({"chapters": "one", "engine": "ray"})[1] is None
        assert (
            os.environ["W2S_ENGINE"] == "ray"
            and cli.take_jobs({"chapters": "one", "workers": "3"})[1] == 3
        )
        assert cli.take_jobs({"chapters": "one", "engine": "local"})[1] == 2


def test_serving_the_built_book(built):
    line, environment = command("serve", "PORT=0")
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(line, cwd=built[0], env=environment, **quiet) as server:
        try:
            url = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline()).group()
            assert "A book" in urllib.request.urlopen(url).read().decode()
        finally:
            server.terminate()


def test_every_make_target_is_one_call_of_its_verb():
    for verb in cli.VERBS:
        lines = subprocess.run(["make", "-n", "-o", ".venv/book.stamp", "-o", ".venv/test.stamp", verb, "N=1"], cwd=ROOT,
                               capture_output=True, text=True, check=True).stdout.splitlines()  # fmt: skip
        assert len([line for line in lines if f"-m w2s_lib {verb} N=1" in line]) == 1, lines


def test_help_needs_nothing_installed():
    command = [sys.executable, "-S", "-m", "w2s_lib", "help"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in listed.splitlines()[: len(cli.VERBS)]] == list(cli.VERBS)


def test_no_executed_notebook_is_committed():
    tracked = subprocess.run(
        ["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True
    )
    assert tracked.stdout == ""


def readme_lines():
    readme = ROOT / "README.md"
    blocks = re.findall(r"```bash\n(.*?)```", readme.read_text(), re.S) if readme.exists() else []
    joined = "\n".join(blocks).replace("\\\n", " ")
    return re.findall(r"^jupytext --to ipynb [^\n|]*\|\s*papermill [^\n]*$", joined, re.M)


@pytest.mark.parametrize(
    "line", readme_lines() or [pytest.param("", marks=pytest.mark.skip("README has no such line"))]
)
def test_the_readmes_own_lines(line, tmp_path):
    line = line.replace(" out.ipynb", f" {tmp_path}/out.ipynb")
    chapter = Chapter(re.search(r"book/(\w+)\.md", line).group(1), ROOT)
    seeds = {"seeds": [0]} if "seeds: [0]" in line else {}
    if "gpu" in line or any(find(spec) is None for spec in planned_specs(chapter, seeds)):
        pytest.skip("some of its runs have no record, and a test does not train for minutes")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out.ipynb").exists()
