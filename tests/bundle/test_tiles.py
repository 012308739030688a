"""A grid of tiles: what it covers, what is none, and what a manifest may say of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.consistency import contradictions
from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.bundle.tiles import MOST_TILES, TileGrid
from edge_ad.demo import pictures

GRID = TileGrid(2, 3, 64, 96, 32)


def test_tiles_cover_the_canvas_and_share_strips() -> None:
    assert GRID.canvas_hw == (96, 224) and GRID.count == 6
    covered = [[0] * 224 for _ in range(96)]
    for top, left in GRID.origins:
        for row in range(top, top + 64):
            for column in range(left, left + 96):
                covered[row][column] += 1
    assert {sum(row[column] > 0 for row in covered) for column in range(224)} == {96}
    assert covered[0] == [1] * 64 + [2] * 32 + [1] * 32 + [2] * 32 + [1] * 64
    assert GRID.origins[:4] == ((0, 0), (0, 64), (0, 128), (32, 0)), "row by row"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 3, 64, 64, 32), "rows and columns"),
        ((1, MOST_TILES + 1, 64, 64, 32), "rows and columns"),
        ((1, 3, 64, 64, 20), "multiple of 32"),
        ((1, 3, 64, 64, 64), "less than a tile"),
        ((1, 3, 96, 32, 32), "less than a tile"),
    ],
)
def test_what_is_no_grid(values: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TileGrid(*values)


def test_the_canvas_sees_the_same_share_of_a_crop() -> None:
    tile = PreprocessSpec(64, 96, resize=80)
    whole = GRID.canvas(tile)
    assert whole.size_hw == (96, 224) and whole.resize == 120
    assert replace(whole, height=64, width=96, resize=80) == tile
    assert GRID.canvas(replace(tile, resize_mode="stretch", resize=None)).resize is None


def test_how_many_fit() -> None:
    assert GRID.fitting((1000, 4000)) == (30, 62)
    assert GRID.fitting((64, 97)) == (1, 1) and GRID.fitting((10, 10)) == (1, 1)


def test_a_manifest_whose_canvas_is_another_is_refused() -> None:
    from importlib import resources

    manifest = Bundle.read(str(resources.files(pictures.__package__ or "") / "disc.edgead")).manifest
    assert manifest.tiles is None and list(contradictions(manifest)) == []
    side: Any = manifest.preprocess.height
    whole = TileGrid(1, 1, side, side, 32)
    assert list(contradictions(replace(manifest, tiles=whole))) == []
    (told,) = contradictions(replace(manifest, tiles=replace(whole, columns=2)))
    assert told.startswith("tiles: 1x2 tiles of") and f"preprocess has {side}x{side}" in told
