"""From a spec's loss to a number: its schedule at every moment of training, and which function of `losses` it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w2s_lib.runs.parts import (
    LOSSES,
    AdaptiveLoss,
    ConfidenceLoss,
    EntropyLoss,
    Part,
    ProductLoss,
    ReverseLoss,
    WindowLoss,
    XentLoss,
)
from w2s_lib.training import losses
from w2s_lib.training.objective import alpha_at, objective

fractions = st.floats(0, 1)


# Schedules


@pytest.mark.parametrize("kind", [ConfidenceLoss, EntropyLoss])
@given(alpha_max=fractions, warmup_fraction=fractions, progress=fractions)
def test_alpha_rises_in_a_line_and_has_no_jump(
    kind: type[ConfidenceLoss | EntropyLoss],
    alpha_max: float,
    warmup_fraction: float,
    progress: float,
) -> None:
    loss = kind(alpha_max=alpha_max, warmup_fraction=warmup_fraction)
    alpha = alpha_at(progress, loss)
    assert 0 <= alpha <= alpha_max and alpha_at(1.0, loss) == alpha_max
    if warmup_fraction > 1e-6:
        assert alpha == pytest.approx(min(1.0, progress / warmup_fraction) * alpha_max)
        assert alpha_at(0.0, loss) == 0
        near = [alpha_at(warmup_fraction * (1 + side), loss) for side in (-1e-6, 1e-6)]
        assert near == pytest.approx([alpha_max, alpha_max], rel=1e-5)


def test_alpha_by_hand() -> None:
    """alpha_max = 1/2 over the first fifth: a tenth of training done, half of the rise, 1/4."""
    found = [alpha_at(progress, ConfidenceLoss()) for progress in (0.0, 0.05, 0.1, 0.2, 0.9)]
    assert found == pytest.approx([0, 0.125, 0.25, 0.5, 0.5])
    assert alpha_at(0.0, ConfidenceLoss(warmup_fraction=0)) == 0.5


def test_the_step_schedule_by_hand() -> None:
    """alpha_max = 1/2 times the share that is done, 0.1 and just below 0.2 of it; at 0.2 it jumps to 1/2 and stays."""
    step = ConfidenceLoss(schedule="step")
    found = [alpha_at(progress, step) for progress in (0.0, 0.1, 0.2 - 1e-9, 0.2, 0.9)]
    assert found == pytest.approx([0, 0.05, 0.1, 0.5, 0.5])
    assert alpha_at(0.0, ConfidenceLoss(schedule="step", warmup_fraction=0)) == 0.5


@given(alpha_max=st.floats(0.01, 1), warmup_fraction=st.floats(0.01, 0.9), progress=fractions)
def test_the_two_schedules_differ_only_in_the_warmup(
    alpha_max: float, warmup_fraction: float, progress: float
) -> None:
    """The step is never above the line, and jumps by alpha_max (1 - warm-up) where the line has no jump."""
    line, step = (
        ConfidenceLoss(alpha_max=alpha_max, warmup_fraction=warmup_fraction, schedule=s)
        for s in ("linear", "step")
    )
    assert alpha_at(progress, step) <= alpha_at(progress, line) + 1e-12
    if progress >= warmup_fraction:
        assert alpha_at(progress, step) == alpha_at(progress, line) == alpha_max
    before, after = (alpha_at(warmup_fraction * (1 + side), step) for side in (-1e-9, 1e-9))
    assert after - before == pytest.approx(alpha_max * (1 - warmup_fraction), rel=1e-6, abs=1e-8)


# Which function

CASES: list[tuple[Part, Callable[..., torch.Tensor], dict[str, object]]] = [
    (XentLoss(), losses.xent_loss, {}),
    (
        ConfidenceLoss(alpha_max=0.8, warmup_fraction=0.5, threshold=0.6),
        losses.confidence_loss,
        {"alpha": 0.4, "threshold": 0.6},
    ),
    (
        ConfidenceLoss(alpha_max=0.8, warmup_fraction=0.5, schedule="step"),
        losses.confidence_loss,
        {"alpha": 0.2},
    ),
    (EntropyLoss(alpha_max=0.8, warmup_fraction=0.5), losses.entropy_loss, {"alpha": 0.4}),
    (
        ProductLoss(label_power=0.5, prediction_power=2.0),
        losses.product_loss,
        {"label_power": 0.5, "prediction_power": 2.0},
    ),
    (WindowLoss(radius=0.25), losses.window_loss, {"radius": 0.25}),
    (ReverseLoss(floor=0.1), losses.reverse_xent_loss, {"floor": 0.1}),
    (AdaptiveLoss(temperature=0.5), losses.adaptive_confidence_loss, {"temperature": 0.5}),
]
LOGITS = torch.tensor([[0.0, 0.3], [1.0, -0.5], [0.2, 2.0], [0.1, 0.0]])
LABELS = torch.tensor([0.05, 0.4, 0.7, 0.99])


def test_every_loss_of_a_spec_is_its_function_with_its_own_settings() -> None:
    """A quarter of training done: half of a rise over half of it. No setting has its default, and no two losses agree."""
    found = [objective(part, LOGITS, LABELS, 0.25).item() for part, _, _ in CASES]
    expected = [function(LOGITS, LABELS, **settings).item() for _, function, settings in CASES]
    assert found == pytest.approx(expected, rel=1e-6) and len(
        {round(value, 4) for value in found}
    ) == len(CASES)
    assert {type(part) for part, _, _ in CASES} == set(LOSSES)


@pytest.mark.parametrize("part", [ConfidenceLoss(), EntropyLoss(), ConfidenceLoss(schedule="step")])
def test_before_its_first_step_a_loss_that_rises_is_naive_finetuning_to_the_bit(part: Part) -> None:
    assert objective(part, LOGITS, LABELS, 0.0).item() == losses.xent_loss(LOGITS, LABELS).item()
    assert objective(part, LOGITS, LABELS, 0.25).item() != losses.xent_loss(LOGITS, LABELS).item()
