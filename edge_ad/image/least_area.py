"""Least area of a defect: the highest level that an area of so many cells has, and the areas at a level.

The first is the maximum of the map's area opening (Vincent, "Morphological area openings and closings for grey-scale
images", 1993). A frame is anomalous from a threshold on exactly when there is an area of that size from it on, so
score, verdict, regions and masks cannot contradict each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import ImageError
from edge_ad.image.cells import Cells
from edge_ad.image.counted import MaskArray
from edge_ad.image.geometry import FrameGeometry

FEW_LEVELS = 64  # which are sorted; the others are left out by halves of their range
SLACK = 1e-9  # an area that was rounded is not one cell more

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Area:
    """An 8-connected area of cells: the box of it (maxima exclusive), its cells within that box, and how many."""

    box: tuple[int, int, int, int]
    cells: MaskArray
    count: int


def least_cells(map_hw: tuple[int, ...], geometry: FrameGeometry) -> int:
    """Least area of a defect in cells of a map of `map_hw` over the model's canvas; 1 where any area counts."""
    least = None if geometry.counts is None else geometry.counts.least_area_px
    if least is None:
        return 1
    (rows, columns), (height, width) = map_hw, geometry.model_hw
    cell_px = geometry.scale_y * height / rows * geometry.scale_x * width / columns
    return max(1, math.ceil(least / cell_px * (1 - SLACK)))


def areas(inside: MaskArray, least: int) -> Iterator[Area]:
    """The 8-connected areas of a mask that have at least `least` cells, in no order that matters."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8)
    for index in np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= least) + 1:
        left, top, width, height, count = (int(value) for value in stats[index])
        cells = labels[top : top + height, left : left + width] == index
        yield Area((left, top, left + width, top + height), np.asarray(cells), count)


def highest_level(values: NDArray[np.float32], cells: Cells, least: int) -> float:
    """Highest level at or above which `least` cells of a map that count lie connected (8 neighbours); exact.

    Args:
        values: (h, w) float32, finite where cells count.
        cells: which of them count.
        least: at least 1.

    Raises: ImageError when no area has so many cells, whatever the level.
    """
    part, counted = values[cells.part], cells.within_part()
    if counted is not None:
        part = np.where(counted, part, -np.inf)
    return _highest(np.ascontiguousarray(part, np.float32), least)


def _highest(values: Float32Array, least: int) -> float:
    """Bisection: first over the range of values, then over the values themselves, in what is left of the map each time.

    At all times areas of `least` cells exist at `low`, which is a value of the map, and none from `high` on.
    """
    low, high = _of_squares(values, least), math.inf
    if low == -math.inf:  # no square of so many cells fits, but some other form may
        low = float(values.min(initial=math.inf, where=np.isfinite(values)))
    part = _within_areas(values, low, least)
    if part is None:
        raise ImageError(
            f"the least area of a defect is {least} cells of the model's grid, and nothing that is inspected has so"
            " much; lower the least area, or inspect more"
        )
    while True:
        low = float(part.min(initial=math.inf, where=np.isfinite(part)))
        between = part[(part > low) & (part < high)]
        if len(between) <= FEW_LEVELS:
            break
        middle = float(np.float32(low / 2 + min(high, float(between.max())) / 2))
        if not low < middle < high:
            break
        smaller = _within_areas(part, middle, least)
        if smaller is None:
            high = middle
        else:
            part = smaller
    levels = np.unique(between)
    first, last = -1, len(levels) - 1
    while first < last:
        index = (first + last + 1) // 2
        if _within_areas(part, float(levels[index]), least) is not None:
            first = index
        else:
            last = index - 1
    return low if first < 0 else float(levels[first])


def _of_squares(values: Float32Array, least: int) -> float:
    """A level that an area has for sure: that of the best square of so many cells; -inf where none fits."""
    import cv2

    side = math.isqrt(least - 1) + 1
    if side > min(values.shape):
        return -math.inf
    lowest = cv2.erode(values, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=-math.inf)
    return float(lowest.max())


def _within_areas(values: Float32Array, level: float, least: int) -> Float32Array | None:
    """The box of a map that holds its areas of so many cells at a level, -inf outside of them; None without one."""
    import cv2

    inside = values >= np.float32(level)
    if np.count_nonzero(inside) < least:
        return None
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    kept = stats[:, cv2.CC_STAT_AREA] >= least
    kept[0] = False
    if not kept.any():
        return None
    corners, sizes = stats[kept, :2], stats[kept, 2:4]
    (left, top), (right, bottom) = corners.min(axis=0), (corners + sizes).max(axis=0)
    box = slice(int(top), int(bottom)), slice(int(left), int(right))
    return np.where(kept[labels[box]], values[box], np.float32(-np.inf))
