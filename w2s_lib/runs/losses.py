"""What a student minimises: for each loss its settings, its function and its schedule in one place.

A loss is part of a run's description, which is why it stands in `runs`; it is written with methods
of tensors alone, so that describing a run needs no torch. The functions are pure, each the mean
over a batch, in nats. Everywhere logits are (n, 2) in any floating dtype, `soft_label` is (n,), P(y
= 1) in [0, 1], p is the student's own P(y = 1), and shapes that do not fit raise `ValueError`.
Chapters: PGR, confidence loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from w2s_lib.runs.description import BY_TYPE, Choice

if TYPE_CHECKING:
    from torch import Tensor

Share = Annotated[float, Field(ge=0, le=1)]


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


def _require_fit(logits: Tensor, soft_label: Tensor, alpha: float = 0.0) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha!r}")
    fits = logits.ndim == 2 and logits.shape[1] == 2 and soft_label.shape == logits.shape[:1]
    if not fits or not len(logits):
        shapes = f"{tuple(logits.shape)} and {tuple(soft_label.shape)}"
        raise ValueError(f"logits must be (n, 2) and soft_label (n,), n > 0, not {shapes}")


def _by_row(logits: Tensor, soft_label: Tensor) -> Tensor:
    """Cross-entropy of each row, (n,)."""
    _require_fit(logits, soft_label)
    log_p = logits.float().log_softmax(dim=1)
    y = soft_label.to(log_p)
    return -(y * log_p[:, 1] + (1 - y) * log_p[:, 0])


def harden(logits: Tensor, soft_label: Tensor, threshold: str | float = "half") -> Tensor:
    """The student's own predictions made 0 or 1, with no gradient: f-hat_t of the confidence loss.

    Args:
        logits: (n, 2).
        soft_label: (n,), used by "mean" only.
        threshold: "half": the n // 2 rows with the largest P(y = 1) are positive (the paper's
            adaptive threshold, which keeps a batch of balanced classes balanced); "mean": as many
            as the labels' mean says, rounded half to even; a number: rows with P(y = 1) strictly
            above it. Of equal rows the earlier one in the batch is taken first.

    Returns:
        (n,) float32 of zeros and ones.

    Raises:
        ValueError: on another threshold.
    """
    margin = (logits[:, 1] - logits[:, 0]).detach().float()
    if threshold == "half":
        n_positive = len(margin) // 2
    elif threshold == "mean":
        n_positive = round(float(soft_label.float().mean()) * len(margin))
    elif isinstance(threshold, str) or not 0 < threshold < 1:
        raise ValueError(f"threshold must be 'half', 'mean' or in (0, 1), not {threshold!r}")
    else:
        return (margin.sigmoid() > threshold).float()
    hard = margin.new_zeros(len(margin))
    hard[margin.argsort(descending=True, stable=True)[:n_positive]] = 1.0
    return hard


def confidence_loss(
    logits: Tensor, soft_label: Tensor, alpha: float, threshold: str | float = "half"
) -> Tensor:
    r"""The auxiliary confidence loss: CE(f, (1 - alpha) f_w + alpha f-hat_t).

    Part of the target is the student's own hardened prediction, so that a confident student may
    disagree with its supervisor (Burns et al. 2023, eq. 1, appendix A.4). `alpha = 0` is
    `xent_loss` to the bit; the target carries no gradient.

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
    _require_fit(logits, soft_label, alpha)
    y = soft_label.to(logits.device).float()
    return xent_loss(logits, (1 - alpha) * y + alpha * harden(logits, y, threshold))


def entropy_loss(logits: Tensor, soft_label: Tensor, alpha: float) -> Tensor:
    r"""(1 - alpha) CE(f, f_w) + alpha H(f): confidence is rewarded directly, with no threshold.

    H(f) = -[p log p + (1 - p) log(1 - p)] carries its gradient (Grandvalet & Bengio 2004, entropy
    minimisation). The confidence loss without hardening; nothing keeps the classes balanced.

    Args:
        logits: (n, 2).
        soft_label: (n,).
        alpha: weight of the entropy, in [0, 1]; 0 is `xent_loss` to the bit.

    Raises:
        ValueError: if alpha is outside [0, 1].
    """
    _require_fit(logits, soft_label, alpha)
    log_p = logits.float().log_softmax(dim=1)
    entropy = -(log_p.exp() * log_p).sum(dim=1).mean()
    return (1 - alpha) * xent_loss(logits, soft_label) + alpha * entropy


def product_loss(
    logits: Tensor, soft_label: Tensor, *, label_power: float = 1.0, prediction_power: float = 1.0
) -> Tensor:
    r"""Cross-entropy against a product of experts: target proportional to f_w^a f^b.

    In odds: o = o_w^a o_f^b, with no gradient through it. Where both agree the target is surer than
    either, where they disagree it lies between. From the code published with Burns et al. 2023
    (openai/weak-to-strong). With b = 0 and a = 1 it is `xent_loss`.

    Args:
        logits: (n, 2).
        soft_label: (n,), cut to [2^-17, 1 - 2^-17].
        label_power: a.
        prediction_power: b.
    """
    _require_fit(logits, soft_label)
    label_odds = soft_label.to(logits.device).float().logit(eps=2**-17)
    own_odds = (logits[:, 1] - logits[:, 0]).detach().float()
    return xent_loss(logits, (label_power * label_odds + prediction_power * own_odds).sigmoid())


def window_loss(logits: Tensor, soft_label: Tensor, *, radius: float = 0.15) -> Tensor:
    r"""Cross-entropy of the rows that the student is unsure of; the others count as 0.

    Those are the rows with |p - 1/2| <= radius.

    A student that has made up its mind is not talked out of it. From EleutherAI's w2s (confidence
    window).

    Args:
        logits: (n, 2).
        soft_label: (n,).
        radius: half the window's width, in [0, 1/2]; 1/2 is `xent_loss` (up to rounding).
    """
    each = _by_row(logits, soft_label)
    p = logits.detach().float().log_softmax(dim=1)[:, 1].exp()
    return each.where((p - 0.5).abs() <= radius, each.new_zeros(())).mean()


def reverse_xent_loss(logits: Tensor, soft_label: Tensor, *, floor: float = 0.01) -> Tensor:
    r"""Reverse cross-entropy: mean of -[p log y + (1 - p) log(1 - y)].

    Prediction and label are in each other's place. Linear in p, so a label weighs by its own
    log-odds: unsure ones pull little (arXiv 2505.24313).

    Args:
        logits: (n, 2).
        soft_label: (n,), cut to [floor, 1 - floor].
        floor: keeps the logarithm finite.
    """
    _require_fit(logits, soft_label)
    p = logits.float().softmax(dim=1)
    y = soft_label.to(p).clamp(floor, 1 - floor)
    return -(p[:, 1] * y.log() + p[:, 0] * (1 - y).log()).mean()


def adaptive_confidence_loss(
    logits: Tensor, soft_label: Tensor, *, temperature: float = 1.0
) -> Tensor:
    r"""(1 - b) CE(f, f_w) + b CE(f, f-hat), with a weight b for each row.

    Guo et al. 2024, arXiv 2402.03749.

    b = e^{CE(f, f-hat)/T} / (e^{CE(f, f-hat)/T} + e^{CE(f, f_w)/T}), with no gradient; f-hat is the
    student's own verdict, p > 1/2.

    Args:
        logits: (n, 2).
        soft_label: (n,).
        temperature: T > 0; as it grows, b goes to 1/2.
    """
    to_label = _by_row(logits, soft_label)
    to_own = _by_row(logits, harden(logits, soft_label, 0.5))
    b = ((to_own - to_label).detach() / temperature).sigmoid()
    return ((1 - b) * to_label + b * to_own).mean()


def alpha_at(progress: float, loss: ConfidenceLoss | EntropyLoss) -> float:
    """The confidence loss's weight when a share `progress` in [0, 1] of training is done.

    It is 0 until `loss.start`, then rises linearly and is continuous where it reaches `alpha_max`
    (Burns et al. 2023, A.4). The schedule "step" is not.
    """
    if isinstance(loss, ConfidenceLoss):
        progress = max(0.0, progress - loss.start)
    if progress >= loss.warmup_fraction:
        return loss.alpha_max
    if isinstance(loss, ConfidenceLoss) and loss.schedule == "step":
        return loss.alpha_max * progress
    return loss.alpha_max * progress / loss.warmup_fraction


class XentLoss(Choice):
    """Cross-entropy against the labels as they are: naive finetuning."""

    def loss(self, logits: Tensor, soft_label: Tensor, progress: float) -> Tensor:
        """The loss of a batch when a share `progress` in [0, 1) of training is done."""
        return xent_loss(logits, soft_label)


class ConfidenceLoss(Choice):
    """`confidence_loss` (Burns et al. 2023, eq. 1): alpha rises to `alpha_max`, then stays."""

    alpha_max: Share = 0.5
    warmup_fraction: Share = 0.2
    """Share of training over which alpha rises from 0."""
    start: Share = 0.0
    """Share of training before which alpha is 0: 0 in the paper; 0.5 waits for half of the
    epochs."""
    threshold: Literal["half", "mean"] | Annotated[float, Field(gt=0, lt=1)] = "half"
    """Hardening threshold: "half" of each batch positive, the labels' "mean" positive, or a
    number."""
    schedule: Literal["linear", "step"] = "linear"
    """"linear", the paper's; or "step", that of the code published later (openai/weak-to-strong):
    alpha_max times the share of training that is done, and at the end of the warm-up a jump to
    alpha_max."""

    def loss(self, logits: Tensor, soft_label: Tensor, progress: float) -> Tensor:
        """The loss of a batch when a share `progress` in [0, 1) of training is done."""
        return confidence_loss(logits, soft_label, alpha_at(progress, self), self.threshold)


class EntropyLoss(Choice):
    """`entropy_loss`: the student's entropy instead of its hardened prediction."""

    alpha_max: Share = 0.5
    warmup_fraction: Share = 0.2

    def loss(self, logits: Tensor, soft_label: Tensor, progress: float) -> Tensor:
        """The loss of a batch when a share `progress` in [0, 1) of training is done."""
        return entropy_loss(logits, soft_label, alpha_at(progress, self))


class ProductLoss(Choice):
    """`product_loss`: the target is the product of the label and the student's prediction."""

    label_power: NonNegativeFloat = 1.0
    prediction_power: NonNegativeFloat = 1.0

    def loss(self, logits: Tensor, soft_label: Tensor, progress: float) -> Tensor:
        """The loss of a batch; the same throughout training."""
        powers = {"label_power": self.label_power, "prediction_power": self.prediction_power}
        return product_loss(logits, soft_label, **powers)


class WindowLoss(Choice):
    """`window_loss`: only rows that the student is still unsure of are learned."""

    radius: Annotated[float, Field(ge=0, le=0.5)] = 0.15

    def loss(self, logits: Tensor, soft_label: Tensor, progress: float) -> Tensor:
        """The loss of a batch; the same throughout training."""
        return window_loss(logits, soft_label, radius=self.radius)


class ReverseLoss(Choice):
    """`reverse_xent_loss`: cross-entropy with prediction and label in each other's place."""

    floor: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Labels are kept this far from 0 and 1, where their logarithm is infinite."""

    def loss(self, logits: Tensor, soft_label: Tensor, progress: float) -> Tensor:
        """The loss of a batch; the same throughout training."""
        return reverse_xent_loss(logits, soft_label, floor=self.floor)


class AdaptiveLoss(Choice):
    """`adaptive_confidence_loss`: each row weighs its label against the student's own verdict."""

    temperature: PositiveFloat = 1.0

    def loss(self, logits: Tensor, soft_label: Tensor, progress: float) -> Tensor:
        """The loss of a batch; the same throughout training."""
        return adaptive_confidence_loss(logits, soft_label, temperature=self.temperature)


Loss = Annotated[
    XentLoss | ConfidenceLoss | EntropyLoss | ProductLoss | WindowLoss | ReverseLoss | AdaptiveLoss,
    BY_TYPE,
]
"""What `RunSpec.loss` may be."""
