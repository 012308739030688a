"""Whether a camera gives the same picture again: what its noise makes impossible while it really looks."""

from __future__ import annotations

import numpy as np

from edge_ad.image.frame import ImageArray

SAMPLED_ROWS = 16
BLOCK_ROWS = 128


class Repeats:
    """Compares each picture with the one before it, bit by bit; keeps that one."""

    def __init__(self) -> None:
        self._last: ImageArray | None = None

    def is_repeat(self, image_hwc: ImageArray) -> bool:
        """Whether `image_hwc` (H, W, 3) uint8 equals the picture before it in every bit.

        A few rows are looked at first: in pictures that differ they almost always do. Only equality of all of it
        counts, since a repeat is not judged.
        """
        last, self._last = self._last, image_hwc
        if last is None or last.shape != image_hwc.shape or last.dtype != image_hwc.dtype:
            return False
        step = max(1, len(image_hwc) // SAMPLED_ROWS)
        if not np.array_equal(last[::step], image_hwc[::step]):
            return False
        blocks = range(0, len(image_hwc), BLOCK_ROWS)
        return all(np.array_equal(last[at : at + BLOCK_ROWS], image_hwc[at : at + BLOCK_ROWS]) for at in blocks)
