"""Metrics of anomaly maps against masks: pixel AUROC, pixel AP, and PRO, all exact.

PRO is the area under the per-region overlap (Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021,
section 4): a region is an 8-connected component of a mask, its overlap the share of it at or above a threshold, the
curve is the mean overlap of all regions over the share of good pixels at or above that threshold, and the area is
taken up to a rate of 0.3 and divided by 0.3. Points of the curve are joined by straight lines, and so it is cut off
at the limit, as in MVTec's own evaluation.

All three depend on good pixels only through how many of them reach the score of each defective pixel. So the good
pixels of a group of images are sorted once and nothing else is kept of them; groups are put together by adding up
counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ad.metrics.ranking import area

PRO_LIMIT = 0.3
"""False-positive rate up to which the overlap is integrated (Bergmann et al., section 4)."""

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class PixelMetrics:
    """How well maps find the defective pixels. None stands for what these images do not define.

    Attributes:
        auroc: area under the ROC curve of the pixels, 0..1.
        average_precision: of the pixels, 0..1.
        pro: area under the per-region overlap up to a false-positive rate of `PRO_LIMIT`, divided by it; 0..1.
        good_pixels, defective_pixels, regions: what was counted.
        undefined: why there are no figures; None where there are.
    """

    auroc: float | None
    average_precision: float | None
    pro: float | None
    good_pixels: int
    defective_pixels: int
    regions: int
    undefined: str | None = None


class PixelGroup:
    """Pixels of some images, to be measured alone or together with other groups. Maps are not kept."""

    def __init__(self) -> None:
        self._good_parts: list[Float32Array] = []
        self._defective_parts: list[Float32Array] = []
        self._weight_parts: list[Float64Array] = []
        self._is_sorted = False
        self.regions = 0

    def add(self, anomaly_map: ArrayLike, mask: ArrayLike, counted: NDArray[np.bool_] | None = None) -> int:
        """Take the pixels of one image.

        Args:
            anomaly_map: (H, W) finite scores; they are counted as float32.
            mask: (H, W), not 0 where the image is defective.
            counted: (H, W) which pixels count; None for all of them.

        Returns: number of defective regions in the mask.

        Raises: ValueError when the two differ in size, or for a score that is not finite.
        """
        values, defective = np.asarray(anomaly_map, np.float32), np.asarray(mask) != 0
        if values.ndim != 2 or values.shape != defective.shape:
            raise ValueError(f"wanted a map and a mask (H, W) of equal size, got {values.shape} and {defective.shape}")
        if not np.isfinite(values).all():
            raise ValueError("wanted a finite anomaly map, got NaN or infinity in it")
        good = ~defective
        if counted is not None:
            good, defective = good & counted, defective & counted
        self._good_parts.append(values[good])
        self._is_sorted = False
        if not defective.any():
            return 0
        import cv2

        count, labels = cv2.connectedComponents(defective.astype(np.uint8), connectivity=8)
        sizes = np.bincount(labels.ravel(), minlength=count)
        self._defective_parts.append(values[defective])
        self._weight_parts.append(1 / sizes[labels[defective]])
        self.regions += count - 1
        return int(count) - 1

    @property
    def good(self) -> Float32Array:
        """(g,) scores of the good pixels, ascending."""
        if not self._is_sorted:
            self._good_parts = [np.concatenate([np.empty(0, np.float32), *self._good_parts])]
            self._good_parts[0].sort()
            self._is_sorted = True
        return self._good_parts[0]

    @property
    def defective(self) -> Float32Array:
        """(d,) scores of the defective pixels, image by image."""
        return np.concatenate([np.empty(0, np.float32), *self._defective_parts])

    @property
    def weights(self) -> Float64Array:
        """(d,) for each defective pixel, 1 over the area of its region."""
        return np.concatenate([np.empty(0), *self._weight_parts])


def pixel_metrics(anomaly_maps: Iterable[ArrayLike], masks: Iterable[ArrayLike]) -> PixelMetrics:
    """Measure maps against masks of the same size, image by image; a good image has a mask of zeros.

    Args, Raises: as for `PixelGroup.add`; ValueError too when there are more of the one than of the other.
    """
    group = PixelGroup()
    for anomaly_map, mask in zip(anomaly_maps, masks, strict=True):
        group.add(anomaly_map, mask)
    return group_metrics([group])


def group_metrics(groups: Sequence[PixelGroup]) -> PixelMetrics:
    """Measure all pixels of some groups together."""
    scores = np.concatenate([np.empty(0, np.float32), *(group.defective for group in groups)])
    weights = np.concatenate([np.empty(0), *(group.weights for group in groups)])
    n_good, n_defective = sum(len(group.good) for group in groups), len(scores)
    regions = sum(group.regions for group in groups)
    if not n_good or not n_defective:
        why = "no pixel of a mask is defective" if n_good else "no pixel of an image is good"
        return PixelMetrics(None, None, None, n_good, n_defective, regions, why)
    negated, level_of, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    levels = -negated  # descending
    overlap = np.minimum(np.cumsum(np.bincount(level_of, weights)) / regions, 1.0)
    hits = np.cumsum(counts)
    above, reached = _good_at(groups, levels)
    return PixelMetrics(
        auroc=1 - float(np.sum(counts * (above + reached))) / (2 * n_good * n_defective),
        average_precision=float(np.sum(counts / n_defective * (hits / (hits + reached)))),
        pro=_area_to_limit(_corners(above, reached) / n_good, _corners(_shifted(overlap), overlap)) / PRO_LIMIT,
        good_pixels=n_good,
        defective_pixels=n_defective,
        regions=regions,
    )


def _good_at(groups: Sequence[PixelGroup], levels: Float32Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each level, how many good pixels lie above it, and how many at or above it."""
    above, reached = np.zeros(len(levels), np.int64), np.zeros(len(levels), np.int64)
    for group in groups:
        good = group.good
        above += len(good) - np.searchsorted(good, levels, "right")
        reached += len(good) - np.searchsorted(good, levels, "left")
    return above, reached


def _shifted(values: Float64Array) -> Float64Array:
    """The value before each value; 0 before the first."""
    return np.concatenate([[0.0], values[:-1]])


def _corners(before: NDArray[np.generic], after: NDArray[np.generic]) -> Float64Array:
    """Corners of the PRO curve along one axis, from its start at 0.

    Between two scores of defective pixels only good ones follow and the curve runs flat, so that it has corners just
    before and at each such score, and nowhere else.
    """
    pairs = np.stack([before, after], axis=1).astype(np.float64).ravel()
    return np.concatenate([[0.0], pairs])


def _area_to_limit(rate: Float64Array, overlap: Float64Array) -> float:
    """Area under the curve from rate 0 to `PRO_LIMIT`; behind its last corner the curve runs on flat."""
    inside = int(np.searchsorted(rate, PRO_LIMIT, "right"))
    end = float(overlap[-1])
    if inside < len(rate):
        share = (PRO_LIMIT - rate[inside - 1]) / (rate[inside] - rate[inside - 1])
        end = float(overlap[inside - 1] + share * (overlap[inside] - overlap[inside - 1]))
    return area(np.append(rate[:inside], PRO_LIMIT), np.append(overlap[:inside], end))
