"""The pixels of samples: pictures, ground truth, and ground truth as the model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.datasets.sample import Sample
from edge_ad.errors import ImageError
from edge_ad.image.boxes import cropped
from edge_ad.image.frame import Box, ImageArray
from edge_ad.image.pictures import read_nonzero, read_picture
from edge_ad.image.preprocess import Preprocessor

MaskArray = NDArray[np.bool_]
NEARLY_ALL = 0.75
"""Share of a picture that is hardly ever defective; of the published data sets' masks none covers as much."""


def read_image(sample: Sample) -> ImageArray:
    """The picture as (H, W, 3) uint8 RGB. Raises: ImageError when it cannot be decoded."""
    return read_picture(str(sample.image))


def read_mask(sample: Sample, frame_hw: tuple[int, int]) -> MaskArray:
    """Ground truth of a sample as (H, W) bool, True where anomalous.

    It is all False for a good sample and for a defective one without a mask; `sample.anomalous and sample.mask is
    None` tells that the second one says nothing about pixels.

    Args:
        frame_hw: size of the sample's picture.

    Raises: ImageError when the mask cannot be decoded, or has another size than the picture.
    """
    if sample.mask is None:
        return np.zeros(frame_hw, np.bool_)
    mask = read_nonzero(str(sample.mask))
    _check_size("mask", str(sample.mask), mask, sample, frame_hw)
    return mask


def covers_nearly_all(mask: MaskArray) -> bool:
    """Whether a ground truth covers so much of its picture that good and defective may have been swapped in it."""
    return bool(mask.mean() > NEARLY_ALL)


def swapped_notes(masks: Sequence[object]) -> list[str]:
    """What the user should know of masks that cover nearly all of their picture, at most one line."""
    named = ", ".join(map(str, masks[:3]))
    swapped = "cover nearly all of their picture, as if good and defective were swapped in them"
    return [f"{len(masks)} masks {swapped}: {named}"] if masks else []


def read_foreground(sample: Sample, frame_hw: tuple[int, int]) -> MaskArray | None:
    """Where the object is, as (H, W) bool, from the sample's file; None where there is no file. Raises: ImageError."""
    if sample.foreground is None:
        return None
    mask = read_nonzero(str(sample.foreground))
    _check_size("foreground mask", str(sample.foreground), mask, sample, frame_hw)
    return mask


def model_mask(mask: MaskArray, spec: PreprocessSpec, box: Box | None = None) -> MaskArray:
    """A mask in the model's pixels, (height, width) bool: resized and cropped as its picture is, padding False.

    Args:
        mask: (H, W) of the picture's size.
        box: the part of the picture that the model is shown, also beyond its edge, which is repeated; None for all.

    A model pixel is anomalous when at least half of what it shows is, by the weights of the picture's own resize. That
    keeps areas and edges where they are; a defect of less than half a model pixel disappears, as it does in the
    picture.
    """
    if box is not None:
        mask = cropped(mask.view(np.uint8), box).view(np.bool_)
    levels = np.repeat(mask.astype(np.uint8)[:, :, None] * np.uint8(255), 3, axis=2)
    resized = Preprocessor(replace(spec, pad_rgb=(0, 0, 0)), threads=1)(levels)
    return np.asarray(resized.image_hwc[:, :, 0] > 127)


def _check_size(kind: str, path: str, mask: MaskArray, sample: Sample, frame_hw: tuple[int, int]) -> None:
    if mask.shape != tuple(frame_hw):
        (height, width), (rows, columns) = mask.shape, frame_hw
        raise ImageError(
            f"{kind} {path} is {width}×{height}, its picture {sample.image} is {columns}×{rows} pixels;"
            " a mask has the size of its picture"
        )
