"""Where the object is, so that synthetic anomalies lie on it: found without labels, or everywhere when in doubt.

What the background looks like is taken from the border of the image: its median colour, and how far the border strays
from that. Pixels that clearly differ from it and hang together in large pieces are the
object. A texture (carpet, leather) fills its own border, so nothing differs and everything is foreground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_ad.image.frame import ImageArray
from edge_ad.models.synthesis.perlin import BoolArray, FloatArray

WORKING_SIDE = 256
BORDER_SHARE = 0.04
MAX_SPREADS = 4.0
MIN_SPREAD_LEVELS = (4.0, 2.5, 2.5)
"""Of L, a, b in OpenCV's 8-bit scale: camera noise and JPEG stay below MAX_SPREADS times these."""
OTSU_SHARE = 0.7
"""Of the level that best splits the differences in two; shadows and uneven light stay below that."""
MIN_PIECE_SHARE = 0.1  # of the largest piece
MIN_PIECE_AREA = 0.01  # of the image; speckles are a texture
AREA_RANGE = (0.05, 0.95)
MAX_BORDER_SHARE = 0.35
MAX_PIECE_IN_BORDER = 0.25
"""A piece with more of its area in the border than that is the edge of a tray or a shadow, not the object."""
FIRMER = 1.4
MIN_CORE_SHARE = 0.7
"""Of the object's area that stays when FIRMER times the difference is asked for; uneven light has no such edge."""
MIN_AGREEMENT = 0.8


@dataclass(frozen=True)
class Foreground:
    """Where the object is in one image.

    Attributes:
        mask: (H, W) bool.
        reason: how it was found, or why everything is foreground.
        found: False when everything is foreground.
    """

    mask: BoolArray
    reason: str
    found: bool


def foreground_mask(image_hwc: ImageArray) -> Foreground:
    """The object in one image, or everything.

    Args:
        image_hwc: (H, W, 3) uint8 RGB without padding, for padding would be taken for the background.
    """
    import cv2

    height, width = image_hwc.shape[:2]
    scale = min(1.0, WORKING_SIDE / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA), np.uint8)
    spreads, level = _spreads_from_border(small)
    pieces, core = (_large_pieces(spreads > factor * level) for factor in (1.0, FIRMER))
    mask = np.asarray(cv2.resize(pieces.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0)
    border = _border(pieces.shape)
    area, on_border = float(mask.mean()), float(pieces[border].mean())
    if not AREA_RANGE[0] <= area <= AREA_RANGE[1]:
        return _everything(mask.shape, f"what differs from the border is {area:.0%} of the image")
    if on_border > MAX_BORDER_SHARE:
        return _everything(mask.shape, f"what differs from the border's colour covers {on_border:.0%} of the border")
    if core.sum() < MIN_CORE_SHARE * pieces.sum():
        return _everything(mask.shape, "what differs from the border's colour has no clear edge")
    return Foreground(mask, f"differs from the border's colour, {area:.0%} of the image", True)


def foreground_masks(images: Sequence[ImageArray]) -> tuple[Foreground, ...]:
    """The object in each of a set of good images; everywhere in all of them unless it is found in four of five.

    Where it is found in most images, those without it stay everywhere.
    """
    masks = tuple(foreground_mask(image) for image in images)
    n_found = sum(mask.found for mask in masks)
    if n_found == len(masks) or n_found >= MIN_AGREEMENT * len(masks):
        return masks
    reason = f"an object stands out in {n_found} of {len(masks)} images only"
    return tuple(_everything(mask.mask.shape, reason) for mask in masks)


def _everything(shape_hw: tuple[int, ...], reason: str) -> Foreground:
    return Foreground(np.ones(shape_hw, np.bool_), f"everything is foreground: {reason}", False)


def _border(shape_hw: tuple[int, ...]) -> BoolArray:
    width = max(1, round(BORDER_SHARE * min(shape_hw)))
    border = np.ones(shape_hw, np.bool_)
    border[width:-width, width:-width] = False
    return border


def _spreads_from_border(image_hwc: ImageArray) -> tuple[FloatArray, float]:
    """How far each pixel is from the border's median colour, and how far noise, uneven light and shadows take it.

    The distance of each channel of CIE Lab is counted in spreads of the border, so that a background that is lit
    unevenly counts by its steady colour more than by its lightness.
    """
    import cv2

    lab = cv2.cvtColor(cv2.GaussianBlur(image_hwc, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(np.float32)
    border = lab[_border(lab.shape[:2])]
    median = np.median(border, axis=0)
    spread = 1.4826 * np.median(np.abs(border - median), axis=0)  # of a normal distribution, its standard deviation
    spreads = (np.abs(lab - median) / np.maximum(spread, MIN_SPREAD_LEVELS)).max(axis=2)
    eighths = np.clip(spreads * 8, 0, 255).astype(np.uint8)
    split, _ = cv2.threshold(eighths, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.asarray(spreads, np.float32), max(MAX_SPREADS, OTSU_SHARE * split / 8)


def _large_pieces(different: BoolArray) -> BoolArray:
    """Connected pieces that are not small, with gaps closed and holes filled; slightly widened."""
    import cv2

    side = min(different.shape)
    closing = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(3, side // 32) | 1,) * 2)
    opening = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(3, side // 64) | 1,) * 2)
    mask = cv2.morphologyEx(different.astype(np.uint8), cv2.MORPH_OPEN, opening)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, closing)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return np.zeros(different.shape, np.bool_)
    areas = np.asarray(stats[1:, cv2.CC_STAT_AREA], np.int32)
    in_border = np.bincount(labels[_border(mask.shape)], minlength=count)[1:]
    areas = np.where(in_border > MAX_PIECE_IN_BORDER * areas, 0, areas)
    kept = np.flatnonzero(areas > max(MIN_PIECE_SHARE * areas.max(), MIN_PIECE_AREA * mask.size)) + 1
    mask = np.isin(labels, kept).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, contours, -1, 1, cv2.FILLED)
    return np.asarray(cv2.dilate(mask, opening) > 0)
