"""A row of each dataset of the hub in its published schema (rows invented here), and what it becomes."""

# ruff: noqa: E501 -- rows of data

from __future__ import annotations

from typing import Any

from w2s_lib.tasks.hub import Example

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
            "metadata": {"author": "a", "title": "t", "url": "u"},
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
            "para_anno": {"cause_prop": "thickness", "effect_prop": "sound"},
            "question_anno": {"less_cause_dir": "thin", "less_effect_dir": "loud"},
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
