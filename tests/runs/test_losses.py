"""Naive finetuning and the confidence loss by hand; what every loss does with ties, schedules and nonsense."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w2s_lib.runs.losses import (
    AdaptiveLoss,
    ConfidenceLoss,
    EntropyLoss,
    ProductLoss,
    ReverseLoss,
    WindowLoss,
    XentLoss,
    adaptive_confidence_loss,
    alpha_at,
    confidence_loss,
    entropy_loss,
    harden,
    product_loss,
    reverse_xent_loss,
    window_loss,
    xent_loss,
)

ln = math.log
LN3 = ln(3)
soft = st.floats(0, 1, width=32)
margins = st.floats(-20, 20, width=32)
batches = st.lists(st.tuples(margins, margins, soft), min_size=1, max_size=9)


def tensors(rows: list[tuple[float, float, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    table = torch.tensor(rows, dtype=torch.float32)
    return table[:, :2].clone().requires_grad_(), table[:, 2]


def gradient(
    loss: Callable[..., torch.Tensor], margin: list[float], y: list[float]
) -> tuple[float, list[float]]:
    """A loss of the logits (0, margin), and its gradient for each margin."""
    m = torch.tensor(margin, requires_grad=True)
    value = loss(torch.stack([torch.zeros_like(m), m], dim=1), torch.tensor(y))
    value.backward()
    assert value.shape == () and m.grad is not None
    return value.item(), m.grad.tolist()


def test_xent_by_hand() -> None:
    """Logits (0, ln 3) mean P(y = 1) = 3/4.

    Label 1: -ln 3/4. Label 1/2: -(1/2 ln 3/4 + 1/2 ln 1/4). Label 0: -ln 1/4. The loss is their
    mean.
    """
    logits = torch.tensor([[0.0, LN3]] * 3)
    right, even, wrong = (
        -math.log(3 / 4),
        -(math.log(3 / 4) + math.log(1 / 4)) / 2,
        -math.log(1 / 4),
    )
    loss = xent_loss(logits, torch.tensor([1.0, 0.5, 0.0]))
    assert loss.shape == () and loss.item() == pytest.approx((right + even + wrong) / 3)
    assert xent_loss(logits[:1], torch.tensor([1.0])).item() == pytest.approx(right)


def test_xent_is_least_where_p_is_the_label() -> None:
    """At p = y the cross-entropy is the label's own entropy, and no other p does better."""
    y = torch.tensor([0.3])
    entropy = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    found = [
        xent_loss(torch.tensor([[0.0, math.log(p / (1 - p))]]), y).item() for p in (0.2, 0.3, 0.4)
    ]
    assert found[1] == pytest.approx(entropy) and found[1] < min(found[0], found[2])


@given(batches)
def test_xent_gradient_is_p_minus_y_over_n(rows: list[tuple[float, float, float]]) -> None:
    """d loss / d logit_1 = (p - y) / n, and minus that for logit_0."""
    logits, y = tensors(rows)
    xent_loss(logits, y).backward()
    p = torch.softmax(logits.detach(), dim=1)[:, 1]
    expected = (p - y) / len(y)
    torch.testing.assert_close(
        logits.grad, torch.stack([-expected, expected], dim=1), atol=1e-6, rtol=1e-4
    )


def test_confidence_by_hand() -> None:
    """Logits (0, ln 3) and (ln 3, 0): p = 3/4 and 1/4; labels 1/4 and 1/4; alpha = 1/2.

    Half of two rows is one: the first is hardened to 1, the second to 0. The targets are 1/2 * 1/4
    + 1/2 * 1 = 5/8 and 1/2 * 1/4 + 1/2 * 0 = 1/8. Row 1: -(5/8 ln 3/4 + 3/8 ln 1/4); row 2: -(1/8
    ln 1/4 + 7/8 ln 3/4). Their mean is -(3/2 ln 3/4 + 1/2 ln 1/4) / 2. The gradient is (p - target)
    / 2: (3/4 - 5/8) / 2 = 1/16, twice.
    """
    logits = torch.tensor([[0.0, LN3], [LN3, 0.0]], requires_grad=True)
    loss = confidence_loss(logits, torch.tensor([0.25, 0.25]), 0.5)
    assert loss.item() == pytest.approx(-(1.5 * math.log(3 / 4) + 0.5 * math.log(1 / 4)) / 2)
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-1 / 16, 1 / 16], [-1 / 16, 1 / 16]]))


def test_confidence_gradient_by_finite_differences() -> None:
    """No row is near the threshold, so a small step hardens nothing anew."""
    logits = torch.tensor([[0.3, 1.1], [0.9, -0.4], [-0.2, 0.6]], requires_grad=True)
    y = torch.tensor([0.2, 0.7, 0.6])
    confidence_loss(logits, y, 0.4, 0.5).backward()
    step = 1e-2
    for i in range(3):
        for j in range(2):
            shift = torch.zeros(3, 2)
            shift[i, j] = step
            up, down = (
                confidence_loss(logits.detach() + s * shift, y, 0.4, 0.5).item() for s in (1, -1)
            )
            assert logits.grad is not None and logits.grad[i, j].item() == pytest.approx(
                (up - down) / (2 * step), abs=1e-4
            )


@given(batches, st.sampled_from(["half", "mean", 0.3]))
def test_alpha_0_is_naive_finetuning_to_the_bit(
    rows: list[tuple[float, float, float]], threshold: str | float
) -> None:
    logits, y = tensors(rows)
    again, _ = tensors(rows)
    naive, confident = xent_loss(logits, y), confidence_loss(again, y, 0.0, threshold)
    naive.backward()
    confident.backward()
    assert naive.item() == confident.item() and torch.equal(logits.grad, again.grad)


@given(batches)
def test_alpha_1_is_cross_entropy_against_its_own_prediction(
    rows: list[tuple[float, float, float]],
) -> None:
    logits, y = tensors(rows)
    assert confidence_loss(logits, y, 1.0).item() == xent_loss(logits, harden(logits, y)).item()


def test_the_target_carries_no_gradient() -> None:
    """If it did, the gradient at alpha = 1 would not be (p - target) / n."""
    logits = torch.tensor([[0.0, 0.4], [0.0, -0.6]], requires_grad=True)
    assert not harden(logits, torch.zeros(2)).requires_grad
    confidence_loss(logits, torch.zeros(2), 1.0).backward()
    expected = (torch.sigmoid(torch.tensor([0.4, -0.6])) - torch.tensor([1.0, 0.0])) / 2
    torch.testing.assert_close(logits.grad[:, 1], expected)


@pytest.mark.parametrize(
    "margin, threshold, y, expected",
    [
        ([2, 1, 3, 0], "half", [0] * 4, [1, 0, 1, 0]),
        ([2, 1, 3, 0, 5], "half", [0] * 5, [0, 0, 1, 0, 1]),  # odd: two of five
        ([1], "half", [1], [0]),  # half of one row is none
        ([0, 0, 0, 0], "half", [0] * 4, [1, 1, 0, 0]),  # of equal rows the earlier
        ([1, 0, 0, 0, -1], "half", [0] * 5, [1, 1, 0, 0, 0]),
        ([2, 1, 3, 0], "mean", [1, 0, 0, 0], [0, 0, 1, 0]),  # a quarter
        ([2, 1, 3, 0], "mean", [0.9, 0.8, 0.9, 0.4], [1, 1, 1, 0]),  # their mean is 3/4
        ([2, 1, 3], "mean", [0.5] * 3, [1, 0, 1]),  # 1.5 rounds to the even 2
        ([2, 1, 3, 0, 4], "mean", [0.5] * 5, [0, 0, 1, 0, 1]),  # 2.5 rounds to the even 2
        ([2, 1], "mean", [0, 0], [0, 0]),
        ([2, 1], "mean", [1, 1], [1, 1]),
        ([LN3, 0, -LN3], 0.5, [0] * 3, [1, 0, 0]),  # strictly above: a tie is a 0
        ([LN3, 0, -LN3], 0.2, [0] * 3, [1, 1, 1]),
        ([LN3, 0, -LN3], 0.8, [0] * 3, [0, 0, 0]),
    ],
)
def test_harden(
    margin: list[float], threshold: str | float, y: list[float], expected: list[float]
) -> None:
    logits = torch.tensor([[0.0, m] for m in margin])
    hard = harden(logits, torch.tensor(y, dtype=torch.float32), threshold)
    assert hard.tolist() == expected and hard.dtype == torch.float32
    shifted = harden(logits + torch.tensor([7.0]), torch.tensor(y, dtype=torch.float32), threshold)
    assert shifted.tolist() == expected  # only the difference of the two logits matters


@given(st.lists(margins, min_size=2, max_size=12, unique=True), st.randoms())
def test_half_follows_the_rows_wherever_they_stand(
    margin: list[float], rng: np.random.Generator
) -> None:
    logits, order = torch.tensor([[0.0, m] for m in margin]), list(range(len(margin)))
    rng.shuffle(order)
    hard = harden(logits, torch.zeros(len(margin)))
    assert hard.sum() == len(margin) // 2
    assert torch.equal(harden(logits[order], torch.zeros(len(margin))), hard[order])


@pytest.mark.parametrize("alpha", [-0.01, 1.01, math.nan, math.inf])
@pytest.mark.parametrize("loss", [confidence_loss, entropy_loss])
def test_alpha_outside_0_to_1_is_refused(loss: Callable[..., torch.Tensor], alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        loss(torch.zeros(2, 2), torch.zeros(2), alpha)


@pytest.mark.parametrize("threshold", ["halve", 0, 1, 0.0, 1.0, -1, math.nan])
def test_other_thresholds_are_refused(threshold: str | float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        confidence_loss(torch.zeros(2, 2), torch.zeros(2), 0.5, threshold)


EVERY_LOSS = [
    xent_loss,
    partial(confidence_loss, alpha=0.5),
    partial(entropy_loss, alpha=0.5),
    product_loss,
    window_loss,
    reverse_xent_loss,
    adaptive_confidence_loss,
]


@pytest.mark.parametrize(
    "logits, labels",
    [
        ((3, 2), (2,)),
        ((3, 3), (3,)),
        ((3,), (3,)),
        ((3, 2), (3, 1)),
        ((3, 2), (1,)),
        ((0, 2), (0,)),
    ],
)
@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_shapes_that_do_not_fit_are_refused(
    loss: Callable[..., torch.Tensor], logits: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    """Labels that broadcast would be a wrong number without a word."""
    with pytest.raises(ValueError, match="logits"):
        loss(torch.zeros(logits), torch.zeros(labels))


@pytest.mark.parametrize("loss", EVERY_LOSS)
def test_every_loss_does_its_arithmetic_in_float32(loss: Callable[..., torch.Tensor]) -> None:
    logits = torch.tensor([[0.0, 0.01], [0.5, 0.125]], dtype=torch.bfloat16)
    y = torch.tensor([0.3, 0.9])
    assert (
        loss(logits, y).dtype == torch.float32
        and loss(logits, y).item() == loss(logits.float(), y).item()
    )


# The losses as a run has them: with their schedules


def test_alpha_rises_linearly_and_then_stays() -> None:
    """alpha_max = 0.5, warm-up a fifth: 0 at the start, 0.25 at a tenth, 0.5 from a fifth on."""
    loss = ConfidenceLoss(alpha_max=0.5, warmup_fraction=0.2)
    found = [alpha_at(progress, loss) for progress in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert found == pytest.approx([0, 0.25, 0.5, 0.5, 0.5])
    assert alpha_at(0.0, ConfidenceLoss(warmup_fraction=0.0)) == 0.5


@given(st.floats(0, 1), st.floats(1e-3, 1), st.sampled_from([ConfidenceLoss, EntropyLoss]))
def test_the_schedule_is_continuous(alpha_max: float, warmup: float, kind: type) -> None:
    """Also where it reaches alpha_max; that of the code published later jumps there."""
    loss = kind(alpha_max=alpha_max, warmup_fraction=warmup)
    assert alpha_at(warmup - 1e-9, loss) == pytest.approx(alpha_at(warmup, loss), abs=1e-5)
    step = ConfidenceLoss(alpha_max=alpha_max, warmup_fraction=warmup, schedule="step")
    assert alpha_at(warmup / 2, step) == pytest.approx(alpha_max * warmup / 2)
    assert alpha_at(warmup, step) == alpha_max


LOGITS = torch.tensor([[0.3, 1.1], [0.9, -0.4], [-0.2, 0.6]])
LABELS = torch.tensor([0.2, 0.7, 0.6])


@pytest.mark.parametrize(
    "loss, expected",
    [
        (XentLoss(), xent_loss(LOGITS, LABELS)),
        (ConfidenceLoss(threshold=0.3), confidence_loss(LOGITS, LABELS, 0.25, 0.3)),
        (ConfidenceLoss(alpha_max=0.8), confidence_loss(LOGITS, LABELS, 0.4)),
        (EntropyLoss(), entropy_loss(LOGITS, LABELS, 0.25)),
        (
            ProductLoss(label_power=0.5, prediction_power=2.0),
            product_loss(LOGITS, LABELS, label_power=0.5, prediction_power=2.0),
        ),
        (WindowLoss(radius=0.25), window_loss(LOGITS, LABELS, radius=0.25)),
        (ReverseLoss(floor=0.3), reverse_xent_loss(LOGITS, LABELS, floor=0.3)),
        (AdaptiveLoss(temperature=0.5), adaptive_confidence_loss(LOGITS, LABELS, temperature=0.5)),
    ],
)
def test_a_loss_uses_all_its_settings(loss: Any, expected: torch.Tensor) -> None:
    """At a tenth of training, half way through the warm-up."""
    assert loss.loss(LOGITS, LABELS, 0.1).item() == expected.item()


@pytest.mark.parametrize("loss", [ConfidenceLoss(), EntropyLoss()])
def test_before_its_first_step_a_loss_that_rises_is_naive(loss: Any) -> None:
    assert loss.loss(LOGITS, LABELS, 0.0).item() == xent_loss(LOGITS, LABELS).item()
