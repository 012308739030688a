"""How many tiles suit the pictures, and whether those that somebody wants do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from edge_ad.bundle.consistency import MAX_SIDE
from edge_ad.bundle.tiles import TileGrid
from edge_ad.errors import ConfigError
from edge_ad.models.training.options import OptionsT
from edge_ad.models.training.view import SAME_SHAPE, view_line, whole_view

LONG = 2.0
"""Ratio of the sides from which on a picture is cut along the longer one, so that tiles are nearly square."""
FINEST = 4.0
"""Frame pixels that a model pixel covers at most, as far as the number of tiles goes."""
MOST_CHOSEN = 12  # tiles: each costs as much as a picture, in time and in memory


def chosen_tiles(sizes: Counter[tuple[int, int]], tile_hw: tuple[int, int], overlap: int) -> tuple[int, int] | None:
    """Rows and columns of tiles for pictures of these sizes; None where one tile is enough.

    Pictures of several shapes stay whole: they are padded to one canvas, which would be cut where some show nothing.
    So do pictures whose tiles would be no larger than what neighbours share.

    Args:
        sizes: how many pictures have which height and width.
    """
    aspects = [width / height for height, width in sizes]
    if not aspects or max(aspects) > SAME_SHAPE * min(aspects) or min(tile_hw) <= overlap:
        return None
    ((height, width), _), *_ = sizes.most_common()
    limit = FINEST
    while True:
        rows, columns = _tiles_at(limit, (height, width), tile_hw, overlap)
        if rows * columns <= MOST_CHOSEN:
            break
        limit *= 1.05
    rows, columns = min(rows, _most(tile_hw[0], overlap)), min(columns, _most(tile_hw[1], overlap))
    if rows * columns == 1 or too_large(TileGrid(rows, columns, *tile_hw, overlap), sizes):
        return None
    return rows, columns


def _most(tile: int, overlap: int) -> int:
    """Tiles side by side whose canvas is no longer than a model input may be."""
    return max(1, (MAX_SIDE - overlap) // (tile - overlap))


def _tiles_at(limit: float, frame_hw: tuple[int, int], tile_hw: tuple[int, int], overlap: int) -> tuple[int, int]:
    """Rows and columns where a model pixel covers about `limit` frame pixels at most, and tiles are nearly square."""
    (height, width), (tile_height, tile_width) = frame_hw, tile_hw
    down, across = height / limit, width / limit
    if width >= LONG * height:
        across = max(across, min(tile_height * width / height, width))
    elif height >= LONG * width:
        down = max(down, min(tile_width * height / width, height))
    return _count(down, tile_height, overlap), _count(across, tile_width, overlap)


def _count(side: float, tile: int, overlap: int) -> int:
    """Tiles that reach over `side` model pixels, or nearly."""
    return min(max(1, ceil((side - overlap) / (tile - overlap) - 0.25)), MOST_CHOSEN)


def too_large(grid: TileGrid, sizes: Counter[tuple[int, int]]) -> list[str]:
    """What is wrong with tiles that would only enlarge the pictures, one line; nothing where they show more of them."""
    if not sizes:
        return []
    ((height, width), _), *_ = sizes.most_common()
    down, across = grid.canvas_hw
    if down <= height or across <= width:
        return []
    rows, columns = grid.fitting((height, width))
    fit = f"at most {rows}x{columns} fit" if rows * columns > 1 else "one tile holds all of them, so leave it out"
    return [f"tiles: {grid} make {across}x{down} pixels of pictures that have {width}x{height}; {fit}"]


def with_view(
    options: OptionsT,
    sizes: Counter[tuple[int, int]],
    untiled: str | None,
    begun: Mapping[str, Any] | None,
    say: Callable[[str], None],
) -> OptionsT:
    """The options with everything chosen that the pictures choose; what is seen then is said.

    Args:
        untiled: why the family has no tiles, see `ModelFamily.untiled`.
        begun: what exporting takes, of the run that is gone on with.

    Raises: ConfigError for tiles that would only enlarge the pictures.
    """
    auto = options.tiles == "auto"
    tiles = None if untiled else chosen_tiles(sizes, options.imgsz, options.tile_overlap)
    if begun is not None and auto:
        told = begun.get("tiles")
        tiles = None if told is None else (int(told[0]), int(told[1]))
    mode = (begun or {}).get("resize_mode") or whole_view(sizes, options.postprocess)
    options = options.seeing(mode, tiles)
    grid = options.grid
    if grid is not None and not auto and (faults := too_large(grid, sizes)):
        raise ConfigError("train options", faults)
    if (line := view_line(options.preprocess, sizes, grid)) is not None:
        say(line)
    if grid is None and tiles is not None:
        rows, columns = tiles
        say(
            f"note: pictures as large or long as these show more in tiles; --tiles auto takes {rows}x{columns} of them,"
            f" and about {rows * columns} times as long"
        )
    return options
