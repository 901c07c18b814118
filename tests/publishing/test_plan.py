"""What `plan` says before anything is downloaded or trained, and what `run` then does."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets.load
import pytest
import torch

import w2s_lib as w2s
from tests.conftest import pinned
from w2s_lib.publishing import plan
from w2s_lib.publishing.chapters import (
    Chapter,
    Job,
    UsageError,
    load_profile,
    notebooks,
    resolve,
    train,
)
from w2s_lib.runs.errors import DeviceError
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import Lora, Recipe, RunSpec, Task
from w2s_lib.runs.store import user_store
from w2s_lib.tasks import table as tasks
from w2s_lib.tasks.table import default_task

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("own_cache")
BOOK = {
    "_toc.yml": "format: jb-book\nroot: index\nchapters:\n  - file: one\n  - file: two\n",
    "index.md": "# A book\n",
    "profiles/laptop.yaml": "seeds: [0]\n",
}
CHAPTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec: {{display_name: Python 3, language: python, name: python3}}
---
# A chapter

```{{code-cell}} ipython3
:tags: [parameters]

seeds = [0]
model = "tfidf"
```

```{{code-cell}} ipython3
:tags: [specs]

import w2s_lib as w2s

weak = w2s.supervisor(model, {task!r})
specs = [spec.with_seed(seed) for seed in seeds for spec in {specs}]
```

```{{code-cell}} ipython3
raise SystemExit("only the two cells above are executed")
```
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A book of two chapters that share a supervisor."""
    for name, text in BOOK.items():
        (tmp_path / "book" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "book" / name).write_text(text)
    for name, specs in (
        ("one", "[w2s.student(model, weak)]"),
        ("two", "[weak, w2s.ceiling(model, weak.task)]"),
    ):
        (tmp_path / "book" / f"{name}.md").write_text(CHAPTER.format(task="amazon", specs=specs))
    return tmp_path


def told(root: Path, *arguments: str, **variables: str) -> str:
    """What `python -m w2s_lib plan` says at the root of a book."""
    line = [sys.executable, "-m", "w2s_lib", "plan", *arguments]
    given = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.check_output(line, cwd=root, env=given, text=True)


def jobs(root: Path, **parameters: Any) -> list[Job]:
    return resolve(
        [Chapter(name, root) for name in ("one", "two")], profile="laptop", overrides=parameters
    )


def planned(*specs: RunSpec) -> plan.Plan:
    return plan.Plan(
        {"one": {step.to_json(): step for spec in specs for step in spec.lineage()}}, set()
    )


def counts(made: plan.Plan) -> dict[str, tuple[int, int]]:
    """Of each chapter the distinct runs, and those without a record."""
    return {
        name: (len(own), len(own.keys() - made.recorded)) for name, own in made.chapters.items()
    }


def all_distinct(shown: str) -> list[int]:
    """Runs, recorded, to train."""
    (line,) = [line for line in shown.splitlines() if line.startswith("all, distinct")]
    return [int(number) for number in line.split()[2:]]


def test_distinct_runs_teachers_included_and_what_is_recorded(root: Path) -> None:
    made = plan.make_plan(jobs(root, seeds=[0, 1]))
    assert counts(made) == {"one": (4, 4), "two": (4, 4)} and len(made.runs) == 6 == len(
        made.missing
    )
    weak = w2s.supervisor("tfidf", "amazon")
    user_store().folder.mkdir(parents=True)
    (
        user_store().folder / f"{weak.run_id}.parquet"
    ).touch()  # that it is there is enough: `plan` reads none
    made = plan.make_plan(jobs(root, seeds=[0, 1]))
    assert counts(made) == {"one": (4, 3), "two": (4, 3)} and weak not in made.missing


def test_what_is_missing_is_trained_and_then_nothing_is(root: Path) -> None:
    assert all_distinct(plan.describe(plan.make_plan(jobs(root)), 1)) == [3, 0, 3]
    assert not list(user_store().folder.glob("*.parquet"))
    train(jobs(root), store="user", workers=1)
    assert len(list(user_store().folder.glob("*.parquet"))) == 3
    assert plan.describe(plan.make_plan(jobs(root)), 1).endswith("\nNothing to train.")


def test_variants_of_a_profile_are_planned_as_well(root: Path) -> None:
    own = root / "mine.yaml"
    own.write_text("seeds: [0]\nvariants: [{seeds: [1]}, {seeds: [0]}]")
    assert all_distinct(told(root, "-f", str(own))) == [6, 0, 6]
    own.write_text("seed: [0]")
    with pytest.raises(UsageError, match="mine.yaml sets 'seed', .* did you mean 'seeds'"):
        load_profile(root, str(own))


def test_nothing_is_asked_of_a_hub(root: Path) -> None:
    """What cannot be known without one is named; only memory and time need the models' configurations, and they say so."""
    (root / "book" / "one.md").write_text(
        CHAPTER.format(task="sciq", specs="[w2s.student('hf:me/large', weak)]")
    )
    shown = told(root, "CHAPTERS=one", "MODEL=hf:me/small", HF_HUB_OFFLINE="1")
    assert all_distinct(shown) == [2, 0, 2]
    assert "downloads  model hf:me/large, model hf:me/small, dataset of task sciq" in shown
    assert (
        "memory and time cannot be told here: cannot load hf:me/" in shown
        and "HF_HUB_OFFLINE" in shown
    )


def test_a_committed_profile_asks_for_what_can_be_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the repository's own chapters: what is read is pinned, dialogues are cut to a budget; no hub is asked."""
    hub = "asked the hub for a dataset"
    monkeypatch.setattr(datasets.load, "load_dataset", lambda *_, **__: pytest.fail(hub))
    for profile, n_models in (("gpu", 6), ("gpu-small", 3)):
        variants = [None, *load_profile(ROOT, profile).get("variants", [])]
        made = plan.make_plan(
            job
            for variant in variants
            for job in resolve(notebooks(ROOT), profile=profile, overrides={}, variant=variant)
        )
        assert len({spec.name for spec in made.runs.values()} - {"tfidf"}) == n_models
        assert {spec.device for spec in made.runs.values() if spec.trains} == {"cuda"}
        corpora = {
            spec.labels.corpus for spec in made.runs.values() if isinstance(spec.labels, NextToken)
        }
        assert corpora == {"", "amazon_polarity"} and all(
            tasks.has_fixed_content(name) for name in corpora - {""}
        )
        assert {
            spec.task.max_tokens
            for spec in made.runs.values()
            if spec.task.name in ("anthropic_hh", "boolq")
        } == {512}


def test_an_assumed_length_is_said(tiny_models: Path) -> None:
    spec = pinned(f"{tiny_models}/llama", task=default_task("sciq"))
    assert "have 128 tokens" in plan.describe(planned(spec), 1)
    short = dataclasses.replace(spec, task=default_task("boolq", max_tokens=64))
    assert "128 tokens" not in plan.describe(planned(short), 1)


def test_memory_grows_with_depth_length_and_batch(tiny_models: Path, small_task: Task) -> None:
    """A run of three blocks keeps a batch's states thrice; only the adapted blocks count."""
    one, three = (
        pinned(f"{tiny_models}/llama@{depth}", task=small_task, lora=Lora(blocks="all"))
        for depth in (1, 3)
    )
    step = plan.step_of(one)
    block = step.weights + step.kept + 16 * step.trained
    assert plan.memory(three) - plan.memory(one) == 2 * block
    top = dataclasses.replace(three, lora=Lora(blocks=1))
    assert plan.memory(top) == plan.memory(one) + 2 * step.weights
    larger = dataclasses.replace(one, recipe=Recipe(batch_size=32))
    assert plan.step_of(larger).kept > 1.8 * step.kept
    assert plan.measure(one, 10, 40).kept > 1.8 * plan.measure(one, 10, 20).kept


def test_time_grows_with_the_work_and_is_shared_among_workers(
    tiny_models: Path, small_task: Task
) -> None:
    """The steps are timed on this machine, so only what does not depend on it is compared."""
    spec = pinned(f"{tiny_models}/llama", task=small_task)
    assert plan.step_of(spec).seconds > 0
    one = plan.hours(planned(spec), 1)
    assert plan.hours(planned(spec), 2) == pytest.approx(one / 2)
    assert plan.hours(planned(spec, spec.with_seed(1)), 1) == pytest.approx(2 * one)
    text = plan.describe(planned(spec), 2)
    assert "GiB: ceiling" in text and "with 2 workers" in text and "downloads  none" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is here")
def test_a_device_that_is_not_here(tiny_models: Path, small_task: Task) -> None:
    """The runs are told all the same."""
    spec = pinned(f"{tiny_models}/llama", task=small_task, device="cuda")
    with pytest.raises(DeviceError):
        plan.hours(planned(spec), 1)
    text = plan.describe(planned(spec), 1)
    assert "all, distinct" in text and "memory and time cannot be told here" in text
