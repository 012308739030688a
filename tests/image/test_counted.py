"""Which pixels and cells count, against definitions computed one pixel at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.errors import ImageError
from edge_ad.image.cells import counted_cells, nearest_counted, shown_part
from edge_ad.image.counted import Counted, polygons_mask
from edge_ad.image.geometry import FrameGeometry, place
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.padding import frame_score, without_padding

CORNER = st.tuples(st.integers(0, 80).map(lambda n: n / 4), st.integers(0, 60).map(lambda n: n / 4))
POLYGONS = st.lists(st.lists(CORNER, min_size=3, max_size=6), min_size=1, max_size=3)
FRAME_HW = (15, 20)


def inside(polygon: list[tuple[float, float]], x: float, y: float) -> bool:
    """Even-odd rule by a ray to the left."""
    crossings = 0
    for (x_0, y_0), (x_1, y_1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y_0 <= y) != (y_1 <= y):
            crossings += x_0 + (y - y_0) * (x_1 - x_0) / (y_1 - y_0) <= x
    return crossings % 2 == 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(polygons=POLYGONS)
def test_a_pixel_is_inside_when_its_centre_is(polygons: list[list[tuple[float, float]]]) -> None:
    height, width = FRAME_HW
    got = polygons_mask(polygons, FRAME_HW)
    for row in range(height):
        for column in range(width):
            wanted = any(inside(polygon, column + 0.5, row + 0.5) for polygon in polygons)
            assert got[row, column] == wanted


def test_a_box_as_a_polygon_is_that_box() -> None:
    got = polygons_mask([[(3, 2), (9, 2), (9, 7), (3, 7)]], FRAME_HW)
    wanted = np.zeros(FRAME_HW, np.bool_)
    wanted[2:7, 3:9] = True
    np.testing.assert_array_equal(got, wanted)


MODES = st.sampled_from(["stretch", "letterbox", "shorter_side_crop"])


def masked(mode: str, frame_hw: tuple[int, int], mask: np.ndarray) -> FrameGeometry:
    spec = PreprocessSpec(16, 16, resize_mode=mode, resize=18 if mode == "shorter_side_crop" else None)  # type: ignore[arg-type]
    return replace(place(spec, frame_hw), counts=Counted(mask))


def shares(map_hw: tuple[int, int], geometry: FrameGeometry, mask: np.ndarray) -> np.ndarray:
    """Share of each cell's frame pixels that count, pixel by pixel; NaN for cells that show nothing."""
    found = np.full(map_hw, np.nan)
    height, width = mask.shape
    for row in range(map_hw[0]):
        for column in range(map_hw[1]):
            spans = []
            for index, n, length, offset, scale, side in (
                (row, map_hw[0], geometry.model_hw[0], geometry.top, geometry.scale_y, height),
                (column, map_hw[1], geometry.model_hw[1], geometry.left, geometry.scale_x, width),
            ):
                low, high = (min(max((i * length / n + offset) * scale, 0), side) for i in (index, index + 1))
                spans.append([max(0.0, min(high, pixel + 1) - max(low, pixel)) for pixel in range(side)])
            weights = np.outer(*spans)
            if weights.sum() > 1e-12:
                found[row, column] = (weights * mask).sum() / weights.sum()
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    mode=MODES,
    frame=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    side=st.integers(4, 16),
    seed=st.integers(0, 99),
)
def test_a_cell_counts_of_which_half_counts(mode: str, frame: tuple[int, int], side: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = polygons_mask([[(float(x), float(y)) for x, y in rng.uniform(0, min(frame), (4, 2))]], frame)
    mask[frame[0] // 2, frame[1] // 2] = True
    geometry = masked(mode, frame, mask)
    got = counted_cells((side, side), geometry).whole((side, side))
    found = shares((side, side), geometry, mask)
    shown = np.zeros((side, side), np.bool_)
    shown[shown_part((side, side), geometry)] = True
    found = np.where(shown, np.nan_to_num(found), 0)
    wanted = np.minimum(0.5, ndimage.maximum_filter(found, 3, mode="constant"))
    sure = np.abs(found - wanted) > 1e-6
    np.testing.assert_array_equal(got[sure], (found >= wanted)[sure])
    assert not got[found == 0].any()
    assert got.any() and not got[~shown].any()


@pytest.mark.parametrize("width", [2, 3, 5, 8, 12])
@pytest.mark.parametrize("left", [200, 204, 210, 219])
def test_what_is_narrower_than_a_cell_is_inspected_beside_something_large(width: int, left: int) -> None:
    """Cells of 16 pixels: a strip, a square far from it, and a strip that hangs on the square."""
    mask = np.zeros((256, 256), np.bool_)
    mask[16:100, 16:100] = True
    mask[16:240, left : left + width] = True
    mask[100:240, 40 : 40 + width] = True
    cells = counted_cells((16, 16), masked("stretch", (256, 256), mask)).whole((16, 16))
    for first, last, rows in ((left, left + width, range(1, 15)), (40, 40 + width, range(8, 15))):
        columns = slice(first // 16, -(-last // 16))
        assert all(cells[row, columns].any() for row in rows)
    assert cells[2, 2] and not cells[:, 7:11].any()


def test_nothing_that_the_model_sees_is_refused() -> None:
    mask = np.zeros((16, 64), np.bool_)
    mask[:, :4] = True  # the crop shows the middle
    with pytest.raises(ImageError, match="nothing of what is inspected lies in the part"):
        counted_cells((16, 16), masked("shorter_side_crop", (16, 64), mask))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), side=st.integers(2, 16))
def test_what_does_not_count_takes_the_nearest_that_does(seed: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((16, 16)) < rng.uniform(0.05, 0.9)
    mask[rng.integers(16), rng.integers(16)] = True
    geometry = masked("stretch", (16, 16), mask)
    cells = counted_cells((side, side), geometry).whole((side, side))
    index = nearest_counted((side, side), geometry)
    places = np.argwhere(cells)
    for row in range(side):
        for column in range(side):
            got = np.array(divmod(int(index[row, column]), side))
            assert cells[tuple(got)]
            distance = ((places - (row, column)) ** 2).sum(1).min()
            assert ((got - (row, column)) ** 2).sum() == distance


@settings(max_examples=40, deadline=None, derandomize=True)
@given(frame=st.tuples(st.integers(8, 60), st.integers(8, 60)), seed=st.integers(0, 99))
def test_a_mask_of_all_pixels_changes_nothing(frame: tuple[int, int], seed: int) -> None:
    """Padding is dealt with as it is without a mask, and as NumPy's own edge padding does it."""
    patch_map = np.random.default_rng(seed).random((8, 8)).astype(np.float32)
    spec = PostprocessSpec(sigma=1.0)
    plain = place(PreprocessSpec(16, 16, resize_mode="letterbox"), frame)
    smooth = ResizeSmooth((8, 8), (16, 16), spec)
    rows, columns = shown_part((8, 8), plain)
    around = ((rows.start, 8 - rows.stop), (columns.start, 8 - columns.stop))
    wanted = np.pad(patch_map[rows, columns], around, mode="edge")
    for geometry in (plain, replace(plain, counts=Counted(np.ones(frame, np.bool_)))):
        got, anomaly_map = without_padding(patch_map, smooth(patch_map), geometry, spec)
        np.testing.assert_array_equal(got, wanted)
        part = smooth(wanted)[shown_part((16, 16), plain)]
        assert frame_score(got, anomaly_map, 0.0, geometry, spec) == float(part.max())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), level=st.floats(-1e6, 1e6, width=32))
def test_whatever_is_said_of_what_is_masked_out_the_score_stays(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((64, 64), np.bool_)
    mask[8:40, 8:56] = True
    geometry, spec = masked("stretch", (64, 64), mask), PostprocessSpec(activation="none", sigma=2.0)
    patch_map = rng.random((16, 16)).astype(np.float32)
    smooth = ResizeSmooth((16, 16), (16, 16), spec)

    def score(values: np.ndarray) -> float:
        return frame_score(*without_padding(values, smooth(values), geometry, spec), 0.0, geometry, spec)

    cells = counted_cells((16, 16), geometry).whole((16, 16))
    changed = np.where(cells, patch_map, np.float32(level))
    assert score(changed) == score(patch_map)
    changed = patch_map.copy()
    changed[4, 4] += 100  # control: of what counts
    assert cells[4, 4] and score(changed) > score(patch_map)


def test_cells_are_worked_out_once_for_a_part_that_moves() -> None:
    mask = np.random.default_rng(0).random((40, 60)) < 0.7
    counts = Counted(mask)
    placed = place(PreprocessSpec(32, 48, resize_mode="stretch"), (40, 60))
    here, there, beyond = (
        replace(placed.within((100, 100), (left, 5, left + 60, 45)), counts=counts) for left in (3, 29, 70)
    )
    assert counted_cells((16, 16), here) is counted_cells((16, 16), there)
    assert nearest_counted((16, 16), here) is nearest_counted((16, 16), there)
    assert counted_cells((16, 16), beyond).whole((16, 16)).sum() < counted_cells((16, 16), here).whole((16, 16)).sum()
