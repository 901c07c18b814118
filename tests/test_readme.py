"""The README's figure and example. `python -m tests.test_readme` draws the figure anew from the published records."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import w2s_lib as w2s
from w2s_lib.publishing import chapters as book
from w2s_lib.publishing.tables import REHEARSED, published
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.hub import frame_of

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "book" / "_static" / "pgr.svg"
CELLS = {
    "four blocks teach thirty": ("weak", "naive", "ceiling"),
    "TF-IDF teaches thirty": ("unrelated", "unrelated_naive", "ceiling"),
    "comparisons, two teach thirty": ("judge", "judge_naive", "judge_ceiling"),
}


def draw() -> tuple[str, Any]:
    """A digest of what the figure shows, and the chart: the PGR chapter's experiments, as far as they are published."""
    names = book.planned_names(book.Chapter("pgr", ROOT), {})
    cells = {label: tuple(names[arm] for arm in arms) for label, arms in CELLS.items()}
    arms = dict.fromkeys(arm for triple in cells.values() for arm in triple)
    records = [r for arm in arms for r in published([arm], names["seeds"]).all_records]
    there = {r.spec.with_seed(names["seeds"][0]).run_id for r in records}
    shown = {
        label: triple
        for label, triple in cells.items()
        if there >= {w2s.pin(arm.with_seed(names["seeds"][0])).run_id for arm in triple}
    }
    chart = w2s.Results(records).cells(shown).plot(title="How far a student gets with weak labels")
    data = [rounded(rows) for rows in chart.to_dict()["datasets"].values()]
    return hashlib.sha256(
        json.dumps(sorted(data, key=str), sort_keys=True).encode()
    ).hexdigest(), chart


def rounded(value: Any) -> Any:
    """Without the last bits, in which machines differ."""
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return round(value, 9) + 0.0 if isinstance(value, float) else value


def test_the_figure_shows_the_published_records() -> None:
    digest, _ = draw()
    assert f"<!-- {digest} -->" in FIGURE.read_text(encoding="utf-8"), (
        "stale: run `python -m tests.test_readme`"
    )


def test_the_examples_run() -> None:
    example, task = re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S
    )
    space: dict[str, Any] = {}
    exec(example, space)
    assert sorted(space["runs"].frame["role"]) == ["ceiling", "student", "supervisor"]
    exec(task, space)
    made = frame_of(
        HUB_TASKS.pop("riddles"), [{"riddle": "What is it?", "right": "A pen.", "wrong": "A cat."}]
    )
    assert made[["text", "label"]].values.tolist() == [
        ["What is it? A pen.", 1],
        ["What is it? A cat.", 0],
    ]
    assert made["group"].nunique() == 1


def parts() -> list[tuple[str, str]]:
    """Page and text of each paragraph, list item, table row and block of code in README and pages; the log is history.

    And what a profile says above its settings.
    """
    pages = [
        ROOT / "README.md",
        *(page.source for page in book.chapters(ROOT) if page.name != "log"),
    ]
    heads = [
        (
            path.name,
            f"profile {path.stem} " + re.match(r"(#.*\n)*", path.read_text(encoding="utf-8"))[0],
        )
        for path in sorted((ROOT / "book" / "profiles").glob("*.yaml"))
    ]
    return heads + [
        (path.name, part)
        for path in pages
        for part in re.split(r"(?<!:)\n\s*\n|\n(?=[|*-] )", path.read_text(encoding="utf-8"))
    ]


def test_what_was_only_rehearsed_says_so() -> None:
    """Wherever a profile is named that no published run comes from; where records are asked, they say it."""
    unrun = {row.profile for row in w2s.profile_states().itertuples() if not row.runs}
    words, silent, said = ("gpu-check", "profiles for a gpu"), [], []
    for page, part in parts():
        text = " ".join(re.sub("^# ?", "", part.lower(), flags=re.M).split())
        named = "profile" in text and unrun & set(re.findall(r"[\w-]+", part))
        if REHEARSED.lower() in text:
            said.append((page, part))
        elif (named or any(word in text for word in words)) and "{{state}}" not in text:
            silent.append((page, part))
    assert not silent if unrun else not said


if __name__ == "__main__":
    w2s.use_theme()
    name, figure = draw()
    figure.save(str(FIGURE))
    FIGURE.write_text(FIGURE.read_text(encoding="utf-8") + f"<!-- {name} -->\n", encoding="utf-8")
