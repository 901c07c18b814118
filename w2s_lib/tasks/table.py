"""Named tasks as canonical tables: rows of text with a binary label, under a digest.

The digest covers every row, so that predictions can be joined by task and row and never by luck.
Describing a task reads nothing (`default_task`); `resolve_task` says what its content is now. Of a
table `splits` draws test and validation, by a generator seeded with its digest and so the same for
everybody, and by the seed of a run the two halves: one teaches the supervisor, the other the
student.
"""

import dataclasses
import hashlib
import itertools
import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from w2s_lib.runs.assets import folder_of
from w2s_lib.runs.errors import SpecError, nearest, require
from w2s_lib.runs.folders import unchanged_sha256, write_cached
from w2s_lib.runs.record import SPLITS
from w2s_lib.runs.settings import Task
from w2s_lib.runs.spec import RunSpec
from w2s_lib.tasks.catalogue import HUB_TASKS
from w2s_lib.tasks.embedded import DATA, EMBEDDED, preferences, read_embedded
from w2s_lib.tasks.hub import HubTask, cached_table, kept_table, read_hub_task
from w2s_lib.tasks.readers import FILE_KINDS, is_file, read_file, rows_to_keep

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)  # frames have no truth value
class TaskTable:
    """A task's rows, duplicates dropped.

    Attributes:
        task: what was asked for.
        frame: index = row, 0 to N-1; columns `id`, `text`, `label` (int8, 0 or 1), `group` (rows of
            one group never cross a split), `rating` (mean human rating, -4 to 4; NaN where there is
            none) and `split` ("" where none). A comparison has a second text, `text_b`: label 1
            says that the first is better, `rating` is the difference.
        ratings: every rater's rating, a tuple a row, but for those of `Task.panel`; empty for
            comparisons and a user's own data.
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
        """Every text: all first ones in row order, then all second ones of comparisons."""
        return [*self.frame["text"], *self.frame.get("text_b", [])]

    @property
    def texts_a_row(self) -> int:
        """2 where rows are comparisons, else 1."""
        return 2 if "text_b" in self.frame else 1

    def positions(self, rows: Any) -> Rows:
        """Where the texts of `rows`, (n,), stand in `texts`: (n,), or (2n,), first texts first."""
        sides = range(self.texts_a_row)
        return np.concatenate([np.asarray(rows) + side * len(self.frame) for side in sides])


SIZES: dict[str, Any] = {"n_train": 1000, "n_validation": 500, "n_test": 2000}
"""Of a task that declares no others, such as a user's file."""


def default_task(name: str, **overrides: Any) -> Task:
    """The task of that name with the settings that it declares. Nothing is read, nothing fetched.

    Args:
        name: a name in `EMBEDDED` or `HUB_TASKS`, or a path to a user's file.
        **overrides: fields of `Task`.

    Raises:
        SpecError: unknown task or field, with the nearest name.
    """
    _require_known(name)
    declared = EMBEDDED.get(name) or HUB_TASKS.get(name)
    return Task(**{"name": name, **SIZES, **(declared.settings if declared else {}), **overrides})


def _require_known(name: str) -> None:
    known = [*EMBEDDED, *HUB_TASKS]
    if name not in known and not is_file(name):
        allowed = f"{nearest(name, known)} Also a file ({', '.join(FILE_KINDS)})."
        raise SpecError(f"unknown task {name!r}: {allowed}")


def has_fixed_content(name: str) -> bool:
    """Whether a name alone says what the texts are: embedded, or of the hub and at a commit."""
    return name in EMBEDDED or (name in HUB_TASKS and HUB_TASKS[name].pinned)


def resolve_task(task: Task, *, local_only: bool = False) -> Task:
    """Fills in the sha256 of a user's data, or checks it: changed content is another task.

    For a file it is that of the file; for what the hub has, whose files may come in another form,
    the table's digest.

    Args:
        task: what is meant.
        local_only: ask no hub; a table that this machine has not, or has several of, stays unknown.

    Raises:
        SpecError: unknown task, with the nearest name; a file that is missing; content that is not
            what was meant.
        AssetError: a dataset of the hub that cannot be loaded.
    """
    if task.name in EMBEDDED:
        found = ""
    elif is_file(task.name):
        try:
            found = unchanged_sha256(Path(task.name).expanduser())
        except (OSError, ValueError, RuntimeError) as error:
            raise SpecError(f"cannot read the task file {task.name!r}: {error}") from error
    elif local_only:
        found = task.sha256 or _cached_digest(task.name)
    else:
        found = _load(task.name, task.sha256, HUB_TASKS.get(task.name)).digest
    changed = f"{task.name} has sha256 {found!r}, not {task.sha256!r}: its content has changed"
    require(task.sha256 in ("", found), changed)
    return dataclasses.replace(task, sha256=found)


def needs_download(task: Task) -> bool:
    """Whether a task's rows come from the hub and nothing says that they are on this machine."""
    return not (task.name in EMBEDDED or is_file(task.name) or task.sha256)


def texts_a_row(task: Task) -> int:
    """2 where rows are comparisons, else 1: as declared, else as the data is."""
    declared = EMBEDDED.get(task.name) or HUB_TASKS.get(task.name)
    if declared:
        return 2 if declared.pairs else 1
    return 1 if needs_download(task) else load_table(task).texts_a_row


def _cached_digest(name: str) -> str:
    """The digest of a hub task's only table in the cache; "" where it has none, or several."""
    digests = [file.stem[-16:] for file in cached_table(name, "").parent.glob(f"{name}-*.parquet")]
    alone = name in HUB_TASKS and len(digests) == 1
    return _load(name, digests[0], HUB_TASKS[name]).digest if alone else ""


def at_hand(task: Task) -> bool:
    """Whether a task's rows are on this machine: nothing would have to be fetched for them."""
    if task.name in EMBEDDED:
        return folder_of(DATA).is_dir()
    return is_file(task.name) or cached_table(task.name, task.sha256).is_file()


def load_table(task: Task) -> TaskTable:
    """The canonical table of a task, read once a process.

    A file with columns `chosen` and `rejected` is a table of comparisons, as is `movie-preference`
    (see `embedded.preferences`). Embedded tasks (Hutto & Gilbert, ICWSM 2014): the label is the
    sign of the mean human rating; rows whose mean is within `task.min_rating` of 0 are left out.
    The group is the row itself in `movie` and `tweets`, the review in `amazon` and the editorial in
    `nyt` (the id up to its `_`). Texts that differ in case or spacing only are duplicates: the
    first is kept, or none where their labels disagree (in a user's own file that is an error, since
    the file can be mended).

    Raises:
        SpecError: unknown task; a file that is missing or unreadable, has no `text` or `label`, a
            text that is none, a label other than 0 and 1, an empty text, one text under both
            labels, two equal ids, an unknown split, a group in two splits; a comparison of a text
            with itself, with nothing, or both ways (a tie).
        AssetError: data that would have to be downloaded and cannot be.
    """
    task = resolve_task(task)
    embedded = EMBEDDED.get(task.name)
    rated = embedded is not None and not embedded.pairs
    said = f"Task.max_rating and Task.panel need raters, and the rows of {task.name!r} have none"
    require(rated or (task.max_rating, task.panel) == (Task.max_rating, Task.panel), said)
    limits = (task.min_rating, task.max_rating, task.panel) if embedded else ()
    table = _load(task.name, task.sha256, HUB_TASKS.get(task.name), *limits)
    return dataclasses.replace(table, task=task, frame=table.frame.copy())


@lru_cache(maxsize=8)
def _load(name: str, sha256: str, declared: HubTask | None, *limits: Any) -> TaskTable:
    """The table of a name, read anew where a task of the hub is declared anew.

    `limits` are those of `read_embedded`.
    """
    from_hub: pd.DataFrame | None = None
    if name in EMBEDDED and EMBEDDED[name].pairs:
        snippets = read_embedded(EMBEDDED[name], -1.0)
        frame = preferences(snippets[rows_to_keep(snippets, name)], min_gap=limits[0])
    elif name in EMBEDDED:
        frame = read_embedded(EMBEDDED[name], *limits)
    elif is_file(name):
        frame = read_file(Path(name).expanduser())
    elif (cached := kept_table(cached_table(name, sha256))) is not None:
        frame = cached
    else:
        _require_known(name)
        frame = from_hub = read_hub_task(HUB_TASKS[name])
    kept = rows_to_keep(frame, name)
    frame = frame[kept].reset_index(drop=True)
    ratings = tuple(frame.pop("votes")) if "votes" in frame else ()
    digest = _digest(frame)
    # Kept, so that nobody needs the network or the task's function again.
    if from_hub is not None:
        write_cached(cached_table(name, digest), from_hub.to_parquet)
    return TaskTable(Task(name=name, **SIZES), frame, ratings, digest, int((~kept).sum()))


def _digest(frame: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    columns = [c for c in ("id", "text", "text_b", "label", "group", "split") if c in frame]
    for row in frame[columns].itertuples(name=None):
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def warn_of_shared_texts(tasks: Iterable[Task]) -> None:
    """Warns where two tasks share over a fifth of their texts: they are one, and show no transfer.

    Args:
        tasks: those that are used together; spelling and spacing of their texts do not count.
    """
    found: dict[str, set[str]] = {}
    for task in tasks:
        letters = ("".join(filter(str.isalnum, t.casefold())) for t in load_table(task).texts)
        found.setdefault(task.name, set()).update(letters)
    for (name, texts), (other, others) in itertools.combinations(found.items(), 2):
        shared = len(texts & others)
        if shared > 0.2 * min(len(texts), len(others)):
            said = f"{shared:,} of the {len(others):,} texts of {other} are also among the "
            said += f"{len(texts):,} of {name}: they are one task, and show no transfer"
            warnings.warn(said, stacklevel=2)


EDITION = 2
"""Salts the draw of test and validation: another edition of the book is judged on other rows."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows of a table, each array sorted, classes balanced.

    No row and no group is in two of the first four. `pool` is what the halves are drawn from: all
    that is neither test nor validation, the larger class cut down to the smaller one by the seed.
    """

    test: Rows
    validation: Rows
    supervisor: Rows
    student: Rows
    pool: Rows


def splits(table: TaskTable, seed: int) -> Splits:
    """Test and validation, the same whatever the seed, and the two halves that the seed draws.

    A `split` column is respected: a split that it names is drawn from that split's rows, the rest
    from `train`. No test row is one that an earlier edition was tested on (`EmbeddedTask.n_seen`);
    nor, with a panel, one that the task without it is tested on.

    Raises:
        SpecError: fewer rows than the task asks for.
    """
    task, own_split = table.task, table.frame["split"].to_numpy()
    digest_seed = int(table.digest[:16], 16)
    same_for_all = np.random.default_rng([EDITION, digest_seed])
    train, free = np.isin(own_split, ("", "train")), np.ones(len(own_split), dtype=bool)
    unseen = ~_seen(table)
    held_out: dict[str, Rows] = {}
    for name, size in (("test", task.n_test), ("validation", task.n_validation)):
        named = own_split == name
        rows = (named if named.any() else train) & free
        if name == "test":
            rows &= unseen
        (held_out[name],) = _draw_balanced(table, rows, {f"n_{name}": size}, same_for_all)
        # The rows of its groups that it did not need must not be used elsewhere either.
        taken = table.frame["group"].iloc[held_out[name]]
        free &= ~table.frame["group"].isin(taken).to_numpy()
    sizes = {"n_train (supervisor)": task.n_train, "n_train (student)": task.n_train}
    seeded = np.random.default_rng([seed, digest_seed])
    supervisor, student = _draw_balanced(table, train & free, sizes, seeded)
    label = table.frame["label"].to_numpy()
    of_class = [np.flatnonzero(train & free & (label == k)) for k in (0, 1)]
    least = min(map(len, of_class))
    everything = [seeded.permutation(rows)[:least] for rows in of_class]
    pool = np.sort(np.concatenate(everything))
    return Splits(**held_out, supervisor=supervisor, student=student, pool=pool)


def _seen(table: TaskTable) -> npt.NDArray[np.bool_]:
    """(n,) the rows that an earlier edition was tested on; with a panel, this one too."""
    task, seen = table.task, np.zeros(len(table.frame), dtype=bool)
    if task.panel:
        return table.frame["id"].isin(_tested(task.name)).to_numpy()
    if n_seen := EMBEDDED[task.name].n_seen if task.name in EMBEDDED else 0:
        first = np.random.default_rng(int(table.digest[:16], 16))  # as the first edition drew them
        seen[_draw_balanced(table, ~seen, {"n_seen": n_seen}, first)[0]] = True
    return seen


@cache
def _tested(name: str) -> frozenset[str]:
    """The ids of an embedded task's rows that were test rows, without a panel, in either edition."""
    table = load_table(default_task(name))
    tested = _seen(table)
    tested[splits(table, 0).test] = True
    return frozenset(table.frame["id"][tested])


def recorded_rows(spec: RunSpec, table: TaskTable, parts: Splits) -> pd.DataFrame:
    """What the record of a run holds but for its P: index `row`; `split`, `label` and `group`.

    Args:
        spec: the run.
        table: its task.
        parts: the task's rows under the run's seed.
    """
    names: tuple[str, ...] = SPLITS if spec.predict_halves else SPLITS[:2]
    if spec.role == "generative":
        names = ("validation",)
    rows = np.concatenate([getattr(parts, name) for name in names])
    return pd.DataFrame(
        {
            "split": np.repeat(names, [len(getattr(parts, name)) for name in names]).astype(object),
            "label": table.frame["label"].to_numpy(np.int8)[rows],
            "group": pd.factorize(table.frame["group"])[0][rows].astype(np.int32),
        },
        index=pd.Index(rows, name="row"),
    )


def _draw_balanced(
    table: TaskTable, pool: npt.NDArray[np.bool_], sizes: dict[str, int], rng: np.random.Generator
) -> list[Rows]:
    """Draws disjoint sets of rows, each with half its size of either class, groups kept whole.

    Groups come in random order. Each goes to the set with fewest rows so far that still needs one
    of its rows; what it has above that set's need is set aside. So both halves are drawn alike,
    however scarce a class is at the end.

    Args:
        table: whose rows.
        pool: (n,) which rows may be drawn.
        sizes: name -> rows of each set.
        rng: draws the order of the groups.

    Raises:
        SpecError: the pool is too small for a set, which is named.
    """
    label, group = table.frame["label"].tolist(), table.frame["group"].tolist()
    # Rows of either class by group, groups in the order in which the first of their rows is drawn.
    of_group: dict[str, tuple[list[int], list[int]]] = {}
    for row in rng.permutation(np.flatnonzero(pool)).tolist():
        of_group.setdefault(group[row], ([], []))[label[row]].append(row)
    drawn: dict[str, list[int]] = {name: [] for name in sizes}
    needed = {name: [size // 2, size // 2] for name, size in sizes.items()}
    for of_class in of_group.values():
        if not any(map(any, needed.values())):
            break
        in_need = [n for n in sizes if any(of_class[k] and needed[n][k] for k in (0, 1))]
        if in_need:
            name = min(in_need, key=lambda n: len(drawn[n]))
            for k in (0, 1):
                taken = of_class[k][: needed[name][k]]
                drawn[name] += taken
                needed[name][k] -= len(taken)
    for name, size in sizes.items():
        if any(needed[name]):
            zeros, ones = (size // 2 - lacking for lacking in needed[name])
            left = f"{zeros} of label 0 and {ones} of label 1 left in whole groups"
            raise SpecError(
                f"{table.task.name} has too few rows for {name} = {size}: it needs {size // 2} rows of "
                f"either label, and there are {left}. Set a smaller n_train, n_validation or n_test"
            )
    return [np.sort(np.array(rows, dtype=np.int64)) for rows in drawn.values()]
