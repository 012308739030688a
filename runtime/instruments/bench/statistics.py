"""Whether something became slower: the statistics of the gate, for users' bundles and for our own benchmarks.

Every round of a run times the subject beside a yardstick (a fixed piece of work), and gives one ratio: subject divided
by yardstick. A machine that slows down for a while slows both down, so the ratio is steadier than either. Two runs are
compared by the median of their ratios:

* change = median of the new run's ratios / median of the old run's; 1.15 is 15 % slower.
* Its interval is a percentile bootstrap over rounds: both runs are drawn anew `RESAMPLES` times, in circular blocks of
  √rounds neighbours, because disturbances last longer than a round. It is widened by what Student's t is wider than the
  normal distribution, for a run has few blocks. It holds 95 % in all: where several changes are looked at, each gets
  its part of the 5 % (Bonferroni).
* `slower`, the alarm: the change is above the limit, and the interval is above half of the limit. Asking for the whole
  interval above the limit would miss a slowdown of 15 % at a limit of 10 % about as often as not; the half keeps what
  two runs of the same thing differ by, beyond what their rounds show, from raising an alarm. On a busy machine, where
  runs differ by more, the whole interval has to be above the limit (`margin`).
* `unclear`: the change is above the limit and the interval is not high enough for an alarm; or the interval reaches
  beyond twice the limit, so that a slowdown could hide; or a run has fewer than `MIN_ROUNDS` rounds. No alarm, and no
  all-clear either.
* `faster`: what would be `slower` if old and new changed places. `same`: everything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Finding = Literal["slower", "unclear", "same", "faster"]

CONFIDENCE = 0.95
RESAMPLES = 4000
MIN_ROUNDS = 20
MARGIN, BUSY_MARGIN = 0.5, 1.0
"""Part of the limit that the interval has to be above for an alarm; the second on a busy machine."""
HIDDEN = 2.0
"""Times the limit that the interval has to be below, for an all-clear."""
RULE = (
    f"alarm where the median ratio to the yardstick grew by more than the limit and its {CONFIDENCE:.0%} interval"
    f" (block bootstrap over rounds, {RESAMPLES} resamples, shared by all that is compared) lies above half of the"
    " limit, on a busy machine above all of it"
)


@dataclass(frozen=True)
class Change:
    """How a subject differs between two runs.

    Attributes:
        ratio: median of the new ratios divided by that of the old ones.
        low, high: its interval.
        finding: see the module.
    """

    ratio: float
    low: float
    high: float
    finding: Finding


def compare(
    old: Sequence[float],
    new: Sequence[float],
    *,
    limit: float,
    comparisons: int = 1,
    margin: float = MARGIN,
    seed: int = 0,
) -> Change:
    """Compare two runs of the same subject.

    Args:
        old, new: ratio of subject to yardstick, one for each round; above 0.
        limit: share by which it may become slower; 0.1 is 10 %.
        comparisons: how many changes share the confidence.
        margin: part of the limit that the interval has to be above for an alarm.
        seed: of the resampling; the same input gives the same interval.

    Raises: ValueError for ratios that are none, or none at all.
    """
    before, after = _checked(old), _checked(new)
    rng = np.random.default_rng(seed)
    drawn = _medians(after, rng) / _medians(before, rng)
    tail = (1 - CONFIDENCE) / comparisons / 2
    ratio = float(np.median(after) / np.median(before))
    widening = _widening(tail, min(len(before), len(after)))
    low, high = (float(ratio * (end / ratio) ** widening) for end in np.quantile(drawn, (tail, 1 - tail)))
    finding: Finding = "unclear"
    if min(len(before), len(after)) >= MIN_ROUNDS:
        finding = _finding(ratio, (low, high), limit, margin)
    return Change(ratio, low, high, finding)


def _finding(ratio: float, interval: tuple[float, float], limit: float, margin: float) -> Finding:
    low, high = interval
    if ratio > 1 + limit:
        return "slower" if low > 1 + margin * limit else "unclear"
    if high > 1 + HIDDEN * limit:
        return "unclear"
    return "faster" if ratio < 1 / (1 + limit) and high < 1 / (1 + margin * limit) else "same"


def _block(rounds: int) -> int:
    """Neighbours that are drawn together."""
    return max(1, math.isqrt(rounds))


def _widening(tail: float, rounds: int) -> float:
    """How much farther out Student's t has this tail than the normal distribution has, by its first-order expansion."""
    z = NormalDist().inv_cdf(1 - tail)
    freedom = max(1, rounds // _block(rounds) - 1)
    return 1 + (z * z + 1) / (4 * freedom)


def _checked(ratios: Sequence[float]) -> FloatArray:
    values = np.asarray(ratios, np.float64)
    if values.ndim != 1 or not len(values) or not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("wanted one positive, finite ratio for each round")
    return values


def _medians(ratios: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(RESAMPLES,) medians of the ratios, drawn anew in blocks of neighbours, around the end to the beginning."""
    count = len(ratios)
    block = _block(count)
    starts = rng.integers(0, count, (RESAMPLES, -(-count // block)))
    indices = (starts[:, :, None] + np.arange(block)) % count
    return np.asarray(np.median(ratios[indices.reshape(RESAMPLES, -1)[:, :count]], axis=1), np.float64)
