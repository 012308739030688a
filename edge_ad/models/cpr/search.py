"""The local search in the form that runs fastest with standard operators: one product of matrices for each small tile.

The bank is cut into tiles of 4×4 cells, in advance, and those of the chosen pictures lie behind each other: a product
with the query's cells on and around the tile gives all cosines that are wanted and some that are not. Cells of a tile
lie together, so nothing is copied but the tiles of the chosen pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.models.cpr.config import BankType

TILE = 4  # cells; of 2, 3, 4, 5 and 8 it is the fastest on a CPU with AVX-512
NOT_NEAR = -8.0  # added to a cosine that does not count
ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1}
INT8_MOST = 127
LEAST_STEP = 1e-12  # of a channel that is 0 everywhere


@dataclass(frozen=True)
class TileGrid:
    """Cells of a grid in tiles, by their place in the grid (row · width + column).

    A tile that reaches beyond the grid repeats its last cells there: they are neighbours of the same cells.

    Attributes:
        inside: (tiles, TILE²), cells of each tile.
        around: (tiles, (TILE + 2 reach)²), those and the cells around them.
        near: (cells around, cells inside), whether two of a tile are within each other's reach.
        found: (cells of the grid, most), where in (tiles · cells around) a cell of the grid is; the same again
            where it is in fewer tiles than others.
    """

    inside: NDArray[np.int64]
    around: NDArray[np.int64]
    near: NDArray[np.bool_]
    found: NDArray[np.int64]

    @classmethod
    def of(cls, height: int, width: int, reach: int) -> TileGrid:
        rows, columns = -(-height // TILE), -(-width // TILE)
        side = TILE + 2 * reach

        def cells(offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            """Row and column, not yet limited to the grid: (tiles, offsets²) both."""
            down = (np.arange(rows)[:, None] * TILE + offsets)[:, None, :, None]
            right = (np.arange(columns)[:, None] * TILE + offsets)[None, :, None, :]
            shape = (rows, columns, len(offsets), len(offsets))
            flat = (np.broadcast_to(part, shape).reshape(rows * columns, -1) for part in (down, right))
            y, x = flat
            return y, x

        inside_y, inside_x = cells(np.arange(TILE))
        around_y, around_x = cells(np.arange(-reach, TILE + reach))
        near = (abs(around_y[0][:, None] - inside_y[0]) <= reach) & (abs(around_x[0][:, None] - inside_x[0]) <= reach)
        places: list[list[int]] = [[] for _ in range(height * width)]
        real = (around_y >= 0) & (around_y < height) & (around_x >= 0) & (around_x < width)
        for tile, slot in zip(*np.nonzero(real), strict=True):
            place = int(around_y[tile, slot] * width + around_x[tile, slot])
            places[place].append(int(tile * side * side + slot))
        most = max(map(len, places))
        return cls(
            _limited(inside_y, inside_x, height, width),
            _limited(around_y, around_x, height, width),
            near,
            np.array([each + each[:1] * (most - len(each)) for each in places]),
        )


def _limited(y: NDArray[np.int64], x: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    return np.clip(y, 0, height - 1) * width + np.clip(x, 0, width - 1)


class TileSearch(nn.Module):
    """Distance of every cell to the nearest one of the chosen pictures, around the same place.

    `forward`: (N, D, h, w) float32 of length 1, (N, K) int64 or None for all → (N, h, w) float32, 1 - cosine.

    Args:
        patches: (R, D, h, w) float32 of length 1.
        window: side of the neighbourhood, odd.
        bank: numbers that the bank is kept in. Those of int8 are steps of their channel's, and the query is told them.
    """

    bank: Tensor
    steps: Tensor | None
    around: Tensor
    beside: Tensor
    found: Tensor

    def __init__(self, patches: Tensor, window: int, bank: BankType = "float32") -> None:
        super().__init__()
        self.shape = (int(patches.shape[2]), int(patches.shape[3]))
        grid = TileGrid.of(*self.shape, window // 2)
        self.tiles, self.slots = grid.around.shape
        steps = torch.ones(patches.shape[1], device=patches.device)
        if bank == "int8":
            steps = torch.clamp(patches.abs().amax((0, 2, 3)) / INT8_MOST, min=LEAST_STEP)
        kinds = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}
        inside = torch.from_numpy(grid.inside)
        tiled = torch.empty(
            self.tiles, len(patches), TILE * TILE, patches.shape[1], dtype=kinds[bank], device=patches.device
        )
        for number, picture in enumerate(patches):  # of a large bank there are no two copies at a time
            cells = picture.flatten(1).T[inside]
            tiled[:, number] = (cells / steps).round().to(torch.int8) if bank == "int8" else cells
        self.register_buffer("bank", tiled)
        self.register_buffer("steps", steps if bank == "int8" else None)
        self.register_buffer("around", torch.from_numpy(grid.around.ravel()))
        self.register_buffer("beside", torch.where(torch.from_numpy(grid.near), 0.0, NOT_NEAR))
        self.register_buffer("found", torch.from_numpy(grid.found.ravel()))
        self._inside = grid.inside

    def forward(self, query: Tensor, chosen: Tensor | None) -> Tensor:
        cells = query.flatten(2).transpose(1, 2)
        if self.steps is not None:
            cells = cells * self.steps
        around = cells.index_select(1, self.around).view(-1, self.tiles, self.slots, cells.shape[2]).transpose(0, 1)
        pictures = self.bank.shape[1] if chosen is None else chosen.shape[1]
        bank = self.bank if chosen is None else self.bank.index_select(1, chosen.reshape(-1))
        bank = bank.float().view(self.tiles, -1, pictures * TILE * TILE, self.bank.shape[3])
        cosines = (around @ bank.transpose(2, 3)).view(self.tiles, -1, self.slots, pictures, TILE * TILE)
        best = (cosines.amax(3) + self.beside).amax(3)  # (tiles, N, slots)
        everywhere = best.transpose(0, 1).reshape(-1, self.tiles * self.slots)
        rows, columns = self.shape
        most = len(self.found) // (rows * columns)
        return 1 - everywhere.index_select(1, self.found).view(-1, rows, columns, most).amax(3)

    def patches(self) -> Tensor:
        """What the bank says, (R, D, h, w) float32."""
        tiles = self.bank.float() if self.steps is None else self.bank.float() * self.steps
        pictures, channels = self.bank.shape[1], self.bank.shape[3]
        rows, columns = self.shape
        cells = torch.empty(pictures, rows * columns, channels)
        cells[:, torch.from_numpy(self._inside.ravel())] = tiles.transpose(0, 1).reshape(pictures, -1, channels)
        return cells.transpose(1, 2).reshape(pictures, channels, rows, columns)


def bank_bytes(shapes: list[tuple[int, int, int]], bank: BankType) -> int:
    """Bytes of the bank for each picture. Args: shapes: (channels, rows, columns) of what patches are compared by."""
    cells = [channels * -(-rows // TILE) * -(-columns // TILE) * TILE * TILE for channels, rows, columns in shapes]
    return sum(cells) * ITEM_BYTES[bank]
