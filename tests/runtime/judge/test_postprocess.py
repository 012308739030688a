"""Regions against a brute-force oracle: SciPy's labels on the model grid, mapped to the frame in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, ResizeMode, Thresholds
from edge_ad.image.geometry import FrameGeometry, place
from edge_ad.image.operators import ResizeSmooth
from edge_ad.image.padding import frame_score, without_padding
from edge_ad.record.verdict import Region
from edge_ad.runtime.judge.postprocess import decide, find_regions


def highest(values: Any, geometry: FrameGeometry) -> float:
    """Of a map, as a score."""
    return frame_score(values, values, 0.0, geometry, PostprocessSpec(score="patch_max"))


SHORT = settings(max_examples=80, derandomize=True, deadline=None)
MODES: tuple[ResizeMode, ...] = ("shorter_side_crop", "stretch", "letterbox")
GEOMETRIES = st.builds(
    lambda mode, frame, model: place(PreprocessSpec(*model, resize_mode=mode), frame),
    st.sampled_from(MODES),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(8, 48), st.integers(8, 48)),
)


def _to_frame(geometry: FrameGeometry, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    (height, width), (rows, columns) = geometry.frame_hw, geometry.resized_hw
    x_min, y_min, x_max, y_max = box
    return (
        max(0, math.floor(Fraction((x_min + geometry.left) * width, columns))),
        max(0, math.floor(Fraction((y_min + geometry.top) * height, rows))),
        min(width, math.ceil(Fraction((x_max + geometry.left) * width, columns))),
        min(height, math.ceil(Fraction((y_max + geometry.top) * height, rows))),
    )


def _oracle(anomaly_map: np.ndarray, geometry: FrameGeometry, threshold: float) -> list[tuple[object, int, float]]:
    """(box in the frame, model pixels, peak) of every 8-connected area within the content, highest peak first."""
    x_min, y_min, x_max, y_max = geometry.content_box
    mask = np.zeros(anomaly_map.shape, bool)
    mask[y_min:y_max, x_min:x_max] = anomaly_map[y_min:y_max, x_min:x_max] >= threshold
    labels, count = scipy.ndimage.label(mask, np.ones((3, 3)))
    found = []
    for index in range(1, count + 1):
        rows, columns = np.nonzero(labels == index)
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        found.append((_to_frame(geometry, box), len(rows), float(anomaly_map[labels == index].max())))
    return sorted(found, key=lambda area: -area[2])


def _assert_sound(region: Region, geometry: FrameGeometry) -> None:
    x_min, y_min, x_max, y_max = region.box_xyxy
    left, top, right, bottom = geometry.inspected_box
    assert left <= x_min <= region.peak_xy[0] < x_max <= right
    assert top <= y_min <= region.peak_xy[1] < y_max <= bottom
    assert region.area_px >= 1


@SHORT
@given(geometry=GEOMETRIES, seed=st.integers(0, 10_000), sigma=st.sampled_from([0.0, 1.0, 3.0]))
def test_regions_are_those_of_the_oracle(geometry: FrameGeometry, seed: int, sigma: float) -> None:
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).random(geometry.model_hw), sigma)
    anomaly_map = noise.astype(np.float32)
    threshold = float(np.quantile(anomaly_map, 0.8))
    expected = _oracle(anomaly_map, geometry, threshold)
    got = find_regions(anomaly_map, np.zeros((4, 4), np.float32), geometry, threshold)
    for region in got:
        _assert_sound(region, geometry)
    if not expected:
        assert len(got) == 1
        return
    assert [region.peak_score for region in got] == [peak for _, _, peak in expected]
    assert sorted(region.box_xyxy for region in got) == sorted(box for box, _, _ in expected)
    scale = Fraction(geometry.frame_hw[0], geometry.resized_hw[0]) * Fraction(
        geometry.frame_hw[1], geometry.resized_hw[1]
    )
    for region, (_, pixels, _) in zip(got, expected, strict=True):
        assert abs(region.area_px - pixels * scale) <= 1  # rounded, and at least 1


def test_diagonal_neighbours_are_one_region_and_a_gap_makes_two() -> None:
    geometry = place(PreprocessSpec(8, 8, resize_mode="stretch"), (8, 8))
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[1, 1] = anomaly_map[2, 2] = 0.75
    anomaly_map[5, 6] = 0.5
    regions = find_regions(anomaly_map, anomaly_map, geometry, 0.5)
    assert [region.box_xyxy for region in regions] == [(1, 1, 3, 3), (6, 5, 7, 6)]
    assert [region.area_px for region in regions] == [2, 1]
    assert regions[1].peak_xy == (6, 5)
    assert regions[1].peak_score == 0.5


def test_the_peak_lies_on_the_hot_pixel_of_a_large_frame() -> None:
    geometry = place(PreprocessSpec(64, 64, resize=64), (640, 1280))
    anomaly_map = np.full((64, 64), 0.1, np.float32)
    anomaly_map[10:20, 30:50] = 0.6
    anomaly_map[12, 47] = 0.9
    (region,) = find_regions(anomaly_map, anomaly_map, geometry, 0.5)
    assert region.box_xyxy == (320 + 300, 100, 320 + 500, 200)
    assert region.area_px == 200 * 100
    # Within the 10 × 10 frame pixels of the hot model pixel.
    assert 320 + 470 <= region.peak_xy[0] < 320 + 480
    assert 120 <= region.peak_xy[1] < 130


@pytest.mark.parametrize("frame_hw", [(20, 64), (64, 20), (200, 640)])
def test_letterbox_padding_is_never_a_region(frame_hw: tuple[int, int]) -> None:
    geometry = place(PreprocessSpec(64, 64, resize_mode="letterbox"), frame_hw)
    x_min, y_min, x_max, y_max = geometry.content_box
    anomaly_map = np.ones((64, 64), np.float32)
    anomaly_map[y_min:y_max, x_min:x_max] = 0
    anomaly_map[(y_min + y_max) // 2, (x_min + x_max) // 2] = 0.75
    (region,) = find_regions(anomaly_map, anomaly_map, geometry, 0.5)
    assert region.peak_score == 0.75
    _assert_sound(region, geometry)
    assert region.area_px <= max(1, 2 * geometry.scale_x * geometry.scale_y)


def _patches_of_the_frame(geometry: FrameGeometry, patch_hw: tuple[int, int]) -> tuple[slice, slice]:
    """Patches of which at least a pixel shows the frame, found by painting the frame."""
    canvas = np.zeros(geometry.model_hw, bool)
    x_min, y_min, x_max, y_max = geometry.content_box
    canvas[y_min:y_max, x_min:x_max] = True
    spans = []
    for shown, count in ((canvas.any(1), patch_hw[0]), (canvas.any(0), patch_hw[1])):
        length = len(shown)
        cells = [shown[k * length // count : -(-(k + 1) * length // count)].any() for k in range(count)]
        spans.append(slice(cells.index(True), count - cells[::-1].index(True)))
    return spans[0], spans[1]


@SHORT
@given(
    geometry=GEOMETRIES,
    patch_hw=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    hot=st.tuples(st.integers(0, 7), st.integers(0, 7)),
)
def test_a_patch_that_the_blur_swallows_still_makes_one_region(
    geometry: FrameGeometry, patch_hw: tuple[int, int], hot: tuple[int, int]
) -> None:
    """`patch_max` scores can be anomalous where no smoothed pixel is; the frame must show where, inside of it."""
    patch_map = np.zeros(patch_hw, np.float32)
    row, column = hot[0] % patch_hw[0], hot[1] % patch_hw[1]
    patch_map[row, column] = 1
    anomaly_map = ResizeSmooth(patch_hw, geometry.model_hw)(patch_map)
    threshold = float(anomaly_map.max()) + 0.01
    (region,) = find_regions(anomaly_map, patch_map, geometry, threshold)
    _assert_sound(region, geometry)
    assert region.peak_score == patch_map[_patches_of_the_frame(geometry, patch_hw)].max()


def test_a_peak_in_the_padding_is_no_peak() -> None:
    """A wide frame in a square letterbox: 16 rows of the map's 64 above and below it show nothing."""
    geometry = place(PreprocessSpec(64, 64, resize_mode="letterbox"), (100, 200))
    patch_map = np.full((8, 8), 0.2, np.float32)
    patch_map[:2] = 0.9
    patch_map[2, 4] = 0.6
    smooth = ResizeSmooth((8, 8), (64, 64))
    patches, anomalies = without_padding(patch_map, smooth(patch_map), geometry, PostprocessSpec())
    assert highest(patches, geometry) == np.float32(0.6)
    assert (patches[:2] == patches[2]).all()
    np.testing.assert_array_equal(anomalies, smooth(patches))  # so the mask, made from the patches, agrees
    quiet, _ = without_padding(
        np.where(patch_map == 0.6, 0.2, patch_map), smooth(patch_map), geometry, PostprocessSpec()
    )
    assert highest(quiet, geometry) == np.float32(0.2)
    filled = place(PreprocessSpec(64, 64, resize_mode="stretch"), (100, 200))
    assert highest(without_padding(patch_map, patch_map, filled, PostprocessSpec())[0], filled) > 0.8  # control


def test_a_swallowed_patch_is_where_the_patch_is() -> None:
    geometry = place(PreprocessSpec(64, 64, resize=64), (640, 1280))
    patch_map = np.zeros((16, 16), np.float32)
    patch_map[3, 5] = 0.9
    anomaly_map = ResizeSmooth((16, 16), (64, 64))(patch_map)
    assert anomaly_map.max() < 0.5
    (region,) = find_regions(anomaly_map, patch_map, geometry, 0.5)
    assert region.box_xyxy == (320 + 200, 120, 320 + 240, 160)
    assert region.area_px == 40 * 40


def test_the_threshold_itself_is_anomalous() -> None:
    assert decide(0.5, Thresholds(0.5)) == "anomalous"
    assert decide(math.nextafter(0.5, 0), Thresholds(0.5)) == "normal"
    assert decide(0.5, Thresholds()) is None
