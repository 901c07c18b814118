"""Agreement of a student with its supervisor as intervals: raw, beyond accuracy, shared errors.

Answers are those at the validation median. With binary labels two runs agree on a row when both are
right or both are wrong, so every measure takes what `metrics.scores` gives of accuracy: 1 or 0 by arm,
seed and row, and the rows' group codes. Chapters: imitation, confidence loss, leaderboard.
"""

import math
from dataclasses import replace

import numpy as np

from w2s_lib.measures.intervals import (
    Codes,
    Floats,
    Interval,
    mean_interval,
    ratio_interval,
    smooth_interval,
)
from w2s_lib.measures.metrics import Agreement


def agreement_by_supervisor(x: Floats, group: Codes) -> Agreement[Interval]:
    """Share of test rows on which a student says what its supervisor says.

    Args:
        x: (2, seeds, rows), of student and supervisor.
        group: (rows,) codes.

    Source: Burns et al. 2023, arXiv 2312.09390, section 5.1.2.
    """
    return _by_supervisor((x[0] == x[1]).astype(float), x[1], group)


def agreement_difference(x: Floats, group: Codes) -> Agreement[Interval]:
    """Agreement of arm a with the supervisor minus that of b; x is of a, b, supervisor."""
    return _by_supervisor((x[0] == x[2]).astype(float) - (x[1] == x[2]), x[2], group)


def asymmetry(x: Floats, group: Codes) -> Interval:
    """How much more a changes agreement with the supervisor where that is wrong than where right.

    Agreement of a minus that of b on the supervisor's errors, minus the same where it is right.
    Below 0: a unlearns errors more than it unlearns labels. A method that copies less of everything
    has a value a little below 0 too, since a student repeats right labels for reasons of its own:
    -.05 in the simulation of `tests/benchmarks/yardsticks.py`.

    Args:
        x: (3, seeds, rows), of a, b, supervisor.
        group: (rows,) codes.
    """
    right = x[2]
    more = (x[0] == x[2]).astype(float) - (x[1] == x[2])

    def value(mean: Floats) -> float:
        return float(mean[1] / (1 - mean[2]) - mean[0] / mean[2])

    return smooth_interval(value, np.stack([more * right, more * (1 - right), right]), group)


def transmitted_errors(x: Floats, group: Codes) -> Interval:
    """How much more often a student errs where its own teacher erred than where another one did.

    The other one is the supervisor of another seed: as accurate, as deep, adapted in the same
    blocks, and not this student's teacher. What is hard for everybody cancels row by row, and so
    does what all such supervisors get wrong and hand on: the difference is what the labels transmit
    of this teacher's own errors. With e and w, 1 where student and supervisor err, of seed s on
    row i:

        [E_s,i e w  -  E_s!=t,i e_s w_t] / E w  =  E_i cov_s(e, w) / E w

    Args:
        x: (2, seeds, rows), of student and its own supervisor; at least two seeds.
        group: (rows,) codes.

    Returns:
        A difference of shares; NaN from a single seed.
    """
    e, w = 1 - x
    n_seeds = len(e)
    if n_seeds < 2:
        return Interval(math.nan, math.nan, math.nan, note="needs another seed's supervisor")
    apart = (e - e.mean(axis=0)) * (w - w.mean(axis=0)) * n_seeds / (n_seeds - 1)
    return ratio_interval(apart, w, group)


def gain_by_misfit(x: Floats, group: Codes) -> Interval:
    """How much students gain, for each answer that they change: the slope over students of one supervisor.

    With each student's share of answers that are not its supervisor's (its misfit, which needs no labels)
    and its gain in accuracy, the line of least squares of gain on misfit. Above 0: those that have
    moved further have gained more. 1: whatever more is changed was wrong; -1: it was right.

    Args:
        x: (k + 1, seeds, rows), of k students, then their supervisor; the students are held fixed.
        group: (rows,) codes.

    Raises:
        ValueError: fewer than three students.
    """
    if len(x) < 4:
        raise ValueError(f"a line needs three students at least, not {len(x) - 1}")
    gain = x[:-1] - x[-1]  # by row: 1, 0 or -1; with two labels, not 0 is a changed answer

    def slope(mean: Floats) -> float:
        misfit, gained = (part - part.mean() for part in np.split(mean, 2))
        return float(misfit @ gained / (misfit @ misfit))

    return smooth_interval(slope, np.concatenate([abs(gain), gain]), group)


def excess_agreement(x: Floats, group: Codes) -> Interval:
    """Agreement on the supervisor's errors beyond what the student's accuracy alone explains.

    A better student repeats fewer errors by arithmetic, and some rows are hard for everybody. So
    the student is compared with a model of the same depth and placement of adapters that has never
    seen the supervisor and is as accurate: a mixture of two ceilings, fully trained on ground
    truth with more and with less label noise (`spec.NoisyTruth`). The weight of either is what
    makes their accuracy the student's, and it is estimated inside the interval. 0: the student
    repeats errors as such a model does.

    Args:
        x: (4, seeds, rows), of student, two ceilings, whose accuracies should lie on either side of
            the student's, and supervisor.
        group: (rows,) codes.

    Returns:
        The excess, a difference of shares. Its note says where the accuracy is not between those of
        the ceilings and the mixture is extrapolated.

    Raises:
        ValueError: not two ceilings.
    """
    if len(x) != 4:
        raise ValueError(f"the student is placed between two ceilings, not {len(x) - 2}")
    wrong = 1 - x[3]
    columns = np.stack([*x[:3], *((1 - x[:3]) * wrong), wrong])

    def value(mean: Floats) -> float:
        accuracy, repeated = mean[:3], mean[3:6] / mean[6]
        weight = (accuracy[0] - accuracy[2]) / (accuracy[1] - accuracy[2])
        return float(repeated[0] - weight * repeated[1] - (1 - weight) * repeated[2])

    own, *of_ceilings = x[:3].mean(axis=(1, 2))
    outside = not min(of_ceilings) <= own <= max(of_ceilings)
    note = "accuracy outside that of the ceilings: extrapolated" if outside else ""
    return smooth_interval(value, columns, group).with_note(note)


def error_correlation(x: Floats, group: Codes) -> Interval:
    """Correlation (phi) of two arms' errors over test rows, within a seed, averaged over seeds.

    1: they err on the same rows; 0: one's errors say nothing of the other's. The mean and spread of
    each seed's errors are taken as known, which over thousands of rows changes little.

    Raises:
        ValueError: an arm that is right, or wrong, on every row.
    """
    spread = x.std(axis=2, keepdims=True)
    if not spread.all():
        raise ValueError("an arm right, or wrong, on every test row: errors correlate with nothing")
    z = (x - x.mean(axis=2, keepdims=True)) / spread
    return mean_interval(z[0] * z[1], group)


def _by_supervisor(value: Floats, right: Floats, group: Codes) -> Agreement[Interval]:
    """The mean of a value over all rows, and over those where the supervisor is right or wrong."""

    def among(rows: Floats) -> Interval:
        share = ratio_interval(value * rows, rows, group)
        return replace(share, note="too few such rows") if np.isnan(share.value) else share

    return Agreement(mean_interval(value, group), among(right), among(1 - right))
