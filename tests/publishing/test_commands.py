"""Verbs, settings and profiles: what is planned and executed, and what is refused."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.__main__ import tried
from tests.chapter_text import knobs
from tests.publishing.conftest import ROOT, command, edit, make, page, sample
from w2s_lib import __main__ as cli
from w2s_lib.publishing.chapters import (
    BookError,
    Chapter,
    UsageError,
    load_profile,
    planned_specs,
    resolve,
)
from w2s_lib.runs.record import accuracies, to_parquet
from w2s_lib.runs.store import read


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


def test_retraining_all_hides_the_published_records(copy):
    """And a page that a sketch made says so."""
    done = make(copy, "retrain", "ALL=1", "CHAPTERS=one", "PROFILE=quick")
    assert done.returncode == 0, done.stderr
    assert "published 0" in page(copy) and "1 seeds" in page(copy)
    assert "<strong>A sketch.</strong>" in page(copy)
    assert re.search(r"^reads +unchanged +0 +0$", done.stdout, re.M)


def test_a_sketch_of_each_chapter_is_tried_and_each_of_its_knobs():
    """In as few rounds as turn each of them once. A knob of sizes keeps a sketch's other sizes."""
    jobs, _ = tried(cli.read_settings("CHAPTERS=bootstrapping,lessons"))
    by_name = {job.name: job.parameters for job in jobs}
    sketch = by_name.pop("bootstrapping quick")  # of the other chapter the profile changes nothing
    settings = [cli.read_settings(knob) for knob in knobs(Chapter("bootstrapping", ROOT))]
    rungs = [given["rungs"] for given in settings if "rungs" in given]
    sizes = [sketch["sizes"] | given["sizes"] for given in settings if "sizes" in given]
    rounds = [given for name, given in by_name.items() if name.startswith("bootstrapping")]
    assert len(rungs) > 1 and [given["rungs"] for given in rounds] == rungs
    assert [given["sizes"] for given in rounds if given["sizes"] != sketch["sizes"]] == sizes
    (lessons,) = (given for name, given in by_name.items() if name.startswith("lessons"))
    assert lessons["base"] == 0.9 and len(lessons) == len(knobs(Chapter("lessons", ROOT)))
    assert "banner" not in sketch and all("A sketch" in job.banner for job in jobs)


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


def test_what_a_record_or_a_disk_is_the_reason_of_is_one_sentence(copy):
    done = make(copy, "retrain", "CLAIMS=confidence-help")
    assert done.returncode == 1 and "did you mean 'confidence-helps'" in done.stderr, done.stderr
    first, *_ = sorted((copy / "book" / "results").iterdir())
    first.write_bytes(first.read_bytes()[:-9])
    done = make(copy, "audit")
    assert done.returncode == 1 and done.stderr.startswith("error: damaged record"), done.stderr
    assert first.name in done.stderr and done.stderr.count("\n") == 1


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


def test_what_is_not_understood_exits_with_2_and_names_it(tmp_path):
    """All in one process, at the root of a book that is not built: to serve it fails, and exits with 1."""
    code = """
import sys
from w2s_lib.__main__ import main
for line in sys.argv[1:]:
    print(main(line.split()), file=sys.stderr)
"""
    root, lines = sample(tmp_path), WRONG | {"serve": "no built book yet"}
    line, variables = [sys.executable, "-c", code, *lines], command(root)[1]
    run = subprocess.run(line, cwd=root, env=variables, capture_output=True, text=True)
    said = run.stderr.splitlines()
    assert said[1::2] == ["2"] * len(WRONG) + ["1"], run.stderr
    assert [
        text for text, part in zip(said[::2], lines.values(), strict=True) if part not in text
    ] == []
    assert make(root, "bok").returncode == 2


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
    assert told.split() == ["1", "3", "None", "ray"]


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
