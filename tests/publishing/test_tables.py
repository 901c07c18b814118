"""Published records as tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from w2s_lib.publishing.tables import (
    planned_runs,
    profile_states,
    published,
    published_runs,
    registered_tasks,
    taught_runs,
    write_tables,
)
from w2s_lib.runs.errors import DamagedRecord
from w2s_lib.runs.losses import ConfidenceLoss
from w2s_lib.runs.record import Record, accuracies
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import Continue, Flip, FromRun, Hard, Lora, RunSpec, Task
from w2s_lib.runs.store import write
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.embedded import EMBEDDED

TASK = Task(n_train=16)
WEAK = RunSpec(model="smollm2-135m@2", task=TASK, half="supervisor", predict_halves=True)
READER = RunSpec(model="smollm2-135m", task=TASK, labels=NextToken(corpus="amazon"))
STUDENT = RunSpec(
    model="smollm2-135m",
    task=TASK,
    labels=Hard(run=WEAK),
    start=Continue(run=READER),
    loss=ConfidenceLoss(alpha_max=0.75),
)
WIDE = RunSpec(model="smollm2-135m", task=TASK, lora=Lora(blocks="all"), seed=3)
MADE = {
    "task_digest": "0",
    "seconds": 1.5,
    "hardware": "a machine",
    "date": "2026-01-02",
    "commit": "0" * 40,
}


def publish(folder: Path, spec: RunSpec, **losses: float) -> Path:
    """A record of a row each of test, validation and the student half."""
    frame = pd.DataFrame(
        {
            "split": ["test", "validation", "student"],
            "label": [0, 1, 1],
            "p": [0.125, 0.25, 0.875],
            "group": [0, 1, 1],
        },
        index=pd.Index([9, 4, 7], name="row"),
    )
    frame = frame.astype({"label": "int8", "p": "float32", "group": "int32"})
    metrics = losses or accuracies(frame)
    return Path(write(Record(spec, frame, metrics, MADE), store=folder).path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publish(tmp_path, WEAK)
    publish(tmp_path, READER, loss_before=4.0, loss=3.5)
    publish(tmp_path, STUDENT)
    publish(tmp_path, WIDE)
    return tmp_path


def test_a_row_a_run_in_the_order_of_an_experiment(folder: Path) -> None:
    runs = published_runs(folder)
    assert list(runs["role"]) == ["supervisor", "ceiling", "student", "generative"]
    assert list(runs["run_id"]) == [WEAK.run_id, WIDE.run_id, STUDENT.run_id, READER.run_id]
    student = runs.iloc[2].to_dict()
    assert (
        student
        | {
            "model": "smollm2-135m",
            "labels": "Hard",
            "supervisor": "smollm2-135m@2",
            "supervisor_run": WEAK.run_id,
            "loss": "ConfidenceLoss(alpha_max=0.75)",
            "method": "finetune",
            "start": f"Continue({READER.run_id})",
            "lora_blocks": "10",
            "half": "student",
            "seed": 0,
            "n_train": 16,
            "task": "movie",
            "accuracy": 1.0,
            "validation_accuracy": 0.0,
            "seconds": 1.5,
            "device": "cpu",
            "hardware": "a machine",
            "date": "2026-01-02",
            "commit": "0" * 40,
            "quantization": "nf4",
        }
        == student
    )
    assert RunSpec.from_json(student["spec"]) == STUDENT
    assert np.isnan(runs["validation_accuracy"][3])
    assert list(runs.loc[3, ["labels", "next_token_loss_before"]]) == [
        "NextToken(corpus='amazon')",
        4.0,
    ]
    assert runs["next_token_loss"][3] == 3.5
    assert list(runs["supervisor"][:2]) == ["", ""] and runs["lora_blocks"][1] == "all"


def test_a_taught_run_has_both_models_predictions_and_its_arm_is_that_of_other_seeds(
    folder: Path,
) -> None:
    """P of .125 on the test text against .25 on the validation text: both answer 0, which is right."""
    publish(folder, STUDENT.with_seed(1))
    publish(folder, WEAK.with_seed(1))
    publish(folder, dataclasses.replace(STUDENT, labels=FromRun(run=WEAK)))
    publish(folder, dataclasses.replace(STUDENT, labels=Flip(run=WEAK)))  # not its labels
    runs = taught_runs(folder)
    assert sorted(runs["labels"]) == ["FromRun", "Hard", "Hard"]
    hard = runs[runs["labels"] == "Hard"]
    assert hard["arm"].nunique() == 1 and runs["arm"].nunique() == 2
    for name, value in {"label": 0, "p": 0.125, "weak_p": 0.125, "answer": 0}.items():
        assert [list(values) for values in runs[name]] == [[value]] * 3
    assert {r.spec.run_id for r in hard["weak_record"]} == {WEAK.run_id, WEAK.with_seed(1).run_id}


def test_the_files_hold_every_run_and_every_prediction(folder: Path, tmp_path: Path) -> None:
    write_tables(folder, tmp_path / "made", {STUDENT.run_id: "one"})
    runs = published_runs(folder)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "made" / "runs.parquet"), runs, check_dtype=False
    )
    csv = pd.read_csv(
        tmp_path / "made" / "runs.csv", keep_default_na=False, na_values={"accuracy": [""]}
    )
    assert list(csv["spec"]) == list(runs["spec"]) and csv["accuracy"].equals(runs["accuracy"])
    of_chapter = [
        pd.read_parquet(tmp_path / "made" / f"predictions-{name}.parquet")
        for name in ("one", "none")
    ]
    assert set(of_chapter[0]["run_id"]) == {STUDENT.run_id}
    rows = pd.concat(of_chapter)
    assert list(rows.columns) == ["run_id", "row", "split", "label", "p", "group"]
    ids = [spec.run_id for spec in (WEAK, WIDE, STUDENT, READER)]
    assert rows["run_id"].value_counts().to_dict() == dict.fromkeys(ids, 3)
    mine = rows[rows["run_id"] == STUDENT.run_id]
    assert list(zip(mine["row"], mine["p"], strict=True)) == [(9, 0.125), (4, 0.25), (7, 0.875)]


def test_the_files_are_the_same_bytes_each_time(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tables(folder, tmp_path / name, {})
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_without_records_the_tables_are_empty_but_there(tmp_path: Path) -> None:
    write_tables(tmp_path / "none", tmp_path / "made", {})
    assert len(published_runs(tmp_path / "none")) == 0
    assert list(pd.read_parquet(tmp_path / "made" / "runs.parquet")) == list(
        pd.read_csv(tmp_path / "made" / "runs.csv")
    )
    assert not list((tmp_path / "made").glob("predictions*"))


def test_what_is_no_record_is_named(folder: Path, tmp_path: Path) -> None:
    path = publish(folder, WEAK)
    whole = path.read_bytes()
    path.write_text("not a record")
    with pytest.raises(DamagedRecord, match=path.name):
        published_runs(folder)
    path.write_bytes(whole)
    other = path.rename(path.with_name("0000000000000000.parquet"))
    with pytest.raises(DamagedRecord, match=other.name):
        published_runs(folder)


def test_planned_runs_are_distinct_and_include_teachers(tmp_path: Path) -> None:
    header = "---\nkernelspec: {name: python3, display_name: Python 3, language: python}\n---\n"
    weak = "from w2s_lib.runs.spec import *\nweak = RunSpec(model='smollm2-135m@2', task=Task(n_train=16), half='supervisor', predict_halves=True)\n"
    student = "RunSpec(model='smollm2-135m', task=weak.task, labels=FromRun(run=weak))"
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nchapters: [{file: one}, {file: two}]\n"
    )
    (tmp_path / "book" / "index.md").write_text("# A book\n")
    for name, specs in (("one", f"[{student}] * 2"), ("two", "[weak]")):
        cell = f"```{{code-cell}} ipython3\n:tags: [specs]\n{weak}specs = {specs}\n```\n"
        (tmp_path / "book" / f"{name}.md").write_text(header + cell)
    student_spec = dataclasses.replace(WIDE, lora=Lora(), seed=0, labels=FromRun(run=WEAK))
    assert planned_runs(tmp_path).keys() == {WEAK.run_id, student_spec.run_id}


def test_every_named_task_is_registered_with_what_was_run_on_it(folder: Path) -> None:
    """The records of the folder are of `movie`; no other task was ever loaded, and the table says so."""
    table = registered_tasks(folder).set_index("task")
    assert set(table.index) == {*EMBEDDED, *HUB_TASKS} and not table.index.duplicated().any()
    counts = published_runs(folder)["task"].value_counts()
    assert table["runs"].to_dict() == {name: int(counts.get(name, 0)) for name in table.index}
    assert set(table.index[table["a row is"] == "pair"]) == {
        "movie-preference",
        "anthropic_hh",
        "ethics_utilitarianism",
    }
    assert table["commit"].str.fullmatch("[0-9a-f]{40}|").all() and (table["source"] != "").all()


def test_what_is_published_of_some_arms(tmp_path: Path) -> None:
    """Only seeds that have all of them."""
    student = RunSpec(model="smollm2-135m", task=TASK, labels=FromRun(run=WEAK))
    for spec, seeds in ((WEAK, (0, 1)), (student, (0, 2))):
        for seed in seeds:
            publish(tmp_path, spec.with_seed(seed))
    found = published([WEAK, student], [0, 1, 2], tmp_path)
    assert list(found.frame["run_id"]) == [WEAK.run_id, student.run_id]
    assert len(published([WIDE], [0], tmp_path)) == 0


def test_a_profile_is_executed_where_runs_of_its_models_on_its_device_are_published(
    tmp_path: Path,
) -> None:
    """Against the repository's own profiles, with records of a few models."""
    small = [f"HuggingFaceTB/SmolLM2-{size}" for size in ("135M", "360M", "1.7B@24")]
    publish(tmp_path, WEAK)
    for name in ("Qwen/Qwen3-4B-Base", *small):
        publish(tmp_path, RunSpec(model=f"hf:{name}", revision="0" * 40, task=TASK, device="cuda"))
    states = profile_states(tmp_path).set_index("profile")
    assert states["runs"].to_dict() == {
        "laptop": 1,
        "gpu-embedded": 0,
        "gpu-small": 3,
        "gpu": 0,
    }  # of the last one, two models of six are missing
    assert states["device"].to_dict() == {
        "laptop": "cpu",
        "gpu-embedded": "cuda",
        "gpu-small": "cuda",
        "gpu": "cuda",
    }
    assert (
        states["models"]["gpu-embedded"] == "smollm2-135m"
        and "SmolLM2-1.7B" in states["models"]["gpu-small"]
    )
