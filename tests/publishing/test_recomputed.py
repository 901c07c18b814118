"""Every confirmatory estimate once more from the published files alone, with none of the library's statistics.

Point estimates are equal but for rounding; a bootstrap of seeds and rows agrees with every half-width.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import w2s_lib as w2s
from w2s_lib.publishing.claims import PENDING

ROOT = Path(__file__).parents[2]
DECIDED = {name: one for name, one in w2s.decisions().items() if one.outcome != PENDING}
Correct = np.ndarray[Any, np.dtype[np.float64]]


@functools.cache
def predictions(arm: w2s.RunSpec, seed: int) -> tuple[Correct, Correct, float]:
    """P(y = 1) and labels of test rows in rising order, and the median of P on validation rows."""
    run_id = w2s.pin(arm.with_seed(seed)).run_id
    rows = pq.read_table(ROOT / "book" / "results" / f"{run_id}.parquet").to_pandas()
    rows = rows.sort_values("row")
    p, split = rows["p"].to_numpy(np.float64), rows["split"].to_numpy(str)
    test = split == "test"
    return p[test], rows["label"].to_numpy()[test], float(np.median(p[split == "validation"]))


def correct(arm: w2s.RunSpec, seeds: list[int]) -> Correct:
    """1 where an answer at the validation median is right: (seeds, test rows)."""
    each = [predictions(arm, seed) for seed in seeds]
    return np.array([(p > median) == (label == 1) for p, label, median in each]).astype(float)


def arm(space: dict[str, Any], name: str) -> w2s.RunSpec:
    """What a chapter calls by this name, or by these in its dictionaries."""
    return functools.reduce(lambda found, key: found[key], name.split("/"), space)


def difference(x: dict[str, Correct]) -> float:
    return float(x["a"].mean() - x["b"].mean())


def asymmetry(x: dict[str, Correct]) -> float:
    """Agreement is being right or wrong together."""
    right = x["supervisor"] == 1
    changed = (x["a"] == x["supervisor"]).astype(float) - (x["b"] == x["supervisor"])
    return float(changed[~right].mean() - changed[right].mean())


def transmitted_errors(x: dict[str, Correct]) -> float:
    """Own teacher's errors against every other seed's, pair by pair."""
    e, w = 1 - x["student"], 1 - x["supervisor"]
    n = len(e)
    own = np.mean([(e[s] * w[s]).mean() for s in range(n)])
    others = [(e[s] * w[t]).mean() for s, t in itertools.permutations(range(n), 2)]
    return float((own - np.mean(others)) / w.mean())


def gain_by_misfit(x: dict[str, Correct]) -> float:
    """The line through students, each at its share of changed answers and its gain."""
    weak = x["supervisor"]
    students = [one for role, one in x.items() if role != "supervisor"]
    changed = [float((one != weak).mean()) for one in students]
    return float(np.polyfit(changed, [one.mean() - weak.mean() for one in students], 1)[0])


MEASURES: dict[str, Callable[[dict[str, Correct]], float]] = {
    "difference": difference,
    "asymmetry": asymmetry,
    "transmitted_errors": transmitted_errors,
    "gain_by_misfit": gain_by_misfit,
}


def given(
    name: str, seeds: list[int]
) -> tuple[dict[str, Correct], Callable[[dict[str, Correct]], float]]:
    claim = DECIDED[name].claim
    arms, weights = arms_of(name)
    found = {role: correct(one, seeds) for role, one in arms.items()}
    if claim.measure == "contrast":
        return found, lambda x: sum(float(weights[role] * x[role].mean()) for role in x)
    return found, MEASURES[claim.measure]


def arms_of(name: str) -> tuple[dict[str, w2s.RunSpec], dict[str, float]]:
    """A claim's arms, and of a contrast their weights."""
    claim = DECIDED[name].claim
    space = w2s.chapter_names(claim.chapter)
    if claim.measure == "contrast":
        weights = {arm: weight for weight, arm in claim.arms["terms"]}
        return {role: arm(space, role) for role in weights}, weights
    roles = dict(claim.arms)
    roles |= {f"student {i}": one for i, one in enumerate(roles.pop("students", []))}
    return {role: arm(space, one) for role, one in roles.items()}, {}


def seeds_of(name: str) -> list[int]:
    claim = DECIDED[name].claim
    return list(w2s.chapter_names(claim.chapter)["seeds"][: claim.n_seeds])


def collapsed(name: str, seed: int) -> bool:
    """Whether an arm says one thing at the threshold 1/2, on more than 95% of test rows."""
    said = [(predictions(one, seed)[0] > 0.5).mean() for one in arms_of(name)[0].values()]
    return min(said) < 0.05 or max(said) > 0.95


@pytest.mark.parametrize("name", DECIDED)
def test_the_estimate_again(name: str) -> None:
    arms, measure = given(name, seeds_of(name))
    assert measure(arms) == pytest.approx(DECIDED[name].measured.value, abs=1e-12)


@pytest.mark.parametrize("name", DECIDED)
def test_the_half_width_again(name: str) -> None:
    """Within 15%, by a two-way jackknife that is none of ours.

    Each seed, each of 40 random blocks of rows, and each pair of both is left out in turn. (A bootstrap draws some seeds
    twice, and then takes a student's own teacher for another seed's, which transmitted errors cannot bear.)

    Seeds under which a run collapsed are left out of both here. They stay in the claim; but they lie so far from the
    others that a measure of first order is wider than a jackknife.
    """
    from scipy.stats import t

    seeds_kept = [seed for seed in seeds_of(name) if not collapsed(name, seed)]
    arms, measure = given(name, seeds_kept)
    interval = DECIDED[name].measured
    if len(seeds_kept) < interval.n_seeds:
        claim = DECIDED[name].claim
        names = w2s.chapter_names(claim.chapter)
        interval = w2s.decide(
            claim, w2s.published(arms_of(name)[0].values(), seeds_kept), names
        ).measured
    n_seeds, n_rows = next(iter(arms.values())).shape
    blocks = np.array_split(np.random.default_rng(0).permutation(n_rows), 40)
    left = [np.ones(n_rows, dtype=bool), *(np.ones(n_rows, dtype=bool) for _ in blocks)]
    for rows, block in zip(left[1:], blocks, strict=True):
        rows[block] = False
    seeds = [list(range(n_seeds)), *([k for k in range(n_seeds) if k != s] for s in range(n_seeds))]
    value = np.array(
        [[measure({arm: x[s][:, r] for arm, x in arms.items()}) for r in left] for s in seeds]
    )
    whole, of_seed, of_row = value[0, 0], value[1:, 0], value[0, 1:]
    rest = value[1:, 1:] - of_seed[:, None] - of_row + whole
    s, g = n_seeds, len(blocks)
    v_seed = (s - 1) / s * np.sum((of_seed - of_seed.mean()) ** 2)
    v_row = (g - 1) / g * np.sum((of_row - of_row.mean()) ** 2)
    v_rest = (s - 1) * (g - 1) / (s * g) * np.sum(rest**2)
    t_seed, t_row = t.ppf(0.975, s - 1), t.ppf(0.975, n_rows - 1)
    half = np.sqrt(t_seed**2 * v_seed + t_row**2 * max(v_row - v_rest, 0.0))
    assert half == pytest.approx((interval.high - interval.low) / 2, rel=0.15)
