"""Where a synthetic anomaly lies: masks of thresholded Perlin noise.

Sec. 3.4 of GLASS, arXiv 2407.09359, which has it of DRAEM (arXiv 2108.07610).

Perlin's noise is a sum over lattice corners of weights that depend on the row times weights that depend on the column,
so a whole field is three small matrix products instead of a dozen passes over the pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import ConfigError

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

THRESHOLD = 0.5  # of the noise, authors' implementation
MAX_LOG2_CELLS = 5  # up to 2⁵ lattice cells along an axis, authors' implementation
MAX_TURN_DEG = 90.0
MAX_TRIES = 64
FALLBACK_SHARE = 0.1


@dataclass(frozen=True)
class AnomalyMask:
    """Where an anomaly is.

    Attributes:
        pixel: (H, W) bool, on the model's pixels.
        patch: (h, w) bool, True for patches with an anomalous pixel; at least one.
    """

    pixel: BoolArray
    patch: BoolArray


def perlin_noise(shape_hw: tuple[int, int], cells_yx: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Perlin's gradient noise as (H, W) float32, within [-1, 1] and zero at lattice corners.

    Args:
        shape_hw: any size, also one that the cells do not divide.
        cells_yx: lattice cells along each axis.
        rng: draws one angle for each lattice corner.
    """
    angles = rng.random((cells_yx[0] + 1, cells_yx[1] + 1), dtype=np.float32) * np.float32(2 * math.pi)
    weights_y, slopes_y = _lattice(shape_hw[0], cells_yx[0])
    weights_x, slopes_x = _lattice(shape_hw[1], cells_yx[1])
    noise: FloatArray = slopes_y @ (np.cos(angles) @ weights_x.T) + weights_y @ (np.sin(angles) @ slopes_x.T)
    noise *= np.float32(math.sqrt(2))  # unit gradients reach at most √½, in the middle of a cell
    return noise


def thresholded_noise(shape_hw: tuple[int, int], rng: np.random.Generator) -> BoolArray:
    """One noise of random scale on each axis, turned by up to 90° (zeros come in), above the threshold; (H, W) bool."""
    return np.asarray(_turned_noise(shape_hw, rng) > THRESHOLD)


def combined(first: BoolArray, second: BoolArray, rng: np.random.Generator) -> BoolArray:
    """The union, the intersection or the first alone, a third of the time each."""
    choice = rng.random()
    if choice > 2 / 3:
        return first | second
    return first & second if choice > 1 / 3 else first


def perlin_mask(
    shape_hw: tuple[int, int], patch_hw: tuple[int, int], rng: np.random.Generator, foreground: BoolArray | None = None
) -> AnomalyMask:
    """A mask of two combined noises inside of the foreground, with at least one anomalous patch.

    Masks are drawn until one is not empty. Where the foreground is so small that many are, the top tenth of one noise
    inside of the foreground is taken instead.

    Args:
        shape_hw: model size.
        patch_hw: size of the patch map.
        foreground: (H, W) bool, where an anomaly may be; None is everywhere.

    Raises: ConfigError when the foreground is empty or of another size.
    """
    if foreground is not None:
        _check_foreground(foreground, shape_hw)
    for _ in range(MAX_TRIES):
        mask = combined(thresholded_noise(shape_hw, rng), thresholded_noise(shape_hw, rng), rng)
        if foreground is not None:
            mask = mask & foreground
        if mask.any():
            return AnomalyMask(mask, to_patches(mask, patch_hw))
    noise = _turned_noise(shape_hw, rng)
    inside = np.ones(shape_hw, np.bool_) if foreground is None else foreground
    mask = inside & (noise >= np.quantile(noise[inside], 1 - FALLBACK_SHARE))
    return AnomalyMask(mask, to_patches(mask, patch_hw))


def to_patches(mask: BoolArray, patch_hw: tuple[int, int]) -> BoolArray:
    """Which patches hold an anomalous pixel, (h, w) bool: adaptive max pooling, so no row or column is left out."""
    counts = _windows(mask.shape[0], patch_hw[0]) @ mask.astype(np.float32) @ _windows(mask.shape[1], patch_hw[1]).T
    return np.asarray(counts > 0)


def _turned_noise(shape_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    import cv2

    log2_y, log2_x = rng.integers(0, MAX_LOG2_CELLS + 1, 2)
    noise = perlin_noise(shape_hw, (2 ** int(log2_y), 2 ** int(log2_x)), rng)
    middle = (shape_hw[1] - 1) / 2, (shape_hw[0] - 1) / 2
    turn = cv2.getRotationMatrix2D(middle, float(rng.uniform(-MAX_TURN_DEG, MAX_TURN_DEG)), 1.0)
    return np.asarray(cv2.warpAffine(noise, turn, (shape_hw[1], shape_hw[0])), np.float32)


def _check_foreground(foreground: BoolArray, shape_hw: tuple[int, int]) -> None:
    if foreground.shape != tuple(shape_hw):
        raise ConfigError("foreground mask", [f"wanted {tuple(shape_hw)} (H, W), got {foreground.shape}"])
    if not foreground.any():
        raise ConfigError("foreground mask", ["empty, so no anomaly can lie in it; leave it out or give another"])


@lru_cache(maxsize=64)
def _lattice(n_pixels: int, n_cells: int) -> tuple[FloatArray, FloatArray]:
    """Weight of every lattice corner for every pixel, and weight times signed distance; both (pixels, cells + 1)."""
    position = np.arange(n_pixels) * (n_cells / n_pixels)
    cell = np.minimum(position.astype(np.intp), n_cells - 1)
    inside = position - cell
    fade = inside**3 * (inside * (6 * inside - 15) + 10)
    weights = np.zeros((n_pixels, n_cells + 1))
    slopes = np.zeros_like(weights)
    rows = np.arange(n_pixels)
    weights[rows, cell], weights[rows, cell + 1] = 1 - fade, fade
    slopes[rows, cell], slopes[rows, cell + 1] = (1 - fade) * inside, fade * (inside - 1)
    return weights.astype(np.float32), slopes.astype(np.float32)


@lru_cache(maxsize=16)
def _windows(n_pixels: int, n_patches: int) -> FloatArray:
    """Which pixels each patch covers, (patches, pixels) of 0 and 1, with the windows of adaptive pooling."""
    patch, pixel = np.arange(n_patches)[:, None], np.arange(n_pixels)[None, :]
    inside = (pixel >= patch * n_pixels // n_patches) & (pixel < -((patch + 1) * n_pixels // -n_patches))
    return np.asarray(inside, np.float32)
