"""The highest level of an area, against all levels one after the other and SciPy's components."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from edge_ad.errors import ImageError
from edge_ad.image.cells import Cells
from edge_ad.image.least_area import areas, highest_level

EIGHT = np.ones((3, 3))


def by_all_levels(values: np.ndarray, counted: np.ndarray, least: int) -> float | None:
    for level in sorted(set(values[counted].tolist()), reverse=True):
        labels, count = ndimage.label(counted & (values >= np.float32(level)), EIGHT)
        if count and np.bincount(labels.ravel())[1:].max() >= least:
            return float(level)
    return None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    hw=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    seed=st.integers(0, 9999),
    least=st.integers(1, 60),
    levels=st.sampled_from([2, 5, 1000]),
    share=st.sampled_from([1.0, 0.8, 0.4]),
)
def test_the_highest_level_is_exact(hw: tuple[int, int], seed: int, least: int, levels: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.integers(-levels, levels, hw) / 7).astype(np.float32)
    counted = rng.random(hw) < share
    counted.flat[0] = True
    cells = Cells((slice(0, hw[0]), slice(0, hw[1])), None if share == 1 else counted)
    wanted = by_all_levels(values, cells.whole(hw), least)
    if wanted is None:
        with pytest.raises(ImageError, match=f"{least} cells"):
            highest_level(values, cells, least)
    else:
        assert highest_level(values, cells, least) == wanted


def test_only_the_part_that_shows_the_frame_is_looked_at() -> None:
    values = np.zeros((8, 8), np.float32)
    values[0] = 9  # padding
    values[4, 2:5] = [1, 2, 3]
    cells = Cells((slice(2, 8), slice(0, 8)), None)
    assert [highest_level(values, cells, least) for least in (1, 2, 3, 4)] == [3, 2, 1, 0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), least=st.integers(1, 12))
def test_areas_are_the_components_that_are_large_enough(seed: int, least: int) -> None:
    inside = np.random.default_rng(seed).random((12, 15)) < 0.4
    labels, count = ndimage.label(inside, EIGHT)
    wanted = {frozenset(map(tuple, np.argwhere(labels == index))) for index in range(1, count + 1)}
    found = set()
    for area in areas(inside, least):
        left, top, right, bottom = area.box
        assert area.cells.shape == (bottom - top, right - left) and area.cells.sum() == area.count
        found.add(frozenset(map(tuple, np.argwhere(area.cells) + np.array([top, left]))))
    assert found == {cells for cells in wanted if len(cells) >= least}
