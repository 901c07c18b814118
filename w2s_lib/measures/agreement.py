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
from w2s_lib.measures.metrics import Arm, Record, correctness, predicted_label, rows_of

__all__ = [
    "agreement_difference_interval",
    "agreement_interval",
    "error_correlation_interval",
    "excess_agreement_difference_interval",
    "excess_agreement_interval",
    "stop_early",
]

WHERE = ("all", "supervisor right", "supervisor wrong")


def agreement_interval(student: Arm, supervisor: Arm, *, where: str = "all") -> Interval:
    """Share of test rows on which a student says what its supervisor says.

    Args:
        student: one record a seed.
        supervisor: the same of its supervisor.
        where: "all" rows, or those where the "supervisor right" or "supervisor wrong".

    Raises:
        ValueError: another `where`; see `metrics.difference_interval`.

    Source: Burns et al. 2023, arXiv 2312.09390, section 5.1.2.
    """
    x, group = correctness(student=student, supervisor=supervisor)
    return _share((x[0] == x[1]).astype(float), _rows(x[1], where), group)


def agreement_difference_interval(
    a: Arm, b: Arm, supervisor: Arm, *, where: str = "all"
) -> Interval:
    """Agreement of arm `a` with the supervisor minus that of `b`. Args: `agreement_interval`."""
    x, group = correctness(a=a, b=b, supervisor=supervisor)
    return _share((x[0] == x[2]).astype(float) - (x[1] == x[2]), _rows(x[2], where), group)


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
        ValueError: fewer than two ceilings; see `metrics.difference_interval`.
    """
    top, wrong, group, outside = _excess(student, ceilings, supervisor)
    return _noted(ratio_interval(top, wrong, group), outside)


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
    supervisor = list(supervisor)
    top, wrong, group, outside = _excess(*large, supervisor)
    less, _, _, more = _excess(*small, supervisor)
    return _noted(ratio_interval(top - less, wrong, group), outside + more)


def stop_early(moments: Mapping[float, Arm], supervisor: Arm) -> list[tuple[float, Record]]:
    """What early stopping on weak labels keeps: the moment that agrees best on validation texts.

    Args:
        moments: share of training -> the student as it was then, one record a seed; rising.
        supervisor: one record a seed, in the same order of seeds.

    Returns:
        A seed at a time: the share, and the record of the student then; of equally good ones the
        earliest.

    Raises:
        ValueError: the seeds, or the validation rows, of two of them differ.

    Source: Burns et al. 2023, arXiv 2312.09390, section 5.1.1.
    """
    kept = []
    for its, *run in zip(supervisor, *moments.values(), strict=True):
        said = [rows_of(record, "validation")["p"] for record in (its, *run)]
        if len({record.spec.seed for record in (its, *run)}) > 1 or any(
            not rows.index.equals(said[0].index) for rows in said
        ):
            raise ValueError("the records differ in seeds or validation rows")
        agree = [
            float(np.mean(predicted_label(rows) == predicted_label(said[0]))) for rows in said[1:]
        ]
        best = int(np.argmax(agree))
        kept.append((list(moments)[best], run[best]))
    return kept


def error_correlation_interval(a: Arm, b: Arm) -> Interval:
    """Correlation (phi) of two arms' errors over test rows, within a seed, averaged over seeds.

    1: they err on the same rows; 0: one's errors say nothing of the other's. The mean and spread of
    each seed's errors are taken as known, which over thousands of rows changes little.

    Raises:
        ValueError: an arm that is right, or wrong, on every row; see `metrics.difference_interval`.
    """
    x, group = correctness(a=a, b=b)
    spread = x.std(axis=2, keepdims=True)
    if not spread.all():
        raise ValueError(
            "an arm is right, or wrong, on every test row: its errors correlate with nothing"
        )
    z = (x - x.mean(axis=2, keepdims=True)) / spread
    return mean_interval(z[0] * z[1], group)


def _rows(right: Floats, where: str) -> Floats:
    """1 where a row counts: of all rows, or by whether the supervisor is right there."""
    if where not in WHERE:
        raise ValueError(f"where is {where!r}: allowed are {', '.join(WHERE)}")
    return dict(zip(WHERE, (np.ones_like(right), right, 1 - right), strict=True))[where]


def _share(value: Floats, rows: Floats, group: Codes) -> Interval:
    if rows.all():
        return mean_interval(value, group)
    share = ratio_interval(value * rows, rows, group)
    return replace(share, note="too few such rows") if np.isnan(share.value) else share


def _excess(
    student: Arm, ceilings: Sequence[Arm], supervisor: Arm
) -> tuple[Floats, Floats, Codes, int]:
    if len(ceilings) < 2:
        raise ValueError(
            f"a student's accuracy is placed between at least two ceilings, not {len(ceilings)}"
        )
    x, group = correctness(
        student=student,
        supervisor=supervisor,
        **{f"ceiling {i}": arm for i, arm in enumerate(ceilings)},
    )
    same = (x == x[1]).astype(float)
    mean = x.mean(axis=2)  # (arms, seeds)
    expected, outside = np.empty_like(same[0]), 0
    for seed in range(x.shape[1]):
        order = 2 + np.argsort(mean[2:, seed], kind="stable")
        known = mean[order, seed]
        outside += not known[0] <= mean[0, seed] <= known[-1]
        above = int(np.clip(np.searchsorted(known, mean[0, seed]), 1, len(known) - 1))
        low, high = known[above - 1], known[above]
        share = np.clip((mean[0, seed] - low) / (high - low), 0, 1) if high > low else 1.0
        below_it, above_it = same[order[above - 1], seed], same[order[above], seed]
        expected[seed] = (1 - share) * below_it + share * above_it
    wrong = 1 - x[1]
    return wrong * (same[0] - expected), wrong, group, outside


def _noted(interval: Interval, outside: int) -> Interval:
    if not outside:
        return interval
    what = f"accuracy beyond that of the ceilings in {outside} case{'s' * (outside > 1)}"
    return replace(interval, note=f"{interval.note}; {what}" if interval.note else what)
