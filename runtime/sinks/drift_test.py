"""Are these scores distributed like those? The two-sample test of Kolmogorov and Smirnov, with exact probabilities."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


def ks_distance(reference: Scores, scores: Scores) -> float:
    """Largest difference of the two empirical distributions, 0 to 1. Args: reference: sorted. scores: in any order."""
    scores = np.sort(scores)
    both = np.concatenate([reference, scores])
    below_reference = np.searchsorted(reference, both, side="right") / len(reference)
    below_scores = np.searchsorted(scores, both, side="right") / len(scores)
    return float(np.abs(below_reference - below_scores).max())


def ks_tail(m: int, n: int, distance: float) -> float:
    """Probability that `ks_distance` of m and n scores from one continuous distribution is `distance` or more.

    Exact: each order of the m + n scores is as likely as any other, and is a path on a grid; counted are those that
    stay inside of the band in which the distance is smaller (Hodges 1958, "The significance probability of the Smirnov
    two-sample test"). Equal scores make the distance smaller, so the true probability is at most this.
    """
    # inside[i] of diagonal i + j: the share of paths to (i, j) that have not left the band. A path comes to (i, j) from
    # (i - 1, j) with probability i / (i + j), if all orders are equally likely.
    inside = np.zeros(m + 1)
    inside[0] = 1.0
    i = np.arange(m + 1)
    limit = distance - 1e-9
    for total in range(1, m + n + 1):
        from_left = np.concatenate([[0.0], inside[:-1]])
        inside = (from_left * i + inside * (total - i)) / total
        j = total - i
        inside[(j < 0) | (j > n)] = 0.0
        inside[np.abs(i / m - j / n) >= limit] = 0.0
    return float(1.0 - inside[m])


@lru_cache(maxsize=32)
def critical_distance(m: int, n: int, rate: float) -> float:
    """The smallest distance that m and n scores of one distribution reach with a probability of `rate` at most.

    Returns: above 1, which nothing reaches, where there are too few scores for that rate.
    """
    steps = math.lcm(m, n)  # distances are multiples of one part in so many
    low, high = 0, steps + 1
    while high - low > 1:
        middle = (low + high) // 2
        if ks_tail(m, n, middle / steps) <= rate:
            high = middle
        else:
            low = middle
    return high / steps
