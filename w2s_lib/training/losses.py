"""What a student minimises: pure functions of tensors, each the mean over a batch, in nats. Schedules live in `objective`.

Everywhere logits are (n, 2) in any floating dtype, `soft_label` is (n,), P(y = 1) in [0, 1], p is the student's own P(y = 1),
and shapes that do not fit raise `ValueError`. Chapters: PGR, confidence loss.
"""

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
    return _by_row(logits, soft_label).mean()


def _require_shapes(logits: Tensor, soft_label: Tensor) -> None:
    if (
        logits.ndim != 2
        or logits.shape[1] != 2
        or soft_label.shape != logits.shape[:1]
        or not len(logits)
    ):
        raise ValueError(
            f"logits must be (n, 2) and soft_label (n,), n > 0, not {tuple(logits.shape)} and "
            f"{tuple(soft_label.shape)}"
        )


def _by_row(logits: Tensor, soft_label: Tensor) -> Tensor:
    """Cross-entropy of each row, (n,)."""
    _require_shapes(logits, soft_label)
    log_p = log_softmax(logits.float(), dim=1)
    y = soft_label.to(log_p)
    return -(y * log_p[:, 1] + (1 - y) * log_p[:, 0])


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
            raise ValueError(
                f"threshold must be 'half', 'mean' or a number in (0, 1), not {threshold!r}"
            )
        n_positive = (
            len(margin) // 2
            if threshold == "half"
            else round(float(soft_label.float().mean()) * len(margin))
        )
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
    _require_shapes(logits, soft_label)
    y = soft_label.to(logits.device, torch.float32)
    return xent_loss(logits, (1 - alpha) * y + alpha * harden(logits, y, threshold))


def entropy_loss(logits: Tensor, soft_label: Tensor, alpha: float) -> Tensor:
    r"""(1 - alpha) CE(f, f_w) + alpha H(f): confidence is rewarded directly, with no threshold.

    H(f) = -[p log p + (1 - p) log(1 - p)] carries its gradient (Grandvalet & Bengio 2004, entropy minimisation). The
    confidence loss without hardening; nothing keeps the classes balanced.

    Args:
        logits: (n, 2).
        soft_label: (n,).
        alpha: weight of the entropy, in [0, 1]; 0 is `xent_loss` to the bit.

    Raises:
        ValueError: if alpha is outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha!r}")
    _require_shapes(logits, soft_label)
    log_p = log_softmax(logits.float(), dim=1)
    entropy = -(log_p.exp() * log_p).sum(dim=1).mean()
    return (1 - alpha) * xent_loss(logits, soft_label) + alpha * entropy


def product_loss(
    logits: Tensor, soft_label: Tensor, *, label_power: float = 1.0, prediction_power: float = 1.0
) -> Tensor:
    r"""Cross-entropy against a product of experts: target proportional to f_w^a f^b, with no gradient through it.

    In odds: o = o_w^a o_f^b. Where both agree the target is surer than either, where they disagree it lies between. From the
    code published with Burns et al. 2023 (openai/weak-to-strong). With b = 0 and a = 1 it is `xent_loss`.

    Args:
        logits: (n, 2).
        soft_label: (n,), cut to [2^-17, 1 - 2^-17].
        label_power: a.
        prediction_power: b.
    """
    _require_shapes(logits, soft_label)
    y = soft_label.to(logits.device, torch.float32)
    odds = (
        label_power * torch.logit(y, eps=2**-17)
        + prediction_power * (logits[:, 1] - logits[:, 0]).detach().float()
    )
    return xent_loss(logits, torch.sigmoid(odds))


def window_loss(logits: Tensor, soft_label: Tensor, *, radius: float = 0.15) -> Tensor:
    r"""Cross-entropy of the rows that the student is unsure of, |p - 1/2| <= radius; the others count as 0 in the mean.

    A student that has made up its mind is not talked out of it. From EleutherAI's w2s (confidence window).

    Args:
        logits: (n, 2).
        soft_label: (n,).
        radius: half the window's width, in [0, 1/2]; 1/2 is `xent_loss` (up to rounding).
    """
    each = _by_row(logits, soft_label)
    unsure = (log_softmax(logits.detach().float(), dim=1)[:, 1].exp() - 0.5).abs() <= radius
    return torch.where(unsure, each, torch.zeros_like(each)).mean()


def reverse_xent_loss(logits: Tensor, soft_label: Tensor, *, floor: float = 0.01) -> Tensor:
    r"""Reverse cross-entropy: mean of -[p log y + (1 - p) log(1 - y)], prediction and label in each other's place.

    Linear in p, so a label weighs by its own log-odds: unsure ones pull little (arXiv 2505.24313).

    Args:
        logits: (n, 2).
        soft_label: (n,), cut to [floor, 1 - floor].
        floor: keeps the logarithm finite.
    """
    _require_shapes(logits, soft_label)
    p = torch.softmax(logits.float(), dim=1)
    y = soft_label.to(p).clamp(floor, 1 - floor)
    return -(p[:, 1] * y.log() + p[:, 0] * (1 - y).log()).mean()


def adaptive_confidence_loss(
    logits: Tensor, soft_label: Tensor, *, temperature: float = 1.0
) -> Tensor:
    r"""(1 - b) CE(f, f_w) + b CE(f, f-hat), with a weight for each row (Guo et al. 2024, arXiv 2402.03749).

    b = e^{CE(f, f-hat)/T} / (e^{CE(f, f-hat)/T} + e^{CE(f, f_w)/T}), with no gradient; f-hat is the student's own verdict,
    p > 1/2.

    Args:
        logits: (n, 2).
        soft_label: (n,).
        temperature: T > 0; as it grows, b goes to 1/2.
    """
    to_label = _by_row(logits, soft_label)
    to_own = _by_row(logits, harden(logits, soft_label, 0.5))
    b = torch.sigmoid((to_own - to_label).detach() / temperature)
    return ((1 - b) * to_label + b * to_own).mean()
