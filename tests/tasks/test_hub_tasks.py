"""Tasks of the hub: each formatter on a row in its dataset's published schema (rows invented here), and how they are loaded."""

# ruff: noqa: E501 -- rows of data

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

import w2s_lib as w2s
from w2s_lib.runs.errors import AssetError, SpecError
from w2s_lib.runs.record import SPLITS
from w2s_lib.runs.spec import Task
from w2s_lib.tasks import hub as registry
from w2s_lib.tasks import table as tasks
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.hub import Example, frame_of
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
LETTERS = {"text": ["of sound", "heat moves", "it is blue"], "label": ["A", "B", "C"]}

# task -> a row of the hub; every (text, label) that it may become; how many it does become; the group
CASES: dict[str, tuple[dict[str, Any], dict[str, int], int, str]] = {
    "boolq": (
        {"question": "is it red", "answer": True, "passage": "It is red."},
        {"It is red. Question: is it red?": 1},
        1,
        "It is red.",
    ),
    "cosmos_qa": (
        {
            "id": "x",
            "context": "We left.",
            "question": "Why ?",
            "answer0": "None of the above choices .",
            "answer1": "Rain .",
            "answer2": "Fun .",
            "answer3": "Fog .",
            "label": 1,
        },
        {
            "We left. Q: Why ? A: Rain .": 1,
            "We left. Q: Why ? A: Fun .": 0,
            "We left. Q: Why ? A: Fog .": 0,
        },
        2,
        "We left.",
    ),
    "dream": (
        {
            "id": 0,
            "dialogue_id": "5-0",
            "dialogue": ["M: Walk?", "W: No, the bus."],
            "question": "How?",
            "choice": ["On foot.", "By bus."],
            "answer": "By bus.",
        },
        {
            "M: Walk? W: No, the bus. Q: How? A: By bus.": 1,
            "M: Walk? W: No, the bus. Q: How? A: On foot.": 0,
        },
        2,
        "M: Walk? W: No, the bus.",
    ),
    "ethics_justice": (
        {"label": 1, "scenario": "I no longer drive Tom home because he moved."},
        {"I no longer drive Tom home because he moved.": 1},
        1,
        "I no longer drive Tom home",
    ),
    "ethics_deontology": (
        {"label": 0, "scenario": "Could you water it?", "excuse": "But I like blue."},
        {"Could you water it? But I like blue.": 0},
        1,
        "Could you water it?",
    ),
    "ethics_virtue": (
        {"label": 0, "scenario": "Ann gave it away. [SEP] greedy"},
        {"Ann gave it away. Is this greedy?": 0},
        1,
        "Ann gave it away.",
    ),
    "anli_r2": (
        {
            "uid": "u",
            "premise": "A lane in Orr.",
            "hypothesis": "It is in Orr.",
            "label": 2,
            "reason": "LEAK",
        },
        {"A lane in Orr. Does it follow that It is in Orr.": 0},
        1,
        "A lane in Orr.",
    ),
    "cola": (
        {"sentence": "The ball kicked boy the.", "label": 0, "idx": 3},
        {"The ball kicked boy the.": 0},
        1,
        "",
    ),
    "sst2": ({"sentence": "a warm film ", "label": 1, "idx": 7}, {"a warm film ": 1}, 1, ""),
    "hellaswag": (
        {
            "ind": 4,
            "activity_label": "Baking",
            "ctx_a": "[title] He bakes.",
            "ctx_b": "he",
            "ctx": "[title] He bakes. he",
            "endings": ["eats.", "flies."],
            "source_id": "wikihow~1",
            "split": "train",
            "split_type": "indomain",
            "label": "0",
        },
        {" He bakes. he eats.": 1, " He bakes. he flies.": 0},
        2,
        "wikihow~1",
    ),
    "mc_taco": (
        {
            "sentence": "Ida paints.",
            "question": "How long?",
            "answer": "a year",
            "label": 0,
            "category": 0,
        },
        {"Ida paints. Q: How long? A: a year": 0},
        1,
        "Ida paints.",
    ),
    "openbookqa": (
        {
            "id": "9-1",
            "question_stem": "A kettle is hot because",
            "choices": LETTERS,
            "answerKey": "B",
        },
        {
            "Q: A kettle is hot because A: heat moves": 1,
            "Q: A kettle is hot because A: of sound": 0,
            "Q: A kettle is hot because A: it is blue": 0,
        },
        2,
        "\n".join(f"Q: A kettle is hot because A: {text}" for text in LETTERS["text"]),
    ),
    "paws": (
        {"id": 7, "sentence1": "B to A .", "sentence2": "A to B .", "label": 0},
        {"B to A . A to B . Do both say the same?": 0},
        1,
        ". a b to",
    ),
    "quail": (
        {
            "id": "u_3",
            "context_id": "u",
            "question_id": "3",
            "domain": "d",
            "metadata": {},
            "context": "I lost keys.",
            "question": "Why late?",
            "question_type": "Causality",
            "answers": ["the keys", "rain"],
            "correct_answer_id": 0,
        },
        {"I lost keys. Q: Why late? A: the keys": 1, "I lost keys. Q: Why late? A: rain": 0},
        2,
        "I lost keys.",
    ),
    "piqa": (
        {"goal": "Keep bread soft,", "sol1": "in the sun.", "sol2": "in a box.", "label": 1},
        {"Q: Keep bread soft, A: in a box.": 1, "Q: Keep bread soft, A: in the sun.": 0},
        2,
        "Keep bread soft,",
    ),
    "quartz": (
        {
            "id": "Q-1",
            "question": "A thick wall is _____.",
            "choices": {"text": ["loud", "quiet"], "label": ["A", "B"]},
            "answerKey": "B",
            "para": "Walls stop sound.",
            "para_id": "S-1",
            "para_anno": {},
            "question_anno": {},
        },
        {
            "Walls stop sound. Q: A thick wall is _____. A: quiet": 1,
            "Walls stop sound. Q: A thick wall is _____. A: loud": 0,
        },
        2,
        "Walls stop sound.",
    ),
    "sciq": (
        {
            "question": "Which gas?",
            "distractor3": "neon",
            "distractor1": "argon",
            "distractor2": "helium",
            "correct_answer": "oxygen",
            "support": "S.",
        },
        {" Q: Which gas? A: oxygen": 1}
        | {f" Q: Which gas? A: {gas}": 0 for gas in ("neon", "argon", "helium")},
        2,
        "\n".join(f" Q: Which gas? A: {gas}" for gas in ("oxygen", "argon", "helium", "neon")),
    ),
    "sciq_with_support": (
        {
            "question": "Which gas?",
            "distractor3": "neon",
            "distractor1": "argon",
            "distractor2": "helium",
            "correct_answer": "oxygen",
            "support": "Air.",
        },
        {"Air. Q: Which gas? A: oxygen": 1}
        | {f"Air. Q: Which gas? A: {gas}": 0 for gas in ("neon", "argon", "helium")},
        2,
        "Air.",
    ),
    "social_iqa": (
        {
            "context": "Ana lent it.",
            "question": "How?",
            "answerA": "sad",
            "answerB": "glad",
            "answerC": "mad",
            "label": "2\n",
        },
        {
            "Ana lent it. Q: How? A: glad": 1,
            "Ana lent it. Q: How? A: sad": 0,
            "Ana lent it. Q: How? A: mad": 0,
        },
        2,
        "Ana lent it.",
    ),
    "multirc": (
        {
            "paragraph": "Tom slept.",
            "question": "Who?",
            "answer": "Tom",
            "idx": {"paragraph": 0, "question": 0, "answer": 1},
            "label": 1,
        },
        {"Tom slept. Q: Who? A: Tom": 1},
        1,
        "Tom slept.",
    ),
    "wic": (
        {
            "word": "bank",
            "sentence1": "The bank.",
            "sentence2": "A bank.",
            "start1": 4,
            "start2": 2,
            "end1": 8,
            "end2": 6,
            "idx": 0,
            "label": 0,
        },
        {"The bank. A bank. Does bank mean the same in both?": 0},
        1,
        "bank",
    ),
    "twitter_sentiment": ({"text": "cant believe it", "label": 0}, {"cant believe it": 0}, 1, ""),
    "amazon_polarity": (
        {"label": 1, "title": "Works", "content": "It runs."},
        {"Works It runs.": 1},
        1,
        "",
    ),
}
PAIRS = {
    "ethics_utilitarianism": (
        {"baseline": "I found my keys in the bag.", "less_pleasant": "I lost my keys."},
        Example(
            "I found my keys in the bag.",
            group="I found my keys in the",
            rejected="I lost my keys.",
        ),
    ),
    "anthropic_hh": (
        {
            "chosen": "\n\nHuman: Rice?\n\nAssistant: Two parts.",
            "rejected": "\n\nHuman: Rice?\n\nAssistant: No.",
        },
        Example(
            "\n\nHuman: Rice?\n\nAssistant: Two parts.",
            group="\n\nHuman: Rice?",
            rejected="\n\nHuman: Rice?\n\nAssistant: No.",
        ),
    ),
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
    path = "hf://datasets/ybisk/piqa@142c51238b3ca2bc61e9a075913871b8b600e8e1/plain_text/validation/0000.parquet"
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
        match=r"cannot load split 'train' of the hub's 'google/boolq' for task 'boolq' "
        r"\(ConnectionError: no route\): check the name and the network",
    ):
        resolve_task(default_task("boolq"))
