"""The tasks of the hub: the 22 NLP tasks of Burns et al. (2023), and those that others use beside them.

Each is a few lines: where its rows lie, at which commit, who describes their columns, and what one of them becomes. Text that
is judged comes last, so long texts lose their beginning (`cut="start"`), but for reviews. Where test labels are hidden, the
validation set is the test set and validation is drawn from training rows. How the authors made binary tasks of theirs is not
published in code; here a question gives its right answer and a wrong one, two rows of one group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from w2s_lib.tasks.hub import HUB_TASKS, Example, hub_task, one_of_each

__all__ = ["HUB_TASKS"]

Row = dict[str, Any]
Made = Iterator[Example]

YES_NO: Row = {"template": "{text} Answer:", "label_words": "no/yes", "cut": "start"}
CORRECT: Row = {
    "template": "{text} Is this answer correct? Answer:",
    "label_words": "no/yes",
    "cut": "start",
}
LONG: Row = {
    "max_tokens": 512
}  # a passage or a dialogue, of which the largest batch must fit on one GPU
SENTIMENT: Row = {"template": "{text} It was", "label_words": "terrible/great"}
HELD_OUT = {"train": "train", "test": "validation"}
ALL_THREE = {"train": "train", "validation": "validation", "test": "test"}
ETHICS: Row = {
    "hub": "hendrycks/ethics",
    "revision": "6deab74c03e30f13540266e373ce31f8466169f8",
    "parts": HELD_OUT,
    "source": "the card of hendrycks/ethics; its `validation` is the ordinary test set, its `test` the hard one",
}
GLUE: Row = {
    "hub": "nyu-mll/glue",
    "revision": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    "parts": HELD_OUT,
    "source": "tensorflow/datasets docs/community_catalog/huggingface/glue.md",
}
SUPER_GLUE: Row = {
    "hub": "aps/super_glue",
    "revision": "3de24cf8022e94f4ee4b9d55a6f539891524d646",
    "parts": HELD_OUT,
    "source": "huggingface/datasets datasets/super_glue/README.md (2022)",
}


@hub_task(
    "boolq",
    hub="google/boolq",
    revision="35b264d03638db9f4ce671b711558bf7ff0f80d5",
    parts=HELD_OUT,
    **YES_NO,
    **LONG,
    source="tensorflow/datasets docs/community_catalog/huggingface/boolq.md",
)
def _boolq(row: Row) -> Made:
    yield Example(
        f"{row['passage']} Question: {row['question']}?", int(row["answer"]), row["passage"]
    )


@hub_task(
    "cosmos_qa",
    hub="allenai/cosmos_qa",
    revision="ed50fe83db62b355759053b1cd5eef344ee371e0",
    parts=HELD_OUT,
    **CORRECT,
    **LONG,
    files="default/{split}/0000.parquet",
    source="huggingface.co/datasets/allenai/cosmos_qa, README",
)
def _cosmos_qa(row: Row) -> Made:
    answers = [row[f"answer{i}"] for i in range(4)]
    none = [i for i, answer in enumerate(answers) if "None of the above choices" in answer]
    if row["label"] not in none:  # "none of the above" says nothing without the other choices
        kept = [i for i in range(4) if i not in none]
        texts = [f"{row['context']} Q: {row['question']} A: {answers[i]}" for i in kept]
        yield from one_of_each(texts, kept.index(row["label"]), of=row["context"])


@hub_task(
    "dream",
    hub="dataset-org/dream",
    revision="ca4c45feaf089ecfc37579eb2c594375f70dbfd5",
    parts=ALL_THREE,
    **CORRECT,
    **LONG,
    files="plain_text/{split}/0000.parquet",
    source="huggingface.co/datasets/dataset-org/dream, README",
)
def _dream(row: Row) -> Made:
    said = " ".join(row["dialogue"])
    texts = [f"{said} Q: {row['question']} A: {choice}" for choice in row["choice"]]
    yield from one_of_each(texts, row["choice"].index(row["answer"]), of=said)


@hub_task(
    "ethics_justice",
    files="justice/{split}/0000.parquet",
    **ETHICS,
    **YES_NO | {"template": "{text} Is this reasonable? Answer:"},
)
def _ethics_justice(row: Row) -> Made:
    # Variants of one case share their beginning and differ in the reason.
    yield Example(row["scenario"], row["label"], " ".join(row["scenario"].split()[:6]))


@hub_task(
    "ethics_deontology",
    files="deontology/{split}/0000.parquet",
    **ETHICS,
    **YES_NO | {"template": "{text} Is this reasonable? Answer:"},
)
def _ethics_deontology(row: Row) -> Made:
    yield Example(f"{row['scenario']} {row['excuse']}", row["label"], row["scenario"])


@hub_task("ethics_virtue", files="virtue/{split}/0000.parquet", n_test=1600, **ETHICS, **YES_NO)
def _ethics_virtue(row: Row) -> Made:
    scenario, trait = row["scenario"].split(" [SEP] ")
    yield Example(f"{scenario} Is this {trait}?", row["label"], scenario)


@hub_task(
    "ethics_utilitarianism",
    files="utilitarianism/{split}/0000.parquet",
    pairs=True,
    **ETHICS,
    template="{text} It was",
    cut="start",
)
def _ethics_utilitarianism(row: Row) -> Made:
    # A comparison: `baseline` is the more pleasant one. Its first words are shared by the pairs of one scenario.
    yield Example(
        row["baseline"], group=" ".join(row["baseline"].split()[:6]), rejected=row["less_pleasant"]
    )


@hub_task(
    "anli_r2",
    hub="facebook/anli",
    revision="8e4813d81f46d313dac7892e1c28076917cfcdf9",
    n_test=600,
    **YES_NO,
    parts={"train": "train_r2", "validation": "dev_r2", "test": "test_r2"},
    source="tensorflow/datasets docs/community_catalog/huggingface/anli.md; `reason` would give the label away",
)
def _anli_r2(row: Row) -> Made:
    yield Example(
        f"{row['premise']} Does it follow that {row['hypothesis']}",
        int(row["label"] == 0),
        row["premise"],
    )


@hub_task(
    "cola",
    config="cola",
    n_test=600,
    **GLUE,
    **YES_NO | {"template": "{text} Is this good English? Answer:"},
)
def _cola(row: Row) -> Made:
    yield Example(row["sentence"], row["label"])


@hub_task("sst2", config="sst2", n_test=800, **GLUE, **SENTIMENT)
def _sst2(row: Row) -> Made:
    # Training rows hold phrases of other rows' sentences, and nothing says which: the halves are not quite disjoint.
    yield Example(row["sentence"], row["label"])


@hub_task(
    "hellaswag",
    hub="Rowan/hellaswag",
    revision="218ec52e09a7e7462a5400043bb9a69a41d06b76",
    parts=HELD_OUT,
    **CORRECT,
    source="tensorflow/datasets docs/community_catalog/huggingface/hellaswag.md; labels are strings",
)
def _hellaswag(row: Row) -> Made:
    texts = [re.sub(r"\[.*?\]", "", f"{row['ctx']} {ending}") for ending in row["endings"]]
    yield from one_of_each(texts, int(row["label"]), of=row["source_id"])


@hub_task(
    "mc_taco",
    hub="CogComp/mc_taco",
    revision="refs/convert/parquet",
    parts={"train": "test", "test": "validation"},
    **CORRECT,
    files="plain_text/{split}/0000.parquet",
    source="huggingface.co/datasets/CogComp/mc_taco, README; no "
    "training set, and no commit of the converted files found to pin",
)
def _mc_taco(row: Row) -> Made:
    yield Example(
        f"{row['sentence']} Q: {row['question']} A: {row['answer']}", row["label"], row["sentence"]
    )


@hub_task(
    "openbookqa",
    hub="allenai/openbookqa",
    config="main",
    revision="388097ea7776314e93a529163e0fea805b8a6454",
    parts=ALL_THREE,
    n_test=900,
    **CORRECT,
    source="huggingface/datasets datasets/openbookqa/dataset_infos.json (2022)",
)
def _openbookqa(row: Row) -> Made:
    texts = [f"Q: {row['question_stem']} A: {choice}" for choice in row["choices"]["text"]]
    yield from one_of_each(texts, row["choices"]["label"].index(row["answerKey"]))


@hub_task(
    "paws",
    hub="google-research-datasets/paws",
    config="labeled_final",
    parts=ALL_THREE,
    **YES_NO,
    revision="161ece9501cf0a11f3e48bd356eaa82de46d6a09",
    source="huggingface/datasets datasets/paws/dataset_infos.json (2022)",
)
def _paws(row: Row) -> Made:
    if row["label"] in (0, 1):  # the card: -1 where a label was missing
        bag = " ".join(sorted(row["sentence1"].lower().split()))
        yield Example(
            f"{row['sentence1']} {row['sentence2']} Do both say the same?", row["label"], bag
        )


@hub_task(
    "quail",
    hub="textmachinelab/quail",
    revision="b9aea018de340fc2b00b3a7cb3889ee921a91001",
    parts=HELD_OUT,
    **CORRECT,
    **LONG,
    files="quail/{split}/0000.parquet",
    source="huggingface/datasets datasets/quail/dataset_infos.json (2022)",
)
def _quail(row: Row) -> Made:
    texts = [f"{row['context']} Q: {row['question']} A: {answer}" for answer in row["answers"]]
    yield from one_of_each(texts, row["correct_answer_id"], of=row["context"])


@hub_task(
    "piqa",
    hub="ybisk/piqa",
    revision="142c51238b3ca2bc61e9a075913871b8b600e8e1",
    parts=HELD_OUT,
    **CORRECT,
    files="plain_text/{split}/0000.parquet",
    source="huggingface/datasets datasets/piqa/dataset_infos.json (2022)",
)
def _piqa(row: Row) -> Made:
    yield from one_of_each(
        [f"Q: {row['goal']} A: {row[sol]}" for sol in ("sol1", "sol2")],
        row["label"],
        of=row["goal"],
    )


@hub_task(
    "quartz",
    hub="allenai/quartz",
    revision="28c1dbb56caf81799296cb17892fa73402e23464",
    parts=ALL_THREE,
    n_test=1400,
    **CORRECT,
    source="huggingface/datasets datasets/quartz/dataset_infos.json (2022)",
)
def _quartz(row: Row) -> Made:
    texts = [f"{row['para']} Q: {row['question']} A: {choice}" for choice in row["choices"]["text"]]
    yield from one_of_each(texts, row["choices"]["label"].index(row["answerKey"]), of=row["para"])


@hub_task(
    "sciq",
    hub="allenai/sciq",
    revision="2c94ad3e1aafab77146f384e23536f97a4849815",
    parts=ALL_THREE,
    n_test=1800,
    **CORRECT,
    source="huggingface.co/datasets/allenai/sciq, README",
)
def _sciq_alone(row: Row) -> Made:
    yield from _sciq(row, "")


@hub_task(
    "sciq_with_support",
    hub="allenai/sciq",
    revision="2c94ad3e1aafab77146f384e23536f97a4849815",
    parts=ALL_THREE,
    n_test=1500,
    **CORRECT,
    **LONG,
    source="huggingface.co/datasets/allenai/sciq, README",
)
def _sciq_with_support(row: Row) -> Made:
    if row["support"].strip():  # some questions have none
        yield from _sciq(row, row["support"])


def _sciq(row: Row, support: str) -> Made:
    answers = [row["correct_answer"], row["distractor1"], row["distractor2"], row["distractor3"]]
    yield from one_of_each(
        [f"{support} Q: {row['question']} A: {answer}" for answer in answers], 0, of=support
    )


@hub_task(
    "social_iqa",
    hub="allenai/social_i_qa",
    revision="537a2ec8ec565adc0b70b70752893e59e024df26",
    parts=HELD_OUT,
    **CORRECT,
    files="default/{split}/0000.parquet",
    source="huggingface/datasets datasets/social_i_qa/README.md (2022); labels are the strings 1 to 3",
)
def _social_iqa(row: Row) -> Made:
    texts = [
        f"{row['context']} Q: {row['question']} A: {row['answer' + letter]}" for letter in "ABC"
    ]
    yield from one_of_each(texts, int(row["label"].strip()) - 1, of=row["context"])


@hub_task("multirc", config="multirc", **SUPER_GLUE, **CORRECT, **LONG)
def _multirc(row: Row) -> Made:
    yield Example(
        f"{row['paragraph']} Q: {row['question']} A: {row['answer']}",
        row["label"],
        row["paragraph"],
    )


@hub_task("wic", config="wic", n_test=600, **SUPER_GLUE, **YES_NO)
def _wic(row: Row) -> Made:
    question = f"Does {row['word']} mean the same in both?"
    yield Example(f"{row['sentence1']} {row['sentence2']} {question}", row["label"], row["word"])


@hub_task(
    "twitter_sentiment",
    hub="EleutherAI/twitter-sentiment",
    parts={"train": "train", "test": "test"},
    **SENTIMENT,
    source="EleutherAI/w2s w2s/ds_registry.py; no commit found to pin",
)
def _twitter_sentiment(row: Row) -> Made:
    yield Example(row["text"], row["label"])


@hub_task(
    "amazon_polarity",
    hub="fancyzhx/amazon_polarity",
    revision="9d9c45c18f8c3cf1b23a3c27917b60cbf28f3289",
    **SENTIMENT,
    **LONG,
    parts={"train": "test"},
    files="amazon_polarity/{split}-00000-of-00001.parquet",
    source="huggingface/datasets datasets/amazon_polarity/dataset_infos.json (2022); its test file alone is enough",
)
def _amazon_polarity(row: Row) -> Made:
    yield Example(f"{row['title']} {row['content']}", row["label"])


@hub_task(
    "anthropic_hh",
    hub="Anthropic/hh-rlhf",
    revision="09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa",
    pairs=True,
    cut="start",
    parts={"train": "train", "test": "test"},
    template="{text}",
    **LONG,
    source="huggingface.co/datasets/Anthropic/hh-rlhf, README",
)
def _anthropic_hh(row: Row) -> Made:
    first = row["chosen"].partition("\n\nAssistant:")[
        0
    ]  # dialogues that begin alike continue each other
    yield Example(row["chosen"], group=first, rejected=row["rejected"])
