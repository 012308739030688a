"""The ten stronger augmentations: what each does to the levels of a picture, by formulas of their own."""

from __future__ import annotations

import colorsys
from collections import Counter
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_ad.errors import ConfigError
from edge_ad.models.synthesis import stronger
from edge_ad.models.synthesis.augment import augment_texture
from edge_ad.models.synthesis.overlay import draw_even_beta
from edge_ad.models.synthesis.stronger import STRONGER_AUGMENTATIONS


class Chosen(np.random.Generator):
    """A generator that gives what was chosen and notes what it was asked for."""

    def __init__(self, *, uniform: list[Any] | None = None, integers: list[Any] | None = None, coin: float = 0) -> None:
        super().__init__(np.random.PCG64(0))
        self.uniforms, self.whole, self.coin = uniform or [], integers or [], coin
        self.asked: list[tuple[Any, ...]] = []

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        self.asked.append((low, high))
        return self.uniforms.pop(0)

    def integers(
        self, low: Any, high: Any = None, size: Any = None, *args: Any, endpoint: bool = False, **_: Any
    ) -> Any:
        self.asked.append((low, high, endpoint))
        return self.whole.pop(0)

    def random(self, *_: Any, **__: Any) -> Any:
        return self.coin


@pytest.fixture
def picture() -> Image.Image:
    """Every level of every channel, all hues, odd sides."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((61, 47), Image.Resampling.BICUBIC)
    pixels = np.array(coarse)
    pixels[:5] = np.resize(np.arange(256, dtype=np.uint8), (5, 61))[:, :, None]
    return Image.fromarray(pixels)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)


@pytest.mark.parametrize("augmentation", STRONGER_AUGMENTATIONS, ids=lambda one: one.__name__)
def test_every_one_gives_a_picture_of_the_same_kind(picture: Image.Image, augmentation: Any) -> None:
    before = pixels(picture).copy()
    seen = set()
    for seed in range(12):
        got = augmentation(picture, np.random.default_rng(seed))
        assert (got.mode, got.size) == ("RGB", picture.size) and pixels(got).dtype == np.uint8
        again = augmentation(picture, np.random.default_rng(seed))
        np.testing.assert_array_equal(pixels(got), pixels(again))
        seen.add(pixels(got).tobytes())
    np.testing.assert_array_equal(pixels(picture), before)
    alone = augmentation.__name__ in ("invert", "equalize")
    assert len(seen) == 1 if alone else len(seen) > 3
    assert before.tobytes() not in seen or augmentation.__name__ in ("solarize", "posterize", "autocontrast")


@pytest.mark.parametrize("augmentation", STRONGER_AUGMENTATIONS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_colour_is_no_trouble(augmentation: Any, level: int) -> None:
    plain = Image.new("RGB", (3, 1), (level, level, level))
    for seed in range(4):
        assert pixels(augmentation(plain, np.random.default_rng(seed))).shape == (1, 3, 3)


def test_they_are_ten() -> None:
    assert len({one.__name__ for one in STRONGER_AUGMENTATIONS}) == 10


def test_gamma(picture: Image.Image) -> None:
    rng = Chosen(uniform=[np.array([0.5, 1.0, 2.0])])
    got, given = pixels(stronger.gamma(picture, rng)), pixels(picture)
    assert rng.asked == [(0.5, 2.0)]
    for channel, power in enumerate((0.5, 1.0, 2.0)):
        table = [round(255 * (level / 255) ** power) for level in range(256)]
        np.testing.assert_array_equal(got[:, :, channel], np.take(table, given[:, :, channel]))


@pytest.mark.parametrize(("coin", "wanted"), [(0.0, (100 + 20) * 1.1), (0.9, 100 * 1.1 + 20)])
@pytest.mark.parametrize("space", range(6))
def test_brightness_in_either_order(coin: float, wanted: float, space: int) -> None:
    """Of a grey of level 100 the brightness is 100 in all spaces but Lab and Luv, whose scale is their own."""
    rng = Chosen(uniform=[1.1, 20.0], integers=[space], coin=coin)
    got = pixels(stronger.brighter_or_darker(Image.new("RGB", (4, 4), (100, 100, 100)), rng))
    assert rng.asked == [(6, None, False), (0.8, 1.2), (-30.0, 30.0)]
    assert got.min() >= got.max() - 3, "grey stays grey"
    name = stronger.BRIGHTNESS_CHANNELS[space][0]
    if name not in ("Lab", "Luv"):
        assert abs(int(got[0, 0, 0]) - wanted) <= 2
    else:
        assert int(got[0, 0, 0]) > 110


def test_brightness_channels_are_those_of_brightness() -> None:
    """White differs from black in them, and in no other channel of their space."""
    for space, channel in stronger.BRIGHTNESS_CHANNELS:
        pair = cv2.cvtColor(np.array([[[0] * 3, [255] * 3]], np.uint8), getattr(cv2, f"COLOR_RGB2{space}"))[0]
        changes = np.abs(pair[0].astype(int) - pair[1].astype(int))
        assert changes[channel] >= 254 and np.delete(changes, channel).max() <= 2, space


def test_sharpness(picture: Image.Image) -> None:
    rng = Chosen(uniform=[1.0])
    np.testing.assert_array_equal(pixels(stronger.sharpness(picture, rng)), pixels(picture))
    assert rng.asked == [(0.0, 2.0)]
    spread = [pixels(stronger.sharpness(picture, Chosen(uniform=[f]))).astype(float)[8:] for f in (0.0, 1.0, 2.0)]
    rough = [np.abs(np.diff(one, axis=1)).mean() for one in spread]
    assert rough[0] < rough[1] < rough[2]


@pytest.mark.parametrize(("hue", "saturation"), [(0, 0), (50, 0), (-50, 0), (0, 50), (0, -50), (37, -21)])
def test_hue_comes_round_and_saturation_ends(picture: Image.Image, hue: int, saturation: int) -> None:
    rng = Chosen(integers=[np.array([hue, saturation])])
    got = pixels(stronger.hue_and_saturation(picture, rng))
    assert rng.asked == [(-50, 50, True)]
    hsv = np.asarray(picture.convert("HSV")).astype(int)
    hsv[:, :, 0] = (hsv[:, :, 0] + hue) % 256
    hsv[:, :, 1] = np.clip(hsv[:, :, 1] + saturation, 0, 255)
    for y, x in np.random.default_rng(0).integers(0, (47, 61), (200, 2)):
        h, s, v = hsv[y, x] / 255
        wanted = 255 * np.array(colorsys.hsv_to_rgb(h, s, v))
        assert np.abs(got[y, x] - wanted).max() <= 2, "Pillow's HSV is a byte for each"


@pytest.mark.parametrize("threshold", [32, 77, 128])
def test_solarize(picture: Image.Image, threshold: int) -> None:
    given = pixels(picture)
    rng = Chosen(integers=[threshold], coin=0.49)
    got = pixels(stronger.solarize(picture, rng))
    assert rng.asked == [(32, 128, True)]
    np.testing.assert_array_equal(got, np.where(given < threshold, given, 255 - given))
    kept = stronger.solarize(picture, Chosen(integers=[threshold], coin=0.5))
    np.testing.assert_array_equal(pixels(kept), given)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_posterize(picture: Image.Image, bits: int) -> None:
    rng = Chosen(integers=[bits])
    got = pixels(stronger.posterize(picture, rng))
    assert rng.asked == [(1, 8, True)]
    np.testing.assert_array_equal(got, pixels(picture) >> (8 - bits) << (8 - bits))
    assert len(np.unique(got)) == 2**bits


def test_invert(picture: Image.Image) -> None:
    got = stronger.invert(picture, Chosen())
    np.testing.assert_array_equal(pixels(got), 255 - pixels(picture))


@pytest.mark.parametrize("cutoff", [0, 20])
def test_autocontrast(cutoff: int) -> None:
    """A ramp of levels 100 to 199: what is left after the cut reaches from black to white."""
    ramp = np.repeat(np.arange(100, 200, dtype=np.uint8)[None, :, None], 3, axis=2)
    rng = Chosen(integers=[cutoff])
    got = pixels(stronger.autocontrast(Image.fromarray(ramp), rng))[0, :, 0].astype(float)
    assert rng.asked == [(0, 20, True)]
    low, high = 100 + cutoff, 199 - cutoff
    wanted = np.clip((np.arange(100, 200) - low) * 255 / (high - low), 0, 255)
    assert np.abs(got - wanted).max() <= 1.5


def test_all_of_them_are_drawn_and_none_twice() -> None:
    texture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    seen: Counter[str] = Counter()

    def noted(one: Any) -> Any:
        def augmentation(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
            seen[one.__name__] += 1
            return picture

        return augmentation

    named = [noted(one) for one in STRONGER_AUGMENTATIONS]
    rng = np.random.default_rng(1)
    for _ in range(300):
        before = dict(seen)
        augment_texture(texture, rng, 3, named)
        assert sorted(seen[name] - before.get(name, 0) for name in seen)[-3:] == [1, 1, 1]
    assert len(seen) == 10 and min(seen.values()) > 50  # 90 each are to be expected
    augment_texture(texture, rng, 10, STRONGER_AUGMENTATIONS)
    with pytest.raises(ConfigError, match="wanted 0 to 10, got 11"):
        augment_texture(texture, rng, 11, STRONGER_AUGMENTATIONS)


def test_an_even_share_of_the_good_picture() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_even_beta(rng, 0.1, 0.8) for _ in range(2000)])
    assert drawn.min() >= 0.1 and drawn.max() < 0.8
    counts, _ = np.histogram(drawn, 7, (0.1, 0.8))
    assert counts.min() > 220  # 286 each are to be expected
    assert draw_even_beta(rng, 0.4, 0.4) == 0.4
