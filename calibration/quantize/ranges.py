"""Range of an activation from the histogram of its absolute values: where symmetric int8 saturates.

All methods choose the value that the 127th level stands for. Bins are counted from 0 to the greatest value seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import RangeMethod

LEVELS = 127
PERCENTILE = 0.9999  # of the absolute values: what NVIDIA's and ONNX Runtime's calibrators take, or nearly
CANDIDATES = 100  # ranges that are tried by `mse` and `entropy`, evenly spaced up to the greatest value

Histogram = NDArray[np.int64]


def choose_range(method: RangeMethod, histogram: Histogram, reach: float) -> float:
    """Greatest representable value.

    Args:
        method: `min-max`, nothing seen is cut; `percentile`, the largest 0.01 % are; `mse`, least mean square error of
            rounding and saturation together; `entropy`, least divergence (Kullback and Leibler) of the distribution.
        histogram: counts of the absolute values in even bins from 0 to `reach`.
        reach: greatest absolute value seen; 0 for a tensor that is always zero.

    Returns: a positive number, at most `reach` where that is positive.
    """
    if reach <= 0 or not histogram.any():
        return 1.0
    return _METHODS[method](histogram.astype(np.float64), reach)


def _min_max(histogram: NDArray[np.float64], reach: float) -> float:
    return reach


def _percentile(histogram: NDArray[np.float64], reach: float) -> float:
    share = np.cumsum(histogram) / histogram.sum()
    return float(reach * (np.searchsorted(share, PERCENTILE) + 1) / len(histogram))


def _mse(histogram: NDArray[np.float64], reach: float) -> float:
    values = (np.arange(len(histogram)) + 0.5) * reach / len(histogram)
    candidates = reach * np.arange(1, CANDIDATES + 1) / CANDIDATES
    steps = candidates[:, None] / LEVELS
    rounded = np.minimum(np.round(values / steps), LEVELS) * steps
    errors = ((values - rounded) ** 2 * histogram).sum(axis=1)
    return float(candidates[np.argmin(errors)])


def _entropy(histogram: NDArray[np.float64], reach: float) -> float:
    """Migacz's method (8-bit inference with TensorRT, GTC 2017): cut, merge into 128 levels, spread out, compare.

    Values are zero so often after a ReLU that the first bin would decide alone; as there, it is left out.
    """
    bins = histogram.copy()
    bins[0] = 0
    if not bins.any():
        return reach
    least = LEVELS + 1
    lengths = np.unique(np.linspace(least, len(bins), CANDIDATES).round().astype(int))
    divergences = []
    for length in lengths:
        wanted = bins[:length].copy()
        present = wanted > 0
        got = _through_levels(wanted, present)
        wanted[-1] += bins[length:].sum()
        divergences.append(_divergence(wanted, got))
    return float(reach * lengths[int(np.argmin(divergences))] / len(bins))


def _through_levels(counts: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Counts merged into 128 levels and spread evenly over the bins of each level that held any."""
    level = np.arange(len(counts)) * (LEVELS + 1) // len(counts)
    total = np.bincount(level, counts, LEVELS + 1)
    holding = np.bincount(level, present, LEVELS + 1)
    spread = np.divide(total, holding, out=np.zeros_like(total), where=holding > 0)
    return np.where(present, spread[level], 0.0)


def _divergence(wanted: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    floor = 1e-9  # a bin that the quantized distribution misses costs much, not everything
    p, q = wanted / wanted.sum(), np.maximum(got / max(got.sum(), floor), floor)
    used = p > 0
    return float((p[used] * np.log(p[used] / q[used])).sum())


_METHODS: dict[RangeMethod, Callable[[NDArray[np.float64], float], float]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
