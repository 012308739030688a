"""Which picture is which, written into its pixels so that it survives the resize to the model's input."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray
from edge_ad.image.geometry import FrameGeometry

ROWS, COLUMNS = 6, 8
LANE_BITS, NUMBER_BITS, CHECK_BITS = 8, 28, 12
DARK, LIGHT = 20, 90  # grey levels of a cell; below what the fake engine could take for an anomaly
MIDDLE = (DARK + LIGHT) // 2
DIMMED = 3  # what else is in the picture is darkened by this factor
LEVELS = range(130, 250)  # of the patch whose brightness is the fake engine's score
CODE = (0.15, 0.35, 0.85, 0.85)  # x_min, y_min, x_max, y_max as shares of the frame; what centre crops leave
PATCH = (0.15, 0.13, 0.85, 0.32)


@dataclass(frozen=True)
class Fingerprint:
    """The number of one picture of one camera."""

    lane: int
    number: int

    def __str__(self) -> str:
        return f"{self.lane}-{self.number}"

    @property
    def level(self) -> int:
        """Grey level of the patch: other for each of many pictures in a row, and for each camera."""
        return LEVELS[(37 * self.number + 53 * self.lane) % len(LEVELS)]


def stamp(image_hwc: ImageArray, fingerprint: Fingerprint) -> None:
    """Write a fingerprint into the middle of a picture (H, W, 3) uint8, and darken the rest."""
    image_hwc //= DIMMED
    value = fingerprint.lane << NUMBER_BITS | fingerprint.number
    value = value << CHECK_BITS | _check(value)
    bits = np.array([value >> place & 1 for place in range(ROWS * COLUMNS)], bool).reshape(ROWS, COLUMNS)
    x_min, y_min, x_max, y_max = _pixels(CODE, image_hwc)
    rows = np.arange(y_max - y_min) * ROWS // (y_max - y_min)
    columns = np.arange(x_max - x_min) * COLUMNS // (x_max - x_min)
    cells = np.where(bits, LIGHT, DARK).astype(np.uint8)
    image_hwc[y_min:y_max, x_min:x_max] = cells[np.ix_(rows, columns)][..., None]
    x_min, y_min, x_max, y_max = _pixels(PATCH, image_hwc)
    image_hwc[y_min:y_max, x_min:x_max] = fingerprint.level


def read(image_hwc: ImageArray, geometry: FrameGeometry | None = None) -> Fingerprint | None:
    """The fingerprint of a picture, or None where there is none.

    Args:
        image_hwc: (H, W, 3) uint8: the frame, or a model input.
        geometry: where the model input lies in the frame.
    """
    height, width = image_hwc.shape[:2] if geometry is None else geometry.frame_hw
    x_min, y_min, x_max, y_max = _scaled(CODE, height, width)
    ys = y_min + (np.arange(ROWS) + 0.5) / ROWS * (y_max - y_min)
    xs = x_min + (np.arange(COLUMNS) + 0.5) / COLUMNS * (x_max - x_min)
    if geometry is not None:
        ys, xs = ys / geometry.scale_y - geometry.top, xs / geometry.scale_x - geometry.left
    inside: NDArray[np.uint8] = image_hwc[np.ix_(ys.astype(int), xs.astype(int))][..., 1]
    value = sum(1 << place for place in np.flatnonzero(inside.ravel() > MIDDLE).tolist())
    value, check = value >> CHECK_BITS, value & (1 << CHECK_BITS) - 1
    if check != _check(value):
        return None
    return Fingerprint(value >> NUMBER_BITS, value & (1 << NUMBER_BITS) - 1)


def _check(value: int) -> int:
    return zlib.crc32(value.to_bytes(8, "big")) & (1 << CHECK_BITS) - 1


def _scaled(box: tuple[float, float, float, float], height: int, width: int) -> tuple[float, float, float, float]:
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def _pixels(box: tuple[float, float, float, float], image_hwc: ImageArray) -> tuple[int, int, int, int]:
    x_min, y_min, x_max, y_max = _scaled(box, *image_hwc.shape[:2])
    return round(x_min), round(y_min), round(x_max), round(y_max)
