"""What is behind a page and a figure: followed through a notebook's cells, and said in words."""

import dataclasses
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import w2s_lib as w2s
from w2s_lib.experiments import results
from w2s_lib.publishing import sources
from w2s_lib.runs.record import Record
from w2s_lib.runs.store import read

ROOT = Path(__file__).parents[2]
CHART = "application/x-chart+json"


def record(model, seed, **made):
    """A run of a baseline on two rows of a test set and two of a validation set."""
    frame = pd.DataFrame(
        {
            "split": ["test", "test", "validation", "validation"],
            "label": pd.array([0, 1, 0, 1], dtype="int8"),
            "p": pd.array([0.25, 0.75, 0.25, 0.75], dtype="float32"),
            "group": pd.array([0, 1, 2, 3], dtype="int32"),
        },
        index=pd.Index(range(4), name="row"),
    )
    spec = w2s.ceiling(model, "movie").with_seed(seed)
    return Record(w2s.pin(spec), frame, {"accuracy": 1.0}, made)


@pytest.fixture
def told():
    """Runs cells with the extension, and gives the seeds and models that each said it used."""
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", sources.__name__)
    shell.user_ns["runs"] = w2s.Results(
        record(model, seed, hardware="a machine", date="2026-01-02")
        for model in ("smollm2-135m@4", "smollm2-135m")
        for seed in (300, 301)
    )
    shell.user_ns |= {"small": w2s.ceiling("smollm2-135m@4", "movie")}
    shell.user_ns |= {"large": w2s.ceiling("smollm2-135m", "movie")}

    def run(cell):
        with capture_output() as captured:
            assert shell.run_cell(cell).success
        found = [out.data[sources.MIME] for out in captured.outputs if sources.MIME in out.data]
        return {row["arm"] for one in found for row in one.values()}, sum(map(len, found))

    yield run
    results.LISTENERS.pop()
    InteractiveShell.clear_instance()


def test_a_figure_rests_on_what_its_cell_measures_and_what_made_its_names(told):
    four, thirty = "ceiling 4 blocks, movie", "ceiling 30 blocks, movie"
    assert told("import numpy as np\nx = 1") == (set(), 0)
    assert told("a = runs.accuracy(small)\nb = [a]") == ({four}, 2)
    # the sweep is a shelf: what others took from it is not used
    assert told("def c():\n    return runs.accuracy(large)") == (set(), 0)
    assert told("np.mean(x)") == (set(), 0)
    assert told("d = c().value, b") == ({four, thirty}, 4)
    assert told("b[0].value") == ({four}, 2)
    assert told("runs.with_seeds([300]).frame") == ({four, thirty}, 2)


def test_the_notebook_keeps_it_and_loses_the_outputs():
    row = {"arm": "ceiling", "seed": 1, "hardware": "a machine", "date": "2026-01-02"}
    outputs = [{CHART: {"mark": "bar"}}, {sources.MIME: {"b": row, "a": row}}]
    cells = [
        nbformat.v4.new_code_cell(
            "1", id=name, outputs=[nbformat.v4.new_output("display_data", data) for data in shown]
        )
        for name, shown in {"figure": outputs, "other": [{sources.MIME: {"c": row}}]}.items()
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    sources.gather(notebook, CHART)
    made = sources.unpacked(notebook)
    assert list(made["runs"]) == ["a", "b", "c"] and made["figures"] == {"figure": ["a", "b"]}
    assert made["versions"].keys() >= {"Python", "torch", "altair"}
    assert [len(cell.outputs) for cell in notebook.cells] == [1, 0]


def test_a_record_is_published_if_it_is_the_very_one(monkeypatch):
    there = read(next(iter(sorted((ROOT / "book" / "results").glob("*.parquet")))))
    own = dataclasses.replace(there, rules="")  # as it lies in the store of who trained it
    later = dataclasses.replace(own, provenance=there.provenance | {"seconds": 0.0})
    assert [sources._row(one)["published"] for one in (there, own, later)] == [True, True, False]
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    assert not sources._row(own)["published"]


def behind(**published):
    row = {"arm": "ceiling", "hardware": "a machine", "date": "2026-01-02"}
    runs = {
        name: row | {"seed": i, "published": there}
        for i, (name, there) in enumerate(published.items())
    }
    return {"runs": runs, "figures": {}, "versions": {"Python": "3", "torch": "2"}}


def test_a_page_says_which_records_are_behind_it():
    text = sources.words(behind(a=True, b=True, c=True))
    assert "3 training records of 1 kind, seeds 0 to 2, made on a machine, 2026-01-02;" in text
    assert "all published" in text and "commit" not in text
    own = sources.words(behind(a=True, b=False), commit="0123456789abcdef")
    assert "seeds 0, 1" in own and "1 of them on this machine alone" in own
    assert "commit `0123456789ab`" in own
    assert "No training record was read" in sources.words(behind())


def test_the_status_page_lists_chapters_and_versions():
    made = {"one": behind(a=True, b=False), "two": behind()}
    local = sources.status(made, {"one": "1.5", "two": "2.0"})
    assert "| [](one.md) | 1 | 1 | 1.5 |" in local and "- all: Python 3, torch 2" in local
    assert "seconds" not in sources.status(made)
    made["two"]["versions"] = {"Python": "4"}
    assert "- one: Python 3, torch 2\n- two: Python 4" in sources.status(made)


def test_the_code_can_be_had(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "w2s-lib"\n')
    assert "asks whoever built them" in sources.how_to_get(tmp_path)
    assert 'href="a.zip" download' in sources.how_to_get(tmp_path, archive="a.zip")
    project.write_text('[project]\nname = "w2s-lib"\nurls.Repository = "https://x/y"\n')
    assert "<https://x/y>" in sources.how_to_get(tmp_path, archive="a.zip")
