"""Bands are the matrix that they were cut from, and Pillow's filter is Pillow's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.image.banded import Banded, resize_taps
from edge_ad.image.operators import resize_smooth_matrix

SHORT = settings(max_examples=80, derandomize=True, deadline=None)
SIZES = st.integers(1, 60)


def dense(taps: Banded) -> np.ndarray:
    matrix = np.zeros((len(taps.starts), taps.n_in))
    for row, (start, weights) in enumerate(zip(taps.starts, taps.weights, strict=True)):
        matrix[row, start : start + taps.taps] += weights
    return matrix


@SHORT
@given(n_in=SIZES, n_out=SIZES, sigma=st.sampled_from([0.0, 0.7, 4.0, 30.0]), tile=st.integers(1, 40))
def test_bands_hold_the_whole_matrix_and_nothing_outside_of_it(n_in: int, n_out: int, sigma: float, tile: int) -> None:
    matrix = resize_smooth_matrix(n_in, n_out, PostprocessSpec(sigma))
    taps = Banded.of(matrix)
    assert taps.starts.min() >= 0 and (taps.starts + taps.taps).max() <= n_in
    assert np.array_equal(dense(taps), matrix)
    first, span = taps.reach(tile)
    assert first.min() >= 0 and (first + span).max() <= n_in
    for row, start in enumerate(taps.starts):
        assert first[row // tile] <= start and start + taps.taps <= first[row // tile] + span


def test_the_operator_of_the_default_model_has_six_taps() -> None:
    taps = Banded.of(resize_smooth_matrix(36, 288, PostprocessSpec()))
    assert taps.taps == 6
    assert taps.reach(32)[1] == 10


def test_rows_without_a_weight_read_the_first_sample() -> None:
    taps = Banded.of(np.array([[0.0, 0.0, 0.0], [0.0, 0.25, 0.75]]))
    assert taps.starts.tolist() == [0, 1]
    assert taps.weights.tolist() == [[0.0, 0.0], [0.25, 0.75]]


@pytest.mark.parametrize(
    ("n_in", "n_out"), [(1, 1), (1, 7), (7, 1), (97, 97), (100, 33), (33, 100), (1080, 288), (5, 4)]
)
def test_the_filter_is_pillows(n_in: int, n_out: int) -> None:
    """Pillow itself resizes one row of noise; the weights must give every grey level of it."""
    row = np.random.default_rng(n_in).integers(0, 256, (1, n_in), np.uint8)
    expected = np.asarray(Image.fromarray(row).resize((n_out, 1), Image.Resampling.BILINEAR))
    got = (dense(resize_taps(n_in, n_out)) @ row[0] + (1 << 21)).astype(np.int64) >> 22
    assert np.array_equal(np.clip(got, 0, 255), expected[0])
