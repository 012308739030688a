"""The score of an image from its maps: the one implementation for engines, judging, training and self-tests."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PostprocessSpec

Real = TypeVar("Real", bound=np.floating[Any])


def score_of(patch_map: NDArray[Real], anomaly_map: NDArray[Real], spec: PostprocessSpec) -> NDArray[Real] | None:
    """Scores of images.

    Args:
        patch_map: (N, h, w), or the part of it that counts.
        anomaly_map: (N, H, W), likewise.

    Returns: (N,) of the same type; None where only the graph knows them.
    """
    if spec.scored_map is None:
        return None
    scored = anomaly_map if spec.scored_map == "anomaly_map" else patch_map
    values = scored.reshape(len(scored), -1)
    if spec.top_pixels is None:
        highest: NDArray[Real] = values.max(axis=1)
        return highest
    count = min(spec.top_pixels, values.shape[1])
    top = np.partition(values, values.shape[1] - count, axis=1)[:, -count:]
    mean: NDArray[Real] = top.mean(axis=1, dtype=np.float64).astype(values.dtype)
    return mean
