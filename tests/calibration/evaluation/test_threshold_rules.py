"""Thresholds from good scores: where they lie, what they promise, and when there are too few images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from edge_ad.calibration.evaluation.thresholds import (
    ThresholdRequest,
    best_f1_threshold,
    choose_threshold,
    false_alarm_threshold,
    images_needed,
    images_to_be_sure,
    quantile_threshold,
    rate_interval,
)
from edge_ad.errors import ConfigError

Scores = NDArray[np.float32]


@st.composite
def good_scores(draw: st.DrawFn) -> Scores:
    """Float32 scores with ties and with neighbours of that type, at least two different ones."""
    base = np.float32(draw(st.floats(-2, 2, width=32)))
    steps = draw(st.lists(st.integers(0, 6), min_size=2, max_size=60).filter(lambda seen: len(set(seen)) > 1))
    if draw(st.booleans()):
        return base + np.float32(0.25) * np.array(steps, np.float32)
    ladder = [base]
    for _ in range(6):
        ladder.append(np.nextafter(ladder[-1], np.float32(np.inf)))
    return np.array([ladder[step] for step in steps], np.float32)


def assert_midway(threshold: float, scores: Scores, highest: float = math.inf) -> None:
    """Between two neighbouring scores in their exact middle, or as far beyond the outermost as the next lies within."""
    levels = np.unique(scores).astype(np.float64)
    assert threshold not in levels
    above = int(np.searchsorted(levels, threshold))
    if 0 < above < len(levels):
        assert threshold == (levels[above - 1] + levels[above]) / 2
    elif above:
        step = (levels[-1] - levels[-2]) / 2
        if levels[-1] < highest:  # no score lies above it, so no threshold does
            step = min(step, (highest - levels[-1]) / 2)
        assert threshold - levels[-1] == pytest.approx(step, rel=1e-6)
    else:
        assert levels[0] - threshold == pytest.approx((levels[1] - levels[0]) / 2, rel=1e-6)


HIGHEST = st.sampled_from([1.0, math.inf])  # of probabilities, and of what is none


@given(good_scores(), st.floats(0, 1), HIGHEST)
def test_a_quantile_leaves_its_share_below(scores: Scores, quantile: float, highest: float) -> None:
    threshold = quantile_threshold(scores, quantile, highest)
    assert_midway(threshold, scores, highest)
    below = (scores.astype(np.float64) < threshold).sum()
    assert below >= quantile * len(scores) - 1e-6
    # The lowest such cut: without the highest scores below it, the share is missed.
    if below:
        highest = scores[scores.astype(np.float64) < threshold].max()
        assert (scores < highest).sum() < quantile * len(scores) + 1e-6


@given(good_scores(), st.floats(0.001, 0.999), HIGHEST)
def test_a_rate_of_false_alarms_is_kept(scores: Scores, rate: float, highest: float) -> None:
    assume(rate * len(scores) >= 1)
    threshold = false_alarm_threshold(scores, rate, highest)
    assert_midway(threshold, scores, highest)
    alarms = (scores.astype(np.float64) >= threshold).sum()
    assert alarms <= rate * len(scores) + 1e-6
    lower = scores[scores.astype(np.float64) < threshold].max()
    assert (scores >= lower).sum() > rate * len(scores) - 1e-6


@given(good_scores(), st.data())
def test_best_f1_lies_midway_too(scores: Scores, data: st.DataObject) -> None:
    truth = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    assume(truth.any())
    assert_midway(best_f1_threshold(scores, truth).value, scores)


def test_round_rates_are_not_lost_to_rounding() -> None:
    """0.29 · 100 is 28.999… in float64, 0.07 · 100 is 7.000…01."""
    scores = np.arange(100.0)
    assert false_alarm_threshold(scores, 0.29) == 70.5
    assert quantile_threshold(scores, 0.07) == 6.5
    assert quantile_threshold(scores, 0.5) == 49.5
    assert quantile_threshold(scores, 1.0) == 99.5
    assert quantile_threshold(scores, 0.0) == -0.5


def test_too_few_images_for_the_rate() -> None:
    with pytest.raises(ConfigError, match=r"0\.001 cannot be seen on 31 good images.*1000 good images \(2995 without"):
        false_alarm_threshold(np.arange(31), 0.001)
    assert false_alarm_threshold(np.arange(1000), 0.001) == 998.5  # negative control: exactly enough
    with pytest.raises(ConfigError, match="1000"):
        false_alarm_threshold(np.arange(999), 0.001)


@given(st.floats(1e-4, 0.5))
def test_numbers_of_images(rate: float) -> None:
    assert images_needed(rate) * rate >= 1 - 1e-6
    sure = images_to_be_sure(rate)
    assert (1 - rate) ** sure <= 0.05 * (1 + 1e-6) < (1 - rate) ** (sure - 1) * (1 + 2e-6)


@given(st.integers(1, 400), st.data())
def test_the_interval_is_that_of_clopper_and_pearson(images: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, images))
    low, high = rate_interval(hits, images)
    # The bounds are quantiles of beta distributions (Clopper and Pearson's equations solved).
    expected_low = 0.0 if hits == 0 else stats.beta.ppf(0.025, hits, images - hits + 1)
    expected_high = 1.0 if hits == images else stats.beta.ppf(0.975, hits + 1, images - hits)
    assert low == pytest.approx(expected_low, abs=1e-9)
    assert high == pytest.approx(expected_high, abs=1e-9)


@pytest.mark.parametrize("quantile", [-0.1, 1.1, math.nan])
def test_a_quantile_outside(quantile: float) -> None:
    with pytest.raises(ConfigError, match="quantile: wanted a number from 0 to 1"):
        quantile_threshold([1, 2], quantile)


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, math.nan])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ConfigError, match="rate: wanted a number above 0 and below 1"):
        false_alarm_threshold([1, 2], rate)


@pytest.mark.parametrize(("scores", "got"), [([], "no good image"), ([0.5], "1 scores, all 0.5"), ([2, 2], "all 2")])
def test_scores_without_a_distance(scores: list[float], got: str) -> None:
    with pytest.raises(ConfigError, match=got):
        quantile_threshold(scores, 0.9)


def test_scores_that_are_no_numbers() -> None:
    for choose in (lambda: quantile_threshold([1, math.nan], 0.5), lambda: false_alarm_threshold([1, math.inf], 0.5)):
        with pytest.raises(ValueError, match="finite"):
            choose()


def test_the_origin_says_what_the_threshold_did() -> None:
    scores = [0.1, 0.2, 0.3, 0.4, 0.35, 0.9]
    truth = [False, False, False, False, True, True]
    value, origin = choose_threshold(ThresholdRequest("false-alarm", rate=0.25), scores, truth)
    assert value == pytest.approx(0.35, abs=1e-12)  # between the good scores, wherever the defective ones lie
    assert (origin.rule, origin.wanted_rate, origin.quantile) == ("false-alarm", 0.25, None)
    assert (origin.good_images, origin.defective_images, origin.false_alarm_rate) == (4, 2, 0.25)
    assert origin.interval == pytest.approx(rate_interval(1, 4), abs=0)
    assert origin.confidence == 0.95


def test_good_images_alone_promise_no_recall() -> None:
    _, origin = choose_threshold(ThresholdRequest("quantile", quantile=0.5), [1, 2, 3, 4], [False] * 4)
    assert (origin.precision, origin.recall, origin.f1) == (None, None, None)
    value, origin = choose_threshold(ThresholdRequest("value", value=0.7), [], [])
    assert (value, origin.false_alarm_rate, origin.interval, origin.confidence) == (0.7, None, None, None)


@pytest.mark.parametrize(("truth", "kind"), [([True, True], "good"), ([False, False], "defective")])
def test_best_f1_needs_both_kinds(truth: list[bool], kind: str) -> None:
    with pytest.raises(ConfigError, match=f"no {kind} one"):
        choose_threshold(ThresholdRequest("best-f1"), [0.1, 0.2], truth)


def test_a_threshold_never_lies_above_any_possible_score() -> None:
    """Good scores 0.5 and 0.9: half their distance beyond 0.9 would be 1.1, which no defect reaches."""
    assert quantile_threshold([0.5, 0.9], 1.0, 1.0) == pytest.approx(0.95)


# Scores without bounds


@pytest.mark.parametrize("shift", [0.0, -40.0, 1000.0])
@pytest.mark.parametrize("scale", [1.0, 250.0])
def test_rules_know_no_zero(shift: float, scale: float) -> None:
    """Whatever scores are counted from and in, a threshold lies at the same place among them."""
    plain = np.arange(20) / 32  # sums and products with these numbers are exact
    truth = np.arange(20) >= 14
    for request in (
        ThresholdRequest("best-f1"),
        ThresholdRequest("quantile", quantile=1.0),
        ThresholdRequest("quantile", quantile=0.5),
        ThresholdRequest("false-alarm", rate=0.2),
    ):
        wanted, _ = choose_threshold(request, plain, truth)
        found, origin = choose_threshold(request, scale * plain + shift, truth)
        assert found == scale * wanted + shift
        assert origin.false_alarm_rate == (plain[~truth] >= wanted).mean()


def test_beyond_the_highest_a_bound_is_kept_and_none_is_invented() -> None:
    good = np.array([0.0, 0.5, 0.98])
    request = ThresholdRequest("quantile", quantile=1.0)
    bounded, _ = choose_threshold(request, good, np.zeros(3, bool), 1.0)
    free, _ = choose_threshold(request, good, np.zeros(3, bool), math.inf)
    assert 0.98 < bounded <= 1 and bounded == pytest.approx(0.99)
    assert free == pytest.approx(0.98 + 0.24)
    below, _ = choose_threshold(request, good - 50, np.zeros(3, bool), math.inf)
    assert below == pytest.approx(free - 50)
    at_the_bound, _ = choose_threshold(request, np.array([0.5, 1.0]), np.zeros(2, bool), 1.0)
    assert at_the_bound > 1, "the highest is as high as scores get: nothing separates but a threshold that none reaches"
