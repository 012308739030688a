"""A threshold separates; it never sits on a sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.calibration.evaluation.thresholds import best_f1_threshold

SAMPLES = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=30).filter(
    lambda samples: any(anomalous for _, anomalous in samples)
)


def f1_at(scores: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    called = scores >= threshold
    hits = (called & truth).sum()
    return 0.0 if hits == 0 else float(2 * hits / (called.sum() + truth.sum()))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(SAMPLES)
def test_no_other_cut_is_better(samples: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 20 for score, _ in samples])
    truth = np.array([anomalous for _, anomalous in samples])
    choice = best_f1_threshold(scores, truth)
    assert choice.f1 == pytest.approx(f1_at(scores, truth, choice.value), abs=1e-12)
    assert choice.f1 >= max(f1_at(scores, truth, cut) for cut in np.arange(-0.025, 1.1, 0.05)) - 1e-12
    assert choice.value not in scores


def test_it_lies_midway_between_the_neighbours() -> None:
    choice = best_f1_threshold([0.1, 0.2, 0.6, 0.9], [False, False, True, True])
    assert choice.value == pytest.approx(0.4)
    assert (choice.precision, choice.recall, choice.f1) == (1.0, 1.0, 1.0)


def test_of_equally_good_cuts_the_widest_gap_wins() -> None:
    """F1 is 2/3 whether one of the two anomalous samples is called, or all four; the gap decides."""
    choice = best_f1_threshold([0.1, 0.2, 0.3, 0.9], [True, False, False, True])
    assert choice.value == pytest.approx(0.6)
    assert choice.f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("scores", "truth"), [([0.1], [False]), ([], []), ([0.1, np.nan], [True, False]), ([0.1, 0.2], [True])]
)
def test_nothing_to_choose_on_is_refused(scores: list[float], truth: list[bool]) -> None:
    with pytest.raises(ValueError, match="best F1"):
        best_f1_threshold(scores, truth)
