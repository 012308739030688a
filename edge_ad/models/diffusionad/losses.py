"""What DiffusionAD minimises: noise of normal pictures; of the map of all, a focal loss and a smooth absolute one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_ad.models.diffusionad.denoising import Denoised

FOCAL_GAMMA, FOCAL_ALPHA = 4, 0.5
FOCAL_WEIGHT = 5.0


def noise_loss(found: Denoised, noises: tuple[Tensor, Tensor], normal: Tensor) -> Tensor:
    """Squared errors of both passes, mean over the normal pictures; 0 where a batch has none.

    Args:
        noises: that were laid over, (N, 3, H, W) each.
        normal: (N,) bool, pictures with nothing laid over but noise.
    """
    errors = ((found.normal - noises[0]) ** 2).mean((1, 2, 3)) + ((found.noisier - noises[1]) ** 2).mean((1, 2, 3))
    return (errors * normal).sum() / normal.sum().clamp(min=1)


def focal_loss(probability: Tensor, target: Tensor) -> Tensor:
    """Mean over pixels; of probabilities, not of logits, whose gradient would not vanish where they are 0 or 1.

    Args:
        target: like `probability`, 0 to 1.
    """
    entropy = F.binary_cross_entropy(probability, target, reduction="none")
    return (FOCAL_ALPHA * (1 - torch.exp(-entropy)) ** FOCAL_GAMMA * entropy).mean()


def diffusionad_losses(
    found: Denoised, noises: tuple[Tensor, Tensor], logits: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, focal and smooth loss; what is minimised is their sum with `FOCAL_WEIGHT` times the second.

    Args:
        logits: (N, H, W).
        mask: (N, H, W) bool, where something was laid over.
    """
    target, probability = mask.to(logits), torch.sigmoid(logits)
    return (
        noise_loss(found, noises, ~mask.flatten(1).any(1)),
        focal_loss(probability, target),
        F.smooth_l1_loss(probability, target),
    )
