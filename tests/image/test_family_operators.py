"""Smoothing and resizing of other detectors than the first: against SciPy and torch, border included."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.image.geometry import place
from edge_ad.image.operators import (
    FrameMap,
    ResizeSmooth,
    box_matrix,
    gaussian_matrix,
    nearest_matrix,
    resize_smooth_matrix,
)
from edge_ad.image.scores import score_of

SHORT = settings(max_examples=40, derandomize=True, deadline=None)
SIZES = st.integers(1, 90)
ODD = st.integers(0, 30).map(lambda half: 2 * half + 1)
FLOAT64_ATOL = 1e-12
MAP_ATOL = 1e-6  # two float32 products on values in [0, 1] against float64
BOX = PostprocessSpec(smoothing="box", size=21)
SPECS = {
    "box": BOX,
    "box wider than the map": PostprocessSpec(smoothing="box", size=201),
    "nearest, box": PostprocessSpec(smoothing="box", size=5, resize="nearest"),
    "nearest": PostprocessSpec(smoothing="none", resize="nearest"),
    "bilinear": PostprocessSpec(smoothing="none"),
    "reflect101": PostprocessSpec(border="reflect101"),
    "nearest, reflect101, short": PostprocessSpec(sigma=2.5, truncate=2, border="reflect101", resize="nearest"),
}


def uniform(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def reference(patch_map: np.ndarray, size_hw: tuple[int, int], spec: PostprocessSpec) -> np.ndarray:
    """torch resizes, SciPy smooths, in float64."""
    tensor = torch.from_numpy(patch_map.astype(np.float64))[None, None]
    if spec.resize == "nearest":
        large = F.interpolate(tensor, size_hw, mode="nearest")[0, 0].numpy()
    else:
        large = F.interpolate(tensor, size_hw, mode="bilinear", align_corners=False)[0, 0].numpy()
    if spec.smoothing == "box":
        return np.asarray(scipy.ndimage.uniform_filter(large, spec.size, mode="constant", cval=0.0))
    if spec.smoothing == "gaussian":
        border = "mirror" if spec.border == "reflect101" else "reflect"
        return np.asarray(scipy.ndimage.gaussian_filter(large, spec.sigma, truncate=spec.truncate, mode=border))
    return np.asarray(large)


@SHORT
@given(n=SIZES, size=ODD)
def test_box_counts_what_lies_outside_as_nothing(n: int, size: int) -> None:
    signal = np.random.default_rng(n).standard_normal(n)
    expected = scipy.ndimage.uniform_filter1d(signal, size, mode="constant", cval=0.0)
    np.testing.assert_allclose(box_matrix(n, size) @ signal, expected, rtol=0, atol=FLOAT64_ATOL)


@SHORT
@given(size_hw=st.tuples(SIZES, SIZES), size=ODD)
def test_box_is_torchs_mean_with_padding_counted(size_hw: tuple[int, int], size: int) -> None:
    values = uniform(size_hw).astype(np.float64)
    rows, columns = (box_matrix(n, size) for n in size_hw)
    pooled = F.avg_pool2d(torch.from_numpy(values)[None, None], size, 1, size // 2, count_include_pad=True)
    np.testing.assert_allclose(rows @ values @ columns.T, pooled[0, 0].numpy(), rtol=0, atol=FLOAT64_ATOL)


def test_box_is_not_the_mean_of_what_is_there() -> None:
    """Control: the other convention shows at the border."""
    values = torch.ones(1, 1, 40, 40, dtype=torch.float64)
    other = F.avg_pool2d(values, 21, 1, 10, count_include_pad=False)[0, 0].numpy()
    ours = box_matrix(40, 21) @ values[0, 0].numpy() @ box_matrix(40, 21).T
    assert other[0, 0] == 1 and ours[0, 0] == pytest.approx((11 / 21) ** 2) and ours[20, 20] == pytest.approx(1)


@SHORT
@given(n=SIZES, sigma=st.floats(0.1, 60), truncate=st.floats(0.5, 5))
def test_reflect101_is_scipys_mirror(n: int, sigma: float, truncate: float) -> None:
    signal = np.random.default_rng(n).standard_normal(n)
    expected = scipy.ndimage.gaussian_filter1d(signal, sigma, truncate=truncate, mode="mirror")
    matrix = gaussian_matrix(n, sigma, truncate, "reflect101")
    np.testing.assert_allclose(matrix @ signal, expected, rtol=0, atol=FLOAT64_ATOL)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=FLOAT64_ATOL)


@SHORT
@given(n_in=SIZES, n_out=st.integers(1, 200))
def test_nearest_is_torchs(n_in: int, n_out: int) -> None:
    values = np.arange(n_in, dtype=np.float64)
    expected = F.interpolate(torch.from_numpy(values)[None, None], n_out, mode="nearest")[0, 0].numpy()
    # torch forms the position in float32, one part in 2**24 of the index: where it is whole, either neighbour is right.
    got = nearest_matrix(n_in, n_out) @ values
    whole = np.arange(n_out) * n_in % n_out == 0
    assert np.array_equal(got[~whole], expected[~whole])
    assert np.abs(got - expected).max() <= 1
    assert np.array_equal(got, np.floor(np.arange(n_out) * n_in / n_out + 1e-9))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("patch_hw", "size_hw"), [((64, 64), (64, 64)), ((16, 12), (64, 96)), ((1, 3), (5, 7))])
def test_resize_smooth(name: str, patch_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    patch_map = uniform(patch_hw)
    got = ResizeSmooth(patch_hw, size_hw, SPECS[name])(patch_map)
    np.testing.assert_allclose(got, reference(patch_map, size_hw, SPECS[name]), rtol=0, atol=MAP_ATOL)


@pytest.mark.parametrize("name", SPECS)
def test_an_axis_that_keeps_its_length_is_smoothed_alone(name: str) -> None:
    spec = SPECS[name]
    if spec.smoothing == "none":
        np.testing.assert_array_equal(resize_smooth_matrix(37, 37, spec), np.eye(37))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(
    ("mode", "frame_hw"), [("stretch", (211, 157)), ("letterbox", (181, 323)), ("shorter_side_crop", (90, 70))]
)
def test_frame_map_is_the_model_map_at_pixel_centres(name: str, mode: str, frame_hw: tuple[int, int]) -> None:
    spec = SPECS[name]
    geometry = place(PreprocessSpec(64, 64, resize_mode=mode), frame_hw)  # type: ignore[arg-type]
    patch_map = uniform((16, 16))
    model_map = reference(patch_map, (64, 64), spec)
    rows = (np.arange(frame_hw[0]) + 0.5) * geometry.resized_hw[0] / frame_hw[0] - geometry.top - 0.5
    columns = (np.arange(frame_hw[1]) + 0.5) * geometry.resized_hw[1] / frame_hw[1] - geometry.left - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    expected = scipy.ndimage.map_coordinates(model_map, grid, order=1, mode="nearest")
    x_min, y_min, x_max, y_max = geometry.inspected_box
    got = FrameMap(geometry, (16, 16), spec).inside(patch_map)
    np.testing.assert_allclose(got, expected[y_min:y_max, x_min:x_max], rtol=0, atol=MAP_ATOL)


def test_a_frame_map_of_a_map_that_is_smooth_already() -> None:
    geometry = place(PreprocessSpec(64, 48, resize_mode="stretch"), (64, 48))
    anomaly_map = uniform((64, 48))
    np.testing.assert_array_equal(FrameMap(geometry, (64, 48), None)(anomaly_map), anomaly_map)


# Scores

PATCHES, PIXELS = uniform((3, 5, 7), 1) - np.float32(0.7), uniform((3, 20, 28), 2) * 9 - 5


def test_scores_of_a_map() -> None:
    largest = score_of(PATCHES, PIXELS, PostprocessSpec())
    np.testing.assert_array_equal(largest, PIXELS.max((1, 2)))
    of_patches = score_of(PATCHES, PIXELS, PostprocessSpec(score="patch_max"))
    np.testing.assert_array_equal(of_patches, PATCHES.max((1, 2)))


@SHORT
@given(count=st.integers(1, 700))
def test_the_mean_of_the_highest(count: int) -> None:
    found = score_of(PATCHES, PIXELS, PostprocessSpec(score="top_mean", top_pixels=count))
    assert found is not None and found.dtype == np.float32
    for one, values in zip(found, PIXELS, strict=True):
        expected = np.sort(values.ravel().astype(np.float64))[::-1][:count].mean()
        assert one == np.float32(expected)


def test_scores_that_only_the_graph_knows() -> None:
    assert score_of(PATCHES, PIXELS, PostprocessSpec(score="family", score_range=(0.0, 9.0))) is None
