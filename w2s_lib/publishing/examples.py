"""Test texts by what a student made of its supervisor's answers, for a page to browse.

Texts are taken from the fetched data when the page is made, and are in no committed file.
Chapter: examples.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from w2s_lib.figures.table import plain
from w2s_lib.measures.metrics import rows_of, scores
from w2s_lib.publishing.tables import chapter_names, published
from w2s_lib.runs.errors import require
from w2s_lib.runs.record import Record
from w2s_lib.tasks.table import load_table

CATEGORIES = {
    "overruled rightly": (False, True),
    "overruled wrongly": (True, False),
    "error repeated": (False, False),
    "both right": (True, True),
}
"""Whether the supervisor, and whether the student, is right."""
NEVER_SHOWN = ("nyt",)
"""Tasks whose texts are on no page: editorials of a newspaper."""


@dataclass(frozen=True)
class Examples:
    """What was drawn. In a notebook it lists it; a script of the page's makes it a browser.

    Attributes:
        counts: a row an experiment and seed: `experiment`, `seed`, and how many test texts each of
            `CATEGORIES` has.
        drawn: a row a text: `experiment`, `seed`, `category`, `text`, and the answers in words,
            `truth`, `supervisor`, `student`.
        waiting: experiments without published records of both arms.
    """

    counts: pd.DataFrame
    drawn: pd.DataFrame
    waiting: list[str]

    def _repr_html_(self) -> str:
        parts: list[str] = []
        groups = dict(list(self.drawn.groupby(["experiment", "seed", "category"])))
        for count in self.counts.to_dict("records"):
            name, seed = literal(count["experiment"]), count["seed"]
            sections = []
            for category in CATEGORIES:
                mine = groups.get((count["experiment"], seed, category), self.drawn[:0])
                items = [_item(*row[3:]) for row in mine.itertuples(index=False, name=None)]
                about = f"{count[category]:,} test texts, {len(items)} drawn"
                said = f"<p><strong>{category.capitalize()}</strong>: {about}</p>{''.join(items)}"
                sections.append(f'<section data-category="{category}">{said}</section>')
            head = f'data-experiment="{name}" data-seed="{seed}"{"" if parts else " open"}'
            said = f"<summary>{name}, seed {seed}</summary>{''.join(sections)}"
            parts.append(f"<details {head}>{said}</details>")
        # MathJax, which JupyterLab has, would take what stands between two dollars for a formula.
        return f'<div class="w2s-examples mathjax_ignore">{"".join(parts)}</div>'


def examples(
    experiments: Mapping[str, tuple[str, str, str]], seeds: Iterable[int], *, n_shown: int = 4
) -> Examples:
    """Draws test texts of published records, by category; the seed of the runs seeds the draw.

    Args:
        experiments: label -> chapter, and in its `specs` cell the names of student and supervisor.
        seeds: those to look for; an experiment has the ones for which both records are published.
        n_shown: how many texts of each category are drawn, or all where there are fewer.

    Raises:
        SpecError: a task whose texts are not to be shown; a record of other texts than are here.
    """
    counts, drawn, waiting, wanted = [], [], [], list(seeds)
    for label, (chapter, *names) in experiments.items():
        arms = chapter_names(chapter)
        runs = published([arms[name] for name in names], wanted)
        if not len(runs):
            waiting.append(label)
            continue
        for student, supervisor in zip(*(runs.records(arms[n]) for n in names), strict=True):
            rows = answers(student, supervisor)
            which = {"experiment": label, "seed": student.spec.seed}
            counts.append(which | {c: int((rows["category"] == c).sum()) for c in CATEGORIES})
            for category in CATEGORIES:
                group = rows[rows["category"] == category]
                some = group.sample(min(n_shown, len(group)), random_state=student.spec.seed)
                drawn.append(some.assign(**which))
    columns = ["experiment", "seed", "category", "text", "truth", "supervisor", "student"]
    return Examples(
        pd.DataFrame(counts, columns=["experiment", "seed", *CATEGORIES]),
        pd.concat(drawn)[columns] if drawn else pd.DataFrame(columns=columns),
        waiting,
    )


def answers(student: Record, supervisor: Record) -> pd.DataFrame:
    """Every test text with its category and, in words, the truth and both answers.

    An answer is that at the median of the run's P(y = 1) on validation texts.

    Raises:
        SpecError: see `examples`.
    """
    task = student.spec.task
    require(task.name not in NEVER_SHOWN, f"the texts of {task.name} are not to be shown")
    table, digest = load_table(task), student.provenance["task_digest"]
    other = f"run {student.spec.run_id} is of other texts of {task.name} than are here"
    require(table.digest == digest, other)
    rows = rows_of(student, "test")
    right = scores("accuracy", supervisor=[supervisor], student=[student])[0][:, 0].astype(bool)
    label, of = rows["label"].to_numpy(), {pair: name for name, pair in CATEGORIES.items()}
    texts = table.frame.loc[rows.index].filter(["text", "text_b"])
    pairs = ["the second is better", "the first is better"]
    words = np.array(pairs if "text_b" in texts else ["negative", "positive"])
    said = words[(right == label).astype(int)]  # 1 is said where 1 is right, or 0 wrong
    return pd.DataFrame(
        {
            "category": [of[a, b] for a, b in right.T.tolist()],
            "text": list(texts.itertuples(index=False, name=None)),
            "truth": words[label],
            "supervisor": said[0],
            "student": said[1],
        },
        index=rows.index,
    )


def literal(text: str) -> str:
    """A text as HTML that shows it on one line and does nothing: see `plain`; markup is escaped."""
    return escape(" ".join(plain(text).split()))


def _item(texts: tuple[str, ...], truth: str, supervisor: str, student: str) -> str:
    quoted = "".join(f"<p><bdi>{literal(text)}</bdi></p>" for text in texts)
    said = f"Truth: {truth}. Supervisor: {supervisor}. Student: {student}."
    return f"<blockquote>{quoted}</blockquote><p>{said}</p>"
