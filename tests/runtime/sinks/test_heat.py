"""Which values an overlay draws as no heat and as full heat, for scores of any range."""

from __future__ import annotations

import numpy as np
import pytest

from edge_ad.runtime.sinks.pictures import _heat_range

STRIPS = [np.array([[-7.0, -3.0]], np.float32), np.array([[-5.0, 2.0]], np.float32)]


@pytest.mark.parametrize("threshold", [0.5, 30.0, -4.0, -0.01])
def test_the_threshold_lies_in_the_middle(threshold: float) -> None:
    low, high = _heat_range(iter(STRIPS), threshold)
    assert low < threshold < high
    assert (low + high) / 2 == pytest.approx(threshold) and high - low == pytest.approx(abs(threshold))


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_without_a_scale_it_is_that_of_the_map(threshold: float | None) -> None:
    assert _heat_range(iter(STRIPS), threshold) == (-7.0, 2.0)
