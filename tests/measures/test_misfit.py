"""Gain, misfit and what may foretell the gain: by hand, as identities, and where the theorem holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from w2s_lib.measures.misfit import (
    LOSSES,
    agreement_with_others,
    calibration_error,
    gain_and_misfit,
    measures_of,
    ordered_pairs,
    with_measures,
)

LABEL = np.array([1, 1, 0, 0, 1])
WEAK, STUDENT = np.array([1, 0, 0, 1, 1]), np.array([1, 1, 0, 1, 0])
P_WEAK, P = np.array([0.9, 0.4, 0.2, 0.7, 0.6]), np.array([0.8, 0.7, 0.1, 0.6, 0.3])


def measured(**changed):
    given = {"label": LABEL, "p": P, "weak_p": P_WEAK, "answer": STUDENT, "weak_answer": WEAK}
    return measures_of(**given | changed)


def test_answers_by_hand():
    """Two of five are changed, one of them rightly: nothing is gained."""
    assert gain_and_misfit(STUDENT, WEAK, LABEL, "answers") == (0, 0.4)


def test_probabilities_by_hand():
    """By text, (w-y)^2 - (s-y)^2: .01-.04, .36-.09, .04-.01, .49-.36, .16-.49; (s-w)^2: .01, .09, .01, .01, .09."""
    assert gain_and_misfit(P, P_WEAK, LABEL, "squared") == pytest.approx((0.07 / 5, 0.21 / 5))
    gain, misfit = gain_and_misfit(
        np.array([0.5]), np.array([0.25]), np.array([1]), "cross-entropy"
    )
    assert gain == pytest.approx(np.log(2), abs=1e-4)
    assert misfit == pytest.approx(np.log(2) - np.log(3) / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_who_has_not_moved_gains_nothing_and_who_was_corrected_all(loss):
    assert gain_and_misfit(WEAK, WEAK, LABEL, loss) == (0, 0)
    gain, misfit = gain_and_misfit(LABEL, WEAK, LABEL, loss)
    assert gain == pytest.approx(misfit) and gain > 0


def test_certain_answers_have_a_finite_divergence():
    gain, misfit = gain_and_misfit(LABEL, 1 - LABEL, LABEL, "cross-entropy")
    assert np.isfinite([gain, misfit]).all()


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="one value a text"):
        gain_and_misfit(P[:4], P_WEAK, LABEL, "squared")


@pytest.mark.parametrize("n_features, equal", [(20, True), (40, True), (10, False)])
def test_the_theorem_in_a_linear_class(n_features, equal):
    """A projection onto a class that holds the truth (20 features) gains its misfit; onto a smaller one, less."""
    rng = np.random.default_rng(0)
    features, other = rng.normal(size=(300, 40)), rng.normal(size=(300, 5))
    truth = features[:, :20] @ rng.normal(size=20)
    weak = truth + other @ rng.normal(size=5) + features @ rng.normal(size=40)
    own = features[:, :n_features]
    student = own @ np.linalg.lstsq(own, weak, rcond=None)[0]
    gain, misfit = gain_and_misfit(student, weak, truth, "squared")
    assert (gain == pytest.approx(misfit)) == equal and gain <= misfit + 1e-9


def test_calibration_by_hand():
    """Bins .1-.2 and .8-.9: .15 is said of two with one 1 among them, .85 of two ones."""
    assert calibration_error([0.15, 0.15, 0.85, 0.85], [0, 1, 1, 1]) == pytest.approx(0.25)
    assert calibration_error([0.0, 1.0], [0, 1]) == 0


def test_measures_by_hand():
    """The teacher is right on texts 1, 3 and 5, the student on 1, 2 and 3."""
    found = measured()
    assert found["teacher's accuracy"] == 0.6
    assert found["errors mended"] == 0.5 and found["kept right"] == pytest.approx(2 / 3)
    assert found["changed rightly"] == 0.5
    assert found["how sure its teacher is"] == pytest.approx((0.9 + 0.6 + 0.8 + 0.7 + 0.6) / 5)
    assert found["gain, squared"] == pytest.approx(0.07 / 5)


def test_errors_are_unlike_by_chance_alone_or_not_at_all():
    """CAPA's agreement is 1 of a certain model with itself, so unlike errors are 0; independent, 1."""
    certain = WEAK.astype(float)
    assert measured(p=certain, weak_p=certain)["unlike errors (CAPA)"] == pytest.approx(0)
    rng = np.random.default_rng(0)
    p, weak_p = (np.where(rng.random(20_000) < 0.7, 0.9, 0.1) for _ in range(2))
    ones = {"label": np.ones(20_000), "answer": p > 0.5, "weak_answer": weak_p > 0.5}
    assert measured(p=p, weak_p=weak_p, **ones)["unlike errors (CAPA)"] == pytest.approx(
        1, abs=0.02
    )


def test_agreement_with_others_by_hand():
    """The second agrees with the first on 3 of 4, with the third on 2."""
    answers = [[0, 1, 1, 0], [0, 1, 1, 1], [1, 1, 0, 1]]
    assert agreement_with_others(answers) == pytest.approx([(3 + 1) / 8, (3 + 2) / 8, (1 + 2) / 8])


def test_runs_get_their_measures_and_how_much_steadier_they_are_than_their_teachers():
    """Two students give the same five answers, their teachers three the same; in the second arm it is the other way round.

    The teacher that is right once has a student that is right three times.
    """
    others = {"answer": STUDENT, "weak_answer": np.array([0, 0, 0, 1, 0])}
    rows = [
        {
            "arm": arm,
            "label": LABEL,
            "p": P,
            "weak_p": P_WEAK,
            "answer": STUDENT,
            "weak_answer": WEAK,
        }
        | changed
        for arm, changed in ((0, {}), (0, others), (1, {}), (1, {"answer": others["weak_answer"]}))
    ]
    found = with_measures(pd.DataFrame(rows, index=[7, 3, 5, 4]))
    assert list(found["steadier than its teachers"]) == pytest.approx([0.4, 0.4, -0.4, -0.4])
    assert found.loc[7, list(measured())].to_dict() == pytest.approx(measured())
    assert found.loc[3, "gain, answers"] == pytest.approx(0.4)


def frame(x, y, **columns):
    usual = {"arm": np.arange(len(x)), "all": "", "task": "a"}
    return pd.DataFrame({"x": x, "y": y, **usual | columns})


def test_pairs_by_hand():
    """Of three pairs two are in order; a tie counts half; means over seeds decide."""
    assert ordered_pairs(
        frame([1, 2, 3], [1, 3, 2]), "x", "y", within="all"
    ).value == pytest.approx(2 / 3)
    assert ordered_pairs(frame([1, 1], [1, 3]), "x", "y", within="all").value == 0.5
    seeds = frame([1, 5, 2], [0, 0, 1], arm=["b", "b", "a"])
    assert ordered_pairs(seeds, "x", "y", within="all").value == 0


def test_only_pairs_on_one_task_are_counted():
    levels = frame([1, 2, 11, 12], [2, 1, 12, 11], task=["a", "a", "b", "b"])
    assert ordered_pairs(levels, "x", "y", within="task").value == 0
    assert ordered_pairs(levels, "x", "y", within="all").value == pytest.approx(4 / 6)
    with pytest.raises(ValueError, match="no two arms"):
        ordered_pairs(levels.iloc[[0, 2]], "x", "y", within="task")


def test_the_interval_covers_a_coin_where_there_is_no_order_and_not_where_there_is():
    rng = np.random.default_rng(1)
    arm, noise = np.repeat(np.arange(30), 4), rng.normal(size=(2, 120))
    effect = rng.normal(size=30)[arm]
    none = ordered_pairs(frame(*noise, arm=arm), "x", "y", within="all")
    some = ordered_pairs(frame(*(effect + noise), arm=arm), "x", "y", within="all")
    assert none.low < 0.5 < none.high and 0.5 < some.low < some.value < some.high < 1
