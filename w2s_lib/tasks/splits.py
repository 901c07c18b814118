"""Test and validation, fixed for a task, and the two halves that a seed draws: by group, and balanced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from w2s_lib.runs.errors import SpecError
from w2s_lib.tasks.table import Rows, TaskTable


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows of a table, each array sorted, classes exactly balanced, no row and no group in two of them."""

    test: Rows
    validation: Rows
    supervisor: Rows
    student: Rows


def splits(table: TaskTable, seed: int) -> Splits:
    """Test and validation, the same whatever the seed, and the two halves that the seed draws from all other rows.

    A `split` column is respected: a part that it names is drawn from that part's rows, the rest from `train`.

    Raises:
        SpecError: fewer rows than the task asks for.
    """
    task, part = table.task, table.frame["split"].to_numpy()
    fixed = np.random.default_rng(int(table.digest[:16], 16))
    train, free = np.isin(part, ("", "train")), np.ones(len(part), dtype=bool)
    held: dict[str, Rows] = {}
    for name, size in (("test", task.n_test), ("validation", task.n_validation)):
        own = part == name
        held[name] = _deal(table, (own if own.any() else train) & free, {f"n_{name}": size}, fixed)[
            0
        ]
        # The rows of its groups that it did not need must not be used elsewhere either.
        free &= ~table.frame["group"].isin(table.frame["group"].iloc[held[name]]).to_numpy()
    halves = {"n_train (supervisor)": task.n_train, "n_train (student)": task.n_train}
    supervisor, student = _deal(
        table, train & free, halves, np.random.default_rng([seed, int(table.digest[:16], 16)])
    )
    return Splits(held["test"], held["validation"], supervisor, student)


def _deal(
    table: TaskTable, pool: npt.NDArray[np.bool_], sizes: dict[str, int], rng: np.random.Generator
) -> list[Rows]:
    """Deal whole groups, in random order, to hands that each need half their size of either class.

    A group goes to the hand with fewest rows so far that still needs one of its rows; what it has above a hand's need
    is set aside. So both halves are drawn alike, however scarce a class is at the end.
    """
    task, label, group = (
        table.task,
        table.frame["label"].to_numpy(),
        pd.factorize(table.frame["group"])[0],
    )
    rows = rng.permutation(np.flatnonzero(pool))
    order = rows[
        np.argsort(pd.factorize(group[rows])[0], kind="stable")
    ]  # groups in order of their first row's draw
    starts = (
        np.flatnonzero(np.r_[True, group[order][1:] != group[order][:-1]]) if len(order) else order
    )
    hands: list[tuple[list[int], list[int]]] = [([], []) for _ in sizes]
    needs = [size // 2 for size in sizes.values()]
    for whole in np.split(order, starts[1:]):
        if sum(len(zeros) + len(ones) for zeros, ones in hands) == 2 * sum(needs):
            break
        of_class = [[int(row) for row in whole if label[row] == k] for k in (0, 1)]
        open_hands = [
            i
            for i, hand in enumerate(hands)
            if any(of_class[k] and len(hand[k]) < needs[i] for k in (0, 1))
        ]
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
