"""What DRAEM minimises (the paper's section 3.3): squared error, structural similarity, focal loss, in equal parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, WINDOW_SIGMA = 11, 1.5  # of the structural similarity, pixels
K1, K2 = 0.01, 0.03  # its two constants, as shares of the range
FOCAL_GAMMA = 2.0
FOCAL_SMOOTHING = 1e-5  # keeps the target away from 0 and 1, and the logarithm finite


def similarity_range(reconstruction: Tensor) -> float:
    """The range L of the values, decided on a whole batch as the authors' code does.

    2 while the reconstruction goes below −0.5, 1 later; 255 more where it goes above 128.
    """
    high = 255.0 if reconstruction.max().item() > 128 else 1.0
    low = -1.0 if reconstruction.min().item() < -0.5 else 0.0
    return high - low


def structural_similarity(first: Tensor, second: Tensor, value_range: float) -> Tensor:
    """SSIM of every pixel and channel, (N, C, H, W); what lies outside of the pictures counts as 0."""
    channels = first.shape[1]
    window = _gaussian_window(channels, first)

    def smooth(values: Tensor) -> Tensor:
        return F.conv2d(values, window, padding=WINDOW // 2, groups=channels)

    mean_1, mean_2 = smooth(first), smooth(second)
    variance_1 = smooth(first * first) - mean_1**2
    variance_2 = smooth(second * second) - mean_2**2
    covariance = smooth(first * second) - mean_1 * mean_2
    c1, c2 = (K1 * value_range) ** 2, (K2 * value_range) ** 2
    contrast = (2 * covariance + c2) / (variance_1 + variance_2 + c2)
    return (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1) * contrast


def _gaussian_window(channels: int, like: Tensor) -> Tensor:
    # In float32 whatever the pictures are: the published losses hold its rounding.
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2)).float()
    weights = weights / weights.sum()
    square = weights[:, None] @ weights[None, :]
    return square.to(like).expand(channels, 1, WINDOW, WINDOW).contiguous()


def similarity_loss(reconstruction: Tensor, image: Tensor) -> Tensor:
    """1 − mean SSIM of (N, 3, H, W) pairs."""
    value_range = similarity_range(reconstruction.detach())
    return 1 - structural_similarity(reconstruction, image, value_range).mean()


def focal_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """Focal loss of two classes, mean over pixels.

    Args:
        probability: (N, 2, H, W), softmax of the logits.
        mask: (N, H, W) bool, where something was laid over.
    """
    # Clamped in float32 whatever the probabilities are: the published losses hold its rounding.
    target = torch.stack([~mask, mask], dim=1).float().clamp(FOCAL_SMOOTHING, 1 - FOCAL_SMOOTHING)
    right = (target * probability).sum(1) + FOCAL_SMOOTHING
    return (-((1 - right) ** FOCAL_GAMMA) * right.log()).mean()


def draem_losses(image: Tensor, reconstruction: Tensor, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared error, structural similarity and focal loss, whose sum is minimised.

    Args:
        image: (N, 3, H, W) in [0, 1], without the anomaly.
        reconstruction: (N, 3, H, W), of the picture with the anomaly.
        logits: (N, 2, H, W).
        mask: (N, H, W) bool.
    """
    probability = torch.softmax(logits, dim=1)
    return (
        F.mse_loss(reconstruction, image),
        similarity_loss(reconstruction, image),
        focal_loss(probability, mask),
    )
