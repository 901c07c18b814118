"""Accuracy, PGR, AUC and the other metrics of records: by hand, at their ends, and as properties."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t

from tests.benchmarks.coverage import DRIFTING, N_VALIDATION, answers, by_row
from w2s_lib.measures.intervals import mean_interval
from w2s_lib.measures.metrics import (
    METRICS,
    accuracy,
    collapsed,
    contrast_interval,
    pgr,
    predicted_label,
)
from w2s_lib.runs.record import Record


def accuracy_interval(records):
    return contrast_interval([(1, records)])


def difference_interval(a, b, metric="accuracy"):
    return contrast_interval([(1, a), (-1, b)], metric=metric)


unit = st.integers(0, 2000).map(lambda right: right / 2000)  # an accuracy counts rows
bits = arrays(np.int8, st.shared(st.integers(1, 30), key="n"), elements=st.integers(0, 1))


def record(correct, *, seed=0, label=None, group=None, rows=None, task="movie"):
    """A finished run whose test predictions are right where `correct` is 1. Texts of other splits are there too."""
    correct = np.asarray(correct, dtype=int)
    n = len(correct)
    label = np.arange(n) % 2 if label is None else np.asarray(label)
    test = pd.DataFrame(
        {
            "split": "test",
            "label": label.astype(np.int8),
            "p": np.where(correct == 1, label, 1 - label).astype(np.float32) * 0.8 + 0.1,
            "group": np.arange(n) if group is None else group,
        },
        index=range(n) if rows is None else rows,
    )
    other = pd.DataFrame(
        {"split": "validation", "label": np.int8(1), "p": np.float32(0.2), "group": 9999},
        index=[999999],
    )
    spec = SimpleNamespace(seed=seed, task=SimpleNamespace(name=task, sha256=""))
    return Record(spec, pd.concat([other, test]), {}, {})


def arm(x, **kwargs):
    return [record(row, seed=seed, **kwargs) for seed, row in enumerate(x)]


class TestAccuracy:
    def test_by_hand(self):
        """p = .9, .2, .5, .51 predicts 1, 0, 0 (the tie), 1; against 1, 1, 0, 1 three of four are right."""
        assert accuracy([0.9, 0.2, 0.5, 0.51], [1, 1, 0, 1]) == 0.75
        assert accuracy([1, 0, 1], [1, 0, 0]) == pytest.approx(2 / 3)

    @given(bits, bits)
    def test_hard_predictions_are_probabilities(self, prediction, label):
        assert accuracy(prediction, label) == np.mean(prediction == label)
        assert accuracy(1 - prediction, label) == pytest.approx(1 - accuracy(prediction, label))

    @pytest.mark.parametrize(
        ("p", "label"),
        [
            ([0.5], [0, 1]),
            ([], []),
            ([np.nan], [1]),
            ([1.2], [1]),
            ([0.3], [2]),
            ([0.3], [np.nan]),
            ([[0.3]], [[1]]),
            ([-0.1], [0]),
        ],
    )
    def test_bad_input(self, p, label):
        with pytest.raises(ValueError):
            accuracy(p, label)

    def test_float32_just_above_a_half_is_a_one(self):
        assert predicted_label(np.nextafter(np.float32(0.5), np.float32(1))) == 1


class TestPgr:
    def test_by_hand(self):
        """(.81 - .73) / (.88 - .73) = .08 / .15 = .5333."""
        assert pgr(weak=0.73, student=0.81, ceiling=0.88) == pytest.approx(0.5333, abs=1e-4)

    @given(unit, unit)
    def test_ends(self, weak, ceiling):
        at_weak, at_ceiling = (pgr(weak=weak, student=s, ceiling=ceiling) for s in (weak, ceiling))
        if ceiling <= weak:
            assert math.isnan(at_weak) and math.isnan(at_ceiling)
        else:
            assert at_weak == 0 and at_ceiling == 1

    @given(unit, unit, unit)
    def test_never_clipped(self, weak, student, ceiling):
        value = pgr(weak=weak, student=student, ceiling=ceiling)
        if ceiling > weak:
            assert (value < 0) == (student < weak)
            assert value <= 1 or student > ceiling
            assert weak + value * (ceiling - weak) == pytest.approx(student, abs=1e-9)

    @given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.floats(0.1, 1))
    def test_scale_does_not_matter(self, weak, student, ceiling, scale):
        """Counting a share of the gap, PGR is the same for (w, s, c) and (k w, k s, k c)."""
        a = pgr(weak=weak / 40, student=student / 40, ceiling=ceiling / 40)
        b = pgr(weak=scale * weak / 40, student=scale * student / 40, ceiling=scale * ceiling / 40)
        assert a == pytest.approx(b, nan_ok=True, abs=1e-9)

    @pytest.mark.parametrize("name", ["weak", "student", "ceiling"])
    @pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf, 73])
    def test_not_an_accuracy(self, name, value):
        with pytest.raises(ValueError, match=name):
            pgr(**{"weak": 0.7, "student": 0.8, "ceiling": 0.9, name: value})


def by_row_of_records(scenario, seed):
    """The records of `by_row`'s experiment, by arm."""
    made = answers(scenario, np.random.default_rng(seed))
    p, label = made
    return {
        arm: [
            run(values[N_VALIDATION:], label[N_VALIDATION:], values[:N_VALIDATION], seed=s)
            for s, values in enumerate(layer)
        ]
        for arm, layer in zip(("weak", "student", "ceiling"), p, strict=True)
    }


def scored(*p, label):
    """An arm: P(y = 1) of a few rows, a list a seed."""
    runs = []
    for seed, values in enumerate(p):
        made = record([1] * len(label), seed=seed, label=label)
        made.predictions.loc[range(len(label)), "p"] = np.array(values, dtype=np.float32)
        runs.append(made)
    return runs


def auc_interval(records):
    return contrast_interval([(1, records)], metric="auc")


class TestAuc:
    def test_by_hand(self):
        """Positives .9, .6 and negatives .6, .2: of four pairs three are in order and one is a tie. (3 + 1/2) / 4."""
        assert auc_interval(scored([0.9, 0.6, 0.6, 0.2], label=[1, 1, 0, 0])).value == 0.875

    def test_its_variance_is_delongs(self):
        """One seed: S10 / n1 + S01 / n0, the variances of the placements over their numbers (DeLong 1988, with n - 1
        for n in each class, and for the whole)."""
        rng = np.random.default_rng(0)
        label = np.arange(600) % 3 == 0
        p = rng.random(600) * 0.7 + 0.3 * label
        above = (p[label][:, None] > p[~label]).astype(float)
        variance = above.mean(axis=1).var() / 200 + above.mean(axis=0).var() / 400
        found = auc_interval(scored(p, label=label.astype(int)))
        assert found.value == pytest.approx(above.mean())
        half = t.ppf(0.975, 599) * math.sqrt(variance * 600 / 599)
        assert found.high - found.value == pytest.approx(half, rel=1e-5)

    @given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=4, max_size=20))
    def test_is_the_share_of_pairs_in_order(self, rows):
        p, label = np.array([p / 4 for p, _ in rows]), np.array([int(y) for _, y in rows])
        if len(set(label)) < 2:
            with pytest.raises(ValueError, match="both classes"):
                auc_interval(scored(p, label=label))
            return
        pairs = p[label == 1][:, None] - p[label == 0]
        expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
        assert auc_interval(scored(p, label=label)).value == pytest.approx(expected)

    def test_no_threshold_moves_it(self):
        rng = np.random.default_rng(1)
        label = np.arange(40) % 2
        p = np.clip(rng.normal(0.5 + 0.1 * (2 * label - 1), 0.2, (3, 40)), 0.01, 1)
        a, b = scored(*p, label=label), scored(*p**3, label=label)
        assert difference_interval(a, b, metric="auc").high == pytest.approx(0, abs=1e-9)
        assert (
            accuracy_interval(a).value != accuracy_interval(b).value
        )  # validation stays as it was
        with pytest.raises(ValueError, match="'acuracy'.*accuracy, auc"):
            difference_interval(a, b, metric="acuracy")


def run(test, label, validation, seed=0):
    """A record of P(y = 1) on test rows with these labels, and on validation rows, whose labels are all 0."""
    frame = pd.DataFrame(
        {
            "split": ["test"] * len(test) + ["validation"] * len(validation),
            "label": np.array([*label, *[0] * len(validation)], dtype=np.int8),
            "p": np.array([*test, *validation], dtype=np.float32),
            "group": np.arange(len(test) + len(validation)),
        }
    )
    spec = SimpleNamespace(seed=seed, task=SimpleNamespace(name="movie", sha256=""))
    return Record(spec, frame, {}, {})


class TestMetrics:
    """P = .9, .7, .6, .2 of rows with labels 1, 0, 1, 0; validation says .3, .5, .8, .9, whose median is .65."""

    p, label, validation = [0.9, 0.7, 0.6, 0.2], [1, 0, 1, 0], [0.3, 0.5, 0.8, 0.9]

    @pytest.mark.parametrize(
        ("metric", "expected"),
        [
            ("accuracy", 2 / 4),  # above .65: 1, 1, 0, 0
            ("accuracy_at_half", 3 / 4),  # above .5: 1, 1, 1, 0
            (
                "auc",
                3 / 4,
            ),  # of the pairs (.9 .7) (.9 .2) (.6 .7) (.6 .2) the third is out of order
            ("log_loss", -math.log(0.9 * 0.3 * 0.6 * 0.8) / 4),
            ("brier", (0.1**2 + 0.7**2 + 0.4**2 + 0.2**2) / 4),
        ],
    )
    def test_by_hand(self, metric, expected):
        one = run(self.p, self.label, self.validation)
        assert contrast_interval([(1, [one])], metric=metric).value == pytest.approx(
            expected, rel=1e-6
        )

    def test_these_are_all(self):
        assert list(METRICS) == ["accuracy", "auc", "accuracy_at_half", "log_loss", "brier"]

    def test_what_is_at_the_threshold_is_a_0(self):
        """The median of .4, .6, .6 is .6, and .6 is not above it."""
        one = run([0.6, 0.61], [0, 1], [0.4, 0.6, 0.6])
        assert accuracy_interval([one]).value == 1

    def test_every_seed_has_its_own_threshold(self):
        """Medians .2 and .8: both seeds are right, though one says no and the other yes to everything."""
        seeds = [run([0.1, 0.3], [0, 1], [0.2] * 3), run([0.7, 0.9], [0, 1], [0.8] * 3, seed=1)]
        assert accuracy_interval(seeds).value == 1
        assert contrast_interval([(1, seeds)], metric="accuracy_at_half").value == 0.5

    def test_validation_labels_count_for_nothing(self):
        one, other = (run(self.p, self.label, self.validation) for _ in range(2))
        other.predictions.loc[other.predictions["split"] == "validation", "label"] = 1
        assert accuracy_interval([one]) == accuracy_interval([other])

    @given(st.lists(st.integers(1, 63), min_size=12, max_size=30), st.integers(-3, 3))
    def test_a_monotone_transformation_leaves_accuracy_and_auc_as_they_are(self, numbers, power):
        """P to the power 2^k, in 64ths, moves every other metric. An odd number of validation rows: a median is a row."""
        p = np.array(numbers) / 64
        moved, label = p.astype(np.float32) ** np.float32(2.0**power), np.arange(len(p) - 5) % 2
        one, other = (run(each[5:], label, each[:5]) for each in (p, moved))
        assert len(set(p)) == len(set(moved))
        for metric in ("accuracy", "auc"):
            found = [contrast_interval([(1, [r])], metric=metric) for r in (one, other)]
            assert found[0] == found[1]

    def test_a_p_of_0_for_what_is_true_costs_as_much_as_half_a_step(self):
        """P is kept in steps of 2^-16: -ln 2^-17 = 11.78 nats, and not infinity."""
        one = run([0.0, 1.0], [1, 1], [0.5])
        expected = 17 * math.log(2) / 2
        found = contrast_interval([(1, [one])], metric="log_loss").value
        assert found == pytest.approx(expected, abs=1e-4)

    def test_scores_of_records_are_those_that_the_simulation_makes(self):
        """One experiment with drift as records: each interval is that of the simulation's own arrays."""
        scenario = dataclasses.replace(DRIFTING[-1], n_rows=200)
        x = by_row(scenario, np.random.default_rng(3))
        again = by_row_of_records(scenario, 3)
        for metric, parts in x.items():
            found = contrast_interval([(1, again["student"])], metric=metric)
            expected = mean_interval(parts[1], np.arange(200))
            assert (found.value, found.high) == pytest.approx(
                (expected.value, expected.high), abs=1e-4
            )


class TestCollapsed:
    @pytest.mark.parametrize(
        ("p", "expected"),
        [
            ([0.9] * 96 + [0.1] * 4, True),  # one answer on 96 of 100
            ([0.9] * 95 + [0.1] * 5, False),
            ([0.1] * 96 + [0.9] * 4, True),
            ([0.5] * 100, True),  # a tie is a 0
        ],
    )
    def test_one_answer_at_one_half(self, p, expected):
        """Labels such that the few are ranked rightly, so that only the answers count."""
        label = (np.array(p) >= np.median(p)).astype(int)
        label[:2] = 1, 0
        p = np.array(p) + np.where(label == 1, 0.01, 0.0) * (len(set(p)) > 1)
        assert collapsed(run(p, label, [0.5])) == expected

    def test_an_auc_below_55(self):
        """Ten of either class, one positive row above k of ten negative ones, the others as good as chance."""
        label = np.array([0, 1] * 10)
        for above, expected in ((56, False), (54, True)):
            p = np.where(label == 0, np.cumsum(label == 0) / 20, 0.0)
            # positive rows one by one above as many negative rows as make `above` pairs in all
            counts = [above // 10 + (i < above % 10) for i in range(10)]
            p[label == 1] = np.array(counts) / 20 + 0.025
            assert collapsed(run(p + 0.22, label, [0.5])) == expected
