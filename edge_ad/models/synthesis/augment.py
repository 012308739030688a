"""The nine changes that a texture may undergo before it becomes an anomaly.

They are those of the authors' list of torchvision transforms, computed by the same Pillow operations; each draws its
own strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_ad.errors import ConfigError
from edge_ad.image.frame import ImageArray

if TYPE_CHECKING:
    from PIL.Image import Image

Augmentation = Callable[["Image", np.random.Generator], "Image"]

FACTOR_RANGE = (0.8, 1.2)
HUE_RANGE = (-0.2, 0.2)  # of the colour circle
TURN_RANGE_DEG = (-45.0, 45.0)


def contrast(picture: Image, rng: np.random.Generator) -> Image:
    from PIL import ImageEnhance

    return ImageEnhance.Contrast(picture).enhance(rng.uniform(*FACTOR_RANGE))


def brightness(picture: Image, rng: np.random.Generator) -> Image:
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(picture).enhance(rng.uniform(*FACTOR_RANGE))


def saturation_and_hue(picture: Image, rng: np.random.Generator) -> Image:
    """Both, in a drawn order."""
    from PIL import ImageEnhance

    factor, shift, saturation_first = rng.uniform(*FACTOR_RANGE), rng.uniform(*HUE_RANGE), rng.random() < 0.5
    if saturation_first:
        return shifted_hue(ImageEnhance.Color(picture).enhance(factor), shift)
    return ImageEnhance.Color(shifted_hue(picture, shift)).enhance(factor)


def horizontal_flip(picture: Image, rng: np.random.Generator) -> Image:
    from PIL import Image

    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def vertical_flip(picture: Image, rng: np.random.Generator) -> Image:
    from PIL import Image

    return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def greyscale(picture: Image, rng: np.random.Generator) -> Image:
    return picture.convert("L").convert("RGB")


def autocontrast(picture: Image, rng: np.random.Generator) -> Image:
    from PIL import ImageOps

    return ImageOps.autocontrast(picture)


def equalize(picture: Image, rng: np.random.Generator) -> Image:
    from PIL import ImageOps

    return ImageOps.equalize(picture)


def rotation(picture: Image, rng: np.random.Generator) -> Image:
    return rotated(picture, rng.uniform(*TURN_RANGE_DEG))


AUGMENTATIONS: tuple[Augmentation, ...] = (
    contrast,
    brightness,
    saturation_and_hue,
    horizontal_flip,
    vertical_flip,
    greyscale,
    autocontrast,
    equalize,
    rotation,
)


def augment_texture(
    texture_hwc: ImageArray,
    rng: np.random.Generator,
    count: int = 3,
    augmentations: Sequence[Augmentation] = AUGMENTATIONS,
) -> ImageArray:
    """Apply `count` different augmentations in the order drawn.

    Args:
        texture_hwc: (H, W, 3) uint8 RGB; it is not changed.
        count: 0 to as many as there are.
        augmentations: to draw from.

    Returns: (H, W, 3) uint8 RGB; what a rotation leaves uncovered is black.
    Raises: ConfigError for another count.
    """
    from PIL import Image

    if not 0 <= count <= len(augmentations):
        raise ConfigError("texture augmentations", [f"wanted 0 to {len(augmentations)}, got {count}"])
    picture = Image.fromarray(texture_hwc)
    for index in rng.permutation(len(augmentations))[:count]:
        picture = augmentations[index](picture, rng)
    return np.asarray(picture)


def shifted_hue(picture: Image, shift: float) -> Image:
    """Turn the hue by `shift` of the colour circle, in the 256 steps of Pillow's HSV."""
    from PIL import Image

    hue, saturation, value = picture.convert("HSV").split()
    steps = int(shift * 255) % 256
    turned = Image.fromarray(np.asarray(hue) + np.uint8(steps))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def rotated(picture: Image, degrees: float) -> Image:
    """Turn clockwise about the middle; nearest pixel, black comes in."""
    from PIL import Image

    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = picture.width / 2, picture.height / 2
    inverse = (cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y)
    return picture.transform(picture.size, Image.Transform.AFFINE, inverse, Image.Resampling.NEAREST)
