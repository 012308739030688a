"""Sharpness falls with blur, and with nothing else that happens to frames of a line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, uniform_filter1d

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.preprocess import Preprocessor
from edge_ad.image.sharpness import MIN_SIDE, sharpness
from edge_ad.image.usability import shown

some = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 10**6)


def scene(seed: int, height: int = 160, width: int = 170) -> np.ndarray:
    """Structured parts on a textured ground, 40..200, float (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ground = gaussian_filter(rng.normal(0, 1, (height, width)), 1.0)
    picture = 110 + 12 * ground / ground.std()
    for _ in range(40):
        radius = rng.uniform(5, 18)
        inside = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width)) < radius
        picture = np.where(inside, picture * 0.3 + rng.uniform(40, 200) * 0.7, picture)
    tint = rng.uniform(0.7, 1.0, 3)
    return np.clip(gaussian_filter(picture, 0.6), 40, 200)[..., None] * tint


def grey_levels(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def measured(picture: np.ndarray) -> float:
    found = sharpness(grey_levels(picture))
    assert found is not None
    return found


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(gaussian_filter(picture, (sigma, sigma, 0)))


@some
@given(seeds, st.floats(0.4, 1.2), st.floats(-10, 10))
def test_brightness_and_contrast_do_not_count(seed: int, gain: float, offset: float) -> None:
    picture = scene(seed)
    assert measured(picture * gain + offset) == pytest.approx(measured(picture), rel=0.1)


@some
@given(seeds)
def test_shading_across_the_frame_does_not_count(seed: int) -> None:
    picture = scene(seed)
    shade = np.linspace(0.5, 1, picture.shape[1])[None, :, None]
    assert measured(picture * shade) == pytest.approx(measured(picture), rel=0.2)


@some
@given(seeds)
def test_more_blur_is_less_sharp(seed: int) -> None:
    picture = scene(seed)
    found = [measured(blurred(picture, sigma)) for sigma in (0.01, 0.8, 1.5, 2.2, 3, 5)]
    assert found == sorted(found, reverse=True)
    assert found[4] < found[0] / 4
    flat = sharpness(grey_levels(blurred(picture, 15)))  # within a few grey levels
    assert flat is None or flat < found[0] / 2, "however much it is, it never looks sharp again"


@some
@given(seeds, st.sampled_from([0, 1]))
def test_motion_along_one_direction_is_blur(seed: int, axis: int) -> None:
    picture = scene(seed)
    assert measured(uniform_filter1d(picture, 9, axis=axis)) < measured(picture) / 2.5


@some
@given(seeds, st.integers(0, 3), st.booleans())
def test_orientation_hardly_counts(seed: int, turns: int, flipped: bool) -> None:
    """A part that lies wrongly is a defect, not blur; not quite equal, as only every other row is looked at."""
    picture = scene(seed)
    turned = np.rot90(picture[::-1] if flipped else picture, turns)
    assert measured(turned) == pytest.approx(measured(picture), rel=0.3)


def test_stripes_are_sharp_in_either_direction_and_motion_across_them_is_not() -> None:
    x = np.arange(170)
    stripes = np.broadcast_to((110 + 60 * np.sign(np.sin(x / 5)))[None, :, None], (160, 170, 3))
    for picture, across in ((stripes, 1), (stripes.transpose(1, 0, 2), 0)):
        assert measured(picture) > 0.1
        assert measured(uniform_filter1d(picture, 9, axis=across)) < 0.5 * measured(picture)


@some
@given(seeds, st.floats(1, 6))
def test_noise_does_not_hide_blur(seed: int, deviation: float) -> None:
    """Nor does it make a sharp frame look blurred."""
    picture = scene(seed)
    noise = np.random.default_rng(seed).normal(0, deviation, picture.shape)
    assert measured(blurred(picture, 3) + noise) < measured(picture) / 3
    assert measured(picture + noise) > 0.6 * measured(picture)


@some
@given(seeds, st.floats(0.5, 60))
def test_of_noise_alone_nothing_is_said(seed: int, deviation: float) -> None:
    """A camera that sees nothing but an even surface is not blurred."""
    noise = np.random.default_rng(seed).normal(128, deviation, (160, 170, 3))
    found = sharpness(grey_levels(noise))
    assert found is None or found > 0.2


@pytest.mark.parametrize("level", [0, 128, 255])
def test_of_one_colour_nothing_is_said(level: int) -> None:
    assert sharpness(np.full((160, 170, 3), level, np.uint8)) is None


@some
@given(seeds, st.floats(0, 255))
def test_a_foreign_body_is_no_blur(seed: int, level: float) -> None:
    """A large even patch, however bright: what is around it is as sharp as before."""
    picture = scene(seed)
    y, x = np.mgrid[:160, :170]
    covered = (np.hypot((y - 80) / 48, (x - 70) / 52) < 1)[..., None]
    assert measured(np.where(covered, level, picture)) > 0.5 * measured(picture)


@pytest.mark.parametrize("mode", ["letterbox", "shorter_side_crop"])
def test_padding_is_neither_sharp_nor_blurred(mode: str) -> None:
    """A frame on a padded canvas is as sharp as it is without; taken with its padding it would not be."""
    frame = grey_levels(blurred(scene(1, 128, 256), 4))
    spec = PreprocessSpec(256, 256, mode, resize=128 if mode != "letterbox" else None, pad_rgb=(255, 0, 114))  # type: ignore[arg-type]
    model_input = Preprocessor(spec, threads=1)(frame)
    assert shown(model_input).shape == frame.shape
    assert sharpness(shown(model_input)) == sharpness(frame)
    assert sharpness(model_input.image_hwc) != sharpness(frame)


@pytest.mark.parametrize("shape", [(MIN_SIDE, MIN_SIDE), (57, 211), (288, 289), (101, 64)])
def test_any_size_from_the_least_on(shape: tuple[int, int]) -> None:
    picture = scene(3, *shape)
    assert measured(picture) > 2 * measured(blurred(picture, 3))


@pytest.mark.parametrize("shape", [(MIN_SIDE - 1, 300), (300, MIN_SIDE - 2), (1, 1), (2, 300)])
def test_of_a_tiny_picture_nothing_is_said(shape: tuple[int, int]) -> None:
    assert sharpness(np.zeros((*shape, 3), np.uint8)) is None
