"""The losses beside naive finetuning and the confidence loss: by hand, at their ends, and their gradients."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.runs.test_losses import LN3, batches, gradient, ln, soft, tensors
from w2s_lib.runs.losses import (
    adaptive_confidence_loss,
    confidence_loss,
    entropy_loss,
    product_loss,
    reverse_xent_loss,
    window_loss,
    xent_loss,
)

# The losses beside it. Each by hand on logits (0, ln 3), p = 3/4, with the label 1/4: naive
# finetuning would give -(1/4 ln 3/4 + 3/4 ln 1/4), and the gradient 3/4 - 1/4.


def test_entropy_by_hand() -> None:
    """alpha = 1/2: half of the cross-entropy, half of H: -(ln 3/4 + ln 1/4) / 2.

    They are -(1/4 ln 3/4 + 3/4 ln 1/4) and H = -(3/4 ln 3/4 + 1/4 ln 1/4).

    dH/dm = -p (1 - p) m = -3/16 ln 3, so the gradient is (1/2 - 3/16 ln 3) / 2.
    """
    value, slope = gradient(partial(entropy_loss, alpha=0.5), [LN3], [0.25])
    assert value == pytest.approx(-(ln(3 / 4) + ln(1 / 4)) / 2)
    assert slope == pytest.approx([(1 / 2 - 3 / 16 * LN3) / 2])
    assert entropy_loss(torch.zeros(3, 2), torch.rand(3), 1.0).item() == pytest.approx(
        math.log(2)
    )  # of an even coin


@given(batches)
def test_entropy_with_alpha_0_is_naive_finetuning_to_the_bit(
    rows: list[tuple[float, float, float]],
) -> None:
    (logits, y), (again, _) = tensors(rows), tensors(rows)
    naive, other = xent_loss(logits, y), entropy_loss(again, y, 0.0)
    naive.backward()
    other.backward()
    assert naive.item() == other.item() and torch.equal(logits.grad, again.grad)


@given(batches)
def test_entropy_with_alpha_1_has_no_label_and_makes_every_row_surer(
    rows: list[tuple[float, float, float]],
) -> None:
    """-p (1 - p) m: downhill is away from the even coin, whatever the label."""
    logits, y = tensors(rows)
    loss = entropy_loss(logits, y, 1.0)
    loss.backward()
    assert loss.item() == entropy_loss(logits, 1 - y, 1.0).item()
    p = torch.softmax(logits.detach(), dim=1)[:, 1]
    margin = (logits[:, 1] - logits[:, 0]).detach()
    torch.testing.assert_close(
        logits.grad[:, 1], -p * (1 - p) * margin / len(y), atol=1e-6, rtol=1e-3
    )


def test_product_by_hand() -> None:
    """The student's odds are 3, the label's 1/3.

    a = b = 1: the target's odds are 1, the target 1/2: -(ln 3/4 + ln 1/4) / 2, the gradient 3/4 -
    1/2. a = 2, b = 1: odds 3/9, target 1/4, the label itself. a = 1, b = 2: odds 9/3, target 3/4 =
    p: no gradient.
    """
    value, slope = gradient(product_loss, [LN3], [0.25])
    assert value == pytest.approx(-(ln(3 / 4) + ln(1 / 4)) / 2) and slope == pytest.approx([1 / 4])
    value, slope = gradient(partial(product_loss, label_power=2.0), [LN3], [0.25])
    assert value == pytest.approx(-(ln(3 / 4) + 3 * ln(1 / 4)) / 4) and slope == pytest.approx(
        [1 / 2]
    )
    _, slope = gradient(partial(product_loss, prediction_power=2.0), [LN3], [0.25])
    assert slope == pytest.approx([0], abs=1e-6)


@given(batches)
def test_product_without_the_prediction_is_naive_finetuning(
    rows: list[tuple[float, float, float]],
) -> None:
    """But for rounding, and for a label of 0 or 1, which is moved by 2^-17."""
    logits, y = tensors(rows)
    margin = (logits[:, 1] - logits[:, 0]).detach().abs().max().item()
    value = product_loss(logits, y, label_power=1.0, prediction_power=0.0).item()
    assert value == pytest.approx(xent_loss(logits, y).item(), abs=2**-16 * (1 + margin), rel=1e-5)


@given(
    st.lists(st.tuples(st.floats(-8, 8, width=32), soft), min_size=1, max_size=9),
    st.floats(0, 2),
    st.floats(0, 2),
)
def test_product_carries_no_gradient_through_its_target(
    rows: list[tuple[float, float]], a: float, b: float
) -> None:
    """(p - target) / n, the target being o_w^a o_f^b in odds."""
    margin, y = (list(column) for column in zip(*rows, strict=True))
    _, slope = gradient(partial(product_loss, label_power=a, prediction_power=b), margin, y)
    cut = np.clip(np.array(y, dtype=np.float64), 2**-17, 1 - 2**-17)
    target = 1 / (1 + np.exp(-(a * np.log(cut / (1 - cut)) + b * np.array(margin))))
    assert slope == pytest.approx((1 / (1 + np.exp(-np.array(margin))) - target) / len(y), abs=1e-5)


def test_window_by_hand() -> None:
    """p = 3/4 is outside a window of 0.15 and counts as 0; p = 1/2 is in it: -ln 1/2.

    The mean over both is ln 2 / 2; the gradient 0, and (1/2 - 1/4) / 2 for the second.
    """
    value, slope = gradient(window_loss, [LN3, 0.0], [0.25, 0.25])
    assert value == pytest.approx(math.log(2) / 2) and slope == pytest.approx([0, 1 / 8])
    value, slope = gradient(partial(window_loss, radius=0.3), [LN3, 0.0], [0.25, 0.25])
    assert value == pytest.approx((math.log(2) - ln(3 / 4) / 4 - ln(1 / 4) * 3 / 4) / 2)
    assert slope == pytest.approx([1 / 4, 1 / 8])
    value, slope = gradient(
        partial(window_loss, radius=0.0), [LN3, 0.0, -LN3], [0.0, 1.0, 1.0]
    )  # the even one is left
    assert value == pytest.approx(math.log(2) / 3) and slope == pytest.approx([0, -1 / 6, 0])


@given(batches)
def test_a_window_as_wide_as_all_is_naive_finetuning(
    rows: list[tuple[float, float, float]],
) -> None:
    (logits, y), (again, _) = tensors(rows), tensors(rows)
    naive, wide = xent_loss(logits, y), window_loss(again, y, radius=0.5)
    naive.backward()
    wide.backward()
    assert wide.item() == pytest.approx(naive.item(), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(again.grad, logits.grad)


def test_reverse_by_hand() -> None:
    """-(3/4 ln 1/4 + 1/4 ln 3/4), with prediction and label in each other's place.

    The gradient is -p (1 - p) times the label's log-odds, ln 1/3: 3/16 ln 3. A label of 0 is cut to
    the floor, 0.01.
    """
    value, slope = gradient(reverse_xent_loss, [LN3], [0.25])
    assert value == pytest.approx(
        -(3 / 4 * ln(1 / 4) + 1 / 4 * ln(3 / 4))
    ) and slope == pytest.approx([3 / 16 * LN3])
    value, slope = gradient(reverse_xent_loss, [LN3], [0.0])
    assert value == pytest.approx(-(3 / 4 * ln(0.01) + 1 / 4 * ln(0.99)))
    assert slope == pytest.approx([3 / 16 * math.log(99)])
    assert gradient(partial(reverse_xent_loss, floor=0.25), [LN3], [0.0]) == gradient(
        reverse_xent_loss, [LN3], [0.25]
    )


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), soft)
def test_reverse_is_linear_in_p(p: float, q: float, y: float) -> None:
    """At the middle of two predictions it is the mean of both; and an even label pulls nowhere."""

    def at(p: float, y: float) -> float:
        return reverse_xent_loss(
            torch.tensor([[0.0, math.log(p / (1 - p))]]), torch.tensor([y])
        ).item()

    assert at((p + q) / 2, y) == pytest.approx((at(p, y) + at(q, y)) / 2, abs=1e-5)
    assert at(p, 0.5) == pytest.approx(math.log(2))


def test_adaptive_by_hand() -> None:
    """The own verdict is 1. CE to it is less by 3/4 ln 3 than CE to the label.

    They are -ln 3/4 and -(1/4 ln 3/4 + 3/4 ln 1/4).

    T = 3/4: b = 1 / (1 + e^ln 3) = 1/4. 3/4 CE to the label and 1/4 CE to the verdict: -(7 ln 3/4 +
    9 ln 1/4) / 16. The target is 3/4 * 1/4 + 1/4 * 1 = 7/16, so the gradient is 3/4 - 7/16 = 5/16.
    """
    value, slope = gradient(partial(adaptive_confidence_loss, temperature=0.75), [LN3], [0.25])
    assert value == pytest.approx(-(7 * ln(3 / 4) + 9 * ln(1 / 4)) / 16) and slope == pytest.approx(
        [5 / 16]
    )


@given(batches)
def test_adaptive_at_a_great_temperature_is_the_mean_of_both(
    rows: list[tuple[float, float, float]],
) -> None:
    """b = 1/2 in every row: half cross-entropy to the label, half to the own verdict."""
    (logits, y), (again, _) = tensors(rows), tensors(rows)
    half = confidence_loss(logits, y, 0.5, 0.5)
    warm = adaptive_confidence_loss(again, y, temperature=1e9)
    half.backward()
    warm.backward()
    assert warm.item() == pytest.approx(half.item(), rel=1e-4, abs=1e-5)
    torch.testing.assert_close(again.grad, logits.grad, atol=1e-6, rtol=1e-4)


@given(batches, st.floats(0.1, 10))
def test_adaptive_carries_no_gradient_through_its_weight_or_verdict(
    rows: list[tuple[float, float, float]], t: float
) -> None:
    """(p - target) / n with the target (1 - b) y + b [p > 1/2], all worked out in float64."""
    logits, y = tensors(rows)
    adaptive_confidence_loss(logits, y, temperature=t).backward()
    m, label = (logits[:, 1] - logits[:, 0]).detach().double(), y.double()
    own = (torch.sigmoid((logits[:, 1] - logits[:, 0]).detach()) > 0.5).double()
    to_label, to_own = (
        torch.nn.functional.binary_cross_entropy_with_logits(m, z, reduction="none")
        for z in (label, own)
    )
    b = torch.sigmoid((to_own - to_label) / t)
    expected = (torch.sigmoid(m) - (1 - b) * label - b * own) / len(y)
    torch.testing.assert_close(logits.grad[:, 1].double(), expected, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(logits.grad[:, 0], -logits.grad[:, 1], atol=1e-6, rtol=1e-4)
