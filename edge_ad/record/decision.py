"""From which value on something is anomalous: the one comparison for scores, pixels, figures and masks.

Maps are float32, thresholds and scores are float64. NumPy rounds a threshold to float32 when it meets a map, so the
pixel that makes a score could reach a threshold that the score does not. Here both are compared as the real numbers
that they are.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


@overload
def reaches(values: float, threshold: float) -> bool: ...


@overload
def reaches(values: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.bool_]: ...


def reaches(values: float | NDArray[np.floating[Any]], threshold: float) -> bool | NDArray[np.bool_]:
    """Whether values lie at or above a threshold.

    Args:
        values: a raw score, or an array of raw scores or of a map, float32 or float64.
        threshold: finite.
    """
    if isinstance(values, np.ndarray) and values.dtype == np.float32:
        at_least: NDArray[np.bool_] = values >= least_float32(threshold)
        return at_least
    return values >= threshold


def least_float32(threshold: float) -> np.float32:
    """The smallest float32 that is not below a threshold; infinity where there is none."""
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
        return near if float(near) >= threshold else np.nextafter(near, np.float32(np.inf))
