"""The fused operators give what torch's bilinear resize and SciPy's Gaussian give, border included."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.geometry import place
from edge_ad.image.operators import FrameMap, ResizeSmooth, gaussian_matrix, resize_matrix, sampling_matrix

SHORT = settings(max_examples=40, derandomize=True, deadline=None)
SIZES = st.integers(1, 90)
RESIZE_ATOL = 1e-6  # float32 rounding of values in [0, 1]
BLUR_ATOL = 1e-12  # both in float64, sums of up to 500 taps
MAP_ATOL = 1e-6  # two float32 products on values in [0, 1] against float64


def _uniform(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def _torch_bilinear(values: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    return F.interpolate(tensor, size_hw, mode="bilinear", align_corners=False)[0, 0].numpy()


def _reference_map(patch_map: np.ndarray, size_hw: tuple[int, int], sigma: float = 4.0) -> np.ndarray:
    """GLASS's own way in float64: torch resize, SciPy blur with its defaults (truncate 4, reflect)."""
    return scipy.ndimage.gaussian_filter(_torch_bilinear(patch_map.astype(np.float64), size_hw), sigma)


@SHORT
@given(n_in=SIZES, n_out=st.integers(1, 200))
def test_resize_matrix_is_torch_bilinear(n_in: int, n_out: int) -> None:
    values = _uniform((1, n_in))
    matrix = resize_matrix(n_in, n_out)
    got = values @ matrix.T
    np.testing.assert_allclose(got, _torch_bilinear(values.astype(np.float64), (1, n_out)), rtol=0, atol=1e-12)
    # In float32 torch rounds the position as well, one part in 2**24 of the index, which a steep signal shows.
    atol = RESIZE_ATOL + n_in * 2.0**-24
    np.testing.assert_allclose(got, _torch_bilinear(values, (1, n_out)), rtol=0, atol=atol)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-12)


def test_resize_matrix_is_not_align_corners() -> None:
    """Control: the other common convention is far outside of the tolerance."""
    values = _uniform((1, 36))
    other = F.interpolate(torch.from_numpy(values)[None, None], (1, 288), mode="bilinear", align_corners=True)
    assert np.abs(values @ resize_matrix(36, 288).T - other[0, 0].numpy()).max() > 0.01


@SHORT
@given(n=SIZES, sigma=st.floats(0.1, 60), truncate=st.floats(0.5, 5))
def test_gaussian_matrix_is_scipy_reflect(n: int, sigma: float, truncate: float) -> None:
    """Sigma 60 on an axis of a few samples overhangs it many times."""
    signal = np.random.default_rng(n).standard_normal(n)
    expected = scipy.ndimage.gaussian_filter1d(signal, sigma, truncate=truncate, mode="reflect")
    matrix = gaussian_matrix(n, sigma, truncate)
    np.testing.assert_allclose(matrix @ signal, expected, rtol=0, atol=BLUR_ATOL)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=BLUR_ATOL)


def test_gaussian_matrix_is_not_the_mirror_rule() -> None:
    """Control: OpenCV's default border (reflect-101, SciPy's `mirror`) differs visibly at the edge."""
    signal = _uniform((40,)).astype(np.float64)
    mirror = scipy.ndimage.gaussian_filter1d(signal, 4.0, mode="mirror")
    assert np.abs(gaussian_matrix(40, 4.0, 4.0) @ signal - mirror).max() > 1e-3


def test_no_blur_leaves_the_signal() -> None:
    np.testing.assert_array_equal(gaussian_matrix(7, 0.0, 4.0), np.eye(7))


@SHORT
@given(patch_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)), size_hw=st.tuples(SIZES, SIZES))
def test_resize_smooth_is_torch_resize_and_scipy_blur(patch_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    patch_map = _uniform(patch_hw, seed=sum(patch_hw))
    smooth = ResizeSmooth(patch_hw, size_hw)(patch_map)
    assert smooth.dtype == np.float32
    np.testing.assert_allclose(smooth, _reference_map(patch_map, size_hw), rtol=0, atol=MAP_ATOL)


@pytest.mark.parametrize(("patch_hw", "size_hw"), [((36, 36), (288, 288)), ((1, 1), (5, 7)), ((13, 29), (101, 333))])
def test_resize_smooth_at_real_and_odd_sizes(patch_hw: tuple[int, int], size_hw: tuple[int, int]) -> None:
    patch_map = _uniform(patch_hw)
    smooth = ResizeSmooth(patch_hw, size_hw)(patch_map)
    np.testing.assert_allclose(smooth, _reference_map(patch_map, size_hw), rtol=0, atol=MAP_ATOL)


def test_resize_smooth_of_a_batch_is_that_of_each_map() -> None:
    patch_maps = _uniform((2, 3, 9, 11))
    operator = ResizeSmooth((9, 11), (64, 80))
    together = operator(patch_maps)
    assert together.shape == (2, 3, 64, 80)
    # One ulp: BLAS may sum a batch in another order.
    np.testing.assert_allclose(together[1, 2], operator(patch_maps[1, 2]), rtol=0, atol=3e-7)


def test_resize_smooth_leaves_a_constant_map_and_its_argument() -> None:
    patch_map = np.full((12, 12), 0.25, np.float32)
    smooth = ResizeSmooth((12, 12), (96, 96))(patch_map)
    np.testing.assert_allclose(smooth, 0.25, rtol=0, atol=MAP_ATOL)
    smooth[:] = 0
    assert patch_map.min() == 0.25


def test_resize_smooth_refuses_a_map_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"\(5, 4\).*\(4, 4\)"):
        ResizeSmooth((4, 4), (32, 32))(_uniform((5, 4)))


@pytest.mark.parametrize("size", [(64, 64), (61, 97)])
def test_frame_map_at_model_size_is_resize_smooth(size: tuple[int, int]) -> None:
    geometry = place(PreprocessSpec(*size, resize_mode="stretch"), size)
    patch_map = _uniform((8, 9))
    np.testing.assert_allclose(
        FrameMap(geometry, (8, 9))(patch_map), ResizeSmooth((8, 9), size)(patch_map), rtol=0, atol=3e-7
    )


GEOMETRIES = {
    "crop, large frame": (PreprocessSpec(64, 64, resize=64), (270, 480)),
    "crop, portrait": (PreprocessSpec(64, 64, resize=72), (301, 173)),
    "crop, tiny frame": (PreprocessSpec(64, 64, resize=64), (17, 23)),
    "crop larger than the frame": (PreprocessSpec(64, 80, resize=48), (120, 130)),
    "letterbox, large frame": (PreprocessSpec(64, 64, resize_mode="letterbox"), (181, 323)),
    "letterbox, tiny frame": (PreprocessSpec(64, 64, resize_mode="letterbox"), (31, 12)),
    "stretch, large frame": (PreprocessSpec(64, 96, resize_mode="stretch"), (211, 157)),
    "stretch, tiny frame": (PreprocessSpec(64, 64, resize_mode="stretch"), (9, 40)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_frame_map_is_the_model_map_sampled_at_pixel_centres(name: str) -> None:
    """Oracle in float64: SciPy samples the model-size map linearly at the centre of every frame pixel."""
    spec, frame_hw = GEOMETRIES[name]
    geometry = place(spec, frame_hw)
    patch_map = _uniform((16, 16))
    model_map = _reference_map(patch_map, spec.size_hw)
    rows = (np.arange(frame_hw[0]) + 0.5) * geometry.resized_hw[0] / frame_hw[0] - geometry.top - 0.5
    columns = (np.arange(frame_hw[1]) + 0.5) * geometry.resized_hw[1] / frame_hw[1] - geometry.left - 0.5
    expected = scipy.ndimage.map_coordinates(
        model_map, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest"
    )
    x_min, y_min, x_max, y_max = geometry.inspected_box
    got = FrameMap(geometry, (16, 16))(patch_map, outside=-1.0)
    assert got.shape == frame_hw
    np.testing.assert_allclose(got[y_min:y_max, x_min:x_max], expected[y_min:y_max, x_min:x_max], rtol=0, atol=MAP_ATOL)
    got[y_min:y_max, x_min:x_max] = -1.0
    assert (got == -1.0).all()  # nothing is claimed about what the model did not see


def test_frame_map_off_by_one_pixel_would_be_seen() -> None:
    """Control for the oracle above: half a model pixel of shift is a thousand times its tolerance."""
    positions = (np.arange(64) + 0.5) * 0.5 - 0.5
    values = _reference_map(_uniform((16, 16)), (32, 32))[16]
    shift = np.abs((sampling_matrix(positions, 32) - sampling_matrix(positions + 0.5, 32)) @ values).max()
    assert shift > 1000 * MAP_ATOL


def test_sampling_takes_the_end_value_beyond_the_axis() -> None:
    values = np.array([2.0, 3.0, 5.0])
    got = sampling_matrix(np.array([-9.0, -0.25, 0.5, 2.0, 7.0]), 3) @ values
    np.testing.assert_allclose(got, [2, 2, 2.5, 5, 5], rtol=0, atol=1e-15)
