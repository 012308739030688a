"""The ten changes that DRAEM makes to a texture: imgaug's, by operations of Pillow and OpenCV.

They reach further than the nine of `augment`: colours are inverted, posterised and solarised, the gamma of each
channel is changed on its own. Each draws its own strength.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_ad.models.synthesis.augment import Augmentation, equalize, rotation

if TYPE_CHECKING:
    from PIL.Image import Image

GAMMA_RANGE = (0.5, 2.0)  # of each channel
BRIGHTNESS_FACTORS, BRIGHTNESS_SHIFTS = (0.8, 1.2), (-30.0, 30.0)
SHARPNESS_RANGE = (0.0, 2.0)  # 0 blurs, 1 leaves as it is
COLOUR_SHIFTS = (-50, 50)  # levels of hue, which comes round, and of saturation
SOLARIZE_SHARE, SOLARIZE_THRESHOLDS = 0.5, (32, 128)
POSTERIZE_BITS = (1, 8)
CUTOFFS = (0, 20)  # percent
BRIGHTNESS_CHANNELS = (("YCrCb", 0), ("HSV", 2), ("HLS", 1), ("Lab", 0), ("Luv", 0), ("YUV", 0))
"""Colour spaces of OpenCV, and which of their channels is brightness."""


def gamma(picture: Image, rng: np.random.Generator) -> Image:
    """Each channel to a power of its own."""
    from PIL import Image

    levels = np.arange(256) / 255
    tables = np.rint(255 * levels[None, :] ** rng.uniform(*GAMMA_RANGE, 3)[:, None]).astype(np.uint8)
    pixels = np.asarray(picture)
    return Image.fromarray(np.stack([tables[channel][pixels[:, :, channel]] for channel in range(3)], axis=2))


def brighter_or_darker(picture: Image, rng: np.random.Generator) -> Image:
    """The brightness of a drawn colour space, times a factor and plus a shift, in a drawn order."""
    import cv2
    from PIL import Image

    space, channel = BRIGHTNESS_CHANNELS[rng.integers(len(BRIGHTNESS_CHANNELS))]
    factor, shift = rng.uniform(*BRIGHTNESS_FACTORS), rng.uniform(*BRIGHTNESS_SHIFTS)
    shift_first = rng.random() < 0.5
    turned = np.array(cv2.cvtColor(np.asarray(picture), getattr(cv2, f"COLOR_RGB2{space}")))
    values = turned[:, :, channel].astype(np.float32)
    values = (values + shift) * factor if shift_first else values * factor + shift
    turned[:, :, channel] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return Image.fromarray(cv2.cvtColor(turned, getattr(cv2, f"COLOR_{space}2RGB")))


def sharpness(picture: Image, rng: np.random.Generator) -> Image:
    from PIL import ImageEnhance

    return ImageEnhance.Sharpness(picture).enhance(rng.uniform(*SHARPNESS_RANGE))


def hue_and_saturation(picture: Image, rng: np.random.Generator) -> Image:
    """Both shifted, each on its own."""
    from PIL import Image

    hue_shift, saturation_shift = (int(value) for value in rng.integers(*COLOUR_SHIFTS, 2, endpoint=True))
    hue, saturation, value = picture.convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(hue_shift % 256))
    shifted = Image.fromarray(
        np.clip(np.asarray(saturation).astype(np.int16) + saturation_shift, 0, 255).astype(np.uint8)
    )
    return Image.merge("HSV", (turned, shifted, value)).convert("RGB")


def solarize(picture: Image, rng: np.random.Generator) -> Image:
    """Half of the time: what is brighter than a drawn level is inverted."""
    from PIL import ImageOps

    threshold = int(rng.integers(*SOLARIZE_THRESHOLDS, endpoint=True))
    return ImageOps.solarize(picture, threshold) if rng.random() < SOLARIZE_SHARE else picture


def posterize(picture: Image, rng: np.random.Generator) -> Image:
    from PIL import ImageOps

    return ImageOps.posterize(picture, int(rng.integers(*POSTERIZE_BITS, endpoint=True)))


def invert(picture: Image, rng: np.random.Generator) -> Image:
    from PIL import ImageOps

    return ImageOps.invert(picture)


def autocontrast(picture: Image, rng: np.random.Generator) -> Image:
    """With up to a fifth of the levels cut off at each end."""
    from PIL import ImageOps

    return ImageOps.autocontrast(picture, cutoff=int(rng.integers(*CUTOFFS, endpoint=True)))


STRONGER_AUGMENTATIONS: tuple[Augmentation, ...] = (
    gamma,
    brighter_or_darker,
    sharpness,
    hue_and_saturation,
    solarize,
    posterize,
    invert,
    autocontrast,
    equalize,
    rotation,
)
