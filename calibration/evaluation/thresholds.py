"""Choosing the score from which on a frame is anomalous.

Every threshold lies midway between the two neighbouring scores that it separates, never on a score, so rounding cannot
flip an image that it was chosen on. Beyond the outermost score there is no neighbour: the threshold then lies as far
from that score as the middle between it and the next one does on its other side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ad.bundle.specs import ThresholdOrigin, ThresholdRule
from edge_ad.errors import ConfigError
from edge_ad.metrics.ranking import best_f1, beyond, checked, midway, operation

CONFIDENCE = 0.95
_ROUNDING = 1e-9  # 0.29 · 100 is a little less than 29


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

    Args:
        scores: (n,) raw scores.
        anomalous: (n,) truth, at least one True.

    Raises: ValueError when there is nothing to choose on.
    """
    try:
        best = best_f1(scores, anomalous)
    except ValueError as exc:
        raise ValueError(f"best F1: {exc}") from exc
    if best is None:
        raise ValueError("best F1: wanted at least one anomalous sample, got none")
    # The cut calls at least one sample, and there is an anomalous one, so all three are defined.
    return ThresholdChoice(best.threshold, best.precision or 0.0, best.recall or 0.0, best.f1 or 0.0)


def quantile_threshold(good_scores: ArrayLike, quantile: float, highest: float = math.inf) -> float:
    """The lowest cut with at least the share `quantile` of the good scores below it.

    Where that is all of them, it lies above the highest score by half the distance to the next lower one, but never
    above what a score can be.

    Args:
        good_scores: (n,) raw scores of good images, at least two different ones.
        quantile: 0..1.
        highest: that a score can be.

    Raises: ConfigError for a quantile outside of 0..1, or scores that give no distance; ValueError for scores that
        are not finite.
    """
    if not 0 <= quantile <= 1:
        raise ConfigError("threshold", [f"quantile: wanted a number from 0 to 1, got {quantile:g}"])
    ordered = _ordered(good_scores)
    return _cut_above(ordered, math.ceil(quantile * len(ordered) - _ROUNDING), highest)


def false_alarm_threshold(good_scores: ArrayLike, rate: float, highest: float = math.inf) -> float:
    """The lowest cut with at most the share `rate` of the good scores at or above it.

    Args:
        good_scores: (n,) raw scores of good images, at least 1 / `rate` of them and two different ones.
        rate: wanted share of false alarms, above 0 and below 1.
        highest: that a score can be.

    Raises: ConfigError for a rate that is none, or one that so few images cannot show, saying how many are needed;
        ValueError for scores that are not finite.
    """
    if not 0 < rate < 1:
        raise ConfigError("threshold", [f"rate: wanted a number above 0 and below 1, got {rate:g}"])
    ordered = _ordered(good_scores)
    n = len(ordered)
    alarms = math.floor(rate * n + _ROUNDING)
    if not alarms:
        raise ConfigError(
            "threshold",
            [
                f"rate: {rate:g} cannot be seen on {n} good images, of which a single one is {1 / n:.2g};"
                f" wanted at least {images_needed(rate)} good images ({images_to_be_sure(rate)} without a false alarm"
                f" would show it with {CONFIDENCE:.0%} confidence), or a higher rate"
            ],
        )
    return _cut_above(ordered, n - alarms, highest)


def images_needed(rate: float) -> int:
    """How many good images there have to be for one false alarm to be within `rate`."""
    return math.ceil(1 / rate - _ROUNDING)


def images_to_be_sure(rate: float) -> int:
    """How many good images without a false alarm show with `CONFIDENCE` that the rate is not above `rate`."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate) - _ROUNDING)


def rate_interval(hits: int, images: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a rate of which `hits` of `images` were seen (Clopper and Pearson, Biometrika 1934; exact).

    Args:
        hits, images: 0 <= hits <= images, at least one image.
        confidence: how often such an interval holds the true rate, at least.
    """
    from scipy.stats import binomtest

    bounds = binomtest(hits, images).proportion_ci(confidence, method="exact")
    return float(bounds.low), float(bounds.high)


@dataclass(frozen=True)
class ThresholdRequest:
    """What to choose by: the rule, and the number that it needs."""

    rule: ThresholdRule
    quantile: float | None = None
    rate: float | None = None
    value: float | None = None


def choose_threshold(
    request: ThresholdRequest, scores: ArrayLike, anomalous: ArrayLike, highest: float = math.inf
) -> tuple[float, ThresholdOrigin]:
    """Choose a threshold by a rule.

    Args:
        request: the rule; the number that it needs must be there.
        scores: (n,) raw scores; empty for `value` without images.
        anomalous: (n,) truth.
        highest: that a score can be; infinity where there is no bound.

    Returns: the threshold, and how it was chosen, but for `images`, which the caller knows.

    Raises: ConfigError when the images do not suffice for the rule; ValueError for scores that are not finite.
    """
    values, truth = checked(scores, anomalous)
    good = values[~truth]
    if request.rule == "best-f1":
        if not truth.any() or not len(good):
            kind = "defective" if len(good) else "good"
            raise ConfigError("threshold", [f"best-f1: wanted good and defective images, got no {kind} one"])
        value = best_f1_threshold(values, truth).value
    elif request.rule == "quantile":
        assert request.quantile is not None
        value = quantile_threshold(good, request.quantile, highest)
    elif request.rule == "false-alarm":
        assert request.rate is not None
        value = false_alarm_threshold(good, request.rate, highest)
    else:
        assert request.value is not None
        value = request.value
    seen = operation(values, truth, value)
    return value, ThresholdOrigin(
        rule=request.rule,
        good_images=seen.good,
        defective_images=seen.defective,
        quantile=request.quantile if request.rule == "quantile" else None,
        wanted_rate=request.rate if request.rule == "false-alarm" else None,
        false_alarm_rate=seen.false_alarm_rate,
        interval=rate_interval(seen.false_alarms, seen.good) if seen.good else None,
        confidence=CONFIDENCE if seen.good else None,
        precision=seen.precision if seen.defective else None,
        recall=seen.recall,
        f1=seen.f1,
    )


def _ordered(good_scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(good_scores, np.float64)
    checked(values, np.zeros(values.shape, bool))
    ordered = np.sort(values)
    if not len(ordered) or ordered[0] == ordered[-1]:
        got = f"{len(ordered)} scores, all {ordered[0]:g}" if len(ordered) else "no good image"
        raise ConfigError("threshold", [f"wanted good images of at least two different scores, got {got}"])
    return ordered


def _cut_above(ordered: NDArray[np.float64], below: int, highest: float) -> float:
    """The lowest cut with at least `below` of the ascending scores under it."""
    if below == 0:
        levels = np.unique(ordered)
        return midway(beyond(levels), float(levels[0]))
    low = float(ordered[below - 1])
    higher = ordered[ordered > low]
    if len(higher):
        return midway(low, float(higher[0]))
    above = midway(low, -beyond(-np.unique(ordered)[::-1]))
    return min(above, midway(low, highest)) if low < highest < math.inf else above
