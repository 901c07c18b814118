"""Does a student repeat its teacher's errors beyond what its accuracy explains? Yardsticks in a known world.

Part of `python -m tests.benchmarks.coverage`. A model of seed s is right on row i when

    ease[i] + skill + kin * own[i] + seed[s] + spread * rest[s, i]  >  0

`ease` is the same for every model, so that all err on hard rows; `own` is what supervisors of one depth share, whatever
the seed; `seed` moves a run, in part for all arms alike; `rest` is a run's own. A student takes a share of its answers
from its supervisor, and gives the others itself: with the share 0 it has learned no error, and whatever an honest
yardstick finds must be 0. Three are tried, at the student's accuracy:

* its own teacher against another seed's (`transmitted_errors`),
* two ceilings that label noise has made less able, on either side of its accuracy (`excess_agreement`),
* the first edition's: a ceiling that was hardly trained, which errs anywhere, and one fully trained.

Each truth is that of 400 seeds and 20,000 rows. Of the yardsticks the table also says how often the interval holds 0:
where nothing is transmitted, 95% is right, and less is misled. The asymmetry is that of a student that takes over half
of its teacher's errors and all else, and of one that takes over less of everything: it is below 0 for both, since who
does not copy an error rarely makes it, and who does not copy what is right is often right all the same.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from w2s_lib.measures.agreement import asymmetry, excess_agreement, transmitted_errors
from w2s_lib.measures.intervals import Interval

SEED_SD, SEED_SHARE = 0.08, 0.3
KIN = 0.7


def world(
    rng: np.random.Generator, *, seeds: int, rows: int, copied: float
) -> dict[str, np.ndarray]:
    """Correctness by arm, shape (seeds, rows) each; `copied` is the share of answers taken over."""
    ease, own, shared = rng.normal(size=rows), rng.normal(size=rows), rng.normal(size=(seeds, 1))

    def right(skill: float, *, kin: float = 0.0, spread: float = 1.0) -> np.ndarray:
        of_seed = np.sqrt(SEED_SHARE) * shared + np.sqrt(1 - SEED_SHARE) * rng.normal(
            size=(seeds, 1)
        )
        rest = spread * rng.normal(size=(seeds, rows))
        return ease + skill + kin * own + SEED_SD * of_seed + rest > 0

    weak, able = right(1.0, kin=KIN), right(1.3)
    copies = rng.random((seeds, rows))
    return {
        "weak": weak,
        "naive": np.where(copies < copied, weak, able),
        "unlearning": np.where(copies < copied * np.where(weak, 1.0, 0.5), weak, able),
        "reluctant": np.where(copies < copied * 0.7, weak, able),
        "less noisy": right(1.55),
        "noisier": right(0.9),
        "hardly trained": right(1.2, spread=8.0),
        "fully trained": right(1.8),
    }


YARDSTICKS = {
    "another seed's supervisor": (transmitted_errors, ("naive", "weak")),
    "ceilings with label noise": (excess_agreement, ("naive", "less noisy", "noisier", "weak")),
    "hardly and fully trained": (
        excess_agreement,
        ("naive", "hardly trained", "fully trained", "weak"),
    ),
    "asymmetry: half the errors unlearned": (asymmetry, ("unlearning", "naive", "weak")),
    "asymmetry: less of everything": (asymmetry, ("reluctant", "naive", "weak")),
}


def measured(x: dict[str, np.ndarray]) -> dict[str, Interval]:
    """Every measure of a world."""
    group = np.arange(x["weak"].shape[1])
    return {
        name: measure(np.stack([x[arm] for arm in arms]).astype(float), group)
        for name, (measure, arms) in YARDSTICKS.items()
    }


def truth_of(copied: float) -> dict[str, float]:
    """In a large world."""
    large = world(np.random.default_rng(99), seeds=400, rows=20_000, copied=copied)
    return {name: found.value for name, found in measured(large).items()}


def simulated(
    copied: float, *, seeds: int, n: int, rows: int = 2000, seed: int = 0
) -> dict[str, list[Interval]]:
    """The intervals of n worlds, by measure."""
    rng, found = np.random.default_rng(seed), defaultdict(list)
    for _ in range(n):
        for name, interval in measured(world(rng, seeds=seeds, rows=rows, copied=copied)).items():
            found[name].append(interval)
    return found


def share_with(value: float, intervals: list[Interval]) -> float:
    """Of intervals that hold a value."""
    return float(np.mean([x.low <= value <= x.high for x in intervals]))


def print_table(n: int) -> None:
    """The third table."""
    columns = [
        "copied",
        "seeds",
        "measure",
        "truth",
        "mean",
        "covers the truth",
        "holds 0",
        "width",
    ]
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for copied in (0.0, 0.3):
        truth = truth_of(copied)
        for seeds in (5, 10):
            for name, found in simulated(copied, seeds=seeds, n=n).items():
                if not copied and name.startswith("asymmetry"):
                    continue  # who copies nothing has nothing to unlearn
                mean, width = (
                    np.mean([x.value for x in found]),
                    np.median([x.high - x.low for x in found]),
                )
                cells = [share_with(value, found) for value in (truth[name], 0.0)]
                print(
                    f"| {copied} | {seeds} | {name} | {truth[name]:+.3f} | {mean:+.3f} | "
                    f"{cells[0]:.3f} | {cells[1]:.3f} | {width:.3f} |",
                    flush=True,
                )
