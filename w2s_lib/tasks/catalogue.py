"""The tasks of the hub: the 22 NLP tasks of Burns et al. (2023), and three that others use.

Each is a few lines: where its rows lie, at which commit, who describes their columns (where the
dataset's own card does not), and what one of them becomes. The function's name is the task's. Text
that is judged comes last, so long texts lose their beginning (`cut="start"`), but for reviews.
Where test labels are hidden, the validation set is the test set and validation is drawn from
training rows. How the authors made binary tasks of theirs is not published in code; here a question
gives its right answer and a wrong one, two rows of one group.
"""

import re
from collections.abc import Iterator
from typing import Any

from w2s_lib.tasks.hub import HUB_TASKS, Example, hub_task, right_and_wrong

__all__ = ["HUB_TASKS"]

Row = dict[str, Any]
Examples = Iterator[Example]

YES_NO: Row = {"template": "{text} Answer:", "label_words": "no/yes", "cut": "start"}
CORRECT: Row = YES_NO | {"template": "{text} Is this answer correct? Answer:"}
REASONABLE: Row = YES_NO | {"template": "{text} Is this reasonable? Answer:"}
SENTIMENT: Row = {"template": "{text} It was", "label_words": "terrible/great"}
# Where files of the hub lie that `datasets` cannot load by name.
PLAIN_TEXT: Row = {"files": "plain_text/{split}/0000.parquet"}
DEFAULT: Row = {"files": "default/{split}/0000.parquet"}
# A passage or a dialogue, of which the largest batch must fit on one GPU.
LONG: Row = {"max_tokens": 512}
HELD_OUT: Row = {"parts": {"train": "train", "test": "validation"}}
ALL_THREE: Row = {"parts": {"train": "train", "validation": "validation", "test": "test"}}
TRAIN_TEST: Row = {"parts": {"train": "train", "test": "test"}}


def _catalogued(name: str) -> Row:
    """The source of a schema: its page in the catalogue of TensorFlow's datasets."""
    return {"source": f"tensorflow/datasets docs/community_catalog/huggingface/{name}.md"}


def _kept(file: str) -> Row:
    """The source of a schema: a file that the hub's `datasets` had in 2022."""
    return {"source": f"huggingface/datasets datasets/{file} (2022)"}


# The ordinary test set of ETHICS is its `validation`; its `test` is the hard one.
ETHICS: Row = HELD_OUT | {"hub": "hendrycks/ethics:6deab74c03e30f13540266e373ce31f8466169f8"}
GLUE: Row = HELD_OUT | {
    "hub": "nyu-mll/glue:bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    **_catalogued("glue"),
}
SCIQ: Row = ALL_THREE | CORRECT | {"hub": "allenai/sciq:2c94ad3e1aafab77146f384e23536f97a4849815"}
SUPER_GLUE: Row = HELD_OUT | {
    "hub": "aps/super_glue:3de24cf8022e94f4ee4b9d55a6f539891524d646",
    **_kept("super_glue/README.md"),
}


def _answered(context: str, question: str, answers: list[str], right: int) -> Examples:
    texts = [f"{context} Q: {question} A: {answer}" for answer in answers]
    yield from right_and_wrong(texts, right, context=context)


@hub_task(
    "google/boolq:35b264d03638db9f4ce671b711558bf7ff0f80d5",
    **HELD_OUT | YES_NO | LONG | _catalogued("boolq"),
)
def boolq(row: Row) -> Examples:
    text = f"{row['passage']} Question: {row['question']}?"
    yield Example(text, int(row["answer"]), row["passage"])


@hub_task(
    "allenai/cosmos_qa:ed50fe83db62b355759053b1cd5eef344ee371e0",
    **HELD_OUT | CORRECT | LONG | DEFAULT,
)
def cosmos_qa(row: Row) -> Examples:
    answers = [row[f"answer{i}"] for i in range(4)]
    none = [i for i, answer in enumerate(answers) if "None of the above choices" in answer]
    if row["label"] not in none:  # "none of the above" says nothing without the other choices
        kept = [i for i in range(4) if i not in none]
        right, answers = kept.index(row["label"]), [answers[i] for i in kept]
        yield from _answered(row["context"], row["question"], answers, right)


@hub_task(
    "dataset-org/dream:ca4c45feaf089ecfc37579eb2c594375f70dbfd5",
    **ALL_THREE | CORRECT | LONG | PLAIN_TEXT,
)
def dream(row: Row) -> Examples:
    said, right = " ".join(row["dialogue"]), row["choice"].index(row["answer"])
    yield from _answered(said, row["question"], row["choice"], right)


@hub_task(files="justice/{split}/0000.parquet", **ETHICS | REASONABLE)
def ethics_justice(row: Row) -> Examples:
    # Variants of one case share their beginning and differ in the reason.
    yield Example(row["scenario"], row["label"], " ".join(row["scenario"].split()[:6]))


@hub_task(files="deontology/{split}/0000.parquet", **ETHICS | REASONABLE)
def ethics_deontology(row: Row) -> Examples:
    yield Example(f"{row['scenario']} {row['excuse']}", row["label"], row["scenario"])


@hub_task(files="virtue/{split}/0000.parquet", **ETHICS | YES_NO | {"n_test": 1600})
def ethics_virtue(row: Row) -> Examples:
    scenario, trait = row["scenario"].split(" [SEP] ")
    yield Example(f"{scenario} Is this {trait}?", row["label"], scenario)


@hub_task(
    files="utilitarianism/{split}/0000.parquet",
    pairs=True,
    **ETHICS | {"template": "{text} It was", "cut": "start"},
)
def ethics_utilitarianism(row: Row) -> Examples:
    # `baseline` is the more pleasant one; the pairs of one scenario share its first words.
    scenario = " ".join(row["baseline"].split()[:6])
    yield Example(row["baseline"], group=scenario, rejected=row["less_pleasant"])


@hub_task(
    "facebook/anli:8e4813d81f46d313dac7892e1c28076917cfcdf9",
    parts={"train": "train_r2", "validation": "dev_r2", "test": "test_r2"},
    **YES_NO | {"n_test": 600} | _catalogued("anli"),
)
def anli_r2(row: Row) -> Examples:
    # The column `reason` would give the label away.
    text = f"{row['premise']} Does it follow that {row['hypothesis']}"
    yield Example(text, int(row["label"] == 0), row["premise"])


@hub_task(
    config="cola",
    **GLUE | YES_NO | {"template": "{text} Is this good English? Answer:", "n_test": 600},
)
def cola(row: Row) -> Examples:
    yield Example(row["sentence"], row["label"])


@hub_task(config="sst2", **GLUE | SENTIMENT | {"n_test": 800})
def sst2(row: Row) -> Examples:
    # Training rows hold phrases of other rows' sentences, and nothing says which: the halves are
    # not quite disjoint.
    yield Example(row["sentence"], row["label"])


@hub_task(
    "Rowan/hellaswag:218ec52e09a7e7462a5400043bb9a69a41d06b76",
    **HELD_OUT | CORRECT | _catalogued("hellaswag"),
)
def hellaswag(row: Row) -> Examples:
    texts = [re.sub(r"\[.*?\]", "", f"{row['ctx']} {ending}") for ending in row["endings"]]
    yield from right_and_wrong(texts, int(row["label"]), context=row["source_id"])


@hub_task(
    "CogComp/mc_taco:refs/convert/parquet",
    parts={"train": "test", "test": "validation"},
    **CORRECT | PLAIN_TEXT,
)
def mc_taco(row: Row) -> Examples:
    # There is no training set, and no commit of the converted files was found to pin.
    text = f"{row['sentence']} Q: {row['question']} A: {row['answer']}"
    yield Example(text, row["label"], row["sentence"])


@hub_task(
    "allenai/openbookqa:388097ea7776314e93a529163e0fea805b8a6454",
    config="main",
    **ALL_THREE | CORRECT | {"n_test": 900} | _kept("openbookqa/dataset_infos.json"),
)
def openbookqa(row: Row) -> Examples:
    texts = [f"Q: {row['question_stem']} A: {choice}" for choice in row["choices"]["text"]]
    yield from right_and_wrong(texts, row["choices"]["label"].index(row["answerKey"]))


@hub_task(
    "google-research-datasets/paws:161ece9501cf0a11f3e48bd356eaa82de46d6a09",
    config="labeled_final",
    **ALL_THREE | YES_NO | _kept("paws/dataset_infos.json"),
)
def paws(row: Row) -> Examples:
    if row["label"] in (0, 1):  # the card: -1 where a label was missing
        text = f"{row['sentence1']} {row['sentence2']} Do both say the same?"
        yield Example(text, row["label"], " ".join(sorted(row["sentence1"].lower().split())))


@hub_task(
    "textmachinelab/quail:b9aea018de340fc2b00b3a7cb3889ee921a91001",
    files="quail/{split}/0000.parquet",
    **HELD_OUT | CORRECT | LONG | _kept("quail/dataset_infos.json"),
)
def quail(row: Row) -> Examples:
    right = row["correct_answer_id"]
    yield from _answered(row["context"], row["question"], row["answers"], right)


@hub_task(
    "ybisk/piqa:142c51238b3ca2bc61e9a075913871b8b600e8e1",
    **HELD_OUT | CORRECT | PLAIN_TEXT | _kept("piqa/dataset_infos.json"),
)
def piqa(row: Row) -> Examples:
    texts = [f"Q: {row['goal']} A: {row[solution]}" for solution in ("sol1", "sol2")]
    yield from right_and_wrong(texts, row["label"], context=row["goal"])


@hub_task(
    "allenai/quartz:28c1dbb56caf81799296cb17892fa73402e23464",
    **ALL_THREE | CORRECT | {"n_test": 1400} | _kept("quartz/dataset_infos.json"),
)
def quartz(row: Row) -> Examples:
    right = row["choices"]["label"].index(row["answerKey"])
    yield from _answered(row["para"], row["question"], row["choices"]["text"], right)


@hub_task(**SCIQ | {"n_test": 1800})
def sciq(row: Row) -> Examples:
    yield from _sciq_answers(row, "")


@hub_task(**SCIQ | LONG | {"n_test": 1500})
def sciq_with_support(row: Row) -> Examples:
    if row["support"].strip():  # some questions have none
        yield from _sciq_answers(row, row["support"])


def _sciq_answers(row: Row, support: str) -> Examples:
    answers = [row["correct_answer"], row["distractor1"], row["distractor2"], row["distractor3"]]
    yield from _answered(support, row["question"], answers, 0)


@hub_task(
    "allenai/social_i_qa:537a2ec8ec565adc0b70b70752893e59e024df26",
    **HELD_OUT | CORRECT | DEFAULT | _kept("social_i_qa/README.md"),
)
def social_iqa(row: Row) -> Examples:
    answers = [row[name] for name in ("answerA", "answerB", "answerC")]
    right = int(row["label"].strip()) - 1  # labels are the strings 1 to 3
    yield from _answered(row["context"], row["question"], answers, right)


@hub_task(config="multirc", **SUPER_GLUE | CORRECT | LONG)
def multirc(row: Row) -> Examples:
    text = f"{row['paragraph']} Q: {row['question']} A: {row['answer']}"
    yield Example(text, row["label"], row["paragraph"])


@hub_task(config="wic", **SUPER_GLUE | YES_NO | {"n_test": 600})
def wic(row: Row) -> Examples:
    question = f"Does {row['word']} mean the same in both?"
    yield Example(f"{row['sentence1']} {row['sentence2']} {question}", row["label"], row["word"])


@hub_task(
    "EleutherAI/twitter-sentiment",
    source="EleutherAI/w2s w2s/ds_registry.py",
    **TRAIN_TEST | SENTIMENT,
)
def twitter_sentiment(row: Row) -> Examples:
    # No commit was found to pin.
    yield Example(row["text"], row["label"])


@hub_task(
    "fancyzhx/amazon_polarity:9d9c45c18f8c3cf1b23a3c27917b60cbf28f3289",
    files="amazon_polarity/{split}-00000-of-00001.parquet",
    parts={"train": "test"},
    **SENTIMENT | LONG | _kept("amazon_polarity/dataset_infos.json"),
)
def amazon_polarity(row: Row) -> Examples:
    # Its test file alone is enough.
    yield Example(f"{row['title']} {row['content']}", row["label"])


@hub_task(
    "Anthropic/hh-rlhf:09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa",
    pairs=True,
    **TRAIN_TEST | LONG | {"cut": "start", "template": "{text}"},
)
def anthropic_hh(row: Row) -> Examples:
    # Dialogues that begin alike continue each other.
    first = row["chosen"].partition("\n\nAssistant:")[0]
    yield Example(row["chosen"], group=first, rejected=row["rejected"])
