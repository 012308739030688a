"""Defects drawn on good pictures, to try configurations against: no product looks like this, but what sees none of
these will see little of others.

The kinds are unlike in size and contrast on purpose, so that one which only sees large or garish ones falls behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray
from edge_ad.models.synthesis.perlin import thresholded_noise
from edge_ad.models.synthesis.textures import TexturePool

MaskArray = NDArray[np.bool_]
Draw = Callable[[ImageArray, "Sources", np.random.Generator], tuple[ImageArray, NDArray[np.float32]]]
"""Picture → what lies there in its place, and how much of it: (H, W, 3) uint8 and (H, W) float32, 0..1."""
SEEN = 0.25
"""Cover from which on a pixel counts as defective in the mask."""


class Sources:
    """What defects are made of.

    Attributes:
        others: other good pictures, (H, W, 3) uint8 each.
        textures: pictures of anything.
    """

    def __init__(self, others: Sequence[ImageArray], textures: TexturePool) -> None:
        self.others, self.textures = others, textures


def draw_defect(
    kind: str, image_hwc: ImageArray, sources: Sources, rng: np.random.Generator
) -> tuple[ImageArray, MaskArray]:
    """A good picture with one defect on it.

    Args:
        kind: of `KINDS`.
        image_hwc: (H, W, 3) uint8 RGB; it is not changed.

    Returns: (H, W, 3) uint8, and (H, W) bool where the defect is.
    """
    drawn, cover = KINDS[kind](image_hwc, sources, rng)
    mixed = image_hwc + (drawn.astype(np.float32) - image_hwc) * cover[:, :, None]
    return np.rint(mixed).clip(0, 255).astype(np.uint8), cover >= min(SEEN, float(cover.max()))


def _patch(image_hwc: ImageArray, sources: Sources, rng: np.random.Generator) -> tuple[ImageArray, Any]:
    """A piece of another good picture, turned, from another place: what is there belongs elsewhere."""
    height, width = image_hwc.shape[:2]
    other = cv2.resize(sources.others[int(rng.integers(len(sources.others)))], (width, height))
    angle = float(rng.uniform(30, 330))
    shift = rng.uniform(0.2, 0.8, 2) * (width, height)
    turned = cv2.warpAffine(
        other,
        cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0),
        (width, height),
        borderMode=cv2.BORDER_REFLECT,
    )
    moved = np.roll(np.asarray(turned, np.uint8), (int(shift[1]), int(shift[0])), (0, 1))
    return moved, _ellipse((height, width), rng, 0.04, 0.12)


def _texture(image_hwc: ImageArray, sources: Sources, rng: np.random.Generator) -> tuple[ImageArray, Any]:
    """Some of a texture, shining through by half: a stain."""
    shape_hw = image_hwc.shape[0], image_hwc.shape[1]
    cover = _ellipse(shape_hw, rng, 0.05, 0.15) * thresholded_noise(shape_hw, rng)
    if not cover.any():
        cover = _ellipse(shape_hw, rng, 0.05, 0.1)
    return sources.textures.sample(rng, shape_hw), cover * np.float32(rng.uniform(0.3, 0.7))


def _line(image_hwc: ImageArray, sources: Sources, rng: np.random.Generator) -> tuple[ImageArray, Any]:
    """A thin bent line, darker or lighter: a scratch, a crack, a hair."""
    height, width = shape_hw = image_hwc.shape[0], image_hwc.shape[1]
    side = min(shape_hw)
    at, direction = rng.uniform(0.15, 0.85, 2) * (width, height), float(rng.uniform(0, 2 * math.pi))
    points = [at]
    for _ in range(8):
        direction += float(rng.normal(0, 0.35))
        step = side * rng.uniform(0.15, 0.5) / 8
        points.append(points[-1] + step * np.array([math.cos(direction), math.sin(direction)]))
    cover = np.zeros(shape_hw, np.float32)
    thickness = max(1, round(side * float(rng.uniform(0.005, 0.02))))
    cv2.polylines(cover, [np.rint(np.array(points)).astype(np.int32)], False, 1.0, thickness, cv2.LINE_AA)
    return _shaded(image_hwc, cover, rng), cover


def _spot(image_hwc: ImageArray, sources: Sources, rng: np.random.Generator) -> tuple[ImageArray, Any]:
    """A few small soft spots, darker or lighter: pits, drops, dust."""
    shape_hw = image_hwc.shape[0], image_hwc.shape[1]
    first = _ellipse(shape_hw, rng, 0.015, 0.06)
    return _shaded(image_hwc, first, rng), first


KINDS: dict[str, Draw] = {"patch": _patch, "texture": _texture, "line": _line, "spot": _spot}


def _shaded(image_hwc: ImageArray, cover: NDArray[np.float32], rng: np.random.Generator) -> ImageArray:
    """The picture darker or lighter, by so much that it shows where it is covered."""
    level = float(image_hwc[cover > 0].mean()) if (cover > 0).any() else 128.0
    change = rng.uniform(25, 90)
    darker = level > 128 if min(level, 255 - level) < change else bool(rng.integers(2))
    return np.asarray((image_hwc + np.float32(-change if darker else change)).clip(0, 255), np.uint8)


def _ellipse(shape_hw: tuple[int, int], rng: np.random.Generator, least: float, most: float) -> NDArray[np.float32]:
    """Soft ellipse with radii of `least` to `most` of the shorter side: (H, W) float32, 0..1."""
    height, width = shape_hw
    y, x = rng.uniform(0.1, 0.9, 2) * shape_hw
    radii = np.maximum(1.0, rng.uniform(least, most, 2) * min(shape_hw))
    turn = rng.uniform(0, math.pi)
    down, across = np.mgrid[:height, :width].astype(np.float32)
    along = (across - x) * math.cos(turn) + (down - y) * math.sin(turn)
    beside = (down - y) * math.cos(turn) - (across - x) * math.sin(turn)
    far = np.hypot(along / radii[0], beside / radii[1])
    return np.asarray(((1.3 - far) / 0.6).clip(0, 1), np.float32)
