"""How strongly a texture covers the image (Eq. for x⁺ in Sec. 3.4 of GLASS, arXiv 2407.09359, after DRAEM)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray

BETA_MEAN = 0.5
BETA_STD = 0.1
BETA_RANGE = (0.2, 0.8)


def draw_beta(rng: np.random.Generator, mean: float = BETA_MEAN, std: float = BETA_STD) -> float:
    """Share of the image that shines through: N(mean, std²), clipped to [0.2, 0.8]."""
    return float(np.clip(rng.normal(mean, std), *BETA_RANGE))


def draw_even_beta(rng: np.random.Generator, lowest: float, highest: float) -> float:
    """Share of the image that shines through, drawn evenly (DRAEM)."""
    return float(rng.uniform(lowest, highest))


def overlay(image_hwc: ImageArray, texture_hwc: ImageArray, mask: NDArray[np.bool_], beta: float) -> ImageArray:
    """x ⊙ (1 − m) + (1 − β) · t ⊙ m + β · x ⊙ m, as a new (H, W, 3) uint8 array.

    The authors mix normalised tensors; normalisation is affine and the weights sum to 1, so mixing grey levels is the
    same but for the rounding to a level, which is at most half of one. Outside of the mask the image is kept exactly.

    Args:
        image_hwc, texture_hwc: (H, W, 3) uint8.
        mask: (H, W) bool.
        beta: share of the image, 0 to 1.
    """
    weight = np.float32(beta)
    inside = image_hwc[mask].astype(np.float32)
    texture = texture_hwc[mask].astype(np.float32)
    mixed = image_hwc.copy()
    mixed[mask] = np.rint(weight * inside + (1 - weight) * texture).astype(np.uint8)
    return mixed
