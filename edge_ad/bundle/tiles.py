"""A picture that is judged in tiles: how they lie on it, and how large it then is.

The model's input is a canvas of all tiles, cut apart inside of the graph. Neighbours share a strip; each says half of
it, so that no patch is judged where a tile ends and the picture does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.validation import strict

STRIDE = 32  # of the deepest layer of the usual backbones: tiles that begin on it see patches where the whole would
MOST_TILES = 256  # of a picture
SMALLEST_DEFECT = 2
"""Model pixels from which on a defect shows: a smaller one may share each of its pixels with the ground."""


@strict
@dataclass(frozen=True)
class TileGrid:
    """Tiles of one size in rows and columns.

    Attributes:
        rows, columns: how many there are.
        height, width: of a tile, model pixels: what the network was made for.
        overlap: model pixels that neighbours share, in both directions.
    """

    rows: int
    columns: int
    height: int
    width: int
    overlap: int

    def __post_init__(self) -> None:
        """Raises: ValueError for a grid that is none."""
        if min(self.rows, self.columns) < 1 or self.count > MOST_TILES:
            raise ValueError(f"rows and columns: wanted 1 to {MOST_TILES} tiles, got {self.rows}x{self.columns}")
        if self.overlap < 0 or self.overlap % STRIDE:
            raise ValueError(f"overlap: wanted a multiple of {STRIDE} pixels, got {self.overlap}")
        if self.overlap >= min(self.tile_hw):
            raise ValueError(
                f"overlap: wanted less than a tile of {self.width}x{self.height} has, got {self.overlap} pixels"
            )

    @property
    def count(self) -> int:
        """How many tiles."""
        return self.rows * self.columns

    @property
    def tile_hw(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def canvas_hw(self) -> tuple[int, int]:
        """Height and width of all tiles together, model pixels."""
        return self._side(self.rows, self.height), self._side(self.columns, self.width)

    def _side(self, count: int, tile: int) -> int:
        return count * tile - (count - 1) * self.overlap

    @property
    def origins(self) -> tuple[tuple[int, int], ...]:
        """Top and left of each tile on the canvas, row by row."""
        down, across = self.height - self.overlap, self.width - self.overlap
        return tuple((row * down, column * across) for row in range(self.rows) for column in range(self.columns))

    def canvas(self, tile: PreprocessSpec) -> PreprocessSpec:
        """How pictures become the canvas. Args: tile: how they would become one tile."""
        height, width = self.canvas_hw
        resize = tile.resize
        if resize is not None:  # the same share of the shorter side is seen
            resize = round(resize * min(height, width) / min(self.tile_hw))
        return replace(tile, height=height, width=width, resize=resize)

    def fitting(self, frame_hw: tuple[int, int]) -> tuple[int, int]:
        """Most rows and columns that do not enlarge a picture of (height, width) pixels; at least one of each."""
        sides = zip(frame_hw, self.tile_hw, strict=True)
        rows, columns = (max(1, (side - self.overlap) // (tile - self.overlap)) for side, tile in sides)
        return rows, columns

    def __str__(self) -> str:
        tiles = "tile" if self.count == 1 else "tiles"
        return f"{self.rows}x{self.columns} {tiles} of {self.width}x{self.height} that share {self.overlap} pixels"
