"""Numbers that freeze the measures: the same records give the same intervals as on the day when the rules were frozen.

`python -m tests.measures.test_vectors` prints them anew; what it prints is committed only with a new edition.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.measures.test_metrics import run
from w2s_lib.experiments.results import Results
from w2s_lib.measures.intervals import Interval
from w2s_lib.measures.metrics import METRICS, contrast_interval, pgr_interval

VECTORS = Path(__file__).with_name("vectors.json")


def arms() -> dict[str, list[object]]:
    """Five arms of four seeds, 40 test rows and 11 of validation: each a noisy look at one hidden number a row."""
    rng = np.random.default_rng(20261128)
    hidden, label = rng.normal(size=51), np.arange(40) % 2
    errors = rng.normal(size=(4, 51))  # of the supervisor, a part of which its student takes over
    strengths = {"weak": 0.4, "student": 0.8, "ceiling": 1.6, "noisy": 1.0, "noisier": 0.5}
    made: dict[str, list[object]] = {}
    for name, strength in strengths.items():
        made[name] = []
        for seed in range(4):
            own = rng.normal(size=51) + hidden
            own += errors[seed] * (name in ("weak", "student"))
            logit = strength * (2 * np.r_[label, np.arange(11) % 2] - 1) + own
            p = np.round(2.0**16 / (1 + np.exp(-logit))) / 2.0**16
            made[name].append(run(p[:40], label, p[40:], seed=seed))
    return made


def measured() -> dict[str, Interval]:
    one, runs = arms(), Results([])
    weak, student, ceiling = one["weak"], one["student"], one["ceiling"]
    found = {
        f"student, {m}": contrast_interval([(1, student)], metric=m)  # type: ignore[list-item]
        for m in METRICS
    }
    found["difference"] = runs.difference(student, weak)
    found["difference in AUC"] = runs.difference(student, weak, metric="auc")
    found["contrast"] = runs.contrast([(1, ceiling), (-1, student), (-1, weak), (1, one["noisy"])])
    found["pgr"] = pgr_interval(weak=weak, student=student, ceiling=ceiling)  # type: ignore[arg-type]
    repeated = runs.agreement(student, weak)
    found |= {f"agreement, {name}": value for name, value in vars(repeated).items()}
    found["asymmetry"] = runs.asymmetry(student, one["noisy"], weak)
    found["transmitted errors"] = runs.transmitted_errors(student, weak)
    found["excess agreement"] = runs.excess_agreement(
        student, ceilings=[one["noisy"], one["noisier"]], supervisor=weak
    )
    return found


def numbers(interval: Interval) -> list[float]:
    """Value, 95% bounds, 99.9% bounds."""
    wide = interval.at(0.999)
    return [interval.value, interval.low, interval.high, wide.low, wide.high]


@pytest.mark.parametrize("name", json.loads(VECTORS.read_text(encoding="utf-8")))
def test_the_measures_are_those_that_were_frozen(name: str) -> None:
    expected = json.loads(VECTORS.read_text(encoding="utf-8"))[name]
    assert numbers(measured()[name]) == pytest.approx(expected, abs=1e-9, nan_ok=True)


if __name__ == "__main__":
    vectors = {name: [round(x, 12) for x in numbers(one)] for name, one in measured().items()}
    VECTORS.write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")
