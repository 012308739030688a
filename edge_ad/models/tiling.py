"""Pictures cut into tiles in front of a network, and what it says of them joined to one answer, inside of the graph.

Tiles of one picture are consecutive in the batch, row by row. Every engine computes them as so many pictures at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_ad.bundle.tiles import TileGrid
from edge_ad.image.tiles import half_of, shared_cells


class Tiling(nn.Module):
    """Cutting and joining for one grid.

    Args:
        patch_hw: of the network's answer to a tile.
        border: pixels along the edge of a tile of which the network's patches say nothing.

    Attributes:
        patch_hw: of the answer to the canvas.
        size_hw: of the canvas.

    Raises: ConfigError where patches of neighbours do not lie on one grid.
    """

    def __init__(self, grid: TileGrid, patch_hw: tuple[int, int], border: int = 0) -> None:
        super().__init__()
        self._grid, self._tile_patch_hw = grid, patch_hw
        self._patches = shared = shared_cells(grid, patch_hw, border)
        self._pixels = grid.overlap, grid.overlap
        self.size_hw = grid.canvas_hw
        self.patch_hw = (
            grid.rows * patch_hw[0] - (grid.rows - 1) * shared[0],
            grid.columns * patch_hw[1] - (grid.columns - 1) * shared[1],
        )

    def cut(self, canvas: Tensor) -> Tensor:
        """(N, H, W, 3) → (N·T, h, w, 3)."""
        height, width = self._grid.tile_hw
        tiles = [canvas[:, top : top + height, left : left + width] for top, left in self._grid.origins]
        return torch.stack(tiles, dim=1).reshape(-1, height, width, 3)

    def joined(
        self, patches: Tensor, anomaly_map: Tensor | None, score: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Answers to N·T tiles → answers to N pictures; the score is that of the tile with the highest."""
        whole = None if anomaly_map is None else self._join(anomaly_map, self._grid.tile_hw, self._pixels)
        highest = None if score is None else score.reshape(-1, self._grid.count).amax(1)
        return self._join(patches, self._tile_patch_hw, self._patches), whole, highest

    def _join(self, maps: Tensor, tile_hw: tuple[int, int], shared: tuple[int, int]) -> Tensor:
        """(N·T, h, w) → (N, H, W)."""
        rows, columns = self._grid.rows, self._grid.columns
        (height, width), (down, across) = tile_hw, shared
        lines = maps.reshape(-1, rows, columns, height, width).permute(0, 1, 3, 2, 4)
        wide = _behind(lines.reshape(-1, columns, width, 1), (columns, width, 1), across)
        whole_width = columns * width - (columns - 1) * across
        return _behind(wide.reshape(-1, rows, height, whole_width), (rows, height, whole_width), down)


def _behind(parts: Tensor, sizes: tuple[int, int, int], shared: int) -> Tensor:
    """(N, n, side, k) → (N, n·side - (n - 1)·shared, k): of a strip that two share, each gives its half.

    What parts give is of one length but for the two ends, so that one reshape puts it behind each other.

    Args:
        sizes: n, side and k, which are numbers in the graph.
    """
    count, side, depth = sizes
    first = half_of(shared)
    last = first + side - shared
    pieces = [parts[:, :, first:last].reshape(-1, count * (side - shared), depth)]
    if first:
        pieces.insert(0, parts[:, :1, :first].reshape(-1, first, depth))
    if last < side:
        pieces.append(parts[:, count - 1 :, last:].reshape(-1, side - last, depth))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
