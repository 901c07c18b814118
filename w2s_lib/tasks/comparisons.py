"""Tables of comparisons: two texts a row, and which is the better one. An analogue of the data behind a reward model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

SEED = 0
"""Draws the pairs and which of two stands first: part of what a table of comparisons is, and the same for everybody."""


def preferences(snippets: pd.DataFrame, *, min_gap: float) -> pd.DataFrame:
    """Pairs of rated snippets whose mean human ratings are at least `min_gap` apart, each snippet in one pair at most.

    Snippets are dealt out in random order and paired with the next one that is far enough away; what is left is shuffled
    and tried again until a round finds no pair. The better one stands first in a random half of the pairs.

    Args:
        snippets: columns `id`, `text`, `rating`; texts distinct.
        min_gap: smallest difference between two mean ratings, above 0: a tie is no comparison.

    Returns:
        Columns `id`, `text`, `text_b`, `label` (1 where `text` is the better one), `group` (the row itself), `rating` (that
        of `text` minus that of `text_b`) and `split` ("").
    """
    rng = np.random.default_rng(SEED)
    rating, left = snippets["rating"].to_numpy(), np.arange(len(snippets))
    pairs: list[tuple[int, int]] = []
    while True:
        before = len(pairs)
        waiting: list[int] = []
        for i in rng.permutation(left).tolist():
            j = next(
                (j for j in waiting[-8:] if abs(rating[i] - rating[j]) >= max(min_gap, 1e-6)), None
            )
            if j is None:
                waiting.append(i)
            else:
                waiting.remove(j)
                pairs.append((j, i))
        left = np.array(waiting, dtype=np.int64)
        if len(pairs) == before:
            break
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    key, text = snippets["id"].to_numpy(), snippets["text"].to_numpy()
    better_first = rng.random(len(a)) < 0.5
    in_place = better_first == (rating[a] > rating[b])
    first, second = np.where(in_place, a, b), np.where(in_place, b, a)
    ids = [f"{key[i]}-{key[j]}" for i, j in zip(first, second, strict=True)]
    return pd.DataFrame(
        {
            "id": ids,
            "text": text[first],
            "text_b": text[second],
            "label": better_first.astype("int8"),
            "group": ids,
            "rating": rating[first] - rating[second],
            "split": "",
        }
    )


def in_either_order(
    chosen: pd.Series[Any], rejected: pd.Series[Any]
) -> tuple[pd.Series[Any], pd.Series[Any], pd.Series[Any]]:
    """Label, first and second text of each pair: the chosen one comes first in a random half, so order tells nothing."""
    chosen_first = pd.Series(
        np.random.default_rng(SEED).random(len(chosen)) < 0.5, index=chosen.index
    )
    return (
        chosen_first.astype("int8"),
        chosen.where(chosen_first, rejected),
        rejected.where(chosen_first, chosen),
    )
