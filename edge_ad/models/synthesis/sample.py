"""One synthetic anomaly: a mask, an augmented texture, and the two laid over a good image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_ad.image.frame import ImageArray
from edge_ad.models.synthesis.augment import augment_texture
from edge_ad.models.synthesis.overlay import BETA_MEAN, BETA_STD, draw_beta, overlay
from edge_ad.models.synthesis.perlin import AnomalyMask, BoolArray, perlin_mask
from edge_ad.models.synthesis.textures import TexturePool


@dataclass(frozen=True)
class SyntheticAnomaly:
    """A good image with an anomaly on it.

    Attributes:
        image_hwc: (H, W, 3) uint8 RGB.
        mask: where the anomaly is.
        beta: share of the good image that shines through.
    """

    image_hwc: ImageArray
    mask: AnomalyMask
    beta: float


def synthesise(
    image_hwc: ImageArray,
    foreground: BoolArray | None,
    pool: TexturePool,
    patch_hw: tuple[int, int],
    rng: np.random.Generator,
    *,
    beta_mean: float = BETA_MEAN,
    beta_std: float = BETA_STD,
    augmentations: int = 3,
) -> SyntheticAnomaly:
    """Lay one anomaly over a good image (local anomaly synthesis, Sec. 3.4 of GLASS, arXiv 2407.09359).

    Args:
        image_hwc: (H, W, 3) uint8 RGB at model size; it is not changed.
        foreground: (H, W) bool, where the anomaly may be; None is everywhere.
        pool: where textures come from.
        patch_hw: size of the patch map.
        rng: everything is drawn from it, so the same generator gives the same anomaly.
        beta_mean, beta_std: of the share of the good image, which is clipped to [0.2, 0.8].
        augmentations: how many of the nine changes the texture undergoes.

    Raises:
        ConfigError: the foreground is empty or of another size, or the number of augmentations is not 0 to 9.
        SourceError: no texture can be read.
    """
    shape_hw = image_hwc.shape[0], image_hwc.shape[1]
    mask = perlin_mask(shape_hw, patch_hw, rng, foreground)
    texture = augment_texture(pool.sample(rng, shape_hw), rng, augmentations)
    beta = draw_beta(rng, beta_mean, beta_std)
    return SyntheticAnomaly(overlay(image_hwc, texture, mask.pixel, beta), mask, beta)
