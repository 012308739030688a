"""Thresholds that follow a candidate's scores. Scores are whole 1024ths, so that sums of them are exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_ad.bundle.specs import ThresholdOrigin, Thresholds
from edge_ad.calibration.agreement.answers import Answers
from edge_ad.calibration.agreement.transfer import Transfer, rederive
from edge_ad.calibration.evaluation.thresholds import best_f1_threshold, false_alarm_threshold, quantile_threshold
from edge_ad.errors import SourceError

AnswersMaker = Callable[..., Answers]
UNTIMED = settings(deadline=None)  # a busy machine is no fault
BEST_F1 = ThresholdOrigin("best-f1", "test", 30, 20)
QUANTILE = ThresholdOrigin("quantile", "train", 50, quantile=0.9)
FALSE_ALARM = ThresholdOrigin("false-alarm", "train", 50, wanted_rate=0.1)
VALUE = ThresholdOrigin("value")
ORIGINS = [BEST_F1, QUANTILE, FALSE_ALARM, VALUE, None]


def rule_of(origin: ThresholdOrigin | None) -> ThresholdOrigin | None:
    """What a candidate may say of its threshold: how, but nothing of images that it has not judged."""
    return None if origin is None else replace(origin, images=None, good_images=0, defective_images=0)


def moved(
    make: AnswersMaker,
    origin: ThresholdOrigin | None,
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    defects: list[str],
    *,
    labelled: bool = True,
    threshold: float = 0.5,
    highest: float = math.inf,
) -> Transfer:
    answers = make(ours, defects), make(theirs, defects)
    found = rederive(Thresholds(threshold, origin), *answers, labelled=labelled, highest=highest)
    assert found is not None
    return found


@st.composite
def scored(draw: st.DrawFn) -> tuple[NDArray[np.float64], list[str]]:
    rows = draw(st.lists(st.tuples(st.integers(100, 700), st.booleans()), min_size=1, max_size=40))
    return np.array([score for score, _ in rows]) / 1024, ["dent" if bad else "good" for _, bad in rows]


@UNTIMED
@given(scored(), st.integers(-100, 200), st.sampled_from(ORIGINS), st.booleans())
def test_a_constant_is_followed_exactly(
    make_answers: AnswersMaker,
    images: tuple[NDArray[np.float64], list[str]],
    step: int,
    origin: ThresholdOrigin | None,
    labelled: bool,
) -> None:
    scores, defects = images
    shift = step / 1024
    found = moved(make_answers, origin, scores, scores + shift, defects, labelled=labelled)
    assert found.shift == pytest.approx(shift, abs=1e-8)
    assert found.thresholds.image == pytest.approx(0.5 + found.shift, abs=1e-12)
    assert found.thresholds.image_origin == rule_of(origin)


@UNTIMED
@given(scored(), st.sampled_from(ORIGINS), st.booleans())
def test_the_same_candidate_gets_the_same_threshold(
    make_answers: AnswersMaker,
    images: tuple[NDArray[np.float64], list[str]],
    origin: ThresholdOrigin | None,
    labelled: bool,
) -> None:
    scores, defects = images
    found = moved(make_answers, origin, scores, scores, defects, labelled=labelled, threshold=0.3)
    assert (found.shift, found.thresholds) == (0, Thresholds(0.3, rule_of(origin)))


@UNTIMED
@given(scored(), st.integers(0, 2**32 - 1), st.sampled_from(ORIGINS))
def test_no_threshold_moves_further_than_the_scores(
    make_answers: AnswersMaker, images: tuple[NDArray[np.float64], list[str]], seed: int, origin: ThresholdOrigin | None
) -> None:
    ours, defects = images
    theirs = ours + np.random.default_rng(seed).integers(-80, 120, len(ours)) / 1024
    found = moved(make_answers, origin, ours, theirs, defects)
    assert (theirs - ours).min() - 1e-9 <= found.shift <= (theirs - ours).max() + 1e-9


def two_kinds(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """30 good and 20 defective images that overlap; the candidate scores a little higher, by 10 to 40 1024ths."""
    rng = np.random.default_rng(seed)
    ours = np.concatenate([rng.integers(100, 420, 30), rng.integers(350, 800, 20)]) / 1024
    return ours, ours + rng.integers(10, 41, 50) / 1024, ["good"] * 30 + ["dent"] * 20


@pytest.mark.parametrize("seed", range(4))
def test_the_shift_is_that_of_the_rule(make_answers: AnswersMaker, seed: int) -> None:
    ours, theirs, defects = two_kinds(seed)
    truth = np.array(defects) == "dent"
    expected = {
        BEST_F1: best_f1_threshold(theirs, truth).value - best_f1_threshold(ours, truth).value,
        QUANTILE: quantile_threshold(theirs[~truth], 0.9) - quantile_threshold(ours[~truth], 0.9),
        FALSE_ALARM: false_alarm_threshold(theirs[~truth], 0.1) - false_alarm_threshold(ours[~truth], 0.1),
    }
    followed = 0
    for origin, shift in expected.items():
        found = moved(make_answers, origin, ours, theirs, defects)
        jumped = not 10 / 1024 <= shift <= 40 / 1024
        assert found.by == ("nearest scores" if jumped else origin.rule)
        followed += not jumped
        if not jumped:
            assert (found.shift, found.thresholds) == (shift, Thresholds(0.5 + shift, rule_of(origin)))
    assert followed >= 2


def test_a_rule_that_jumps_to_another_gap_is_not_followed(make_answers: AnswersMaker) -> None:
    """Below 700 and below 400 F1 is the same, and the wider of the two gaps is taken: two 1024ths change which."""
    defects = ["dent", "good", "good", "dent", "good", "good"]
    ours, theirs = (np.array([700, 600, 500, 400, edge, 200]) / 1024 for edge in (301, 299))
    truth = np.array(defects) == "dent"
    rule = best_f1_threshold(theirs, truth).value - best_f1_threshold(ours, truth).value
    assert rule * 1024 == 349.5 - 650
    found = moved(make_answers, BEST_F1, ours, theirs, defects)
    assert (found.by, found.shift) == ("nearest scores", 0)


@pytest.mark.parametrize(("count", "taken"), [(3, 3), (5, 5), (40, 5), (50, 5), (51, 6), (120, 12)])
def test_the_nearest_scores(make_answers: AnswersMaker, count: int, taken: int) -> None:
    rng = np.random.default_rng(count)
    ours, theirs = rng.random(count), rng.random(count)
    found = moved(make_answers, VALUE, ours, theirs, ["good"] * count, threshold=0.4)
    nearest = np.argsort(np.abs(ours - 0.4))[:taken]
    assert found.by == "nearest scores"
    assert found.shift == pytest.approx(np.median((theirs - ours)[nearest]), abs=1e-15)


@pytest.mark.parametrize(
    ("origin", "kept"),
    [
        (BEST_F1, slice(0, 30)),  # no defective image
        (BEST_F1, slice(30, 50)),  # no good one
        (QUANTILE, slice(30, 50)),
        (FALSE_ALARM, slice(0, 9)),  # one image is more than the rate
        (QUANTILE, slice(0, 1)),
        (replace(QUANTILE, quantile=None), slice(0, 50)),
        (replace(FALSE_ALARM, wanted_rate=None), slice(0, 50)),
    ],
)
def test_too_few_images_for_the_rule(make_answers: AnswersMaker, origin: ThresholdOrigin, kept: slice) -> None:
    ours, theirs, defects = two_kinds(0)
    assert moved(make_answers, origin, ours[kept], theirs[kept], defects[kept]).by == "nearest scores"


def test_rules_need_labels(make_answers: AnswersMaker) -> None:
    ours, theirs, defects = two_kinds(1)
    for origin in ORIGINS:
        assert moved(make_answers, origin, ours, theirs, defects, labelled=False).by == "nearest scores"


def test_a_threshold_never_leaves_what_a_score_can_be(make_answers: AnswersMaker) -> None:
    """Above 1 no image would be called anomalous any more."""
    ours = np.linspace(0.1, 0.6, 20)
    found = moved(make_answers, VALUE, ours, ours + 0.25, ["good"] * 20, threshold=0.875, highest=1.0)
    assert (found.shift, found.thresholds.image) == (pytest.approx(0.25), 1.0)
    # Without a bound there is no such limit, and one that was out of reach already stays there.
    found = moved(make_answers, VALUE, ours, ours + 0.25, ["good"] * 20, threshold=0.875)
    assert found.thresholds.image == pytest.approx(1.125)
    found = moved(make_answers, VALUE, ours, ours + 0.25, ["good"] * 20, threshold=1.5, highest=1.0)
    assert found.thresholds.image == pytest.approx(1.75)


@pytest.mark.parametrize("origin", ORIGINS)
def test_scores_below_0_are_followed_like_any_others(
    make_answers: AnswersMaker, origin: ThresholdOrigin | None
) -> None:
    ours, theirs, defects = two_kinds(2)
    plain = moved(make_answers, origin, ours, theirs, defects)
    far = moved(make_answers, origin, ours * 64 - 128, theirs * 64 - 128, defects, threshold=0.5 * 64 - 128)
    assert far.by == plain.by and far.shift == pytest.approx(plain.shift * 64, abs=1e-9)
    assert plain.thresholds.image is not None
    assert far.thresholds.image == pytest.approx(plain.thresholds.image * 64 - 128)


def test_without_a_threshold_there_is_none_to_carry_over(make_answers: AnswersMaker) -> None:
    assert rederive(Thresholds(), make_answers([0.1]), make_answers([0.1]), labelled=True) is None
    with pytest.raises(SourceError, match="nothing to compare"):
        rederive(Thresholds(0.5), make_answers([None]), make_answers([0.1]), labelled=True)


def test_images_of_one_model_alone_do_not_count(make_answers: AnswersMaker) -> None:
    ours, theirs = make_answers([0.1, 0.2, 0.3, None]), make_answers([0.2, None, 0.4, 0.9])
    found = rederive(Thresholds(0.2, VALUE), ours, theirs, labelled=True)
    assert found is not None
    assert found.shift == pytest.approx(0.1, abs=1e-12)


# Thresholds of pixels


def map_pairs(seed: int, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> tuple[list[Any], list[Any]]:
    """Maps of a model on twelve images, some with a defect, and what another model makes of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :50]
    maps = []
    for number in range(12):
        background = 0.1 + 0.02 * rng.standard_normal((40, 50))
        blot = np.exp(-((y - rng.integers(10, 30)) ** 2 + (x - rng.integers(10, 40)) ** 2) / 60) * (number % 3 == 0)
        maps.append(background + 0.8 * blot)
    return maps, [change(each) for each in maps]


def pixel_transfer(make: AnswersMaker, maps: tuple[list[Any], list[Any]], told: Thresholds, **more: Any) -> Transfer:
    scores = [float(each.max()) for each in maps[0]]
    found = rederive(told, make(scores, maps=maps[0]), make(scores, maps=maps[1]), labelled=True, **more)
    assert found is not None
    return found


def area(maps: list[Any], threshold: float | None) -> int:
    assert threshold is not None
    return sum(int((np.asarray(each, np.float32) >= threshold).sum()) for each in maps)


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(2))
def test_a_threshold_of_pixels_cuts_as_much_out_of_the_maps(
    make_answers: AnswersMaker, seed: int, threshold: float
) -> None:
    """The candidate stretches, bends and blurs values a little, as int8 does."""
    rng = np.random.default_rng(seed)
    maps = map_pairs(seed, lambda m: 1.15 * m - 0.03 + 0.05 * m**2 + 0.004 * rng.standard_normal(m.shape))
    found = pixel_transfer(make_answers, maps, Thresholds(0.6, VALUE, threshold)).thresholds.pixel
    wanted = area(maps[0], threshold)
    assert wanted > 100 and area(maps[1], found) == wanted
    assert area(maps[1], threshold) != wanted, "control: carried over as it is, it cuts out something else"


@pytest.mark.parametrize(("threshold", "extreme"), [(2.0, np.max), (-2.0, np.min)])
def test_beyond_all_pixels_it_moves_as_the_last_one_does(
    make_answers: AnswersMaker, threshold: float, extreme: Callable[[Any], float]
) -> None:
    maps = map_pairs(1, lambda m: 1.5 * m - 0.03)
    found = pixel_transfer(make_answers, maps, Thresholds(0.6, VALUE, threshold))
    assert found.pixel_shift == pytest.approx(0.5 * extreme(maps[0]) - 0.03, abs=1e-6)


def test_between_two_values_it_keeps_its_place(make_answers: AnswersMaker) -> None:
    """Nobody knows what a map would be between background and defect: a fifth of the way stays a fifth."""
    before = [np.array([[0.0, 0.25, 0.75, 1.0]])]
    after = [np.array([[0.0, 0.5, 1.5, 2.0]])]
    found = pixel_transfer(make_answers, (before, after), Thresholds(0.6, VALUE, 0.35))
    assert found.thresholds.pixel == pytest.approx(0.7, abs=1e-12)


@UNTIMED
@given(st.integers(0, 2**32 - 1), st.integers(-1100, 1100))
def test_no_threshold_of_pixels_moves_further_than_they_do(make_answers: AnswersMaker, seed: int, at: int) -> None:
    rng = np.random.default_rng(seed)
    before = [rng.integers(-900, 900, (3, 4)) / 1024 for _ in range(3)]
    after = [each + rng.integers(-50, 90, each.shape) / 1024 for each in before]
    found = pixel_transfer(make_answers, (before, after), Thresholds(0.6, VALUE, at / 1024))
    moves = np.concatenate([(b - a).ravel() for a, b in zip(before, after, strict=True)])
    assert found.pixel_shift is not None and moves.min() - 1e-9 <= found.pixel_shift <= moves.max() + 1e-9
    if area(before, at / 1024) and len(np.unique(after)) == 36 == len(np.unique(before)):
        assert area(after, found.thresholds.pixel) == area(before, at / 1024)


def test_a_constant_moves_a_threshold_of_pixels_exactly(make_answers: AnswersMaker) -> None:
    maps = map_pairs(3, lambda m: m)
    maps = maps[0], [np.asarray(each, np.float32) + np.float32(0.0625) for each in maps[0]]
    found = pixel_transfer(make_answers, maps, Thresholds(0.6, VALUE, 0.5))
    assert found.pixel_shift == pytest.approx(0.0625, abs=1e-7) and found.shift == 0, "scores are the same here"
    assert found.thresholds.image == 0.6 and found.thresholds.pixel == pytest.approx(0.5625, abs=1e-7)
    same = pixel_transfer(make_answers, (maps[0], maps[0]), Thresholds(0.6, VALUE, 0.5))
    assert (same.pixel_shift, same.thresholds.pixel) == (0, 0.5)


def test_pixels_have_a_threshold_where_frames_have_none(make_answers: AnswersMaker) -> None:
    maps = map_pairs(4, lambda m: m - 0.25)
    found = pixel_transfer(make_answers, maps, Thresholds(pixel=0.5))
    assert found.thresholds.image is None and found.shift == 0
    assert found.thresholds.pixel == pytest.approx(0.25, abs=1e-6)
    without = pixel_transfer(make_answers, maps, Thresholds(0.6))
    assert (without.pixel_shift, without.thresholds.pixel) == (None, None)


def test_a_threshold_of_pixels_never_leaves_what_a_map_can_be(make_answers: AnswersMaker) -> None:
    maps = map_pairs(5, lambda m: m + 0.25)
    told = Thresholds(0.6, VALUE, 0.875)
    assert pixel_transfer(make_answers, maps, told, highest_pixel=1.0).thresholds.pixel == 1.0
    assert pixel_transfer(make_answers, maps, told).thresholds.pixel == pytest.approx(1.125, abs=1e-6)
    assert pixel_transfer(make_answers, maps, told, highest=0.7).thresholds.image == 0.6
