"""Tiles change places, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest

from edge_ad.models.synthesis.tiles import shuffled_tiles


def pictures(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_tiles_are_those_of_the_picture() -> None:
    image = pictures(32, 64)
    moved = shuffled_tiles(image, np.random.default_rng(1))

    def tiles(picture: np.ndarray) -> list[bytes]:
        cut = picture.reshape(16, 2, 16, 4, 3).swapaxes(1, 2).reshape(256, -1)
        return sorted(row.tobytes() for row in cut)

    assert tiles(moved) == tiles(image) and not np.array_equal(moved, image)


@pytest.mark.parametrize("size", [(33, 50), (5, 7), (16, 16)])
def test_every_size(size: tuple[int, int]) -> None:
    image = pictures(*size)
    moved = shuffled_tiles(image, np.random.default_rng(1))
    assert moved.shape == image.shape and moved.dtype == np.uint8 and moved.flags.c_contiguous


def test_the_same_generator_gives_the_same() -> None:
    image = pictures(48, 48)
    one, other, third = (shuffled_tiles(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, other) and not np.array_equal(one, third)
