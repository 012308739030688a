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

SLACK = 1e-9  # an area that was rounded is not one cell more


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


def _highest(values: NDArray[np.float32], least: int) -> float:
    flat = values.ravel()
    count = int(np.isfinite(flat).sum())
    lowest = -np.inf
    if least <= count:
        most = np.partition(flat, len(flat) - least)[len(flat) - least]  # so many cells have to reach the level
        lowest = _of_squares(values, least)
        levels = np.unique(flat[(flat >= lowest) & (flat <= most) & np.isfinite(flat)])
        low, high = -1, len(levels) - 1
        while low < high:  # the level sought is `levels[low]` or above, and not above `levels[high]`
            middle = (low + high + 1) // 2
            if _has_area(values >= levels[middle], least):
                low = middle
            else:
                high = middle - 1
        if low >= 0:
            return float(levels[low])
    raise ImageError(
        f"the least area of a defect is {least} cells of the model's grid, and nothing that is inspected has so much;"
        " lower the least area, or inspect more"
    )


def _of_squares(values: NDArray[np.float32], least: int) -> float:
    """A level that an area has for sure: that of the best square of so many cells; -inf where none fits."""
    import cv2

    side = math.isqrt(least - 1) + 1
    if side > min(values.shape):
        return -math.inf
    lowest = cv2.erode(values, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=-math.inf)
    return float(lowest.max())


def _has_area(inside: MaskArray, least: int) -> bool:
    import cv2

    _, _, stats, _ = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8)
    return bool((stats[1:, cv2.CC_STAT_AREA] >= least).any())
