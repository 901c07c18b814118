"""Named tasks as canonical tables, with a fixed test and validation set and two disjoint halves to train on.

A table is rows of text with a binary label. Its digest covers every row, so that predictions can be joined by task
and row and never by luck; test and validation are drawn by a generator seeded with that digest and are the same for
everybody. The seed of a run draws only the two halves: one teaches the supervisor, the other the student.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from w2s_lib.runs.errors import AssetError, SpecError, nearest
from w2s_lib.runs.folders import file_sha256, save_whole
from w2s_lib.runs.model_names import is_planning
from w2s_lib.runs.spec import Task
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.comparisons import preferences
from w2s_lib.tasks.hub import kept_table, read_hub_task
from w2s_lib.tasks.readers import FILE_KINDS, distinct, read_embedded, read_file, read_hub

Rows = npt.NDArray[np.int64]

_SMALLER: dict[str, Any] = {"n_train": 400, "n_validation": 200, "n_test": 800}
EMBEDDED: dict[str, tuple[str, dict[str, Any]]] = {
    "movie": ("movieReviewSnippets", {}),
    "amazon": ("amazonReviewSnippets", _SMALLER),
    "nyt": ("nytEditorialSnippets", _SMALLER),
    "tweets": ("tweets", _SMALLER),
    "movie-preference": ("movieReviewSnippets", {"n_train": 500, "min_rating": 1.0}),
}
"""The file stem of each embedded task, and the settings that fit it where Task's own defaults do not."""


@dataclass(frozen=True, eq=False)  # hashed by identity: it is cached
class TaskTable:
    """A task's rows, duplicates dropped.

    Attributes:
        task: what was asked for.
        frame: index = row, 0 to N-1; columns `id`, `text`, `label` (int8, 0 or 1), `group` (rows of one group never
            cross a split), `rating` (mean human rating, -4 to 4; NaN where there is none) and `split` ("" where none).
            A comparison has a second text, `text_b`: label 1 says that the first is better, `rating` is the difference.
        ratings: every rater's rating, a tuple a row; empty for comparisons and a user's own data.
        digest: sha256 over row, id, text (both), label, group and split of every row.
        n_dropped: rows left out as duplicates of another.
    """

    task: Task
    frame: pd.DataFrame
    ratings: tuple[tuple[int, ...], ...]
    digest: str
    n_dropped: int

    @property
    def texts(self) -> list[str]:
        """Every text: all first ones in row order, then all second ones where rows are comparisons."""
        return [
            text
            for column in ("text", "text_b")
            if column in self.frame
            for text in self.frame[column]
        ]

    @property
    def texts_a_row(self) -> int:
        """2 where rows are comparisons, else 1."""
        return 2 if "text_b" in self.frame else 1

    def positions(self, rows: Any) -> Rows:
        """Where the texts of `rows`, (n,), stand in `texts`: (n,), or (2n,), first texts before second ones."""
        return np.concatenate(
            [np.asarray(rows) + side * len(self.frame) for side in range(self.texts_a_row)]
        )


def default_task(name: str, **overrides: Any) -> Task:
    """The task of that name with sizes that fit it; a user's own data is pinned by its content.

    Args:
        name: a name in `EMBEDDED` or `hub_tasks`, a path to a user's file, or `hf:<dataset>`. While `names.planning` nothing
            is fetched: `sha256` stays "" where the cache does not have the hub's table, or has several.
        **overrides: fields of `Task`.

    Raises:
        SpecError: unknown task or field, with the nearest name; a file that is missing.
        AssetError: a dataset of the hub that cannot be loaded.
    """
    known = [field.name for field in dataclasses.fields(Task)]
    for field in overrides:
        if field not in known:
            raise SpecError(f"unknown field {field!r} of Task: {nearest(field, known)}")
    settings = (
        EMBEDDED[name][1]
        if name in EMBEDDED
        else HUB_TASKS[name].settings
        if name in HUB_TASKS
        else {}
    )
    return resolve_task(Task(**{"name": name, **settings, **overrides}))


def fixed(name: str) -> bool:
    """Whether a name alone says what the texts are: an embedded task, or one of the hub that is pinned to a commit."""
    return name in EMBEDDED or (name in HUB_TASKS and len(HUB_TASKS[name].revision) == 40)


def resolve_task(task: Task) -> Task:
    """Fill in the sha256 of a user's data, or check it: changed content is another task.

    For a file it is that of the file; for what the hub has, whose files may come in another form, the table's digest.

    Raises:
        SpecError: unknown task, with the nearest name; a file that is missing; content that is not what was meant.
        AssetError: a dataset of the hub that cannot be loaded.
    """
    path = Path(task.name).expanduser()
    if task.name in EMBEDDED:
        found = ""
    elif is_planning() and of_the_hub(task.name):
        found = task.sha256 or _known_digest(task.name)
    elif task.name.startswith("hf:"):
        found = _load(task.name, 0.0, "").digest
    elif path.suffix in FILE_KINDS:
        try:
            found = file_sha256(path)
        except OSError as error:
            raise SpecError(f"cannot read the task file {task.name!r}: {error.strerror}") from error
    elif task.name in HUB_TASKS or kept_table(task.name, task.sha256).is_file():
        found = _load(task.name, 0.0, task.sha256).digest
    else:
        kinds = f"Also a file ({', '.join(FILE_KINDS)}) or 'hf:<dataset>'."
        raise SpecError(
            f"unknown task {task.name!r}: {nearest(task.name, [*EMBEDDED, *HUB_TASKS])} {kinds}"
        )
    if task.sha256 not in ("", found):
        meant = (
            f"not {task.sha256}: its content has changed"
            if found
            else "yet its content is fixed: leave sha256 out"
        )
        raise SpecError(f"{task.name} has sha256 {found!r}, {meant}")
    return dataclasses.replace(task, sha256=found)


def of_the_hub(name: str) -> bool:
    """Whether a task's rows come from the hub."""
    return name.startswith("hf:") or name in HUB_TASKS


def pending(task: Task) -> bool:
    """Whether a task of the hub is not on this machine yet, as far as its description says (see `names.planning`)."""
    return of_the_hub(task.name) and not task.sha256


def texts_a_row(task: Task) -> int:
    """2 where rows are comparisons, else 1; of a pending task as it is declared."""
    if pending(task):
        return 2 if task.name in HUB_TASKS and HUB_TASKS[task.name].pairs else 1
    return load_table(task).texts_a_row


def _known_digest(name: str) -> str:
    """The digest of a hub task's table where the cache has one; "" where it has none, or several and nobody knows which."""
    files = (
        list(kept_table(name, "").parent.glob(f"{name}-{'[0-9a-f]' * 16}.parquet"))
        if name in HUB_TASKS
        else []
    )
    return _load(name, 0.0, files[0].stem[-16:]).digest if len(files) == 1 else ""


def load_table(task: Task) -> TaskTable:
    """The canonical table of a task, read once a process.

    A file with columns `chosen` and `rejected` is a table of comparisons, as is `movie-preference` (see `comparisons`).
    Embedded tasks (Hutto & Gilbert, ICWSM 2014): the label is the sign of the mean human rating; rows whose mean is
    within `task.min_rating` of 0 are left out. The group is the row itself in `movie` and `tweets`, the review in
    `amazon` and the editorial in `nyt` (the id up to its `_`). Texts that differ in case or spacing only are
    duplicates: the first is kept, or none where their labels disagree (in a user's own file that is an error, since
    the file can be mended).

    Raises:
        SpecError: unknown task; a file that is missing or unreadable, has no `text` or `label`, a label other than 0
            and 1, an empty text, one text under both labels, two equal ids, an unknown split, a group in two splits; a
            comparison of a text with itself, with nothing, or both ways (a tie).
        AssetError: data that would have to be downloaded and cannot be.
    """
    task = resolve_task(task)
    if is_planning() and of_the_hub(task.name) and not kept_table(task.name, task.sha256).is_file():
        raise AssetError(
            f"the table of {task.name} is not in the cache, and planning fetches nothing"
        )
    if task.name in EMBEDDED:
        table = _load(task.name, task.min_rating, "")
    else:
        table = _load(task.name, 0.0, "" if task.name.startswith("hf:") else task.sha256)
    return dataclasses.replace(table, task=task, frame=table.frame.copy())


@lru_cache(maxsize=8)
def _load(name: str, min_rating: float, sha256: str) -> TaskTable:
    ratings: list[tuple[int, ...]] = []
    read: pd.DataFrame | None = (
        None  # from the hub: kept, so that nobody needs the network or the function again
    )
    if name in EMBEDDED:
        stem, by_document, paired = (
            EMBEDDED[name][0],
            name in ("amazon", "nyt"),
            name == "movie-preference",
        )
        frame, ratings = read_embedded(
            stem, min_rating=-1.0 if paired else min_rating, group_by_prefix=by_document
        )
        if paired:
            frame, ratings = preferences(frame[distinct(frame, name)], min_gap=min_rating), []
    elif name.startswith("hf:"):
        frame = read_hub(name[3:])
    elif Path(name).suffix not in FILE_KINDS:
        file = kept_table(name, sha256)
        frame = pd.read_parquet(file) if file.is_file() else read_hub_task(HUB_TASKS[name])
        read = frame
    else:
        frame = read_file(Path(name).expanduser())
    kept = distinct(frame, name)
    ratings = [ratings[row] for row in np.flatnonzero(kept)] if ratings else []
    frame = frame[kept].reset_index(drop=True)
    digest = hashlib.sha256()
    hashed = [name for name in ("id", "text", "text_b", "label", "group", "split") if name in frame]
    for row in frame[hashed].itertuples(name=None):
        digest.update(json.dumps(row).encode() + b"\n")
    if read is not None and not (file := kept_table(name, digest.hexdigest())).is_file():
        save_whole(file, read.to_parquet)
    _say_overlap(name, [*frame["text"], *frame.get("text_b", [])])
    return TaskTable(Task(name=name), frame, tuple(ratings), digest.hexdigest(), int((~kept).sum()))


def _say_overlap(name: str, texts: Iterable[str]) -> None:
    """Warn when a table shares much with one read before: two such tasks are one, and show no transfer."""
    letters = ("".join(filter(str.isalnum, text.casefold())) for text in texts)
    mine = {hash(text) for text in letters if text}
    for other, theirs in _seen.items():
        shared = len(mine & theirs)
        if other != name and shared > 0.2 * min(len(mine), len(theirs)):
            warnings.warn(
                f"{shared:,} of the {len(mine):,} texts of {name} are also among the {len(theirs):,} of {other}: they "
                "are not two tasks, and a result on one says nothing about transfer to the other",
                stacklevel=2,
            )
    _seen[name] = mine


_seen: dict[str, set[int]] = {}
