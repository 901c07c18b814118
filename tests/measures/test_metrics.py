"""Accuracy, PGR, agreement and their intervals."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t

from tests.benchmarks.coverage import (
    DRIFTING,
    N_VALIDATION,
    SCENARIOS,
    answers,
    by_row,
    coverage,
    metric_coverage,
    simulate,
    truth_of,
)
from w2s_lib.measures.intervals import mean_interval, ratio_interval
from w2s_lib.measures.metrics import (
    METRICS,
    Interval,
    accuracy,
    agreement,
    collapsed,
    contrast_interval,
    pgr,
    pgr_interval,
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


def experiment(name="seed sd .01", seed=0):
    scenario = next(s for s in SCENARIOS if s.name == name)
    return simulate(scenario, np.random.default_rng(seed))


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


class TestAgreement:
    def test_by_hand(self):
        """Five rows. Where the supervisor is right, the first three, the student repeats it twice: 2/3; where it is
        wrong, the last two, once: 1/2; overall 3/5."""
        found = agreement([1, 0, 0, 1, 0], [1, 0, 1, 1, 1], [1, 0, 1, 0, 0])
        assert dataclasses.astuple(found) == pytest.approx((3 / 5, 2 / 3, 1 / 2))

    def test_no_rows_of_a_kind(self):
        assert math.isnan(agreement([1, 0], [1, 1], [1, 1]).supervisor_wrong)
        assert math.isnan(agreement([1, 0], [0, 0], [1, 1]).supervisor_right)

    @given(bits, bits)
    def test_full_agreement_means_pgr_zero(self, supervisor, label):
        assert agreement(supervisor, supervisor, label).overall == 1
        weak = accuracy(supervisor, label)
        if weak < 1:
            assert pgr(weak=weak, student=accuracy(supervisor, label), ceiling=1.0) == 0

    @given(bits, bits, bits)
    def test_the_parts_make_the_whole_and_the_accuracy(self, student, supervisor, label):
        found = agreement(student, supervisor, label)
        weak = accuracy(supervisor, label)
        right, wrong = (
            0 if math.isnan(v) else v for v in (found.supervisor_right, found.supervisor_wrong)
        )
        assert found.overall == pytest.approx(weak * right + (1 - weak) * wrong)
        assert accuracy(student, label) == pytest.approx(
            weak * right + (1 - weak) * (1 - wrong)
        )  # binary labels

    @pytest.mark.parametrize(
        "bad",
        [
            ([1], [1, 0], [1, 0]),
            ([0.3, 1], [1, 0], [1, 0]),
            ([2, 1], [1, 0], [1, 0]),
            ([], [], []),
            ([1, 0], [1, np.nan], [1, 0]),
        ],
    )
    def test_bad_input(self, bad):
        with pytest.raises(ValueError):
            agreement(*bad)


class TestIntervals:
    @pytest.mark.parametrize(
        ("low", "high", "said"),
        [
            (0.001, 0.019, "same"),
            (0.001, 0.03, "above"),
            (-0.03, -0.001, "below"),
            (-0.03, 0.01, "?"),
        ],
    )
    def test_words_follow_the_interval_and_the_margin(self, low, high, said):
        interval = Interval((low + high) / 2, low, high)
        assert interval.words("above", "below", "same", "?") == said
        assert interval.words("above", "below", "same", "?", margin=0.04) == "same"

    def test_one_seed_by_hand(self):
        """Eight rows, six right: .75. Sample variance 8/7 * .75 * .25 = .2143, standard error sqrt(.2143 / 8) = .1637,
        t with 7 degrees of freedom 2.3646: half-width .3870."""
        found = accuracy_interval([record([1, 1, 1, 1, 1, 1, 0, 0])])
        assert (found.value, found.low, found.high) == pytest.approx(
            (0.75, 0.3630, 1.1370), abs=1e-4
        )
        assert (found.n_seeds, found.n_items, found.note) == (1, 8, "test rows only")

    def test_two_seeds_by_hand(self):
        """Seeds 1110 and 1000 on four rows: seed means .75, .25, row means 1, .5, .5, 0, grand mean .5.
        MS_seed = 4 (.25^2 + .25^2) / 1 = .5; MS_row = 2 (.5^2 + 0 + 0 + .5^2) / 3 = 1/3; what rests, x - seed - row +
        mean, is -.25, .25, .25, -.25 and its negative: MS_rest = 8 * .0625 / (1 * 3) = 1/6. Squared half-width:
        (t_1^2 * 1/2 + t_3^2 * (1/3 - 1/6)) / 8, with t_1 = 12.706 and t_3 = 3.1824."""
        half = math.sqrt((12.7062**2 / 2 + 3.18245**2 / 6) / 8)
        found = accuracy_interval(arm([[1, 1, 1, 0], [1, 0, 0, 0]]))
        assert (found.value, found.high - 0.5, 0.5 - found.low) == pytest.approx(
            (0.5, half, half), abs=1e-4
        )
        assert found.note == ""

    def test_a_variance_below_zero_is_cut_there(self):
        """Seeds 1110 and 0001: row means are all .5, so MS_row = 0 < MS_rest, and rows add nothing. MS_seed =
        4 (.25^2 + .25^2) = .5 is left: squared half-width t_1^2 * .5 / 8."""
        found = accuracy_interval(arm([[1, 1, 1, 0], [0, 0, 0, 1]]))
        assert found.high - 0.5 == pytest.approx(math.sqrt(12.7062**2 * 0.5 / 8), abs=1e-4)

    def test_fieller_by_hand(self):
        """One seed, so H is t^2 times the covariance of the means. Weak 10001000, student 11101000, ceiling 11111110:
        N = 2/8, D = 5/8. Over rows N_i = 01100000 and D_i = 01110110, squares about the means sum to 2 - 4/8 = 1.5 and
        5 - 25/8 = 1.875, products to 2 - 10/8 = .75; each over 7 * 8 = 56 and times t_7^2 = 5.5914. The bounds solve
        (D^2 - H_DD) r^2 - 2 (N D - H_ND) r + (N^2 - H_NN) = 0."""
        w, s, c = ([int(v) for v in bits] for bits in ("10001000", "11101000", "11111110"))
        h = 5.59144 / 56
        roots = np.roots([25 / 64 - 1.875 * h, -2 * (10 / 64 - 0.75 * h), 4 / 64 - 1.5 * h])
        found = pgr_interval(weak=[record(w)], student=[record(s)], ceiling=[record(c)])
        assert found.value == pytest.approx(0.4)
        assert (found.low, found.high) == pytest.approx((roots.min(), roots.max()), abs=1e-4)

    def test_detectable_by_hand(self):
        """One seed: the half-width at .975 plus that at .80, t_7 = 2.3646 and .8960, times the standard error."""
        a, b = [1, 1, 1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 0, 1, 1, 0]
        se = np.std(np.subtract(a, b), ddof=1) / math.sqrt(8)
        found = difference_interval([record(a)], [record(b)])
        assert found.value == 0.25
        assert found.detectable == pytest.approx((t.ppf(0.975, 7) + t.ppf(0.8, 7)) * se)

    def test_groups_are_the_unit(self):
        """Rows copied five times into groups: the interval is that of the rows. As rows of their own it is narrower."""
        x, _ = experiment()
        once = mean_interval(x[0, :, :300], np.arange(300))
        copied = np.repeat(x[0, :, :300], 5, axis=1)
        grouped = mean_interval(copied, np.repeat(np.arange(300), 5))
        assert (grouped.value, grouped.low, grouped.high) == pytest.approx(
            (once.value, once.low, once.high)
        )
        assert grouped.n_items == 1500
        alone = mean_interval(copied, np.arange(1500))
        assert alone.high - alone.low < 0.9 * (grouped.high - grouped.low)

    def test_records_and_arrays_agree_whatever_the_order(self):
        x, _ = experiment("200 groups")
        group = np.sort(np.random.default_rng(0).integers(0, 200, 2000))
        weak, student, ceiling = (arm(layer, group=7 * group) for layer in x)
        expected = ratio_interval(
            x[1] - x[0], x[2] - x[0], np.unique(group, return_inverse=True)[1]
        )
        assert pgr_interval(weak=weak, student=student, ceiling=ceiling) == expected
        weak, student = (
            [
                dataclasses.replace(r, predictions=r.predictions.sample(frac=1, random_state=5))
                for r in records
            ]
            for records in (weak, student)
        )
        shuffled = pgr_interval(
            weak=weak[::-1], student=[student[i] for i in (2, 0, 4, 1, 3)], ceiling=ceiling
        )
        assert shuffled == expected

    @given(st.integers(0, 2**31), st.integers(1, 4), st.integers(8, 40))
    @settings(max_examples=60, deadline=None)
    def test_contains_the_estimate_and_is_the_ratio_of_means(self, seed, n_seeds, n_rows):
        rng = np.random.default_rng(seed)
        x = (rng.random((3, n_seeds, n_rows)) < np.array([0.5, 0.7, 0.95])[:, None, None]).astype(
            float
        )
        group = rng.integers(0, 5, n_rows)
        group = np.unique(group, return_inverse=True)[1]
        w, s, c = (mean_interval(layer, group) for layer in x)
        gap, ratio = (
            mean_interval(x[2] - x[0], group),
            ratio_interval(x[1] - x[0], x[2] - x[0], group),
        )
        for one in (w, s, c, gap):
            assert one.low <= one.value <= one.high
        if gap.low <= 0:
            assert math.isnan(ratio.value) and str(ratio) == "no gap to recover"
        if not math.isnan(ratio.value):
            assert ratio.low <= ratio.value <= ratio.high
            assert ratio.value == pytest.approx(pgr(weak=w.value, student=s.value, ceiling=c.value))

    def test_student_like_supervisor_or_ceiling(self):
        x, _ = experiment()
        w, c = arm(x[0]), arm(x[2])
        zero, one = (
            pgr_interval(weak=w, student=w, ceiling=c),
            pgr_interval(weak=w, student=c, ceiling=c),
        )
        assert (zero.value, zero.low, zero.high) == pytest.approx((0, 0, 0), abs=1e-9)
        assert (one.value, one.low, one.high) == pytest.approx((1, 1, 1), abs=1e-6)

    def test_swapping_the_arms_mirrors_the_difference(self):
        x, _ = experiment()
        a, b = difference_interval(arm(x[1]), arm(x[0])), difference_interval(arm(x[0]), arm(x[1]))
        assert (a.value, a.low, a.high) == pytest.approx((-b.value, -b.high, -b.low))
        gap = difference_interval(arm(x[1]), arm(x[0]))
        assert (gap.value, gap.low) == (a.value, a.low)

    def test_no_gap_no_pgr(self):
        x, _ = experiment()
        found = pgr_interval(weak=arm(x[2]), student=arm(x[1]), ceiling=arm(x[0]))
        assert (
            math.isnan(found.value)
            and found.note == "no gap to recover"
            and f"{found:.2f}" == "no gap to recover"
        )
        assert difference_interval(arm(x[0]), arm(x[2])).low <= 0


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


class TestJoins:
    base = [1, 1, 0, 1]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"rows": [0, 1, 2, 9]}, "test rows"),
            ({"label": [1, 1, 0, 0]}, "labels"),
            ({"group": [0, 0, 1, 1]}, "groups"),
            ({"task": "amazon"}, "'amazon' cannot be joined to task 'movie'"),
            ({"seed": 3}, "seeds are"),
            ({"rows": [0, 1, 2, 2]}, "twice"),
        ],
    )
    def test_a_mismatch_is_an_error(self, change, message):
        with pytest.raises(ValueError, match=message):
            difference_interval([record(self.base)], [record(self.base, **change)])

    def test_one_record_a_seed(self):
        with pytest.raises(ValueError, match="one record a seed"):
            accuracy_interval([record(self.base), record(self.base)])
        with pytest.raises(ValueError, match="one record a seed"):
            accuracy_interval([])
        with pytest.raises(ValueError, match="seeds are"):
            difference_interval(arm([self.base, self.base]), arm([self.base]))

    def test_damaged_probabilities(self):
        bad = record(self.base)
        bad.predictions.loc[2, "p"] = np.nan
        for metric in METRICS:
            with pytest.raises(ValueError, match="NaN"):
                contrast_interval([(1, [bad])], metric=metric)


class TestFormat:
    def test_formats(self):
        one = Interval(0.412, 0.333, 0.4867)
        assert (
            f"{one:.2f}" == str(one) == "0.41 [0.33,\xa00.49]"
            and f"{one:.1%}" == "41.2% [33.3%,\xa048.7%]"
        )
        assert str(Interval(-0.0004, -0.01, 0.01)) == "0.00 [-0.01,\xa00.01]"

    def test_a_bound_that_rounds_to_zero_keeps_its_sign(self):
        """On which side of zero it lies decides a verdict; a bound that is zero has no sign."""
        assert str(Interval(0.2, 0.0004, 0.5)) == "0.20 [+0.00,\xa00.50]"
        assert f"{Interval(-0.2, -0.5, -0.0004):+.3f}" == "-0.200 [-0.500,\xa0-0.000]"
        assert f"{Interval(-0.2, -0.5, -0.0004):.1%}" == "-20.0% [-50.0%,\xa0-0.0%]"
        assert str(Interval(0.2, 0.0, 0.5)) == "0.20 [0.00,\xa00.50]"
        assert str(Interval(math.nan, math.nan, math.nan)) == "not available"


@pytest.mark.parametrize("name", ["seed sd .01", "200 groups"])
def test_coverage(name):
    """400 experiments of 5 seeds, a standard error of .011: a method that covers 82-88%, as resampling seeds does, fails.

    The whole table: `tests/benchmarks/coverage.py`.
    """
    scenario = next(s for s in SCENARIOS if s.name == name)
    table = coverage(scenario, 400, seed=1)
    assert 0.92 <= table["library: two t's, Fieller"] <= 0.985
    assert 0.92 <= table["difference"] <= 0.985
    assert table["resample seeds"] < 0.88


def test_coverage_of_every_metric():
    """200 experiments of 10 seeds whose thresholds drift: a method that covers below 90% fails, at 3 standard errors."""
    scenario = next(s for s in DRIFTING if s.name == "10 seeds, drift .3")
    small = dataclasses.replace(scenario, n_rows=600)
    found = metric_coverage(small, truth_of(small, 20, n_rows=4000), 200)
    assert set(found) == {*METRICS, "PGR in accuracy", "PGR in auc", "PGR in accuracy_at_half"}
    assert {name: share for name, share in found.items() if share < 0.9} == {}
