"""A picture whose tiles have changed places: a defect of structure, of the part's own colours (after MemSeg)."""

from __future__ import annotations

import numpy as np

from edge_ad.image.frame import ImageArray

TILES = 16  # along an axis, the authors' figure


def shuffled_tiles(image_hwc: ImageArray, rng: np.random.Generator, tiles: int = TILES) -> ImageArray:
    """A new (H, W, 3) uint8 picture of the tiles of one, in a drawn order.

    Where the sides are no multiples of `tiles`, the last rows and columns are repeated for it and cut off afterwards.
    """
    height, width, channels = image_hwc.shape
    rows, columns = -(-height // tiles), -(-width // tiles)
    padding = (0, rows * tiles - height), (0, columns * tiles - width), (0, 0)
    padded = np.pad(image_hwc, padding, mode="edge")
    cut = padded.reshape(tiles, rows, tiles, columns, channels).swapaxes(1, 2)
    order = rng.permutation(tiles * tiles)
    moved = cut.reshape(-1, rows, columns, channels)[order].reshape(cut.shape).swapaxes(1, 2)
    return np.ascontiguousarray(moved.reshape(padded.shape)[:height, :width])


def shuffled_grid(image_hwc: ImageArray, rng: np.random.Generator, cells: int = 8) -> ImageArray:
    """A new (H, W, 3) uint8 picture whose rows and columns of cells have changed places (DiffusionAD).

    Rows go anywhere; columns with an even number, and those with an odd one, change among themselves. Where the sides
    are no multiples of `cells`, the picture is repeated at its edge for it and cut off afterwards.
    """
    height, width, _ = image_hwc.shape
    rows, columns = -(-height // cells), -(-width // cells)
    padding = (0, rows * cells - height), (0, columns * cells - width), (0, 0)
    padded = np.pad(image_hwc, padding, mode="edge")
    across, down = np.arange(cells), rng.permutation(cells)
    for first in (0, 1):
        across[first::2] = rng.permutation(across[first::2])
    y = (down[:, None] * rows + np.arange(rows)).ravel()
    x = (across[:, None] * columns + np.arange(columns)).ravel()
    return np.ascontiguousarray(padded[y][:, x][:height, :width])
