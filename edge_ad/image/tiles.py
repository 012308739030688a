"""What was said of the tiles of a picture, joined to what it says of the picture; in graphs `edge_ad.models.tiling`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.tiles import TileGrid
from edge_ad.errors import ConfigError


def shared_cells(grid: TileGrid, map_hw: tuple[int, int], border: int = 0) -> tuple[int, int]:
    """Rows and columns of their maps that neighbouring tiles share.

    Args:
        map_hw: of the map of one tile.
        border: pixels along the edge of a tile of which its map says nothing.

    Raises: ConfigError where that is no whole number.
    """
    found = []
    for tile, cells in zip(grid.tile_hw, map_hw, strict=True):
        seen, twice = tile - 2 * border, grid.overlap - 2 * border
        count, rest = divmod(twice * cells, seen)
        if rest or count < 0:
            raise ConfigError(
                "tile_overlap",
                [
                    f"{grid.overlap} pixels are {twice * cells / seen:.3g} of the {cells} patches along a tile of"
                    f" {tile} pixels; wanted a whole number of them"
                ],
            )
        found.append(count)
    return found[0], found[1]


def joined_map(tiles: NDArray[Any], grid: TileGrid, shared: tuple[int, int]) -> NDArray[Any]:
    """Maps of all tiles, row by row, as the one of the picture: of a strip that two share, each gives its half.

    Args:
        tiles: (T, …, h, w).
        shared: see `shared_cells`; of a map in pixels the overlap.

    Returns: (…, H, W) in a new array.
    """
    *_, height, width = tiles.shape
    down, across = height - shared[0], width - shared[1]
    shape = (*tiles.shape[1:-2], height + (grid.rows - 1) * down, width + (grid.columns - 1) * across)
    whole = np.empty(shape, tiles.dtype)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, grid.columns)
        top, left = (half_of(count) if place else 0 for count, place in zip(shared, (row, column), strict=True))
        # What a later tile says takes the place of what this one says of the strip's second half.
        whole[..., row * down + top : row * down + height, column * across + left : column * across + width] = tile[
            ..., top:, left:
        ]
    return whole


def half_of(shared: int) -> int:
    """Where in a strip that two tiles share the second one begins to be heard."""
    return shared - shared // 2
