"""Choosing the score from which on a frame is anomalous."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ThresholdChoice:
    """A threshold and what it does to the samples that it was chosen on.

    Attributes:
        value: raw score, midway between the two neighbouring scores that it separates.
        precision, recall, f1: of `score >= value` on those samples.
    """

    value: float
    precision: float
    recall: float
    f1: float


def best_f1_threshold(scores: ArrayLike, anomalous: ArrayLike) -> ThresholdChoice:
    """The cut with the best F1; among equals the one with the widest gap around it.

    A threshold never lies on a sample's own score, so rounding cannot flip that sample.

    Args:
        scores: (n,) raw scores.
        anomalous: (n,) truth, at least one True.

    Raises: ValueError when there is nothing to choose on.
    """
    values = np.asarray(scores, np.float64)
    truth = np.asarray(anomalous, bool)
    if values.shape != truth.shape or values.ndim != 1 or not truth.any() or not np.isfinite(values).all():
        raise ValueError("best F1: wanted finite scores, a truth for each, and at least one anomalous sample")
    levels = np.unique(values)
    below = np.concatenate([[2 * levels[0] - levels[1] if len(levels) > 1 else levels[0] - 1], levels[:-1]])
    best: tuple[float, float, ThresholdChoice] | None = None
    for low, high in zip(below, levels, strict=True):
        called = values >= high
        hits = int((called & truth).sum())
        precision, recall = hits / int(called.sum()), hits / int(truth.sum())
        f1 = 0.0 if hits == 0 else 2 * precision * recall / (precision + recall)
        rank = (f1, float(high - low))
        if best is None or rank > best[:2]:
            best = (*rank, ThresholdChoice(float((low + high) / 2), precision, recall, f1))
    assert best is not None
    return best[2]
