"""The nine augmentations are those of torchvision that the authors list, at strengths in their ranges."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from edge_ad.errors import ConfigError
from edge_ad.models.synthesis import augment
from edge_ad.models.synthesis.augment import AUGMENTATIONS, augment_texture


class Chosen(np.random.Generator):
    """A generator whose `uniform` gives what was chosen and notes the ranges it was asked for."""

    def __init__(self, *values: float, coin: float = 0.0) -> None:
        super().__init__(np.random.PCG64(0))
        self.values, self.coin, self.ranges = list(values), coin, list[tuple[float, float]]()

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        self.ranges.append((low, high))
        return self.values.pop(0)

    def random(self, *args: Any, **options: Any) -> Any:
        return self.coin


@pytest.fixture
def picture() -> Image.Image:
    """Odd sides, all hues, dull enough for autocontrast to have work."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 200, (7, 9, 3), np.uint8)).resize((61, 47), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.integers(-9, 9, (47, 61, 3)), 30, 210).astype(np.uint8))


FACTORS = [0.8, 0.93, 1.0, 1.2]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("ours", "theirs"), [(augment.contrast, F.adjust_contrast), (augment.brightness, F.adjust_brightness)]
)
def test_contrast_and_brightness(picture: Image.Image, ours: Any, theirs: Any, factor: float) -> None:
    rng = Chosen(factor)
    np.testing.assert_array_equal(np.asarray(ours(picture, rng)), np.asarray(theirs(picture, factor)))
    assert rng.ranges == [(0.8, 1.2)]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("shift", [-0.2, -0.01, 0.0, 0.07, 0.2])
def test_saturation_and_hue_in_either_order(picture: Image.Image, factor: float, shift: float) -> None:
    for coin, want in (
        (0.0, F.adjust_hue(F.adjust_saturation(picture, factor), shift)),
        (0.9, F.adjust_saturation(F.adjust_hue(picture, shift), factor)),
    ):
        rng = Chosen(factor, shift, coin=coin)
        np.testing.assert_array_equal(np.asarray(augment.saturation_and_hue(picture, rng)), np.asarray(want))
        assert rng.ranges == [(0.8, 1.2), (-0.2, 0.2)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (augment.horizontal_flip, F.hflip),
        (augment.vertical_flip, F.vflip),
        (augment.greyscale, lambda picture: F.rgb_to_grayscale(picture, num_output_channels=3)),
        (augment.autocontrast, F.autocontrast),
        (augment.equalize, F.equalize),
    ],
)
def test_those_without_a_strength(picture: Image.Image, ours: Any, theirs: Any) -> None:
    got = np.asarray(ours(picture, Chosen()))
    np.testing.assert_array_equal(got, np.asarray(theirs(picture)))
    assert not np.array_equal(got, np.asarray(picture))


@pytest.mark.parametrize("degrees", [-45.0, -17.3, 0.0, 8.0, 45.0])
def test_rotation(picture: Image.Image, degrees: float) -> None:
    rng = Chosen(degrees)
    want = F.affine(picture, degrees, [0, 0], 1.0, [0.0], interpolation=InterpolationMode.NEAREST, fill=0)
    # Nearest neighbours may fall to the other side of a half where the two matrices differ by rounding.
    assert (np.asarray(augment.rotation(picture, rng)) != np.asarray(want)).any(axis=2).mean() < 2e-3
    assert rng.ranges == [(-45.0, 45.0)]
    if degrees:
        wrong = F.affine(picture, -degrees, [0, 0], 1.0, [0.0], interpolation=InterpolationMode.NEAREST, fill=0)
        assert (np.asarray(wrong) != np.asarray(want)).any(axis=2).mean() > 0.3


def test_there_are_nine_in_the_authors_order() -> None:
    assert [kind.__name__ for kind in AUGMENTATIONS] == [
        "contrast",
        "brightness",
        "saturation_and_hue",
        "horizontal_flip",
        "vertical_flip",
        "greyscale",
        "autocontrast",
        "equalize",
        "rotation",
    ]


def test_three_different_ones_in_the_drawn_order() -> None:
    """1,800 draws of 3 in 9: each is first, and each drawn at all, binomially; five standard deviations are allowed."""
    drawn: list[list[int]] = []

    def spy(index: int) -> Any:
        def note(image: Image.Image, rng: np.random.Generator) -> Image.Image:
            drawn[-1].append(index)
            return image

        return note

    spies = tuple(spy(index) for index in range(9))
    rng = np.random.default_rng(2)
    texture = np.zeros((2, 2, 3), np.uint8)
    for _ in range(1800):
        drawn.append([])
        augment_texture(texture, rng, augmentations=spies)
    assert all(len(set(indices)) == len(indices) == 3 for indices in drawn)
    first, all_three = (
        Counter(indices[0] for indices in drawn),
        Counter(index for indices in drawn for index in indices),
    )
    assert all(abs(first[index] - 200) < 67 for index in range(9)), first
    assert all(abs(all_three[index] - 600) < 100 for index in range(9)), all_three
    assert len({tuple(indices) for indices in drawn}) > 400  # of 504 ordered triples


def test_the_strengths_come_after_the_choice_one_by_one(picture: Image.Image) -> None:
    """The oracle draws as the function does: first which, then each in its turn from the same generator."""
    texture = np.asarray(picture)
    before = texture.copy()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        want = picture
        for index in rng.permutation(9)[:3]:
            want = AUGMENTATIONS[index](want, rng)
        np.testing.assert_array_equal(augment_texture(texture, np.random.default_rng(seed)), np.asarray(want))
    np.testing.assert_array_equal(texture, before)


def test_counts_from_none_to_nine(picture: Image.Image) -> None:
    texture = np.asarray(picture)
    np.testing.assert_array_equal(augment_texture(texture, np.random.default_rng(0), 0), texture)
    nine = augment_texture(texture, np.random.default_rng(0), 9)
    assert nine.shape == texture.shape and nine.dtype == np.uint8
    for count in (-1, 10):
        with pytest.raises(ConfigError, match=f"wanted 0 to 9, got {count}"):
            augment_texture(texture, np.random.default_rng(0), count)


def test_the_same_generator_gives_the_same_texture(picture: Image.Image) -> None:
    texture = np.asarray(picture)
    first, second, other = (augment_texture(texture, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)
