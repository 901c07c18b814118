"""What a student minimises: pure functions of tensors. Schedules live in `train`. Chapters: PGR, confidence loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax


def xent_loss(logits: Tensor, soft_label: Tensor) -> Tensor:
    r"""Cross-entropy against soft labels: mean of -[y log p + (1 - y) log(1 - p)], p = P(y = 1).

    Naive finetuning (Burns et al. 2023, section 4.2). Hard labels are soft labels that are 0 or 1.

    Args:
        logits: (n, 2), any floating dtype; the arithmetic is in float32.
        soft_label: (n,), P(y = 1) in [0, 1].

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if logits.ndim != 2 or logits.shape[1] != 2 or soft_label.shape != logits.shape[:1] or not len(logits):
        raise ValueError(f"logits must be (n, 2) and soft_label (n,), n > 0, not {tuple(logits.shape)} and "
                         f"{tuple(soft_label.shape)}")
    log_p = log_softmax(logits.float(), dim=1)
    y = soft_label.to(log_p)
    return -(y * log_p[:, 1] + (1 - y) * log_p[:, 0]).mean()


def harden(logits: Tensor, soft_label: Tensor, threshold: str | float = "half") -> Tensor:
    """The student's own predictions made 0 or 1, with no gradient: f-hat_t of the confidence loss.

    Args:
        logits: (n, 2).
        soft_label: (n,), used by "mean" only.
        threshold: "half": the n // 2 rows with the largest P(y = 1) are positive (the paper's adaptive threshold, which
            keeps a batch of balanced classes balanced); "mean": as many as the labels' mean says, rounded half to even;
            a number: rows with P(y = 1) strictly above it. Of equal rows the earlier one in the batch is taken first.

    Returns:
        (n,) float32 of zeros and ones.

    Raises:
        ValueError: on another threshold.
    """
    margin = (logits[:, 1] - logits[:, 0]).detach().float()
    if isinstance(threshold, str):
        if threshold not in ("half", "mean"):
            raise ValueError(f"threshold must be 'half', 'mean' or a number in (0, 1), not {threshold!r}")
        n_positive = len(margin) // 2 if threshold == "half" else round(float(soft_label.float().mean()) * len(margin))
        order = torch.argsort(margin, descending=True, stable=True)
        hard = torch.zeros_like(margin)
        hard[order[:n_positive]] = 1.0
        return hard
    if not 0 < threshold < 1:
        raise ValueError(f"a fixed threshold must be in (0, 1), not {threshold!r}")
    return (torch.sigmoid(margin) > threshold).float()


def confidence_loss(
    logits: Tensor, soft_label: Tensor, alpha: float, threshold: str | float = "half"
) -> Tensor:
    r"""The auxiliary confidence loss: CE(f, (1 - alpha) f_w + alpha f-hat_t) (Burns et al. 2023, eq. 1, appendix A.4).

    Part of the target is the student's own hardened prediction, so that a confident student may disagree with its
    supervisor. `alpha = 0` is `xent_loss` to the bit; the target carries no gradient.

    Args:
        logits: (n, 2).
        soft_label: (n,), the supervisor's P(y = 1).
        alpha: weight of the student's own prediction, in [0, 1].
        threshold: see `harden`.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: if alpha is outside [0, 1] or the shapes do not fit.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha!r}")
    y = soft_label.to(logits.device, torch.float32)
    return xent_loss(logits, (1 - alpha) * y + alpha * harden(logits, y, threshold))
