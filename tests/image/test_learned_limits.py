"""Limits for unusable frames lie far beyond what good frames look like, and say so where they had to give way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.bundle.specs import PreprocessSpec, UsabilityLimits
from edge_ad.image.learned_limits import LEAST_MARGIN, MOST_MARGIN, FrameLooks, learn_limits, looks_of
from edge_ad.image.preprocess import Preprocessor
from edge_ad.image.usability import unusable_reason

ORDINARY = FrameLooks(sharpness=0.2, moved=0.04, bright=200, dark=20, one_colour=False)
looks = st.builds(
    FrameLooks,
    sharpness=st.none() | st.floats(0.004, 1),
    moved=st.none() | st.floats(0.004, 1),
    bright=st.integers(0, 255),
    dark=st.integers(0, 255),
    one_colour=st.booleans(),
)


def sharp(*values: float, moved: float = 0.04) -> list[FrameLooks]:
    return [replace(ORDINARY, sharpness=value, moved=moved) for value in values]


def picture(level: int, spread: int = 0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.integers(level - spread, level + spread + 1, (60, 60, 3)), 0, 255).astype(np.uint8)


def looks_of_picture(image: np.ndarray) -> FrameLooks:
    return looks_of(Preprocessor(PreprocessSpec(*image.shape[:2], "stretch"), threads=1)(image))


def test_without_frames_the_limits_are_those_of_every_line() -> None:
    assert learn_limits([]).limits == UsabilityLimits()


def test_ordinary_frames_change_nothing_but_the_sharpness() -> None:
    limits = learn_limits([ORDINARY] * 30).limits
    assert replace(limits, sharpness_min=None, images=0) == UsabilityLimits()
    assert limits.images == 30
    assert limits.sharpness_min is not None
    assert 0.2 / MOST_MARGIN <= limits.sharpness_min <= 0.2 / LEAST_MARGIN


@given(st.lists(looks, min_size=1, max_size=40))
def test_whatever_is_seen_limits_only_give_way(frames: list[FrameLooks]) -> None:
    learned = learn_limits(frames)
    limits, ordinary = learned.limits, UsabilityLimits()
    assert limits.images == len(frames)
    assert 0 <= limits.black_below <= ordinary.black_below
    assert ordinary.saturated_above <= limits.saturated_above <= 255
    if limits.sharpness_min is None:
        assert any("blur is not looked for" in note for note in learned.notes)
    else:
        values = [frame.sharpness for frame in frames if frame.sharpness is not None]
        assert 0 < limits.sharpness_min < float(np.median(values)) / 1.99


def test_the_limit_follows_where_motion_brings_the_frames() -> None:
    soft, crisp = (learn_limits(sharp(*[0.2] * 30, moved=moved)).limits for moved in (0.08, 0.01))
    assert soft.sharpness_min == pytest.approx(0.08 * 1.15)
    assert crisp.sharpness_min == pytest.approx(0.2 / MOST_MARGIN)


def test_few_images_and_unlike_ones_make_it_wider() -> None:
    limits = [
        learn_limits(frames).limits.sharpness_min
        for frames in (sharp(*[0.2] * 20), sharp(*[0.2] * 5), sharp(*[0.2] * 10, *[0.9] * 12))
    ]
    assert limits[1] == pytest.approx(limits[0] / 2)
    assert limits[2] is not None
    assert limits[0] is not None
    assert limits[2] < limits[0] / 2


def test_a_blurred_picture_among_the_good_ones_is_no_measure() -> None:
    """Two of forty are an accident, ten are how the line looks."""
    clean = learn_limits(sharp(*[0.2] * 38)).limits.sharpness_min
    learned = learn_limits(sharp(*[0.2] * 38, 0.01, 0.02))
    assert learned.limits.sharpness_min == clean
    assert any("2 of 40 good images are far blurrier" in note for note in learned.notes)
    mixed = learn_limits(sharp(*[0.3] * 30, *[0.09] * 10)).limits.sharpness_min
    assert mixed is None or mixed < 0.03


@pytest.mark.parametrize("frames", [sharp(0.2, 0.2, 0.2), [replace(ORDINARY, sharpness=None)] * 30])
def test_without_enough_to_measure_blur_is_not_looked_for(frames: list[FrameLooks]) -> None:
    learned = learn_limits(frames)
    assert learned.limits.sharpness_min is None
    assert "blur is not looked for" in learned.notes[0]


@pytest.mark.parametrize("level", [0, 3, 8, 14])
def test_a_dark_field_line_can_be_judged_once_its_good_frames_were_seen(level: int) -> None:
    good = [picture(level, 1, seed) if level else picture(0) for seed in range(20)]
    learned = learn_limits([looks_of_picture(image) for image in good])
    assert all(unusable_reason(image, learned.limits) is None for image in good)
    assert any("dark" in note for note in learned.notes)
    if level > 4:  # what is far darker than they are is still black
        assert "black" in str(unusable_reason(picture(0), learned.limits))
    assert "saturated" in str(unusable_reason(picture(255), learned.limits))


def test_a_bright_field_line_likewise() -> None:
    good = [picture(255) for _ in range(6)]
    learned = learn_limits([looks_of_picture(image) for image in good])
    assert learned.limits.saturated_above == 255
    assert unusable_reason(good[0], learned.limits) is None
    assert "black" in str(unusable_reason(picture(2, 1), learned.limits))


def test_a_black_picture_among_good_ones_does_not_switch_the_check_off() -> None:
    good = [picture(120, 60, seed) for seed in range(19)]
    black = picture(0)
    learned = learn_limits([looks_of_picture(image) for image in (*good, black)])
    assert learned.limits.black_below == UsabilityLimits().black_below
    assert not learned.limits.one_colour
    assert "black" in str(unusable_reason(black, learned.limits))


@given(st.integers(0, 255), st.integers(0, 40))
def test_levels_are_those_that_the_checks_look_at(level: int, spread: int) -> None:
    image = picture(level, spread)
    found = looks_of_picture(image)
    ordinary = UsabilityLimits(one_colour=True)
    assert (found.bright < ordinary.black_below) == ("black" in str(unusable_reason(image, ordinary)))
    limits = UsabilityLimits(black_below=0, one_colour=True)
    assert (found.dark > limits.saturated_above) == ("saturated" in str(unusable_reason(image, limits)))
