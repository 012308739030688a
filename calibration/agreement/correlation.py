"""Correlation of values that come in parts, without keeping them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array = NDArray[np.float64]


class Moments:
    """Mean, variance and covariance of two variables, and how far one lies from the other, in float64.

    Each part is measured about its own mean and then merged (Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances", 1979), so a large offset costs no digits.

    Attributes:
        count: values seen.
        error_max, error_sum: largest and summed absolute difference of the two.
    """

    def __init__(self) -> None:
        self.count = 0
        self.error_max = 0.0
        self.error_sum = 0.0
        self._mean = np.zeros(2)
        self._products = np.zeros((2, 2))
        self._low = np.full(2, math.inf)
        self._high = np.full(2, -math.inf)

    def add(self, first: ArrayLike, second: ArrayLike) -> None:
        """Take values of both variables, of equal shape and finite. Raises: ValueError for other shapes."""
        both = np.stack([np.asarray(first, np.float64).ravel(), np.asarray(second, np.float64).ravel()])
        count = both.shape[1]
        if not count:
            return
        difference = np.abs(both[0] - both[1])
        self.error_max = max(self.error_max, float(difference.max()))
        self.error_sum += float(difference.sum())
        self._low = np.minimum(self._low, both.min(axis=1))
        self._high = np.maximum(self._high, both.max(axis=1))
        mean = both.mean(axis=1)
        both -= mean[:, None]
        shift = mean - self._mean
        total = self.count + count
        self._products += both @ both.T + np.outer(shift, shift) * (self.count * count / total)
        self._mean += shift * (count / total)
        self.count = total

    @property
    def error_mean(self) -> float:
        return self.error_sum / self.count if self.count else 0.0

    @property
    def correlation(self) -> float | None:
        """Pearson's; None where one of the two does not vary."""
        spread = math.sqrt(self._products[0, 0]) * math.sqrt(self._products[1, 1])
        if not (self._low < self._high).all() or not spread:
            return None
        if self.error_max == 0:  # rounding would say a little less of values that are the same
            return 1.0
        return float(np.clip(self._products[0, 1] / spread, -1.0, 1.0))


def pearson(first: ArrayLike, second: ArrayLike) -> float | None:
    """Pearson's correlation of two (n,) arrays; None where one of them does not vary."""
    moments = Moments()
    moments.add(first, second)
    return moments.correlation


def spearman(first: ArrayLike, second: ArrayLike) -> float | None:
    """Spearman's rank correlation of two (n,) arrays, ties at their middle rank; None where one does not vary."""
    return pearson(middle_ranks(first), middle_ranks(second))


def middle_ranks(values: ArrayLike) -> Float64Array:
    """(n,) rank of each value from 1 on, equal values at the middle of theirs."""
    given = np.asarray(values, np.float64)
    ordered = np.sort(given)
    below, reached = np.searchsorted(ordered, given, "left"), np.searchsorted(ordered, given, "right")
    ranks: Float64Array = (below + reached + 1) / 2
    return ranks
