"""Drawn defects on good pictures, and the noise that both pictures of a pair may get (section IV-A)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray
from edge_ad.models.cpr.config import ON_OBJECT
from edge_ad.models.synthesis.augment import augment_texture
from edge_ad.models.synthesis.overlay import draw_even_beta, overlay
from edge_ad.models.synthesis.perlin import thresholded_noise
from edge_ad.models.synthesis.stronger import STRONGER_AUGMENTATIONS
from edge_ad.models.synthesis.textures import TexturePool
from edge_ad.models.synthesis.tiles import shuffled_tiles

BoolArray = NDArray[np.bool_]

LEAST_AREA = 0.001  # of the picture; smaller pieces of a mask are left out
MOST_SHINING_THROUGH = 0.5  # share of the good picture in a defect
TEXTURE_SHARE = 0.5  # of the defects of an object; the others are made of its own tiles
AUGMENTATIONS = 3
MOST_TRIES = 64
CLEAN_RANGE = (0.97, 1.0)  # share of the pixels without salt or pepper
LIGHTNESS_RANGE = (0.9, 1.1)


def defective(
    image_hwc: ImageArray, foreground: NDArray[np.float32] | None, textures: TexturePool, rng: np.random.Generator
) -> tuple[ImageArray, BoolArray]:
    """A good picture with a defect, and where that is; an empty mask where none fits after many draws.

    Args:
        image_hwc: (H, W, 3) uint8 RGB; it is not changed.
        foreground: (H, W) in 0..1; None for a texture.
    """
    shape_hw = image_hwc.shape[0], image_hwc.shape[1]
    mask = defect_mask(shape_hw, foreground, rng)
    if not mask.any():
        return image_hwc, mask
    if foreground is None or rng.random() < TEXTURE_SHARE:
        source = textures.sample(rng, shape_hw)
    else:
        source = shuffled_tiles(augment_texture(image_hwc, rng, AUGMENTATIONS, STRONGER_AUGMENTATIONS), rng)
    return overlay(image_hwc, source, mask, draw_even_beta(rng, 0.0, MOST_SHINING_THROUGH)), mask


def defect_mask(
    shape_hw: tuple[int, int], foreground: NDArray[np.float32] | None, rng: np.random.Generator
) -> BoolArray:
    """Pieces of thresholded noise that are not small and touch the object: (H, W) bool, empty after many draws."""
    import cv2

    for _ in range(MOST_TRIES):
        mask = thresholded_noise(shape_hw, rng)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        kept = np.asarray(stats[:, cv2.CC_STAT_AREA]) >= LEAST_AREA * mask.size
        if foreground is not None:
            kept &= np.bincount(labels[foreground > ON_OBJECT], minlength=count) > 0
        kept[0] = False  # what is not in the mask
        if kept.any():
            return np.asarray(kept[labels])
    return np.zeros(shape_hw, np.bool_)


def noisy(image_hwc: ImageArray, share: float, rng: np.random.Generator) -> ImageArray:
    """Each with probability `share`: salt and pepper, another lightness; where neither is drawn the picture itself."""
    if rng.random() < share:
        image_hwc = salt_and_pepper(image_hwc, rng.uniform(*CLEAN_RANGE), rng)
    if rng.random() < share:
        image_hwc = other_lightness(image_hwc, rng.uniform(*LIGHTNESS_RANGE))
    return image_hwc


def salt_and_pepper(image_hwc: ImageArray, clean: float, rng: np.random.Generator) -> ImageArray:
    """All but a share of the pixels black or white, half each."""
    drawn = rng.random(image_hwc.shape[:2])
    changed = image_hwc.copy()
    changed[drawn >= clean] = 255
    changed[drawn >= (1 + clean) / 2] = 0
    return changed


def other_lightness(image_hwc: ImageArray, factor: float) -> ImageArray:
    """Lightness of HLS times a factor."""
    import cv2

    hls = np.array(cv2.cvtColor(image_hwc, cv2.COLOR_RGB2HLS))
    hls[..., 1] = np.clip(hls[..., 1] * np.float32(factor), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hls, cv2.COLOR_HLS2RGB))
