"""The contrastive loss of CPR (section III-C): what lies at the same place is alike, what lies elsewhere is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

POSITIVE_MARGIN, NEGATIVE_MARGIN = 0.8, -0.2  # cosines beyond which a pair costs nothing
EXPONENT = 3
SMALL = 1e-7


@dataclass(frozen=True)
class Points:
    """Places in B pairs of pictures, (B, n, 2) as x, y in [-1, 1], and weights (B, n) of 0 or 1.

    Attributes:
        positive, positive_weight: the same good place in both.
        negative, retrieved_negative, negative_weight: different places, in the picture and in that which it retrieved.
        anomalous, anomalous_weight: the same place in both, with a drawn defect in the first.
    """

    positive: Tensor
    positive_weight: Tensor
    negative: Tensor
    retrieved_negative: Tensor
    negative_weight: Tensor
    anomalous: Tensor
    anomalous_weight: Tensor


def contrastive_losses(
    described: Sequence[tuple[Tensor, Tensor]], raw: Sequence[tuple[Tensor, Tensor]], points: Points
) -> tuple[Tensor, Tensor]:
    """Positive and negative loss, each summed over the taps.

    Args:
        described: for each tap what the metric network gives of the pictures and of the retrieved ones, (B, D, h, w).
        raw: the taps themselves; pairs that look different to them count more.
    """
    positive, negative = [], []
    for (query, retrieved), taps in zip(described, raw, strict=True):
        cosines = F.cosine_similarity(_at(query, points.positive), _at(retrieved, points.positive))
        positive.append(_mean_cube(POSITIVE_MARGIN - cosines, points.positive_weight))
        weight = torch.cat([_negative_weight(*taps, points), points.anomalous_weight], dim=1)
        here = torch.cat([points.negative, points.anomalous], dim=1)
        there = torch.cat([points.retrieved_negative, points.anomalous], dim=1)
        cosines = F.cosine_similarity(_at(query, here), _at(retrieved, there))
        negative.append(_mean_cube(cosines - NEGATIVE_MARGIN, weight))
    return torch.stack(positive).sum(), torch.stack(negative).sum()


@torch.no_grad()
def _negative_weight(query: Tensor, retrieved: Tensor, points: Points) -> Tensor:
    """Squared distances of the raw taps, as shares of their sum, times how many points there are: (B, n)."""
    squared = (_at(query, points.negative) - _at(retrieved, points.retrieved_negative)).square().sum(1)
    squared = squared * (points.negative_weight > 0)
    count = points.negative_weight.sum(1, keepdim=True)
    return squared / (squared.sum(1, keepdim=True) + SMALL) * count


def _mean_cube(beyond: Tensor, weight: Tensor) -> Tensor:
    """The weight is inside of the cube, as in the authors' code."""
    return (beyond.clamp(min=0) * weight).pow(EXPONENT).sum() / (weight > 0).sum().clamp(min=1)


def _at(features: Tensor, points: Tensor) -> Tensor:
    """(B, D, h, w) at (B, n, 2): (B, D, n), bilinear.

    Points are whole pixels as shares of the side less one, and read as if they were shares of the side: the authors'.
    """
    return F.grid_sample(features, points[:, :, None], align_corners=False)[..., 0]
