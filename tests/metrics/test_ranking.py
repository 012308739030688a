"""Ranking metrics against scikit-learn, and what they say where there is nothing to say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as oracle

from edge_ad.metrics.ranking import (
    auroc,
    average_precision,
    best_f1,
    midway,
    operation,
    precision_recall_curve,
    roc_curve,
)

ATOL = 1e-6  # what the metrics promise; they are float64 sums of a few hundred terms
Labelled = tuple[NDArray[np.float64], NDArray[np.bool_]]


@st.composite
def labelled(draw: st.DrawFn, *, distinct: int = 12) -> Labelled:
    """Scores with many ties, as float32 values, and truth with both kinds in it."""
    n = draw(st.integers(2, 60))
    levels = draw(st.lists(st.floats(-4, 4, width=32), min_size=distinct, max_size=distinct))
    scores = [draw(st.sampled_from(levels)) for _ in range(n)]
    truth = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda seen: len(set(seen)) == 2))
    return np.array(scores), np.array(truth)


@given(labelled())
def test_areas_agree_with_scikit_learn(case: Labelled) -> None:
    scores, truth = case
    assert auroc(scores, truth) == pytest.approx(oracle.roc_auc_score(truth, scores), abs=ATOL)
    assert average_precision(scores, truth) == pytest.approx(oracle.average_precision_score(truth, scores), abs=ATOL)


@given(labelled())
def test_curves_agree_with_scikit_learn(case: Labelled) -> None:
    scores, truth = case
    roc, pr = roc_curve(scores, truth), precision_recall_curve(scores, truth)
    assert roc is not None and pr is not None
    rates = oracle.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose((roc.false_positive_rate, roc.true_positive_rate), rates[:2], rtol=0, atol=ATOL)
    np.testing.assert_array_equal(roc.thresholds, rates[2])
    precision, recall, levels = oracle.precision_recall_curve(truth, scores)
    np.testing.assert_allclose((pr.precision[::-1], pr.recall[::-1]), (precision, recall), rtol=0, atol=ATOL)
    np.testing.assert_array_equal(pr.thresholds[:0:-1], levels)


@given(labelled())
def test_best_f1_is_the_best_of_all_cuts(case: Labelled) -> None:
    scores, truth = case
    best = best_f1(scores, truth)
    assert best is not None
    called = scores >= best.threshold
    assert best.threshold not in scores
    precision, recall, _ = oracle.precision_recall_curve(truth, scores)  # at every score there is
    both = np.maximum(precision + recall, np.finfo(float).tiny)
    assert best.f1 == pytest.approx((2 * precision * recall / both).max(), abs=ATOL)
    assert best.f1 == pytest.approx(oracle.f1_score(truth, called), abs=ATOL)
    assert best.precision == pytest.approx(oracle.precision_score(truth, called), abs=ATOL)
    assert best.recall == pytest.approx(oracle.recall_score(truth, called), abs=ATOL)
    assert best.accuracy == pytest.approx(oracle.accuracy_score(truth, called), abs=ATOL)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_hundreds_of_images_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(500) < 0.3
    scores = (rng.standard_normal(500) + truth).astype(np.float32)
    assert auroc(scores, truth) == pytest.approx(oracle.roc_auc_score(truth, scores), abs=ATOL)
    assert average_precision(scores, truth) == pytest.approx(oracle.average_precision_score(truth, scores), abs=ATOL)


def test_known_values() -> None:
    scores, truth = [0.9, 0.8, 0.8, 0.1], [True, True, False, False]
    assert auroc(scores, truth) == 0.875  # of four pairs three are in order and one is a tie
    assert average_precision(scores, truth) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=1e-15)
    assert auroc([1, 1, 1], [True, False, False]) == 0.5
    assert auroc([0, 1], [True, False]) == 0.0


def test_an_operation_counts_all_four_outcomes() -> None:
    done = operation([0.1, 0.4, 0.4, 0.8, 0.9], [False, False, True, True, False], 0.4)
    assert (done.hits, done.misses, done.false_alarms, done.passed) == (2, 0, 2, 1)
    assert (done.precision, done.recall, done.accuracy, done.false_alarm_rate) == (0.5, 1.0, 0.6, 2 / 3)


@pytest.mark.parametrize("truth", [[True, True], [False, False], []])
def test_without_both_kinds_there_is_no_figure(truth: list[bool]) -> None:
    scores = np.arange(len(truth))
    assert auroc(scores, truth) is None
    assert roc_curve(scores, truth) is None
    assert average_precision(scores, truth) is None
    assert (best_f1(scores, truth) is None) == (True not in truth)
    assert (precision_recall_curve(scores, truth) is None) == (True not in truth)


def test_shares_of_nothing_are_none() -> None:
    nothing_called = operation([0.1, 0.2], [False, False], 1.0)
    assert (nothing_called.precision, nothing_called.recall, nothing_called.f1) == (None, None, None)
    assert nothing_called.false_alarm_rate == 0.0
    assert operation([0.1], [True], 1.0).f1 == 0.0
    assert operation([], [], 1.0).accuracy is None


@pytest.mark.parametrize("scores", [[0.1, math.nan], [0.1, math.inf], [0.1], [[0.1, 0.2]]])
def test_scores_that_are_no_scores(scores: Any) -> None:
    for metric in (auroc, average_precision, best_f1, roc_curve, precision_recall_curve):
        with pytest.raises(ValueError, match="wanted"):
            metric(scores, [True, False])


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 3))
def test_midway_between_neighbouring_float32_values(low: float, steps: int) -> None:
    high = np.float32(low)
    for _ in range(steps):
        high = np.nextafter(high, np.float32(np.inf), dtype=np.float32)
    if np.isfinite(high):
        assert low < midway(low, float(high)) < float(high)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_midway_separates_any_two_numbers(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    if low < high:
        assert low < midway(low, high) <= high
