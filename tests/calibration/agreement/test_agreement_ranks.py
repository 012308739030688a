"""Changes of order against scikit-learn, a count of all pairs, and SciPy's bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle

from edge_ad.calibration.agreement.ranks import image_rank_change

ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), min_size=2, max_size=30)


@given(ROWS)
def test_pairs_are_counted_as_by_hand(rows: list[tuple[int, int, bool]]) -> None:
    assume(len({anomalous for *_, anomalous in rows}) == 2)
    ours, theirs, anomalous = (np.array(column) for column in zip(*rows, strict=True))
    found = image_rank_change(ours / 8, theirs / 8, anomalous)
    assert found is not None
    good, defective = np.flatnonzero(~anomalous), np.flatnonzero(anomalous)
    orders = [(np.sign(ours[d] - ours[g]), np.sign(theirs[d] - theirs[g])) for d in defective for g in good]
    assert found.pairs == len(orders)
    assert found.disordered == sum(first != second for first, second in orders)
    # A win counts 1, a tie 1/2, a loss 0: half the difference of the signs.
    assert found.swapped == sum(first - second for first, second in orders) / 2
    assert abs(found.swapped) <= found.disordered
    assert found.reference == pytest.approx(oracle.roc_auc_score(anomalous, ours), abs=1e-12)
    assert found.candidate == pytest.approx(oracle.roc_auc_score(anomalous, theirs), abs=1e-12)
    assert found.interval is not None and -1 <= found.interval[0] <= found.interval[1] <= 1


def test_the_interval_is_that_of_scipys_bootstrap() -> None:
    rng = np.random.default_rng(11)
    anomalous = np.arange(60) >= 35
    ours = rng.normal(size=60) + 1.2 * anomalous
    theirs = ours + rng.normal(0, 0.5, 60)
    good, defective = np.flatnonzero(~anomalous), np.flatnonzero(anomalous)
    first, second = (np.greater.outer(s[anomalous], s[~anomalous]).astype(float) for s in (ours, theirs))
    gain = second - first  # by pair; there are no ties

    def change(drawn_good: np.ndarray, drawn_defective: np.ndarray) -> float:
        return float(gain[np.ix_(drawn_defective - len(good), drawn_good)].mean())

    expected = stats.bootstrap(
        (good, defective), change, method="percentile", vectorized=False, n_resamples=4000, rng=rng
    ).confidence_interval
    found = image_rank_change(ours, theirs, anomalous, seed=1)
    assert found is not None and found.interval is not None
    width = expected.high - expected.low
    # 1000 resamples place a bound of a 95 % interval within some 4 % of its width (standard deviation).
    assert found.interval == pytest.approx((expected.low, expected.high), abs=0.15 * width)
    assert found.interval[0] < found.candidate - found.reference < found.interval[1]
    assert found.confidence == 0.95


def test_it_is_paired_so_that_the_same_scores_have_no_interval() -> None:
    rng = np.random.default_rng(12)
    scores, anomalous = rng.random(50), rng.random(50) < 0.5
    found = image_rank_change(scores, 3 * scores - 1, anomalous)
    assert found is not None
    assert (found.interval, found.swapped, found.disordered) == ((0, 0), 0, 0)


def test_the_seed_decides() -> None:
    rng = np.random.default_rng(13)
    ours, theirs, anomalous = rng.random(50), rng.random(50), rng.random(50) < 0.5
    assert image_rank_change(ours, theirs, anomalous, seed=3) == image_rank_change(ours, theirs, anomalous, seed=3)
    assert image_rank_change(ours, theirs, anomalous, seed=3) != image_rank_change(ours, theirs, anomalous, seed=4)


def test_many_pairs() -> None:
    """More than fit into one block."""
    rng = np.random.default_rng(14)
    anomalous = np.arange(5000) >= 3000
    ours = rng.integers(0, 500, 5000) + 40 * anomalous
    theirs = ours + rng.integers(-20, 20, 5000)
    found = image_rank_change(ours, theirs, anomalous)
    assert found is not None and found.interval is not None
    assert found.pairs == 6_000_000
    wins = [stats.mannwhitneyu(scores[anomalous], scores[~anomalous]).statistic for scores in (ours, theirs)]
    assert found.swapped == wins[0] - wins[1]
    disordered = sum(
        int((np.sign(ours[anomalous] - ours[g]) != np.sign(theirs[anomalous] - theirs[g])).sum()) for g in range(3000)
    )
    assert found.disordered == disordered
    assert found.interval[0] <= found.candidate - found.reference <= found.interval[1]


def test_one_of_each_kind_and_none_of_one() -> None:
    found = image_rank_change([0.1, 0.9], [0.9, 0.1], [False, True])
    assert found is not None
    assert (found.reference, found.candidate, found.swapped, found.disordered) == (1, 0, 1, 1)
    assert found.interval == (-1, -1)
    assert image_rank_change([0.1, 0.9], [0.9, 0.1], [False, False]) is None
    assert image_rank_change([0.1, 0.9], [0.9, 0.1], [True, True]) is None
