"""How a candidate changes the order of good and defective images, or pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ad.calibration.agreement.answers import Pair
from edge_ad.calibration.agreement.figures import RankChange
from edge_ad.calibration.agreement.truths import Truths
from edge_ad.calibration.evaluation.thresholds import CONFIDENCE
from edge_ad.metrics.localization import PixelGroup, group_metrics
from edge_ad.metrics.ranking import auroc, checked

RESAMPLES = 1000
_BLOCK = 50  # resamples at a time, and that many million pairs: keeps some 10,000 images within 100 MB
_BLOCK_PAIRS = 1_000_000

Float64Array = NDArray[np.float64]


def image_rank_change(
    reference: ArrayLike, candidate: ArrayLike, anomalous: ArrayLike, *, seed: int = 0
) -> RankChange | None:
    """AUROC of two models' scores of the same images; None where there are no images of one kind.

    The interval is that of a percentile bootstrap: good images and defective ones are drawn anew with replacement,
    each kind for itself and the same images for both models.

    Args:
        reference, candidate: (n,) scores.
        anomalous: (n,) truth.
        seed: of the bootstrap.

    Raises: ValueError for arrays that do not fit each other, or scores that are not finite.
    """
    ours, truth = checked(reference, anomalous)
    theirs, _ = checked(candidate, anomalous)
    before, after = auroc(ours, truth), auroc(theirs, truth)
    if before is None or after is None:
        return None
    good, defective = (ours[~truth], theirs[~truth]), (ours[truth], theirs[truth])
    pairs = len(good[0]) * len(defective[0])
    changes = _bootstrap(good, defective, np.random.default_rng(seed))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(changes, [tail, 1 - tail])
    return RankChange(
        reference=before,
        candidate=after,
        pairs=pairs,
        swapped=_swapped(before, after, pairs),
        disordered=_disordered(good, defective),
        interval=(float(low), float(high)),
        confidence=CONFIDENCE,
    )


def pixel_rank_change(pairs: Sequence[Pair], truths: Truths) -> RankChange | None:
    """AUROC of all pixels of the images whose pixels are known; None where no pixel is defective, or none is good.

    Raises: ValueError for a mask of another size than its map.
    """
    ours, theirs = PixelGroup(), PixelGroup()
    for pair in pairs:
        mask = truths.of(pair)
        if mask is not None:
            ours.add(pair.reference.anomaly_map, mask, pair.reference.counted)
            theirs.add(pair.candidate.anomaly_map, mask, pair.candidate.counted)
    before, after = group_metrics([ours]), group_metrics([theirs])
    if before.auroc is None or after.auroc is None:
        return None
    count = before.good_pixels * before.defective_pixels
    swapped = _swapped(before.auroc, after.auroc, count)
    return RankChange(before.auroc, after.auroc, count, swapped, None, None, None)


def _swapped(before: float, after: float, pairs: int) -> float:
    """A pair is won, tied or lost, so this is a number of halves; rounding takes off what float64 adds to it."""
    return round(2 * (before - after) * pairs) / 2


def _disordered(good: Sequence[Float64Array], defective: Sequence[Float64Array]) -> int:
    """Pairs whose order differs between the first and the second model; a tie is an order of its own."""
    rows = max(1, _BLOCK_PAIRS // len(good[0]))
    count = 0
    for start in range(0, len(defective[0]), rows):
        block = slice(start, start + rows)
        above = [np.greater.outer(d[block], g) for d, g in zip(defective, good, strict=True)]
        below = [np.less.outer(d[block], g) for d, g in zip(defective, good, strict=True)]
        count += int(np.count_nonzero((above[0] != above[1]) | (below[0] != below[1])))
    return count


def _bootstrap(
    good: Sequence[Float64Array], defective: Sequence[Float64Array], rng: np.random.Generator
) -> Float64Array:
    """(RESAMPLES,) AUROC of the second model minus that of the first.

    A resample says how often each image was drawn. With the good images sorted, the running sum of those numbers
    says how many lie below any score, so that no resample needs a sort or a table of pairs.
    """
    n_good, n_defective = len(good[0]), len(defective[0])
    order = [np.argsort(scores) for scores in good]
    ordered = [scores[by] for scores, by in zip(good, order, strict=True)]
    reached = [np.searchsorted(g, d, "right") for g, d in zip(ordered, defective, strict=True)]
    below = [np.searchsorted(g, d, "left") for g, d in zip(ordered, defective, strict=True)]
    changes = []
    for _ in range(RESAMPLES // _BLOCK):
        drawn_good, drawn_defective = _draws(n_good, rng), _draws(n_defective, rng)
        wins = []
        for model in (0, 1):
            sums = np.zeros((_BLOCK, n_good + 1))
            np.cumsum(drawn_good[:, order[model]], axis=1, out=sums[:, 1:])
            wins.append(np.sum(drawn_defective * (sums[:, below[model]] + sums[:, reached[model]]), axis=1) / 2)
        changes.append((wins[1] - wins[0]) / (n_good * n_defective))
    return np.concatenate(changes)


def _draws(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(_BLOCK, n) how often each of n things was drawn in n draws with replacement."""
    drawn = rng.integers(0, n, (_BLOCK, n)) + n * np.arange(_BLOCK)[:, None]
    return np.bincount(drawn.ravel(), minlength=_BLOCK * n).reshape(_BLOCK, n)
