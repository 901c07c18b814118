"""Tasks of the hub: each formatter on a row in its dataset's published schema (see `rows`), and how they are loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest

import w2s_lib as w2s
from tests.tasks.rows import CASES, PAIRS
from w2s_lib.runs.errors import AssetError, SpecError
from w2s_lib.runs.record import SPLITS
from w2s_lib.runs.spec import Task
from w2s_lib.tasks import hub as registry
from w2s_lib.tasks import table as tasks
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.hub import Example, cached_table, frame_of
from w2s_lib.tasks.table import default_task, load_table, resolve_task, splits

PAPER = {
    "boolq",
    "cosmos_qa",
    "dream",
    "ethics_justice",
    "ethics_deontology",
    "ethics_virtue",
    "ethics_utilitarianism",
    "anli_r2",
    "cola",
    "sst2",
    "hellaswag",
    "mc_taco",
    "openbookqa",
    "paws",
    "quail",
    "piqa",
    "quartz",
    "sciq",
    "social_iqa",
    "multirc",
    "wic",
    "twitter_sentiment",
}


def test_all_tasks_of_the_paper_are_declared_and_every_task_is_tested() -> None:
    assert len(PAPER) == 22 and PAPER | {
        "sciq_with_support",
        "amazon_polarity",
        "anthropic_hh",
    } == set(HUB_TASKS)
    assert CASES.keys() | PAIRS.keys() == set(HUB_TASKS)


@pytest.mark.parametrize("name", sorted(HUB_TASKS))
def test_declarations_are_whole(name: str) -> None:
    """Settings that `Task` takes, a source, "train" among the splits, and a commit but where none was found."""
    task = HUB_TASKS[name]
    settings = Task(name="movie", **task.settings)
    assert settings.cut == (
        "end" if name in ("sst2", "twitter_sentiment", "amazon_polarity") else "start"
    )
    assert "/" in task.hub and task.source and "train" in task.parts
    assert len(task.revision) == 40 or name in ("mc_taco", "twitter_sentiment")
    assert not task.files or "{split}" in task.files


@pytest.mark.parametrize("name", sorted(CASES))
def test_formatters_by_hand(name: str) -> None:
    row, allowed, n, group = CASES[name]
    made = list(HUB_TASKS[name].examples(row))
    assert len(made) == n and all(allowed[example.text] == example.label for example in made)
    assert {example.group for example in made} == {group} and not any(
        example.rejected for example in made
    )
    assert n == 1 or Counter(example.label for example in made) == {0: 1, 1: 1}
    assert list(HUB_TASKS[name].examples(row)) == made  # the wrong answer is drawn by the question


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_comparisons_by_hand(name: str) -> None:
    row, example = PAIRS[name]
    assert list(HUB_TASKS[name].examples(row)) == [example]


def test_rows_that_say_nothing_are_left_out() -> None:
    none = CASES["cosmos_qa"][0] | {"label": 0}
    assert (
        list(HUB_TASKS["cosmos_qa"].examples(none)) == []
    )  # "none of the above", without the others above it
    assert (
        list(
            HUB_TASKS["sciq_with_support"].examples(CASES["sciq_with_support"][0] | {"support": ""})
        )
        == []
    )
    assert list(HUB_TASKS["paws"].examples(CASES["paws"][0] | {"label": -1})) == []


def test_the_wrong_answer_varies() -> None:
    drawn = {
        next(
            e.text
            for e in registry.right_and_wrong([f"{i} a", f"{i} b", f"{i} c"], 0)
            if not e.label
        )[-1]
        for i in range(20)
    }
    assert drawn == {"b", "c"}


# Loading


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[tuple[Any, ...]]]:
    """A hub with 60 questions of `piqa` and a split of 40 more; what was asked of it."""
    asked: list[tuple[Any, ...]] = []

    def load(*args: Any, split: str, **settings: Any) -> datasets.Dataset:
        asked.append((*args, split, settings))
        n = {"train": 60, "validation": 40}[split]
        rows = [
            {"goal": f"{split} goal {i}", "sol1": f"do {i}", "sol2": f"no {i}", "label": i % 2}
            for i in range(n)
        ]
        return datasets.Dataset.from_list(rows)

    def download(repository: str, file: str, *, repo_type: str, revision: str) -> str:
        return f"{repo_type}s/{repository}@{revision}/{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(datasets.load, "load_dataset", load)
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    tasks._load.cache_clear()
    yield asked
    tasks._load.cache_clear()


SMALL = {"n_train": 20, "n_validation": 20, "n_test": 40}


def test_a_task_of_the_hub_is_grouped_balanced_and_pinned(hub: list[tuple[Any, ...]]) -> None:
    task = resolve_task(default_task("piqa", **SMALL))
    table = load_table(task)
    parts = splits(table, 0)
    assert task.sha256 == table.digest and task.template.endswith("Answer:")
    assert len(table.frame) == 200 and table.frame["label"].mean() == 0.5
    assert set(table.frame.loc[parts.test, "split"]) == {"test"} and len(parts.test) == 40
    groups = [set(table.frame.loc[getattr(parts, name), "group"]) for name in SPLITS]
    assert (
        sum(map(len, groups)) == len(set().union(*groups)) == 50
    )  # both answers of a question together
    path = "datasets/ybisk/piqa@142c51238b3ca2bc61e9a075913871b8b600e8e1/plain_text/validation/0000.parquet"
    assert hub[1] == ("parquet", "validation", {"data_files": {"validation": path}})


@pytest.fixture
def twice(hub: list[tuple[Any, ...]]) -> Iterator[str]:
    """A task of one's own, whose validation and test rows are of one split of the hub."""
    parts = {"train": "train", "validation": "validation", "test": "validation"}

    @w2s.hub_task("me/twice:v1", parts=parts)
    def twice(row: dict[str, Any]) -> Iterator[Example]:
        yield from HUB_TASKS["piqa"].examples(row)

    yield "twice"
    HUB_TASKS.pop("twice", None)


def test_a_group_in_several_splits_of_the_hub_is_in_one_of_ours(twice: str) -> None:
    """As a passage with questions in its validation and in its test set."""
    table = load_table(default_task(twice, **SMALL))
    parts = splits(table, 0)
    groups = [set(table.frame.loc[getattr(parts, name), "group"]) for name in SPLITS]
    assert set(table.frame.loc[parts.validation, "split"]) == {"validation"}
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_what_was_read_once_needs_neither_hub_nor_function(
    hub: list[tuple[Any, ...]], twice: str
) -> None:
    """As in a worker of a notebook that declared the task itself."""
    task = resolve_task(default_task(twice, **SMALL))
    n, digest = len(hub), load_table(task).digest
    del HUB_TASKS[twice]
    tasks._load.cache_clear()
    assert load_table(task).digest == digest and len(hub) == n
    with pytest.raises(SpecError, match="unknown task 'twice'"):
        default_task(twice)


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_a_kept_table_that_was_cut_off_is_read_anew(
    left: int, hub: list[tuple[Any, ...]], twice: str
) -> None:
    task = resolve_task(default_task(twice, **SMALL))
    digest = load_table(task).digest
    n, file = len(hub), cached_table(twice, digest)
    whole = file.read_bytes()
    file.write_bytes(whole[:left])
    tasks._load.cache_clear()
    with pytest.warns(UserWarning, match=f"{file.name} is damaged"):
        assert load_table(task).digest == digest
    assert len(hub) > n and file.read_bytes() == whole


def test_a_task_declared_anew_is_read_anew(hub: list[tuple[Any, ...]], twice: str) -> None:
    """As where a cell's function is mended and the cell run again."""
    task = default_task(twice, **SMALL)
    first = load_table(task)

    def mended(row: dict[str, Any]) -> Iterator[Example]:
        yield Example(row["goal"], row["label"])

    mended.__name__ = twice
    w2s.hub_task("me/twice:v1")(mended)
    assert load_table(task).digest != first.digest


def test_a_task_of_ones_own(hub: list[tuple[Any, ...]]) -> None:
    try:
        for _ in range(2):  # a cell may be run again

            @w2s.hub_task("me/mine:v2", source="here", n_train=20, n_validation=20, n_test=20)
            def mine(row: dict[str, Any]) -> Iterator[Example]:
                yield w2s.Example(
                    row["goal"] + " " + row["sol1"], 1 - row["label"], group=row["goal"]
                )

        task = default_task("mine")
        assert (task.n_train, len(load_table(task).frame)) == (20, 60) and hub[0] == (
            "me/mine",
            None,
            "train",
            {"revision": "v2"},
        )
        for name, said in (("boolq", "google/boolq"), ("Mine", "'Mine'")):
            mine.__name__ = name
            with pytest.raises(SpecError, match=said):
                w2s.hub_task("me/mine", source="here")(mine)
    finally:
        HUB_TASKS.pop("mine", None)


def test_a_changed_schema_is_an_error_that_names_row_and_columns() -> None:
    with pytest.raises(
        SpecError,
        match=r"row 1 of ybisk/piqa is not as .* describes it \(KeyError: 'goal'\).*columns are aim, sol1",
    ):
        frame_of(HUB_TASKS["piqa"], [CASES["piqa"][0], {"aim": "x", "sol1": "y"}])
    with pytest.raises(SpecError, match=r"answer -1 of 2"):
        frame_of(HUB_TASKS["piqa"], [CASES["piqa"][0] | {"label": -1}])
    with pytest.raises(SpecError, match="row 0 of nyu-mll/glue has the label -1, not 0 or 1"):
        frame_of(HUB_TASKS["cola"], [CASES["cola"][0] | {"label": -1}])


def test_a_changed_table_is_another_task(hub: list[tuple[Any, ...]]) -> None:
    with pytest.raises(SpecError, match="its content has changed"):
        resolve_task(Task(name="piqa", sha256="ab" * 32, **SMALL))


def test_comparisons_stand_in_either_order_and_ties_are_left_out() -> None:
    rows = [
        {"chosen": f"H: {i}\n\nAssistant: yes", "rejected": f"H: {i}\n\nAssistant: no"}
        for i in range(40)
    ]
    rows += [
        {"chosen": "H: a\n\nAssistant: b", "rejected": "H: a Assistant: b"},
        {"chosen": "H: a", "rejected": ""},
    ]
    frame = frame_of(HUB_TASKS["anthropic_hh"], rows)
    assert len(frame) == 40 and 8 < frame["label"].sum() < 32
    better = frame["text"].where(frame["label"] == 1, frame["text_b"])
    assert better.str.endswith("yes").all() and not frame["id"].duplicated().any()


def test_large_splits_are_sampled_alike_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    n = registry.MAX_ROWS + 100
    large = datasets.Dataset.from_dict(
        {"sentence": list(map(str, range(n))), "label": [0, 1] * (n // 2)}
    )
    monkeypatch.setattr(datasets.load, "load_dataset", lambda *_, **__: large)
    first, second = (registry.read_hub_task(HUB_TASKS["cola"]) for _ in range(2))
    drawn = first.loc[first["split"] == "train", "text"].astype(int)
    assert first.equals(second) and len(drawn) == registry.MAX_ROWS
    assert drawn.is_monotonic_increasing and drawn.iloc[-1] >= registry.MAX_ROWS


def test_no_hub_is_one_clear_sentence(
    hub: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(datasets.load, "load_dataset", fail)
    with pytest.raises(
        AssetError,
        match="cannot load split 'train' of the hub's 'google/boolq' for task 'boolq': .*network",
    ):
        resolve_task(default_task("boolq"))
