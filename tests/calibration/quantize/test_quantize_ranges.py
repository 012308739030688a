"""Ranges from histograms, against what the raw values say."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle.specs import RangeMethod
from edge_ad.calibration.quantize.observe import BINS
from edge_ad.calibration.quantize.ranges import PERCENTILE, choose_range

METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)


def histogram(values: np.ndarray) -> tuple[np.ndarray, float]:
    reach = float(np.abs(values).max())
    return np.histogram(np.abs(values), BINS, (0, reach))[0].astype(np.int64), reach


def squared_error(values: np.ndarray, greatest: float) -> float:
    step = greatest / 127
    return float(((values - np.clip(np.round(values / step), -127, 127) * step) ** 2).mean())


DISTRIBUTIONS = {
    "normal": lambda rng: rng.standard_normal(40_000),
    "laplace": lambda rng: rng.laplace(size=40_000),
    "rectified": lambda rng: np.maximum(rng.standard_normal(40_000), 0),
    "uniform": lambda rng: rng.uniform(-1, 1, 40_000),
    "heavy": lambda rng: rng.standard_t(3, 40_000),
    "lognormal": lambda rng: rng.lognormal(0, 1, 40_000),
    "clipped": lambda rng: np.clip(rng.normal(1, 3, 40_000), 0, 6),
}


def test_min_max_cuts_nothing() -> None:
    values = np.random.default_rng(0).standard_t(2, 10_000)
    assert choose_range("min-max", *histogram(values)) == np.abs(values).max()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_percentile_is_the_quantile_of_the_raw_values(name: str) -> None:
    values = np.abs(DISTRIBUTIONS[name](np.random.default_rng(1)))
    counts, reach = histogram(values)
    wanted = np.quantile(values, PERCENTILE, method="inverted_cdf")
    found = choose_range("percentile", counts, reach)
    assert wanted - 1e-12 <= found <= wanted + reach / BINS * (1 + 1e-9)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_is_near_the_least_error_there_is(name: str) -> None:
    """Against every range of a ten times finer grid, on the raw values; never worse than cutting nothing."""
    values = DISTRIBUTIONS[name](np.random.default_rng(2))
    counts, reach = histogram(values)
    found = squared_error(values, choose_range("mse", counts, reach))
    least = min(squared_error(values, reach * part / 1000) for part in range(5, 1001))
    assert found <= 1.03 * least
    assert found <= 1.001 * squared_error(values, reach)


def test_mse_gains_by_cutting_a_long_tail() -> None:
    values = DISTRIBUTIONS["laplace"](np.random.default_rng(3))
    counts, reach = histogram(values)
    cut = choose_range("mse", counts, reach)
    assert cut < 0.95 * reach
    assert squared_error(values, cut) < 0.95 * squared_error(values, reach)


def test_entropy_cuts_an_outlier_and_no_uniform_values() -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_normal(100_000)
    greatest = float(np.abs(values).max())
    with_outlier = np.append(values, 20 * greatest)
    assert choose_range("entropy", *histogram(with_outlier)) < 2 * greatest
    uniform = rng.uniform(-1, 1, 100_000)
    assert choose_range("entropy", *histogram(uniform)) > 0.98
    assert choose_range("entropy", *histogram(np.append(uniform, 20.0))) < 2


def test_entropy_leaves_out_the_zeros_of_a_relu() -> None:
    values = np.abs(np.random.default_rng(5).standard_normal(50_000))
    counts, reach = histogram(values)
    zeros = counts.copy()
    zeros[0] += 10_000_000
    assert choose_range("entropy", zeros, reach) == choose_range("entropy", counts, reach)


@pytest.mark.parametrize("method", METHODS)
def test_one_value_is_represented(method: RangeMethod) -> None:
    counts = np.zeros(BINS, np.int64)
    counts[-1] = 1000
    assert choose_range(method, counts, 3.0) == pytest.approx(3.0, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_have_a_range_that_can_be_divided_by(method: RangeMethod) -> None:
    counts = np.zeros(BINS, np.int64)
    counts[0] = 1000
    assert choose_range(method, counts, 0.0) == 1.0
    assert choose_range(method, np.zeros(BINS, np.int64), 2.0) == 1.0


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(
    counts=st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 10**9), min_size=1, max_size=40),
    reach=st.floats(1e-6, 1e6),
)
def test_every_range_is_positive_and_within_reach(method: RangeMethod, counts: dict[int, int], reach: float) -> None:
    histogram_of = np.zeros(BINS, np.int64)
    histogram_of[list(counts)] = list(counts.values())
    histogram_of[-1] += 1  # something reaches the reach
    assert 0 < choose_range(method, histogram_of, reach) <= reach * (1 + 1e-12)
