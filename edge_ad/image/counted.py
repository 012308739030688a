"""What of a frame counts: polygons and masks in frame pixels, before any of it is brought to a model's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import Box

MaskArray = NDArray[np.bool_]
Corners = Sequence[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Counted:
    """What counts of the part of a frame that a model is shown; two are the same only when they are one object.

    Attributes:
        mask: (rows, columns) bool over that part, True where its pixels count; None where all of them do.
        least_area_px: least area of a defect in frame pixels; None where any area counts.
    """

    mask: MaskArray | None = field(repr=False)
    least_area_px: float | None = None

    def resampled(self, hw: tuple[int, int]) -> MaskArray:
        """The mask in `hw` pixels, each with what lies at its centre."""
        if self.mask is None:
            return np.ones(hw, np.bool_)
        if self.mask.shape == hw:
            return self.mask
        rows, columns = (
            ((np.arange(n) + 0.5) * (side / n)).astype(np.intp) for n, side in zip(hw, self.mask.shape, strict=True)
        )
        resampled: MaskArray = self.mask[rows[:, None], columns[None, :]]
        return resampled

    def corner_sums(self) -> NDArray[np.int32]:
        """(rows + 1, columns + 1): how many pixels count above and to the left of each corner of a pixel.

        Four bytes a pixel, so who asks keeps what it makes of them, and not these.
        """
        assert self.mask is not None
        sums = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1), np.int32)
        np.cumsum(self.mask, axis=0, out=sums[1:, 1:])
        np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
        return sums

    @cached_property
    def bounds(self) -> Box | None:
        """Smallest box that holds all that counts, in pixels of the part; None where that is all of it."""
        if self.mask is None:
            return None
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def polygons_mask(polygons: Sequence[Corners], frame_hw: tuple[int, int]) -> MaskArray:
    """(H, W) bool: True for the pixels whose centre lies inside of any polygon, by the even-odd rule.

    Args:
        polygons: corners (x, y) in pixels, (0, 0) being the outer corner of the first pixel.
    """
    height, width = frame_hw
    inside = np.zeros(frame_hw, np.bool_)
    for corners in polygons:
        toggles = np.zeros((height, width + 1), np.uint8)
        for (x_0, y_0), (x_1, y_1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            low, high = sorted((y_0, y_1))
            rows = np.arange(max(0, int(np.ceil(low - 0.5))), min(height, int(np.ceil(high - 0.5))))
            if len(rows):
                crossed = x_0 + (rows + 0.5 - y_0) * ((x_1 - x_0) / (y_1 - y_0))
                columns = np.clip(np.ceil(crossed - 0.5), 0, width).astype(np.intp)
                np.add.at(toggles, (rows, columns), 1)
        inside |= np.bitwise_and(np.cumsum(toggles[:, :width], axis=1, dtype=np.uint16), 1).astype(np.bool_)
    return inside
