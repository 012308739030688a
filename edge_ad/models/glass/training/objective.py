"""What GLASS minimises: the losses of its three branches (the paper's section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_SMOOTHING = 1e-5  # keeps the logarithm finite in the authors' focal loss
TINY = 1e-10  # added to a norm before something is divided by it, as the authors do


@dataclass(frozen=True)
class StepLosses:
    """One optimiser step in figures.

    Attributes:
        normal, gas, las: the three losses before the step.
        normal_right: share of normal patches that score below 0.5.
        anomalous_right: share of synthesised patches that score 0.5 or more.
    """

    normal: float
    gas: float
    las: float
    normal_right: float
    anomalous_right: float

    @property
    def total(self) -> float:
        return self.normal + self.gas + self.las


def normal_loss(logit: Tensor) -> Tensor:
    """Binary cross-entropy of patches (P, 1) that are normal: L_n."""
    return F.softplus(logit).mean()


def anomalous_loss(logit: Tensor) -> Tensor:
    """Binary cross-entropy of patches (P, 1) that are anomalous: L_gas."""
    return F.softplus(-logit).mean()


def local_loss(logit: Tensor, anomalous: Tensor, hard_quantile: float, gamma: float) -> Tensor:
    """Focal loss of the hardest patches of pictures with an overlaid texture: L_las.

    Args:
        logit: (P, 1).
        anomalous: (P,) bool, the mask at patch resolution.
        hard_quantile: patches whose squared error lies below this quantile are left out.
        gamma: exponent.
    """
    probability = torch.sigmoid(logit).squeeze(1)
    target = anomalous.to(probability.dtype)
    if hard_quantile > 0:
        error = (probability - target).detach().square()
        hard = error >= torch.quantile(error, hard_quantile)
        probability, target = probability[hard], target[hard]
    return focal_loss(probability, target, gamma)


def focal_loss(probability: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Mean focal loss of probabilities (P,) against targets (P,) that are 0 or 1.

    The target is smoothed and the logarithm shifted by FOCAL_SMOOTHING, as in the authors' code.
    """
    certain = 1 - FOCAL_SMOOTHING
    weight = target * certain + (1 - target) * FOCAL_SMOOTHING
    right = weight * probability + (1 - weight) * (1 - probability) + FOCAL_SMOOTHING
    return -((1 - right) ** gamma * torch.log(right)).mean()


def radial_projection(offset: Tensor, nearest: Tensor | float, farthest: Tensor | float) -> tuple[Tensor, Tensor]:
    """Move points (P, D) along their rays so that their lengths lie in [nearest, farthest].

    Returns: the moved points, and the factor (P, 1) of each.
    """
    length = offset.norm(dim=1, keepdim=True)
    factor = length.clamp(nearest, farthest) / (length + TINY)
    return offset * factor, factor


def normal_radius(distance: Tensor, quantile: float) -> Tensor:
    """r: the `quantile` of the distances (P,) of normal features to the centre, without gradient."""
    return torch.quantile(distance.detach(), quantile)


def shares_right(
    normal_logit: Tensor, gas_logit: Tensor, local_logit: Tensor, anomalous: Tensor
) -> tuple[float, float]:
    """Shares of the normal and of the anomalous patches that lie on the right side of probability 0.5."""
    local = local_logit.detach().squeeze(1)
    called = local >= 0
    normal = int((normal_logit.detach() < 0).sum()) + int((~called & ~anomalous).sum())
    wrong_free = int((gas_logit.detach() >= 0).sum()) + int((called & anomalous).sum())
    n_anomalous = int(anomalous.sum())
    return (
        normal / (len(normal_logit) + len(local) - n_anomalous),
        wrong_free / (len(gas_logit) + n_anomalous),
    )
