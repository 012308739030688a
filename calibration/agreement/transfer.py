"""A threshold for a candidate, from the one that was chosen for its reference.

The images at hand are others than those that the threshold was chosen on, so choosing anew would mix two changes:
of the images and of the model. What is carried over is the shift alone: how far the candidate moves what the same
rule finds on the same images, and for a threshold of pixels, how far it moves the pixels of those ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edge_ad.bundle.specs import ThresholdOrigin, Thresholds
from edge_ad.calibration.agreement.answers import Answers, Pair, pairs_of
from edge_ad.calibration.evaluation.thresholds import ThresholdRequest, choose_threshold
from edge_ad.errors import ConfigError

NEAREST_SHARE = 0.1
NEAREST_LEAST = 5
_ROUNDING = 1e-9

By = Literal["best-f1", "quantile", "false-alarm", "nearest scores"]


@dataclass(frozen=True)
class Transfer:
    """A candidate's thresholds.

    Attributes:
        thresholds: with `image` moved by the shift and `pixel` by its own, but not above what a score or a map can be;
            the origin names the rule of the reference's threshold, without figures.
        shift: of the threshold of frames, candidate minus reference, raw score; 0 where there is none.
        by: what the shift is of: of the threshold that a rule finds, or of the scores nearest to the threshold.
        pixel_shift: of the threshold of pixels; None where they have none of their own.
    """

    thresholds: Thresholds
    shift: float
    by: By
    pixel_shift: float | None = None


def rederive(
    thresholds: Thresholds,
    reference: Answers,
    candidate: Answers,
    *,
    labelled: bool,
    highest: float = math.inf,
    highest_pixel: float = math.inf,
) -> Transfer | None:
    """Carry thresholds over from a reference to a candidate.

    The shift is that of what the threshold's own rule finds on the images that both judged. Where there is no rule,
    or too few images for it, and where the rule moves further than any score does (it then found another gap between
    the scores, which says nothing of the old one), it is the median of the score changes of the tenth of the images
    nearest to the threshold. A threshold of pixels moves so that it cuts as much out of all maps together as before.

    Args:
        thresholds: of the reference.
        reference, candidate: answers to the same images.
        labelled: whether it is known which images are good.
        highest, highest_pixel: that a score and a pixel can be; infinity where there is no bound.

    Returns: the candidate's thresholds; None where the reference has none.

    Raises: SourceError when no image was judged by both; ValueError for answers to different images.
    """
    if thresholds.image is None and thresholds.pixel is None:
        return None
    pairs = pairs_of(reference, candidate)
    shift: float = 0.0
    by: By = "nearest scores"
    pixel_shift: float | None = None
    if thresholds.image is not None:
        ruled = _by_rule(thresholds.image_origin, pairs, highest) if labelled else None
        shift, by = ruled or (_nearest(pairs, thresholds.image), "nearest scores")
        value = _within(thresholds.image, shift, highest)
        thresholds = replace(thresholds, image=value, image_origin=_rule_alone(thresholds.image_origin))
    if thresholds.pixel is not None:
        pixel_shift = _shift_of_pixels(pairs, thresholds.pixel)
        thresholds = replace(thresholds, pixel=_within(thresholds.pixel, pixel_shift, highest_pixel))
    return Transfer(thresholds, shift, by, pixel_shift)


def _within(value: float, shift: float, highest: float) -> float:
    """A threshold that is moved, and reached by something if it was before."""
    return min(value + shift, highest) if value <= highest else value + shift


def _rule_alone(origin: ThresholdOrigin | None) -> ThresholdOrigin | None:
    """The rule that a threshold goes back to, without what it did on images that the candidate has not judged."""
    if origin is None:
        return None
    return ThresholdOrigin(origin.rule, quantile=origin.quantile, wanted_rate=origin.wanted_rate)


def _by_rule(origin: ThresholdOrigin | None, pairs: Sequence[Pair], highest: float) -> tuple[float, By] | None:
    if origin is None or origin.rule == "value":
        return None
    if (origin.rule == "quantile" and origin.quantile is None) or (
        origin.rule == "false-alarm" and origin.wanted_rate is None
    ):
        return None
    request = ThresholdRequest(origin.rule, quantile=origin.quantile, rate=origin.wanted_rate)
    anomalous = [pair.sample.anomalous for pair in pairs]
    try:
        before, _ = choose_threshold(request, [pair.reference.score for pair in pairs], anomalous, highest)
        after, _ = choose_threshold(request, [pair.candidate.score for pair in pairs], anomalous, highest)
    except ConfigError:  # too few images of a kind, or all of one score
        return None
    shift = after - before
    moves = [pair.candidate.score - pair.reference.score for pair in pairs]
    slack = _ROUNDING * max(1.0, abs(before), abs(after))
    if not min(moves) - slack <= shift <= max(moves) + slack:
        return None
    return shift, origin.rule


def _nearest(pairs: Sequence[Pair], threshold: float) -> float:
    """Median change of the scores that lie nearest to the threshold."""
    count = max(NEAREST_LEAST, math.ceil(NEAREST_SHARE * len(pairs) - _ROUNDING))
    chosen = sorted(pairs, key=lambda pair: abs(pair.reference.score - threshold))[:count]
    return float(np.median([pair.candidate.score - pair.reference.score for pair in chosen]))


def _shift_of_pixels(pairs: Sequence[Pair], threshold: float) -> float:
    """How far a threshold moves that is to cut as many pixels out of the candidate's maps as out of the reference's.

    Where it lies between two values, it keeps its place between those that have their ranks with the candidate; beyond
    all values it moves as the last one does.
    """
    before, after = (
        np.concatenate([answer.anomaly_map.ravel() for answer in answers])
        for answers in ([pair.reference for pair in pairs], [pair.candidate for pair in pairs])
    )
    reached = before >= threshold
    below = len(before) - int(reached.sum())
    if below == len(before):
        return float(after.max()) - float(before.max())
    if below == 0:
        return float(after.min()) - float(before.min())
    low, high = float(before[~reached].max()), float(before[reached].min())
    ranked = np.partition(after, (below - 1, below))
    new_low, new_high = float(ranked[below - 1]), float(ranked[below])
    place = (threshold - low) / (high - low)
    return new_low + place * (new_high - new_low) - threshold
