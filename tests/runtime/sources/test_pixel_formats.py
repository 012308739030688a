"""Pixel formats of machine vision cameras: each colour comes out as what it is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.errors import ImageError
from edge_ad.image.frame import ImageArray
from edge_ad.runtime.sources.pixel_formats import to_bgr

HEIGHT, WIDTH = 12, 20
RED_BGR, GREEN_BGR, BLUE_BGR = (0, 0, 255), (0, 255, 0), (255, 0, 0)


def mosaic(colour_bgr: tuple[int, int, int], pattern: str) -> ImageArray:
    """What a sensor behind a Bayer filter sees. Args: pattern: the filters of the first two rows, such as `RGGB`."""
    value = dict(zip("BGR", colour_bgr, strict=True))
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    for position, filter_colour in enumerate(pattern):
        image[position // 2 :: 2, position % 2 :: 2] = value[filter_colour]
    return image


PATTERNS = {"BayerRG": "RGGB", "BayerGR": "GRBG", "BayerGB": "GBRG", "BayerBG": "BGGR"}


@pytest.mark.parametrize("colour", [RED_BGR, GREEN_BGR, BLUE_BGR, (10, 120, 240)])
@pytest.mark.parametrize("name", list(PATTERNS))
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_mosaic_becomes_the_colour_that_the_sensor_saw(name: str, colour: tuple[int, int, int], bits: int) -> None:
    seen = mosaic(colour, PATTERNS[name])
    samples = seen if bits == 8 else np.round(seen * ((2**bits - 1) / 255)).astype(np.uint16)
    image = to_bgr(samples.ravel(), f"{name}{bits}", WIDTH, HEIGHT)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image.reshape(-1, 3), [colour] * (HEIGHT * WIDTH), atol=1)


def test_the_control_notices_swapped_colours() -> None:
    wrong = to_bgr(mosaic(RED_BGR, "RGGB").ravel(), "BayerBG8", WIDTH, HEIGHT)
    np.testing.assert_allclose(wrong.mean((0, 1)), BLUE_BGR, atol=1)


@pytest.mark.parametrize(
    ("name", "samples"), [("RGB8", (250, 120, 10)), ("BGR8", (10, 120, 250)), ("RGBa8", (250, 120, 10, 7))]
)
def test_interleaved_colours_are_ordered(name: str, samples: tuple[int, ...]) -> None:
    image = to_bgr(np.tile(np.array(samples, np.uint8), HEIGHT * WIDTH), name, WIDTH, HEIGHT)
    np.testing.assert_array_equal(image.reshape(-1, 3), [(10, 120, 250)] * (HEIGHT * WIDTH))
    assert image.flags.owndata and image.flags.c_contiguous


@pytest.mark.parametrize(("name", "order"), [("YUV422_8", (0, 1, 0, 3)), ("YUV422_8_UYVY", (1, 0, 3, 0))])
def test_yuv_with_half_the_colours(name: str, order: tuple[int, ...]) -> None:
    y, u, v = (int(value) for value in cv2.cvtColor(np.array([[[20, 60, 200]]], np.uint8), cv2.COLOR_BGR2YUV)[0, 0])
    # OpenCV's YUV422 is of studio range, its YUV of full range; so only the hue is compared.
    group = np.array([(y, u, y, v)[index] for index in order], np.uint8)
    blue, green, red = to_bgr(np.tile(group, HEIGHT * WIDTH // 2), name, WIDTH, HEIGHT).mean((0, 1))
    assert red > green + 60 > blue + 60


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_is_scaled_so_that_white_stays_white(bits: int) -> None:
    white = 2**bits - 1
    samples = np.array([0, white // 2, white, white], np.uint8 if bits == 8 else np.uint16)
    image = to_bgr(samples, f"Mono{bits}", 2, 2)
    np.testing.assert_allclose(image[..., 0].ravel(), [0, 127, 255, 255], atol=1)
    np.testing.assert_array_equal(image, image[..., :1].repeat(3, axis=2))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5))
def test_what_pads_the_rows_is_left_out(width: int, height: int, padding: int) -> None:
    rows = np.full((height, width + padding), 255, np.uint8)
    rows[:, :width] = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    image = to_bgr(rows.ravel(), "Mono8", width, height)
    np.testing.assert_array_equal(image[..., 1], rows[:, :width])


@pytest.mark.parametrize(
    ("name", "samples", "words"),
    [
        ("Coord3D_ABC32f", 240, "wanted a pixel format of Mono.*set PixelFormat"),
        ("BayerRG9", 240, "wanted a pixel format"),
        ("Mono8", 239, "wanted 12 rows of 20"),
        ("RGB8", 240, "wanted 12 rows of 60"),
        ("Mono8", 0, "got 0 samples"),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, samples: int, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        to_bgr(np.zeros(samples, np.uint8), name, WIDTH, HEIGHT)
