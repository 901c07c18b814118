"""The toolchain's sample, a small book built once a session.

A chapter that trains two runs and shows charts, one that reads, and pages without code.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import sentences
from tests.hostile import CELL
from w2s_lib.publishing.chapters import Chapter, Job

ROOT = Path(__file__).parents[2]
TOKEN = "hf_EEEEsecretEEEE"
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
    "profiles/laptop.yaml": "seeds: [0, 1]\nworkers: 1\n",
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
    variables = {"PYTHONPATH": str(ROOT), "W2S_STORE": str(root / "records"), "HF_TOKEN": TOKEN}
    return [sys.executable, "-m", "w2s_lib", *arguments], os.environ | variables


def make(root, *arguments):
    """Runs a verb at `root`."""
    line, variables = command(root, *arguments)
    return subprocess.run(
        line, cwd=root, env=variables, capture_output=True, text=True, encoding="utf-8"
    )


@pytest.fixture(scope="session")
def built(made_once):
    """The sample book, built in a folder whose name has a space and an umlaut; what `book` printed."""

    def build(root):
        done = make(sample(root), "book")
        assert done.returncode == 0, done.stdout + done.stderr
        (root / "printed").write_text(done.stdout, encoding="utf-8")

    root = made_once("Ein Büchlein", build)
    return root, (root / "printed").read_text(encoding="utf-8")


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
