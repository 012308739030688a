"""Metrics of one score for each image: ROC, precision and recall, F1.

An image is called anomalous when `score >= threshold`, so images of equal score are called together. A metric that
needs both kinds of images is None where one kind is missing: there is no value to report, and 0 would be a claim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ad.record.decision import reaches

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class RocCurve:
    """Rates of `score >= threshold` at every distinct score, highest first.

    Attributes:
        false_positive_rate, true_positive_rate: (k,) in 0..1, from (0, 0) to (1, 1).
        thresholds: (k,) descending; the first is infinity.
    """

    false_positive_rate: Float64Array
    true_positive_rate: Float64Array
    thresholds: Float64Array


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall of `score >= threshold` at every distinct score, highest first.

    Attributes:
        precision, recall: (k,) in 0..1; the first point is (1, 0), where nothing is called anomalous.
        thresholds: (k,) descending; the first is infinity.
    """

    precision: Float64Array
    recall: Float64Array
    thresholds: Float64Array


@dataclass(frozen=True)
class Operation:
    """What one threshold does.

    Attributes:
        threshold: raw score from which on an image is called anomalous.
        hits, misses: defective images called anomalous, and normal.
        false_alarms, passed: good images called anomalous, and normal.
    """

    threshold: float
    hits: int
    misses: int
    false_alarms: int
    passed: int

    @property
    def good(self) -> int:
        return self.false_alarms + self.passed

    @property
    def defective(self) -> int:
        return self.hits + self.misses

    @property
    def precision(self) -> float | None:
        """Share of the alarms that are right; None without an alarm."""
        return _share(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float | None:
        """Share of the defective images that are found; None without one."""
        return _share(self.hits, self.defective)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; 0 when nothing is found, None without a defective image."""
        return _share(2 * self.hits, 2 * self.hits + self.misses + self.false_alarms) if self.defective else None

    @property
    def accuracy(self) -> float | None:
        """Share of all images called what they are; None without an image."""
        return _share(self.hits + self.passed, self.good + self.defective)

    @property
    def false_alarm_rate(self) -> float | None:
        """Share of the good images called anomalous; None without one."""
        return _share(self.false_alarms, self.good)


def roc_curve(scores: ArrayLike, truth: ArrayLike) -> RocCurve | None:
    """The ROC curve; None where there are no images of one kind.

    Args:
        scores: (n,) raw scores, finite.
        truth: (n,) True for defective.

    Raises: ValueError for arrays that do not fit each other, or scores that are not finite.
    """
    values, anomalous = checked(scores, truth)
    if not _has_both(anomalous):
        return None
    levels, hits, alarms = _counts(values, anomalous)
    return RocCurve(
        np.concatenate([[0.0], alarms / alarms[-1]]),
        np.concatenate([[0.0], hits / hits[-1]]),
        np.concatenate([[math.inf], levels]),
    )


def precision_recall_curve(scores: ArrayLike, truth: ArrayLike) -> PrecisionRecallCurve | None:
    """The precision-recall curve; None without a defective image. Arguments and errors as for `roc_curve`."""
    values, anomalous = checked(scores, truth)
    if not anomalous.any():
        return None
    levels, hits, alarms = _counts(values, anomalous)
    return PrecisionRecallCurve(
        np.concatenate([[1.0], hits / (hits + alarms)]),
        np.concatenate([[0.0], hits / hits[-1]]),
        np.concatenate([[math.inf], levels]),
    )


def auroc(scores: ArrayLike, truth: ArrayLike) -> float | None:
    """Area under the ROC curve: how often a defective image scores above a good one, ties counted half.

    Returns: 0..1; None where there are no images of one kind. Arguments and errors as for `roc_curve`.
    """
    curve = roc_curve(scores, truth)
    if curve is None:
        return None
    return float(area(curve.false_positive_rate, curve.true_positive_rate))


def average_precision(scores: ArrayLike, truth: ArrayLike) -> float | None:
    """Mean precision over the recall, as a step function: Σ (R_k − R_{k−1}) · P_k.

    Returns: 0..1; None without a good or without a defective image, where it says nothing. Arguments and errors as for
    `roc_curve`.
    """
    values, anomalous = checked(scores, truth)
    if not _has_both(anomalous):
        return None
    _, hits, alarms = _counts(values, anomalous)
    return float(np.sum(np.diff(hits, prepend=0) / hits[-1] * (hits / (hits + alarms))))


def best_f1(scores: ArrayLike, truth: ArrayLike) -> Operation | None:
    """The cut with the best F1; among equals the one with the widest gap around it, then the higher one.

    Returns: what it does, at a threshold midway between the scores that it separates (see `midway`); None without a
    defective image. Arguments and errors as for `roc_curve`.
    """
    values, anomalous = checked(scores, truth)
    if not anomalous.any():
        return None
    levels, hits, alarms = _counts(values, anomalous)
    below = np.append(levels[1:], beyond(levels[::-1]))
    f1 = 2 * hits / (hits + alarms + hits[-1])
    # Equal F1 values are quotients of whole numbers and can differ by rounding.
    widest = np.where(np.isclose(f1, f1.max(), rtol=1e-12, atol=0), levels - below, -np.inf)
    best = int(widest.argmax())
    return operation(values, anomalous, midway(float(below[best]), float(levels[best])))


def operation(scores: ArrayLike, truth: ArrayLike, threshold: float) -> Operation:
    """What `score >= threshold` does to images of known truth. Arguments and errors as for `roc_curve`."""
    values, anomalous = checked(scores, truth)
    called = reaches(values, threshold)
    return Operation(
        threshold=threshold,
        hits=int((called & anomalous).sum()),
        misses=int((~called & anomalous).sum()),
        false_alarms=int((called & ~anomalous).sum()),
        passed=int((~called & ~anomalous).sum()),
    )


def midway(low: float, high: float) -> float:
    """A threshold between two scores, `low < threshold <= high`: their middle.

    Scores are float32, so the middle of two neighbours of that type still lies between them in float64. Where even
    float64 has no number between the two, it is `high`, which separates them as well.
    """
    middle = low + (high - low) / 2
    if not math.isfinite(middle):
        middle = low / 2 + high / 2
    return middle if low < middle < high else high


def beyond(levels: Float64Array) -> float:
    """A stand-in for the neighbour that the first of ascending `levels` lacks: as far from it as the second is.

    With a single level it lies 1 away, for want of any scale.
    """
    first = float(levels[0])
    stand_in = 2 * first - float(levels[1]) if len(levels) > 1 else first - 1
    return stand_in if stand_in < first else float(np.nextafter(first, -np.inf))


def area(x: Float64Array, y: Float64Array) -> float:
    """Area under the straight lines between points with ascending `x`."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def checked(scores: ArrayLike, truth: ArrayLike) -> tuple[Float64Array, BoolArray]:
    """Both as arrays of one dimension.

    Raises: ValueError unless there is a truth for each score and every score is finite.
    """
    values, anomalous = np.asarray(scores, np.float64), np.asarray(truth, bool)
    if values.ndim != 1 or values.shape != anomalous.shape:
        raise ValueError(f"wanted (n,) scores and a truth for each, got {values.shape} and {anomalous.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"wanted finite scores, got {values[~np.isfinite(values)][0]}")
    return values, anomalous


def _counts(values: Float64Array, anomalous: BoolArray) -> tuple[Float64Array, NDArray[np.int64], NDArray[np.int64]]:
    """Distinct scores, descending, and how many defective and good images score at least that much."""
    order = np.argsort(-values, kind="stable")
    ordered, defective = values[order], anomalous[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each run of equal scores
    hits = np.cumsum(defective, dtype=np.int64)[last]
    return ordered[last], hits, last + 1 - hits


def _has_both(anomalous: BoolArray) -> bool:
    return bool(anomalous.any() and not anomalous.all())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
