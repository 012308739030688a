"""Pictures of Pillow as arrays. Large ones are converted strip by strip: a whole copy takes four bytes a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_ad.image.frame import ImageArray

if TYPE_CHECKING:
    from PIL.Image import Image

STRIP_BYTES = 4 << 20


def as_rgb(picture: Image) -> ImageArray:
    """A picture that Pillow can convert, as (H, W, 3) uint8."""
    return in_strips(picture, "RGB", slice(0, 3))


def in_strips(picture: Image, mode: str, channels: slice) -> ImageArray:
    """Some channels of a picture in another mode, without a whole copy of it in that mode."""
    width, height = picture.size
    rows = rows_of_strip(width)
    if rows >= height:
        return np.array(np.asarray(picture.convert(mode))[:, :, channels], dtype=np.uint8)
    found = np.empty((height, width, channels.stop - channels.start), np.uint8)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height))).convert(mode)
        found[top : top + rows] = np.asarray(strip)[:, :, channels]
    return found


def rows_of_strip(width: int) -> int:
    """How many rows are converted at once."""
    return max(1, STRIP_BYTES // (4 * width))
