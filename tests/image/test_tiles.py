"""Maps of tiles joined outside of graphs: as those inside of them are, and without a seam."""

from __future__ import annotations

import numpy as np
import pytest

from edge_ad.bundle.tiles import TileGrid
from edge_ad.errors import ConfigError
from edge_ad.image.tiles import joined_map, shared_cells


@pytest.mark.parametrize("numbers", [(1, 3, 64, 96, 32), (3, 2, 96, 64, 32), (2, 3, 128, 128, 96), (1, 1, 64, 64, 32)])
@pytest.mark.parametrize("stride", [4, 8, 32])
def test_what_is_cut_and_joined_is_what_it_was(numbers: tuple[int, ...], stride: int) -> None:
    grid = TileGrid(*numbers)
    rows, columns = (side // stride for side in grid.canvas_hw)
    whole = np.arange(2 * rows * columns, dtype=np.float32).reshape(2, rows, columns)
    height, width = (side // stride for side in grid.tile_hw)
    tiles = [whole[:, y : y + height, x : x + width] for y, x in ((t // stride, s // stride) for t, s in grid.origins)]
    shared = shared_cells(grid, (height, width))
    assert shared == (grid.overlap // stride,) * 2
    assert np.array_equal(joined_map(np.stack(tiles), grid, shared), whole)


def test_each_tile_is_heard_in_its_middle() -> None:
    tiles = np.stack([np.full((8, 8), number) for number in range(3)])
    joined = joined_map(tiles, TileGrid(1, 3, 64, 64, 32), (4, 4))
    assert joined.shape == (8, 16) and joined[5].tolist() == [0] * 6 + [1] * 4 + [2] * 6


def test_patches_that_lie_on_no_common_grid() -> None:
    with pytest.raises(ConfigError, match=r"tile_overlap: 32 pixels are 4.5 of the 9 patches along a tile of 64"):
        shared_cells(TileGrid(1, 2, 64, 64, 32), (9, 9))
    assert shared_cells(TileGrid(1, 2, 256, 256, 64), (56, 56), 16) == (8, 8)
