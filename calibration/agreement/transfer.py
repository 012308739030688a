"""A threshold for a candidate, from the one that was chosen for its reference.

The images at hand are others than those that the threshold was chosen on, so choosing anew would mix two changes:
of the images and of the model. What is carried over is the shift alone: how far the candidate moves what the same
rule finds on the same images.
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
        thresholds: with `image` moved by the shift, but not above what a score can be; the origin names the rule of
            the reference's threshold, without figures.
        shift: candidate minus reference, raw score.
        by: what the shift is of: of the threshold that a rule finds, or of the scores nearest to the threshold.
    """

    thresholds: Thresholds
    shift: float
    by: By


def rederive(
    thresholds: Thresholds, reference: Answers, candidate: Answers, *, labelled: bool, highest: float = math.inf
) -> Transfer | None:
    """Carry a threshold over from a reference to a candidate.

    The shift is that of what the threshold's own rule finds on the images that both judged. Where there is no rule,
    or too few images for it, and where the rule moves further than any score does (it then found another gap between
    the scores, which says nothing of the old one), it is the median of the score changes of the tenth of the images
    nearest to the threshold.

    Args:
        thresholds: of the reference.
        reference, candidate: answers to the same images.
        labelled: whether it is known which images are good.
        highest: that a score can be; infinity where there is no bound.

    Returns: the candidate's thresholds; None where the reference has none.

    Raises: SourceError when no image was judged by both; ValueError for answers to different images.
    """
    if thresholds.image is None:
        return None
    pairs = pairs_of(reference, candidate)
    ruled = _by_rule(thresholds.image_origin, pairs, highest) if labelled else None
    shift, by = ruled or (_nearest(pairs, thresholds.image), "nearest scores")
    value = thresholds.image + shift
    if thresholds.image <= highest:
        value = min(value, highest)
    return Transfer(replace(thresholds, image=value, image_origin=_rule_alone(thresholds.image_origin)), shift, by)


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
