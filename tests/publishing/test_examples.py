"""Test texts by category: who is right, which are drawn, and that a text does nothing on a page."""

import pandas as pd
import pytest

import w2s_lib as w2s
from w2s_lib.publishing.examples import CATEGORIES, Examples, answers, literal
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.record import Record
from w2s_lib.tasks.table import load_table


def record(task, test, validation=(0.2, 0.4), *, digest=None):
    """P(y = 1) on the first rows of a task as its test rows, and on two further ones."""
    labels = load_table(task).frame["label"]
    frame = pd.DataFrame(
        {
            "split": ["test"] * len(test) + ["validation"] * 2,
            "label": labels[: len(test) + 2],
            "p": pd.array([*test, *validation], dtype="float32"),
            "group": pd.array(range(len(test) + 2), dtype="int32"),
        }
    )
    made = {"task_digest": digest or load_table(task).digest}
    return Record(w2s.ceiling("smollm2-135m", task), frame.rename_axis("row"), {}, made)


def test_categories_by_hand(small_task):
    """Medians on validation are .3; a row's truth is in the file. Four rows, one a category."""
    truth = load_table(small_task).frame["label"][:4].tolist()
    right = pd.DataFrame(CATEGORIES.values(), columns=["supervisor", "student"])
    p = {
        who: [0.35 if label == hit else 0.25 for label, hit in zip(truth, hits, strict=True)]
        for who, hits in right.items()
    }
    found = answers(record(small_task, p["student"]), record(small_task, p["supervisor"]))
    assert found["category"].tolist() == list(CATEGORIES)
    assert found["text"].tolist() == [(text,) for text in load_table(small_task).frame["text"][:4]]
    says = ("negative", "positive")
    assert found["truth"].tolist() == [says[label] for label in truth]
    for who, hits in right.items():
        wanted = [says[x if hit else 1 - x] for x, hit in zip(truth, hits, strict=True)]
        assert found[who].tolist() == wanted


def test_comparisons_have_two_texts_and_words_of_their_own(comparison_task):
    one = record(comparison_task, [0.9, 0.9])
    found, frame = answers(one, one), load_table(comparison_task).frame
    assert found["text"].tolist() == list(zip(frame["text"][:2], frame["text_b"][:2], strict=True))
    assert set(found["student"]) == {"the first is better"}


def test_other_texts_and_editorials_are_refused(small_task):
    other = record(small_task, [0.1, 0.9], digest="0" * 64)
    with pytest.raises(SpecError, match="other texts"):
        answers(other, other)
    editorial = record(w2s.default_task("nyt"), [0.1, 0.9])
    with pytest.raises(SpecError, match="nyt are not to be shown"):
        answers(editorial, editorial)


def test_the_draw_is_the_seeds_and_counts_are_those_of_the_answers():
    pgr = {"PGR": ("pgr", "naive", "weak")}
    first, again = (w2s.examples(pgr, [300, 301], n_shown=2) for _ in range(2))
    assert first.drawn.equals(again.drawn) and first.counts.equals(again.counts)
    assert first.counts["seed"].tolist() == [300, 301]
    assert set(first.counts[list(CATEGORIES)].sum(axis=1)) == {w2s.default_task("movie").n_test}
    assert first.drawn.groupby(["seed", "category"]).size().tolist() == [2] * 8
    weak, naive = (first.drawn.query(f"{who} == truth") for who in ("supervisor", "student"))
    assert set(weak["category"]) == {"overruled wrongly", "both right"}
    assert set(naive["category"]) == {"overruled rightly", "both right"}
    assert w2s.examples({"later": ("pgr", "naive", "weak")}, [1]).waiting == ["later"]


def test_what_a_text_holds_is_shown_and_does_nothing():
    assert literal("<b>&'\"") == "&lt;b&gt;&amp;&#x27;&quot;"
    assert literal("a\u202eb\u2066c\x00\u200b") == "a\\u202eb\\u2066c\\u0000\\u200b"
    assert literal(" two\n\nlines ") == "two lines" and literal("é 😀 שלום") == "é 😀 שלום"


def test_a_category_without_texts_is_listed():
    counts = pd.DataFrame([{"experiment": "A", "seed": 1} | dict.fromkeys(CATEGORIES, 0)])
    columns = ["experiment", "seed", "category", "text", "truth", "supervisor", "student"]
    html = Examples(counts, pd.DataFrame(columns=columns), [])._repr_html_()
    assert html.count("0 test texts, 0 drawn") == 4
