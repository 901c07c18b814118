"""How often do intervals cover the truth? Simulated experiments whose truth is known: three tables.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.coverage --simulations 1000    # 6 minutes, one core

One experiment: three arms (weak, student, ceiling), S seeds, one test set of n rows that all of them answer. A row is
answered rightly when a latent score is above 0:

    score[arm, s, i] = mu[arm] + row[arm, i] + seed[arm, s] + drift[arm, s] * y[i] + rest[arm, s, i]

`row` is how hard a text is, mostly the same for all arms, and in part shared by the rows of a group; `seed` moves a
whole run up or down; `drift` moves its threshold, so that it gains on one class (y = +1) what it loses on the other
(y = -1); `rest` is what is left, in part shared by the weak supervisor and the student that copies its errors. Every
term is normal, so the accuracy over all seeds and rows is Phi(mu / total sd), and mu is set from the accuracies wanted.

Each line of the first table is a scenario, each column the share of 95% intervals that hold the true PGR, among the
experiments whose gap is above 0 with 95% confidence (for the others the book gives no PGR: "no gap"). "width" is the
median width of the library's interval. Then the library's interval for the accuracy difference student - weak: its
coverage, the mean of its `detectable`, and how often a true difference of that size is found (80% is wanted).

The second table has the intervals of every metric, of the student and of PGR, with and without thresholds that drift.
Then P(y = 1) is the logistic function of y times the score, so that a drift moves all logits of a run by as much. The
truth is that of a large simulation with as many validation rows, which set the thresholds. What a drift costs at the
threshold one half, or in log-loss, grows with its square, so that over seeds these are skewed, and with 5 seeds and a
drift of half a standard deviation their intervals cover 89-90%; thresholds at the median and AUC do not mind.

The third table is of agreement: see `yardsticks`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, ndtri
from scipy.stats import norm, t

from tests.benchmarks import yardsticks
from w2s_lib.measures.intervals import Interval, mean_interval, ratio_interval, spread
from w2s_lib.measures.metrics import METRICS

ROW_SHARE = 0.7  # of the latent variance that a row keeps from seed to seed; accuracies of runs correlate about so
OWN_SHARE = 0.25  # of the row's variance that is an arm's own
GROUP_SHARE = 0.3  # of the row's variance that its group shares, where there are groups
SEED_SHARE = (
    0.3  # of the seed's variance that the arms share: one seed draws the halves for all three
)
COPY_SHARE = 0.4  # of the weak supervisor's remaining errors that its student copies
GAIN = 1.5  # logits per unit of the score
N_VALIDATION = 500


@dataclass(frozen=True)
class Scenario:
    name: str
    accuracies: tuple[float, float, float] = (0.74, 0.80, 0.88)
    seed_sd: tuple[float, float, float] = (0.01, 0.01, 0.01)
    """Of the accuracy, over seeds."""
    n_seeds: int = 5
    n_rows: int = 2000
    n_groups: int = 0
    drift: float = 0.0
    """Latent standard deviation of the threshold, over seeds."""

    @property
    def pgr(self) -> float:
        weak, student, ceiling = self.accuracies
        return (student - weak) / (ceiling - weak)


SCENARIOS = [
    Scenario("seed sd .005", seed_sd=(0.005,) * 3),
    Scenario("seed sd .01"),
    Scenario("seed sd .02", seed_sd=(0.02,) * 3),
    Scenario("seed sd .02, .015, .005", seed_sd=(0.02, 0.015, 0.005)),
    Scenario("seeds alike", seed_sd=(1e-6,) * 3),
    Scenario("PGR 0", accuracies=(0.74, 0.74, 0.88)),
    Scenario("gap .07", accuracies=(0.81, 0.84, 0.88)),
    Scenario("gap .07, seed sd .02", accuracies=(0.81, 0.84, 0.88), seed_sd=(0.02,) * 3),
    Scenario("threshold drift", drift=0.3),
    Scenario("200 groups", n_groups=200),
    Scenario("150 groups of 1,000 rows, sd .005", n_groups=150, n_rows=1000, seed_sd=(0.005,) * 3),
    Scenario("3 seeds, sd .005", n_seeds=3, seed_sd=(0.005,) * 3),
    Scenario("3 seeds, sd .01", n_seeds=3),
    Scenario("3 seeds, sd .02", n_seeds=3, seed_sd=(0.02,) * 3),
    Scenario("3 seeds, 200 groups", n_seeds=3, n_groups=200),
    Scenario("1 seed, sd .01 (rows only)", n_seeds=1),
]


DRIFTING = [
    Scenario(f"{n_seeds} seeds, {name}", n_seeds=n_seeds, drift=drift)
    for name, drift in (("no drift", 0.0), ("drift .3", 0.3), ("drift .5", 0.5))
    for n_seeds in (5, 10)
]


def simulate(scenario: Scenario, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Correctness, shape (3, seeds, rows), and group codes, shape (rows,)."""
    score, _, group = latent(scenario, rng)
    return (score > 0).astype(float), group


def latent(
    scenario: Scenario, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The score, shape (3, seeds, rows); y = 1 or -1 and group codes, shape (rows,)."""
    seeds, rows = scenario.n_seeds, scenario.n_rows
    groups = scenario.n_groups or rows
    group = np.arange(rows)
    if scenario.n_groups:
        sizes = 1 + rng.multinomial(rows - groups, rng.dirichlet(np.full(groups, 2.0)))
        group = np.repeat(np.arange(groups), sizes)
    normal = rng.standard_normal

    def mix(share: float, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.sqrt(share) * one + np.sqrt(1 - share) * other

    hardness = mix(OWN_SHARE, normal((3, rows)), normal(rows))
    if scenario.n_groups:
        hardness = mix(
            GROUP_SHARE, mix(OWN_SHARE, normal((3, groups)), normal(groups))[:, group], hardness
        )
    rest = normal((3, seeds, rows))
    rest[1] = mix(COPY_SHARE, rest[0], rest[1])
    quantile = ndtri(np.array(scenario.accuracies))
    seed_sd = np.array(scenario.seed_sd) / norm.pdf(
        quantile
    )  # d accuracy / d mu is the normal density there
    seed = seed_sd[:, None] * mix(SEED_SHARE, normal(seeds), normal((3, seeds)))
    drift = scenario.drift * mix(SEED_SHARE, normal(seeds), normal((3, seeds)))
    side = np.where(np.arange(rows) % 2, 1.0, -1.0)
    mu = quantile * np.sqrt(1 + seed_sd**2 + scenario.drift**2)
    score = (
        mu[:, None, None]
        + np.sqrt(ROW_SHARE) * hardness[:, None]
        + seed[:, :, None]
        + drift[:, :, None] * side
        + np.sqrt(1 - ROW_SHARE) * rest
    )
    return score, side, group


def candidates(
    x: np.ndarray, group: np.ndarray, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """95% intervals for PGR, by name. Empty where the gap's lower bound is not above 0."""
    top, bottom = x[1] - x[0], x[2] - x[0]
    ours = ratio_interval(top, bottom, group)
    if np.isnan(ours.value):
        return {}
    n_seeds, ratio, gap = x.shape[1], ours.value, bottom.mean()
    # A ratio's linearisation: its error is that of the mean of (top - ratio * bottom) / gap.
    linear = ((top - ratio * bottom) / gap)[None]
    of_rows = spread(linear.mean(axis=1, keepdims=True), group)
    rows_only = np.sqrt(of_rows.squared(0.975)[0, 0])
    found = {"rows only": (ratio - rows_only, ratio + rows_only)}
    if n_seeds > 1:
        drawn = rng.integers(0, n_seeds, (1000, n_seeds))
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # one seed's gap can be 0: that method's own failing
            by_seed = top.mean(axis=1) / bottom.mean(axis=1)
            resampled = top.mean(axis=1)[drawn].mean(axis=1) / bottom.mean(axis=1)[drawn].mean(
                axis=1
            )
            low, high = np.quantile(resampled, [0.025, 0.975])
            half = t.ppf(0.975, n_seeds - 1) * by_seed.std(ddof=1) / np.sqrt(n_seeds)
        found["resample seeds"] = (low, high)
        found["t over seeds"] = (by_seed.mean() - half, by_seed.mean() + half)
        of, units = spread(linear, group), int(group.max())
        of_seed, of_row, wide = of.by_seed[0, 0], of.by_row[0, 0], of.squared(0.975)[0, 0]
        df = (of_seed + of_row) ** 2 / (of_seed**2 / (n_seeds - 1) + of_row**2 / units)
        half = t.ppf(0.975, df) * np.sqrt(of_seed + of_row)
        found["one t (Satterthwaite)"] = (ratio - half, ratio + half)
        found["two t's, linear"] = (ratio - np.sqrt(wide), ratio + np.sqrt(wide))
    found["library: two t's, Fieller"] = (ours.low, ours.high)
    return found


def coverage(scenario: Scenario, n_simulations: int, seed: int = 0) -> dict[str, float]:
    """Share of intervals that cover, by candidate, and `no gap`, the share of experiments without a PGR."""
    rng = np.random.default_rng(seed)
    hits: dict[str, list[bool]] = defaultdict(list)
    widths, detectable = [], []
    truth = scenario.accuracies[1] - scenario.accuracies[0]
    for _ in range(n_simulations):
        x, group = simulate(scenario, rng)
        found = candidates(x, group, rng)
        for name, (low, high) in found.items():
            hits[name].append(low <= scenario.pgr <= high)
        hits["no gap"].append(not found)
        if found:
            widths.append(
                found["library: two t's, Fieller"][1] - found["library: two t's, Fieller"][0]
            )
        difference = mean_interval(x[1] - x[0], group)
        hits["difference"].append(difference.low <= truth <= difference.high)
        detectable.append(difference.detectable)
    table = {name: float(np.mean(values)) for name, values in hits.items()}
    return {**table, "width": float(np.median(widths)), "detectable": float(np.mean(detectable))}


def power(scenario: Scenario, detectable: float, n_simulations: int, seed: int = 1) -> float:
    """How often a true difference student - weak of the size `detectable` is found."""
    weak, _, ceiling = scenario.accuracies
    shifted = replace(scenario, accuracies=(weak, weak + detectable, ceiling))
    rng = np.random.default_rng(seed)
    draws = (simulate(shifted, rng) for _ in range(n_simulations))
    return float(np.mean([mean_interval(x[1] - x[0], group).low > 0 for x, group in draws]))


def answers(scenario: Scenario, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """P(y = 1), shape (3, seeds, validation and then test rows), and labels, (rows,)."""
    score, side, _ = latent(replace(scenario, n_rows=scenario.n_rows + N_VALIDATION), rng)
    return expit(GAIN * side * score), (side > 0).astype(np.int8)


def by_row(scenario: Scenario, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Each metric by row, shape (3, seeds, rows), as `metrics.scores` makes it of records."""
    p, label = answers(scenario, rng)
    validation, p, label = p[..., :N_VALIDATION], p[..., N_VALIDATION:], label[N_VALIDATION:]
    parts = {name: metric(p, label, lambda: validation) for name, metric in METRICS.items()}
    return {name: part.astype(float) for name, part in parts.items()}


def truth_of(
    scenario: Scenario, n_simulations: int = 60, *, n_rows: int = 20_000
) -> dict[str, float]:
    """Of each metric the student's, and "PGR" of each: in a large simulation."""
    rng, large = np.random.default_rng(99), replace(scenario, n_seeds=20, n_rows=n_rows)
    drawn = [by_row(large, rng) for _ in range(n_simulations)]
    return {
        name: value
        for metric in METRICS
        for name, value in _values(
            metric, np.mean([x[metric].mean(axis=(1, 2)) for x in drawn], axis=0)
        ).items()
    }


def _values(metric: str, arms: np.ndarray) -> dict[str, float]:
    weak, student, ceiling = map(float, arms)
    return {metric: student, f"PGR in {metric}": (student - weak) / (ceiling - weak)}


def intervals(x: dict[str, np.ndarray]) -> dict[str, Interval]:
    """The library's intervals of what `truth_of` gives."""
    group, found = np.arange(x["accuracy"].shape[2]), {}
    for metric, (weak, student, ceiling) in x.items():
        found[metric] = mean_interval(student, group)
        found[f"PGR in {metric}"] = ratio_interval(student - weak, ceiling - weak, group)
    return found


def metric_coverage(
    scenario: Scenario, truth: dict[str, float], n_simulations: int, seed: int = 0
) -> dict[str, float]:
    """Share of intervals that cover, by metric, among those that are there: "no gap" is left out."""
    rng, hits = np.random.default_rng(seed), defaultdict(list)
    for _ in range(n_simulations):
        for name, found in intervals(by_row(scenario, rng)).items():
            if not np.isnan(found.value):  # of a loss, the gap is below 0: never a PGR
                hits[name].append(found.low <= truth[name] <= found.high)
    return {name: float(np.mean(values)) for name, values in hits.items()}


def print_metrics(n_simulations: int) -> None:
    """The second table."""
    names = [*METRICS, *(f"PGR in {metric}" for metric in ("accuracy", "auc", "accuracy_at_half"))]
    print("\n| scenario | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for scenario in DRIFTING:
        table = metric_coverage(scenario, truth_of(scenario), n_simulations)
        cells = [f"{table[name]:.3f}" for name in names]
        print(f"| {scenario.name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of intervals, as Markdown tables.")
    parser.add_argument("--simulations", type=int, default=1000)
    n = parser.parse_args().simulations
    print_methods(n)
    print_metrics(n)
    yardsticks.print_table(n)
    error = np.sqrt(0.95 * 0.05 / n)
    print(f"\nMonte Carlo standard error of a coverage of .95: {error:.4f}.")


def print_methods(n: int) -> None:
    """The first table."""
    columns = [
        "resample seeds",
        "t over seeds",
        "rows only",
        "one t (Satterthwaite)",
        "two t's, linear",
        "library: two t's, Fieller",
        "width",
        "no gap",
        "difference",
        "detectable",
    ]
    print("| scenario | PGR | " + " | ".join(columns) + " | power |")
    print("|---|" + "---|" * (len(columns) + 2))
    for scenario in SCENARIOS:
        table = coverage(scenario, n)
        cells = [f"{table[name]:.3f}" if name in table else "-" for name in columns]
        found = power(scenario, table["detectable"], n // 4)
        print(
            f"| {scenario.name} | {scenario.pgr:.2f} | " + " | ".join(cells) + f" | {found:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
