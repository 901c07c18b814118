"""How far a student has moved from its supervisor, what it gained by that, and what foretells the gain.

With a loss D and expectations over texts, of student s, supervisor w and ground truth y:

    gain = E D(y, w) - E D(y, s),   misfit = E D(s, w)

Only the gain needs y. For each of `LOSSES` what lies between the two is known:

    answers:        gain = misfit (2 r - 1), where r is how often s is right where the two differ
    squared:        gain = misfit + 2 E (s - w)(y - s)
    cross-entropy:  gain = misfit + E (logit s - logit w)(y - s)

The last term of the latter two is at least 0 where s minimises E D(s, w) over a convex class of
functions that holds E[y | x]: then the gain is at least the misfit. In a linear class, for the squared
loss, it is 0.

Sources: Charikar et al. 2024, arXiv 2405.15116 (squared); Mulgund and Pabbaraju 2025, arXiv 2501.19105
(cross-entropy). Chapter: `book/foretelling.md`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from w2s_lib.measures.intervals import Codes, Floats, Interval
from w2s_lib.measures.metrics import EDGE


def _relative_entropy(a: Floats, b: Floats) -> Floats:
    """KL(a || b) of two probabilities of a 1, in nats, both taken half a step inside (`EDGE`)."""
    a, b = (np.clip(p, EDGE, 1 - EDGE) for p in (a, b))
    divergence: Floats = a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
    return divergence


LOSSES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "answers": lambda a, b: (a != b).astype(np.float64),
    "squared": lambda a, b: (a - b) ** 2,
    "cross-entropy": _relative_entropy,
}
"""A loss -> D(a, b) by text. Of "answers" a and b are 0 or 1, else probabilities of a 1."""


def gain_and_misfit(
    student: npt.ArrayLike, supervisor: npt.ArrayLike, label: npt.ArrayLike, loss: str
) -> tuple[float, float]:
    """What a student gains on its supervisor, and how far it is from it: means over texts.

    Args:
        student: shape (n,), P(y = 1), or answers 0 and 1.
        supervisor: the same of its supervisor.
        label: the same of the ground truth, 0 or 1.
        loss: one of `LOSSES`.

    Raises:
        ValueError: unequal lengths.
    """
    s, w, y = (np.asarray(part, dtype=np.float64) for part in (student, supervisor, label))
    if not s.shape == w.shape == y.shape:
        raise ValueError(f"one value a text each, not {s.shape}, {w.shape} and {y.shape}")
    d = LOSSES[loss]
    return float((d(y, w) - d(y, s)).mean()), float(d(s, w).mean())


def calibration_error(p: npt.ArrayLike, label: npt.ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error: how far P(y = 1) is from the share of ones, in bins of equal width.

    The mean over texts of |mean of p - mean of label| in the text's bin; 0 where a model that says
    70% is right in 70%. With few texts it is above 0 by chance.

    Args:
        p: shape (n,), in [0, 1].
        label: shape (n,), 0 or 1.
        bins: how many.

    Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using
    Bayesian binning", AAAI 2015.
    """
    prob = np.asarray(p, dtype=np.float64)
    bin_of = np.minimum((prob * bins).astype(int), bins - 1)
    off = np.bincount(bin_of, weights=prob - np.asarray(label), minlength=bins)
    return float(np.abs(off).sum() / len(prob))


def measures_of(
    label: Floats, p: Floats, weak_p: Floats, answer: Floats, weak_answer: Floats
) -> dict[str, float]:
    """What one run gained, by each loss, and what may foretell it: means over texts.

    All arguments have shape (n,): the ground truth, P(y = 1) of student and supervisor, and their
    answers, 0 or 1.

    Returns:
        "gain, LOSS" and "misfit, LOSS" for each of `LOSSES`. Without labels, too: "surer than its
        teacher", the student's mean probability of its own verdict less its supervisor's, and "how
        sure its teacher is", the latter. With labels: "teacher's accuracy"; "teacher's
        calibration", its calibration error with a minus; "unlike errors (CAPA)", 1 less the
        agreement beyond chance of Goel et al. 2025, arXiv 2502.04313; "errors mended" and "kept
        right", how often the student is right where its supervisor is wrong and right (Lang et
        al. 2024, arXiv 2405.16043); "changed rightly", how often where the two differ.
    """
    right, taught_right = answer == label, weak_answer == label
    sure, taught_sure = (np.maximum(q, 1 - q).mean() for q in (p, weak_p))
    pairs = ((p, label), (weak_p, label), (p, weak_p))
    one, other, agreed = ((a * b + (1 - a) * (1 - b)).mean() for a, b in pairs)
    chance = one * other + (1 - one) * (1 - other)  # of agreement, were the two independent
    found = {
        "surer than its teacher": sure - taught_sure,
        "how sure its teacher is": taught_sure,
        "teacher's accuracy": taught_right.mean(),
        "teacher's calibration": -calibration_error(weak_p, label),
        "unlike errors (CAPA)": 1 - (agreed - chance) / (1 - chance),
        "errors mended": right[~taught_right].mean(),
        "kept right": right[taught_right].mean(),
        "changed rightly": right[answer != weak_answer].mean(),
    }
    for loss in LOSSES:
        pair = (answer, weak_answer) if loss == "answers" else (p, weak_p)
        found[f"gain, {loss}"], found[f"misfit, {loss}"] = gain_and_misfit(*pair, label, loss)
    return found


def agreement_with_others(answers: npt.ArrayLike) -> Floats:
    """How often the other runs of an arm, on the mean, answer as each of them does: shape (runs,).

    Of two runs that err independently, the more accurate pair agrees more often.

    Args:
        answers: shape (runs, texts), 0 or 1; at least two runs.
    """
    a = np.asarray(answers, dtype=np.float64)
    same = (a @ a.T + (1 - a) @ (1 - a).T) / a.shape[1]
    others: Floats = (same.sum(axis=1) - 1) / (len(a) - 1)
    return others


def with_measures(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with `measures_of` each, and "steadier than its teachers", which needs no labels either.

    That is how much more often it answers as its arm's other students than their teachers as each other.

    Args:
        runs: a row a run, as of `publishing.tables.taught_runs`; two at least of each `arm`.
    """
    columns = ["label", "p", "weak_p", "answer", "weak_answer"]
    each = [measures_of(*run) for run in runs[columns].to_numpy()]
    found = runs.join(pd.DataFrame(each, runs.index))
    for _, arm in runs.groupby("arm"):
        own, its = (agreement_with_others([*arm[name]]) for name in ("answer", "weak_answer"))
        found.loc[arm.index, "steadier than its teachers"] = own - its
    return found


def ordered_pairs(
    runs: pd.DataFrame, predictor: str, outcome: str, *, within: str, n_resamples: int = 1000
) -> Interval:
    """Share of pairs of arms that a predictor puts in the order of an outcome; ties count half.

    Kendall's tau is twice this less 1; a coin has 0.5. The interval comes from drawing arms anew and,
    within each, its seeds. It takes arms for independent, though they share texts and supervisors.

    Args:
        runs: a row a run: `arm`, and the columns that the other arguments name.
        predictor: a number; an arm's is the mean over its runs.
        outcome: likewise.
        within: only pairs of arms that are equal in this column are counted.
        n_resamples: how often arms are drawn.

    Raises:
        ValueError: no pair of arms.
    """
    columns = [runs[name].to_numpy(np.float64) for name in (predictor, outcome)]
    arm, places = (pd.factorize(runs[name])[0] for name in ("arm", within))
    rng, names = np.random.default_rng(0), np.unique(arm)
    both, of_arm = np.stack(columns), [np.flatnonzero(arm == name) for name in names]
    level = np.array([places[own[0]] for own in of_arm])
    if len(np.unique(level)) == len(level):
        raise ValueError("no two arms to compare")

    def share(means: Floats, drawn: Codes) -> Floats:
        """Of means, (2, resamples, arms drawn), of the arms drawn, (resamples, arms drawn)."""
        pairs = drawn[:, :, None] < drawn[:, None, :]  # an arm with its own copy is no pair
        pairs &= level[drawn][:, :, None] == level[drawn][:, None, :]
        order = np.sign(means[..., :, None] - means[..., None, :]).prod(axis=0)
        alike: Floats = ((1 + order) / 2 * pairs).sum(axis=(1, 2)) / pairs.sum(axis=(1, 2))
        return alike

    def seeds(own: Codes) -> Floats:
        """An arm's means over its seeds: as they are, then over seeds drawn anew."""
        again = own[rng.integers(len(own), size=(n_resamples, len(own)))]
        found: Floats = both[:, np.concatenate([own[None], again])].mean(axis=2)
        return found

    means = np.stack([seeds(own) for own in of_arm], axis=-1)
    drawn = rng.integers(len(of_arm), size=means.shape[1:])
    drawn[0] = np.arange(len(of_arm))
    with np.errstate(invalid="ignore"):  # a draw without a pair has no share
        value, *shares = share(np.take_along_axis(means, drawn[None], axis=2), drawn)
    low, high = np.nanquantile(shares, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))
