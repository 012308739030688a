"""Which cells of a map over the model's canvas count: not padding, nor what is masked out, nor beyond the frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import ImageError
from edge_ad.image.counted import Counted, MaskArray
from edge_ad.image.geometry import FrameGeometry

Value = TypeVar("Value", bound=np.generic)
SLACK = 1e-9  # of the area of a cell: a half that was rounded is a half
KEPT = 32  # geometries whose cells are kept; a part that moves beyond the frame has one for each place


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a map that count.

    Attributes:
        part: rows and columns that show some of the frame; the rest is padding.
        mask: (h, w) bool over the whole map, False outside of `part`; None where all of `part` counts.
    """

    part: tuple[slice, slice]
    mask: MaskArray | None

    def values(self, map_hw: NDArray[Value]) -> NDArray[Value]:
        """What counts of a map (h, w): a view (rows, columns) of it, or (n,) where a mask chooses."""
        return map_hw[self.part] if self.mask is None else map_hw[self.mask]

    def within_part(self) -> MaskArray | None:
        """The mask over `part` alone; None where all of it counts."""
        return None if self.mask is None else self.mask[self.part]

    def whole(self, map_hw: tuple[int, ...]) -> MaskArray:
        """(h, w) bool of the cells that count."""
        if self.mask is not None:
            return self.mask
        cells = np.zeros(map_hw, np.bool_)
        cells[self.part] = True
        return cells


def shown_part(map_hw: tuple[int, ...], geometry: FrameGeometry) -> tuple[slice, slice]:
    """Rows and columns that show some of the frame, of a map of `map_hw` cells over the model's canvas."""
    (rows, columns), (height, width) = map_hw, geometry.model_hw
    x_min, y_min, x_max, y_max = geometry.content_box
    return (
        slice(y_min * rows // height, -(-y_max * rows // height)),
        slice(x_min * columns // width, -(-x_max * columns // width)),
    )


def counted_cells(map_hw: tuple[int, int], geometry: FrameGeometry) -> Cells:
    """The cells that count, of a map of `map_hw` cells over the model's canvas.

    A cell counts that shows some of the frame, of whose frame pixels at least half count; where neither it nor any of
    its eight neighbours has a half, those of them that have most: what is narrower than a cell is inspected, too.

    Raises: ImageError when nothing of what counts is seen by the model.
    """
    return _counted_cells(map_hw, _wherever(geometry))


def nearest_counted(map_hw: tuple[int, int], geometry: FrameGeometry) -> NDArray[np.intp]:
    """(h, w) for each cell of a map the flat index of the nearest one that counts: its own where it counts."""
    return _nearest_counted(map_hw, _wherever(geometry))


def _wherever(geometry: FrameGeometry) -> FrameGeometry:
    """The same for every place in the frame: a part that moves is at another one every time, with the same cells."""
    return replace(geometry, frame_hw=geometry.region_hw, roi=None) if geometry.is_inside else geometry


@lru_cache(maxsize=KEPT)
def _counted_cells(map_hw: tuple[int, int], geometry: FrameGeometry) -> Cells:
    part = shown_part(map_hw, geometry)
    cells = None
    if geometry.counts is not None and geometry.counts.mask is not None:
        cells = _masked(map_hw, replace(geometry, frame_hw=geometry.region_hw, roi=None), geometry.counts)
    if not geometry.is_inside:
        seen = np.outer(*_seen(map_hw, geometry))
        cells = seen if cells is None else cells & seen
        if not cells.any():
            raise ImageError("nothing of what is inspected lies in the frame; correct the regions, or the alignment")
    return Cells(part, cells)


@lru_cache(maxsize=KEPT)
def _nearest_counted(map_hw: tuple[int, int], geometry: FrameGeometry) -> NDArray[np.intp]:
    cells = counted_cells(map_hw, geometry).whole(map_hw)
    height, width = cells.shape
    rows = np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(cells, rows, -(4 * (height + width))), axis=0)
    below = np.minimum.accumulate(np.where(cells, rows, 5 * (height + width))[::-1], axis=0)[::-1]
    nearest = np.where(rows - above <= below - rows, above, below)  # of the cell's own column
    far = (rows - nearest).astype(np.int64) ** 2
    across = (np.arange(width)[:, None] - np.arange(width)[None, :]).astype(np.int64) ** 2
    index = np.empty(cells.shape, np.intp)
    for row in range(height):
        columns = (across + far[row][None, :]).argmin(axis=1)
        index[row] = nearest[row, columns] * width + columns
    return index


@lru_cache(maxsize=KEPT)
def _masked(map_hw: tuple[int, int], geometry: FrameGeometry, counts: Counted) -> MaskArray:
    y_edges, x_edges = _edges(map_hw, geometry)
    sums = _between(_between(counts.corner_sums(), y_edges, 0), x_edges, 1)
    counted = np.diff(np.diff(sums, axis=0), axis=1)
    area = np.outer(np.diff(y_edges), np.diff(x_edges))
    shown = np.zeros(map_hw, np.bool_)
    shown[shown_part(map_hw, geometry)] = True
    share = np.where(shown & (area > 0), counted / np.maximum(area, SLACK), 0.0)
    if share.max() <= SLACK:
        raise ImageError(
            "nothing of what is inspected lies in the part of the frame that the model sees; correct the regions, or"
            " train and export with --resize-mode stretch or letterbox"
        )
    cells: MaskArray = (share > SLACK) & (share >= np.minimum(0.5, _largest_around(share)) - SLACK)
    return cells


def _largest_around(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest of each value and its eight neighbours."""
    rows, columns = values.shape
    padded = np.pad(values, 1)
    around = [padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
    return np.asarray(np.max(around, axis=0), np.float64)


def _edges(map_hw: tuple[int, int], geometry: FrameGeometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges of the cells of both axes in pixels of the part of the frame that was resized, clipped to it."""
    offsets, scales = (geometry.top, geometry.left), (geometry.scale_y, geometry.scale_x)
    edges = [
        np.clip((np.arange(n + 1) * (length / n) + offset) * scale, 0, side)
        for n, length, offset, scale, side in zip(
            map_hw, geometry.model_hw, offsets, scales, geometry.region_hw, strict=True
        )
    ]
    return edges[0], edges[1]


def _between(sums: NDArray[Any], edges: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Running sums at edges that may lie between two pixels, where they rise evenly."""
    low = np.minimum(edges.astype(np.intp), sums.shape[axis] - 2)
    share = np.expand_dims(edges - low, 1 - axis)
    return np.asarray(sums.take(low, axis) * (1 - share) + sums.take(low + 1, axis) * share)


def _seen(map_hw: tuple[int, int], geometry: FrameGeometry) -> tuple[MaskArray, MaskArray]:
    """Rows and columns of a map of which at least half lies in the frame, where a part has moved beyond its edge."""
    axes = []
    for edges, first, length, part in zip(
        _edges(map_hw, geometry),
        (geometry.region[1], geometry.region[0]),
        geometry.frame_hw,
        shown_part(map_hw, geometry),
        strict=True,
    ):
        inside = np.diff(np.clip(edges + first, 0, length))
        seen = (inside >= np.diff(edges) / 2 - SLACK) & (inside > 0)
        seen[: part.start] = seen[part.stop :] = False
        axes.append(seen)
    return axes[0], axes[1]
