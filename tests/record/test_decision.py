"""Scores and pixels are held against a threshold in the same arithmetic, whatever type they have."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_ad.record.decision import least_float32, reaches

thresholds = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(threshold=thresholds, value=singles)
@example(threshold=0.253, value=float(np.float32(0.253)))
@example(threshold=1e300, value=3e38)
@example(threshold=-1e300, value=-3e38)
@example(threshold=5e-324, value=0.0)
def test_a_map_is_compared_as_its_values_would_be_one_by_one(threshold: float, value: float) -> None:
    single = np.float32(np.clip(threshold, -3e38, 3e38))
    near = [value, float(single), *(float(np.nextafter(single, np.float32(side))) for side in (-np.inf, np.inf))]
    values = np.array([one for one in near if math.isfinite(one)], np.float32)
    one_by_one = [reaches(float(one), threshold) for one in values]
    assert one_by_one == [float(one) >= threshold for one in values]
    assert reaches(values, threshold).tolist() == one_by_one
    assert reaches(values.astype(np.float64), threshold).tolist() == one_by_one


def test_control_numpy_alone_would_let_a_pixel_reach_what_its_score_does_not() -> None:
    values = np.array([0.3], np.float32)
    threshold = np.nextafter(float(values[0]), 1)
    assert (values >= float(threshold)).all()
    assert not reaches(values, float(threshold)).any() and not reaches(float(values[0]), float(threshold))


@pytest.mark.parametrize("threshold", [0.1, -0.1, 1e-45, 1e39, -1e39, 0.0])
def test_the_least_float32_is_not_below_and_the_one_before_it_is(threshold: float) -> None:
    least = least_float32(threshold)
    assert float(least) >= threshold
    with np.errstate(over="ignore"):
        assert float(np.nextafter(least, np.float32(-np.inf))) < threshold
