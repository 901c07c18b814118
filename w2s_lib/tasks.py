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

from .assets import file_sha256
from .comparisons import preferences
from .readers import FILE_KINDS, distinct, read_embedded, read_file, read_hub
from .spec import SpecError, Task, nearest

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
        return [text for column in ("text", "text_b") if column in self.frame for text in self.frame[column]]

    @property
    def texts_a_row(self) -> int:
        """2 where rows are comparisons, else 1."""
        return 2 if "text_b" in self.frame else 1

    def positions(self, rows: Any) -> Rows:
        """Where the texts of `rows`, (n,), stand in `texts`: (n,), or (2n,), first texts before second ones."""
        return np.concatenate([np.asarray(rows) + side * len(self.frame) for side in range(self.texts_a_row)])


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows of a table, each array sorted, classes exactly balanced, no row and no group in two of them."""

    test: Rows
    validation: Rows
    supervisor: Rows
    student: Rows


def default_task(name: str, **overrides: Any) -> Task:
    """The task of that name with sizes that fit it; a user's own data is pinned by its content.

    Args:
        name: a name in `EMBEDDED`, a path to a user's file, or `hf:<dataset>`.
        **overrides: fields of `Task`.

    Raises:
        SpecError: unknown task or field, with the nearest name; a file that is missing.
        AssetError: a dataset of the hub that cannot be loaded.
    """
    known = [field.name for field in dataclasses.fields(Task)]
    for field in overrides:
        if field not in known:
            raise SpecError(f"unknown field {field!r} of Task: {nearest(field, known)}")
    sizes = EMBEDDED[name][1] if name in EMBEDDED else {}
    return resolve_task(Task(**{"name": name, **sizes, **overrides}))


def resolve_task(task: Task) -> Task:
    """Fill in the sha256 of a user's data, or check it: changed content is another task.

    For a file it is that of the file; for `hf:<dataset>`, whose files may come in another form, the table's digest.

    Raises:
        SpecError: unknown task, with the nearest name; a file that is missing; content that is not what was meant.
        AssetError: a dataset of the hub that cannot be loaded.
    """
    path = Path(task.name).expanduser()
    if task.name in EMBEDDED:
        found = ""
    elif task.name.startswith("hf:"):
        found = _load(task.name, 0.0, "").digest
    elif path.suffix not in FILE_KINDS:
        kinds = f"Also a file ({', '.join(FILE_KINDS)}) or 'hf:<dataset>'."
        raise SpecError(f"unknown task {task.name!r}: {nearest(task.name, EMBEDDED)} {kinds}")
    else:
        try:
            found = file_sha256(path)
        except OSError as error:
            raise SpecError(f"cannot read the task file {task.name!r}: {error.strerror}") from error
    if task.sha256 not in ("", found):
        meant = f"not {task.sha256}: its content has changed" if found else "yet its content is fixed: leave sha256 out"
        raise SpecError(f"{task.name} has sha256 {found!r}, {meant}")
    return dataclasses.replace(task, sha256=found)


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
    if task.name in EMBEDDED:
        table = _load(task.name, task.min_rating, "")
    else:
        table = _load(task.name, 0.0, "" if task.name.startswith("hf:") else task.sha256)
    return dataclasses.replace(table, task=task, frame=table.frame.copy())


def splits(table: TaskTable, seed: int) -> Splits:
    """Test and validation, the same whatever the seed, and the two halves that the seed draws from all other rows.

    A `split` column is respected: a part that it names is drawn from that part's rows, the rest from `train`.

    Raises:
        SpecError: fewer rows than the task asks for.
    """
    task, part = table.task, table.frame["split"].to_numpy()
    fixed = np.random.default_rng(int(table.digest[:16], 16))
    train = np.isin(part, ("", "train"))
    held: dict[str, Rows] = {}
    for name, size in (("test", task.n_test), ("validation", task.n_validation)):
        own = part == name
        held[name] = _deal(table, own if own.any() else train, {f"n_{name}": size}, fixed)[0]
        used = table.frame["group"].isin(table.frame["group"].iloc[held[name]]).to_numpy()
        train = train & ~used  # the rows of its groups that it did not need must not be trained on either
    halves = {"n_train (supervisor)": task.n_train, "n_train (student)": task.n_train}
    supervisor, student = _deal(table, train, halves, np.random.default_rng([seed, int(table.digest[:16], 16)]))
    return Splits(held["test"], held["validation"], supervisor, student)


def _deal(table: TaskTable, pool: npt.NDArray[np.bool_], sizes: dict[str, int], rng: np.random.Generator) -> list[Rows]:
    """Deal whole groups, in random order, to hands that each need half their size of either class.

    A group goes to the hand with fewest rows so far that still needs one of its rows; what it has above a hand's need
    is set aside. So both halves are drawn alike, however scarce a class is at the end.
    """
    task, label, group = table.task, table.frame["label"].to_numpy(), pd.factorize(table.frame["group"])[0]
    rows = rng.permutation(np.flatnonzero(pool))
    order = rows[np.argsort(pd.factorize(group[rows])[0], kind="stable")]  # groups in order of their first row's draw
    starts = np.flatnonzero(np.r_[True, group[order][1:] != group[order][:-1]]) if len(order) else order
    hands: list[tuple[list[int], list[int]]] = [([], []) for _ in sizes]
    needs = [size // 2 for size in sizes.values()]
    for whole in np.split(order, starts[1:]):
        if sum(len(zeros) + len(ones) for zeros, ones in hands) == 2 * sum(needs):
            break
        of_class = [[int(row) for row in whole if label[row] == k] for k in (0, 1)]
        open_hands = [i for i, hand in enumerate(hands) if any(of_class[k] and len(hand[k]) < needs[i] for k in (0, 1))]
        if open_hands:
            i = min(open_hands, key=lambda i: len(hands[i][0]) + len(hands[i][1]))
            for k in (0, 1):
                hands[i][k].extend(of_class[k][: needs[i] - len(hands[i][k])])
    for (name, size), hand, need in zip(sizes.items(), hands, needs, strict=True):
        if min(len(hand[0]), len(hand[1])) < need:
            raise SpecError(
                f"{task.name} has too few rows for {name} = {size}: balanced classes need {need} rows of either "
                f"label, there are {len(hand[0])} of label 0 and {len(hand[1])} of label 1 left once groups are kept "
                f"whole (the table has {len(label):,} rows, {int(label.sum()):,} of label 1). Set a smaller n_train "
                f"({task.n_train}, twice), n_validation ({task.n_validation}) or n_test ({task.n_test})"
            )
    return [np.sort(np.array(hand[0] + hand[1], dtype=np.int64)) for hand in hands]


@lru_cache(maxsize=8)
def _load(name: str, min_rating: float, sha256: str) -> TaskTable:
    ratings: list[tuple[int, ...]] = []
    if name in EMBEDDED:
        stem, by_document, paired = EMBEDDED[name][0], name in ("amazon", "nyt"), name == "movie-preference"
        frame, ratings = read_embedded(stem, min_rating=-1.0 if paired else min_rating, group_by_prefix=by_document)
        if paired:
            frame, ratings = preferences(frame[distinct(frame, name)], min_gap=min_rating), []
    elif name.startswith("hf:"):
        frame = read_hub(name[3:])
    else:
        frame = read_file(Path(name).expanduser())
    kept = distinct(frame, name)
    ratings = [ratings[row] for row in np.flatnonzero(kept)] if ratings else []
    frame = frame[kept].reset_index(drop=True)
    digest = hashlib.sha256()
    hashed = [name for name in ("id", "text", "text_b", "label", "group", "split") if name in frame]
    for row in frame[hashed].itertuples(name=None):
        digest.update(json.dumps(row).encode() + b"\n")
    _say_overlap(name, frame["text"])
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
