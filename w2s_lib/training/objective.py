"""From a spec's loss to a number: which function of `losses` it is, and its weight at each moment of training."""

from __future__ import annotations

from torch import Tensor

from w2s_lib.runs.parts import (
    AdaptiveLoss,
    ConfidenceLoss,
    EntropyLoss,
    Part,
    ProductLoss,
    ReverseLoss,
    WindowLoss,
)
from w2s_lib.training import losses


def alpha_at(progress: float, loss: ConfidenceLoss | EntropyLoss) -> float:
    """The confidence loss's weight when a share `progress` in [0, 1] of training is done (Burns et al. 2023, A.4).

    It rises linearly from 0 and is continuous where it reaches `alpha_max`. The schedule "step" is not.
    """
    if progress >= loss.warmup_fraction:
        return loss.alpha_max
    if isinstance(loss, ConfidenceLoss) and loss.schedule == "step":
        return loss.alpha_max * progress
    return loss.alpha_max * progress / loss.warmup_fraction


def objective(loss: Part, logits: Tensor, soft_label: Tensor, progress: float) -> Tensor:
    """The value of a spec's loss on a batch when a share `progress` in [0, 1) of training is done."""
    match loss:
        case ConfidenceLoss():
            return losses.confidence_loss(
                logits, soft_label, alpha_at(progress, loss), loss.threshold
            )
        case EntropyLoss():
            return losses.entropy_loss(logits, soft_label, alpha_at(progress, loss))
        case ProductLoss():
            return losses.product_loss(
                logits,
                soft_label,
                label_power=loss.label_power,
                prediction_power=loss.prediction_power,
            )
        case WindowLoss():
            return losses.window_loss(logits, soft_label, radius=loss.radius)
        case ReverseLoss():
            return losses.reverse_xent_loss(logits, soft_label, floor=loss.floor)
        case AdaptiveLoss():
            return losses.adaptive_confidence_loss(logits, soft_label, temperature=loss.temperature)
    return losses.xent_loss(logits, soft_label)
