"""Test and validation, fixed for a task, and the two halves that a seed draws.

By group, and balanced. Test and validation are drawn by a generator seeded with the table's digest
and are the same for everybody. The seed of a run draws only the two halves: one teaches the
supervisor, the other the student.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.record import SPLITS
from w2s_lib.runs.spec import RunSpec
from w2s_lib.tasks.embedded import EMBEDDED
from w2s_lib.tasks.table import Rows, TaskTable

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
    from `train`. No test row is one that an earlier edition was tested on (`EmbeddedTask.n_seen`).

    Raises:
        SpecError: fewer rows than the task asks for.
    """
    task, own_split = table.task, table.frame["split"].to_numpy()
    digest_seed = int(table.digest[:16], 16)
    same_for_all = np.random.default_rng([EDITION, digest_seed])
    train, free = np.isin(own_split, ("", "train")), np.ones(len(own_split), dtype=bool)
    unseen = np.ones(len(own_split), dtype=bool)
    if n_seen := EMBEDDED[task.name].n_seen if task.name in EMBEDDED else 0:
        first = np.random.default_rng(digest_seed)  # as the first edition drew them
        unseen[_draw_balanced(table, train, {"n_seen": n_seen}, first)[0]] = False
    held_out: dict[str, Rows] = {}
    for name, size in (("test", task.n_test), ("validation", task.n_validation)):
        named = own_split == name
        pool = (named if named.any() else train) & free
        if name == "test":
            pool &= unseen
        (held_out[name],) = _draw_balanced(table, pool, {f"n_{name}": size}, same_for_all)
        # The rows of its groups that it did not need must not be used elsewhere either.
        taken = table.frame["group"].iloc[held_out[name]]
        free &= ~table.frame["group"].isin(taken).to_numpy()
    sizes = {"n_train (supervisor)": task.n_train, "n_train (student)": task.n_train}
    seeded = np.random.default_rng([seed, digest_seed])
    supervisor, student = _draw_balanced(table, train & free, sizes, seeded)
    label = table.frame["label"].to_numpy()
    of_class = [np.flatnonzero(train & free & (label == k)) for k in (0, 1)]
    least = min(map(len, of_class))
    everything: Rows = np.sort(
        np.concatenate([seeded.permutation(rows)[:least] for rows in of_class])
    )
    return Splits(held_out["test"], held_out["validation"], supervisor, student, everything)


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
    task, label = table.task, table.frame["label"].to_numpy()
    group = pd.factorize(table.frame["group"])[0]
    rows = rng.permutation(np.flatnonzero(pool))
    # Groups in the order in which the first of their rows was drawn.
    rows = rows[np.argsort(pd.factorize(group[rows])[0], kind="stable")]
    starts = 1 + np.flatnonzero(np.diff(group[rows]))
    drawn: list[tuple[list[int], list[int]]] = [([], []) for _ in sizes]
    needs = [size // 2 for size in sizes.values()]
    for whole in np.split(rows, starts):
        if sum(len(zeros) + len(ones) for zeros, ones in drawn) == 2 * sum(needs):
            break
        of_class = [[int(row) for row in whole if label[row] == k] for k in (0, 1)]
        in_need = [
            (len(have[0]) + len(have[1]), i)
            for i, have in enumerate(drawn)
            if any(of_class[k] and len(have[k]) < needs[i] for k in (0, 1))
        ]
        if in_need:
            _, i = min(in_need)
            for k in (0, 1):
                drawn[i][k].extend(of_class[k][: needs[i] - len(drawn[i][k])])
    for (name, size), (zeros, ones), need in zip(sizes.items(), drawn, needs, strict=True):
        if min(len(zeros), len(ones)) < need:
            raise SpecError(
                f"{task.name} has too few rows for {name} = {size}: it needs {need} rows of "
                f"either label, and there are {len(zeros)} of label 0 and {len(ones)} of label 1 left "
                "once groups are kept whole. Set a smaller n_train, n_validation or n_test"
            )
    return [np.sort(np.array(zeros + ones, dtype=np.int64)) for zeros, ones in drawn]
