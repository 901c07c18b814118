"""The README's figure and example. `python -m tests.test_readme` draws the figure anew from the published records."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import w2s_lib as w2s
from w2s_lib.publishing import chapters as book
from w2s_lib.runs.store import find
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.hub import frame_of

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "book" / "_static" / "pgr.svg"


def draw() -> tuple[str, Any]:
    """A digest of what the figure shows, and the chart: the grid of the PGR chapter with its own records."""
    (chapter,) = [page for page in book.chapters(ROOT) if page.name == "pgr"]
    specs = [
        s
        for s in book.planned_specs(chapter, chapter.defaults())
        if s == w2s.RunSpec(model=s.model, task=s.task, labels=s.labels, half=s.half, seed=s.seed)
    ]  # the default recipe, loss and method
    deeper = [
        s
        for s in specs
        if not isinstance(s.labels, w2s.Flip)
        and not (
            isinstance(s.labels, w2s.FromRun)
            and (s.labels.hard or (s.labels.run.depth or 0) >= (s.depth or 0))
        )
    ]
    if missing := [
        spec.run_id for spec in deeper if find(spec) is None
    ]:  # a test does not train for an hour
        raise LookupError(
            f"{len(missing)} of the {len(deeper)} records in the figure are not published: run `make records`"
        )
    chart = w2s.plot_pgr(
        w2s.sweep(deeper, progress=False).frame, title="Accuracy and PGR against student depth"
    )
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


UNRUN = "not yet executed"


def parts() -> list[tuple[str, str]]:
    """Page and text of each paragraph, list item, table row and block of code in README and pages; the log is history.

    What ends in a colon goes with what follows: a cell that says it of its own records says it.
    """
    pages = [
        ROOT / "README.md",
        *(page.source for page in book.chapters(ROOT) if page.name != "log"),
    ]
    return [
        (path.name, part)
        for path in pages
        for part in re.split(r"(?<!:)\n\s*\n|\n(?=[|*-] )", path.read_text(encoding="utf-8"))
    ]


def test_what_was_never_executed_says_so() -> None:
    """Wherever a profile is named that no published run comes from."""
    unrun = {row.profile for row in w2s.profile_states().itertuples() if not row.runs}
    named = [
        (page, part, unrun & set(re.findall(r"[\w-]+", part)))
        for page, part in parts()
        if "profile" in part.lower() or "gpu-check" in part
    ]
    silent = [
        (page, part)
        for page, part, about in named
        if (about or "gpu-check" in part) and UNRUN not in re.sub(r"\s+", " ", part.lower())
    ]
    assert not unrun or not silent
    assert unrun or not [part for _, part in parts() if UNRUN in part.lower() and "{" not in part]


if __name__ == "__main__":
    w2s.use_theme()
    name, figure = draw()
    figure.save(str(FIGURE))
    FIGURE.write_text(FIGURE.read_text(encoding="utf-8") + f"<!-- {name} -->\n", encoding="utf-8")
