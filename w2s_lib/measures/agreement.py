"""Agreement of a student with its supervisor as intervals: raw, beyond accuracy, shared errors.

With binary labels two runs agree on a row when both are right or both are wrong, so everything here
is a function of correctness, joined by seed and row as in `metrics`. Arms are given as one record a
seed. Chapters: imitation, confidence loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from w2s_lib.measures.intervals import Codes, Floats, Interval, mean_interval, ratio_interval
from w2s_lib.measures.metrics import Agreement, Arm, correctness, joined, predicted_label
from w2s_lib.runs.record import Record

__all__ = [
    "agreement_difference_interval",
    "agreement_interval",
    "error_correlation_interval",
    "excess_agreement_difference_interval",
    "excess_agreement_interval",
    "stop_early",
]


def agreement_interval(student: Arm, supervisor: Arm) -> Agreement[Interval]:
    """Share of test rows on which a student says what its supervisor says.

    Args:
        student: one record a seed.
        supervisor: the same of its supervisor.

    Raises:
        ValueError: see `metrics.contrast_interval`.

    Source: Burns et al. 2023, arXiv 2312.09390, section 5.1.2.
    """
    x, group = correctness(student=student, supervisor=supervisor)
    return _by_supervisor((x[0] == x[1]).astype(float), x[1], group)


def agreement_difference_interval(a: Arm, b: Arm, supervisor: Arm) -> Agreement[Interval]:
    """Agreement of arm `a` with the supervisor minus that of `b`. Args: `agreement_interval`."""
    x, group = correctness(a=a, b=b, supervisor=supervisor)
    return _by_supervisor((x[0] == x[2]).astype(float) - (x[1] == x[2]), x[2], group)


def excess_agreement_interval(student: Arm, ceilings: Sequence[Arm], supervisor: Arm) -> Interval:
    """Agreement on the supervisor's errors beyond what the student's accuracy alone explains.

    A better student repeats fewer errors by arithmetic, and some rows are hard for everybody. So
    the student is compared with a model of the same depth that has never seen the supervisor and
    has the same accuracy: a mixture of the two ceilings, by how long they were trained, whose
    accuracies lie on either side of the student's. 0: the student repeats errors as such a model
    does. Above 0: it has learned errors that are the supervisor's own. Between ceilings that are
    far apart the mixture is not quite such a model; simulated, with ceilings of 50%, 66% and 87%,
    that shifts the excess by a hundredth.

    Args:
        student: one record a seed.
        ceilings: arms of ceilings of the student's depth, from hardly trained to fully, such as
            `record.at(0.1)`.
        supervisor: the student's supervisor.

    Returns:
        The excess, a difference of shares. Its note says in how many seeds the student's accuracy
        was not between those of the ceilings, where the nearest one stands in.

    Raises:
        ValueError: fewer than two ceilings; see `metrics.contrast_interval`.
    """
    top, wrong, group, outside = _excess(student, ceilings, supervisor)
    return ratio_interval(top, wrong, group).with_note(_beyond(outside))


def excess_agreement_difference_interval(
    large: tuple[Arm, Sequence[Arm]], small: tuple[Arm, Sequence[Arm]], supervisor: Arm
) -> Interval:
    """`excess_agreement_interval` of a large student minus that of a small one.

    Below 0 is inverse scaling.

    Args:
        large: the student, and the ceilings of its depth.
        small: the same of the small one.
        supervisor: the one supervisor of both.
    """
    top, wrong, group, outside = _excess(*large, supervisor)
    less, _, _, more = _excess(*small, supervisor)
    return ratio_interval(top - less, wrong, group).with_note(_beyond(outside + more))


def stop_early(moments: Mapping[float, Arm], supervisor: Arm) -> list[tuple[float, Record]]:
    """What early stopping on weak labels keeps: the moment that agrees best on validation texts.

    Args:
        moments: share of training -> the student as it was then, one record a seed; rising.
        supervisor: one record a seed.

    Returns:
        A seed at a time: the share, and the record of the student then; of equally good ones the
        earliest.

    Raises:
        ValueError: the seeds, or the validation rows, of two of them differ.

    Source: Burns et al. 2023, arXiv 2312.09390, section 5.1.1.
    """
    arms = {f"after {share:.0%}": arm for share, arm in moments.items()}
    says = predicted_label(joined({"supervisor": supervisor} | arms, "validation")[0])
    best = (says[1:] == says[0]).mean(axis=2).argmax(axis=0)  # (seeds,)
    by_seed = [sorted(arm, key=lambda record: record.spec.seed) for arm in moments.values()]
    return [(list(moments)[k], by_seed[k][seed]) for seed, k in enumerate(best)]


def error_correlation_interval(a: Arm, b: Arm) -> Interval:
    """Correlation (phi) of two arms' errors over test rows, within a seed, averaged over seeds.

    1: they err on the same rows; 0: one's errors say nothing of the other's. The mean and spread of
    each seed's errors are taken as known, which over thousands of rows changes little.

    Raises:
        ValueError: an arm that is right, or wrong, on every row; see `metrics.contrast_interval`.
    """
    x, group = correctness(a=a, b=b)
    spread = x.std(axis=2, keepdims=True)
    if not spread.all():
        raise ValueError(
            "an arm is right, or wrong, on every test row: its errors correlate with nothing"
        )
    z = (x - x.mean(axis=2, keepdims=True)) / spread
    return mean_interval(z[0] * z[1], group)


def _by_supervisor(value: Floats, right: Floats, group: Codes) -> Agreement[Interval]:
    """The mean of a value over all rows, and over those where the supervisor is right or wrong."""

    def among(rows: Floats) -> Interval:
        share = ratio_interval(value * rows, rows, group)
        return replace(share, note="too few such rows") if np.isnan(share.value) else share

    return Agreement(mean_interval(value, group), among(right), among(1 - right))


def _excess(
    student: Arm, ceilings: Sequence[Arm], supervisor: Arm
) -> tuple[Floats, Floats, Codes, int]:
    if len(ceilings) < 2:
        raise ValueError(
            f"a student's accuracy is placed between at least two ceilings, not {len(ceilings)}"
        )
    named = {f"ceiling {i}": arm for i, arm in enumerate(ceilings)}
    x, group = correctness(student=student, supervisor=supervisor, **named)
    same = (x == x[1]).astype(float)
    accuracy = x.mean(axis=2)  # (arms, seeds)
    expected, outside = np.empty_like(same[0]), 0
    for seed, own in enumerate(accuracy[0]):
        order = 2 + np.argsort(accuracy[2:, seed], kind="stable")
        known = accuracy[order, seed]
        outside += not known[0] <= own <= known[-1]
        place = np.interp(own, known, np.arange(len(known)))  # in the order of accuracy
        below, above = order[int(np.floor(place))], order[int(np.ceil(place))]
        share = place % 1
        expected[seed] = (1 - share) * same[below, seed] + share * same[above, seed]
    wrong = 1 - x[1]
    return wrong * (same[0] - expected), wrong, group, outside


def _beyond(outside: int) -> str:
    cases = "case" if outside == 1 else "cases"
    return f"accuracy beyond that of the ceilings in {outside} {cases}" if outside else ""
