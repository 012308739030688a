"""Where patches lie in the whole picture, as two further numbers of their embeddings.

Row and column of a patch's centre, in units of the longer side of the canvas that the bank was made on, times
`tile_position` times the spread of the good embeddings: two patches a picture's side apart are `tile_position` spreads
further from each other than what they look like. A bank keeps its places unscaled, so that an export may weigh them
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from edge_ad.bundle.tiles import TileGrid

AXES = 2  # row and column


class Positions(nn.Module):
    """Places of all patches of a picture, which is one tile or several; tiles of it are consecutive, row by row.

    Attributes:
        places: (T, 2, h, w) float32, times `scale`.
    """

    places: Tensor

    def __init__(self, places: Tensor, scale: float) -> None:
        """Args:
        places: unscaled, see `places_of`.
        scale: what a whole side counts, in units of the embeddings.
        """
        super().__init__()
        self._tiles = len(places)
        self.register_buffer("places", (places.double() * scale).float(), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Of whole pictures: (N·T, D, h, w) → (N·T, 2, h, w). In a graph N stays open; of `patches` its size counts."""
        each = torch.zeros_like(patches[:, :1, :1, :1]).reshape(-1, self._tiles, 1, 1, 1)
        return (each + self.places).reshape(-1, *self.places.shape[1:])

    def of(self, pictures: Iterable[int]) -> Tensor:
        """Of pictures by their number, where each has T in a row: (N, 2, h, w)."""
        return self.places[[number % self._tiles for number in pictures]]


def places_of(patch_hw: tuple[int, int], canvas_hw: tuple[int, int], tiles: TileGrid | None) -> Tensor:
    """Centres of patches on a canvas, the longer side of which is 1: (T, 2, h, w) float64, row and column.

    Args:
        patch_hw: patches of a tile.
        canvas_hw: the canvas that the bank was made on; what is seen now may have another size, and other tiles.
        tiles: what is seen now; None where a picture is one tile.
    """
    centres = [(torch.arange(count, dtype=torch.float64) + 0.5) / count for count in patch_hw]
    units = [side / max(canvas_hw) for side in canvas_hw]
    if tiles is None:
        return _grid(centres[0] * units[0], centres[1] * units[1])[None]
    found = []
    for origin in tiles.origins:
        sides = zip(origin, centres, tiles.tile_hw, tiles.canvas_hw, units, strict=True)
        found.append(_grid(*((start + centre * tile) / whole * unit for start, centre, tile, whole, unit in sides)))
    return torch.stack(found)


def spread(total: Tensor, squares: Tensor, count: int) -> float:
    """Root of the summed variance of the numbers of `count` embeddings.

    Args:
        total, squares: (D,) float64, their sums and those of their squares.
    """
    mean = total / count
    return float((squares / count - mean.square()).clamp(min=0).sum().sqrt())


def _grid(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
