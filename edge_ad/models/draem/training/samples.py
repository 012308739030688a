"""The pictures of an epoch: drawn with replacement, some of them turned, on half of them a texture laid.

What is drawn for a picture comes from a generator seeded by (seed, epoch, place in the epoch).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray
from edge_ad.models.draem.training.options import DraemTrainOptions
from edge_ad.models.synthesis.augment import augment_texture
from edge_ad.models.synthesis.overlay import draw_even_beta, overlay
from edge_ad.models.synthesis.perlin import thresholded_noise
from edge_ad.models.synthesis.stronger import STRONGER_AUGMENTATIONS
from edge_ad.models.synthesis.textures import TexturePool
from edge_ad.models.training.drawing import ANOMALY, ORDER, chunks, generator, made_ahead
from edge_ad.models.training.pictures import GoodPictures


@dataclass(frozen=True)
class Sample:
    """One good picture and what was made of it.

    Attributes:
        image_hwc: (H, W, 3) uint8 RGB, the target of the reconstruction.
        augmented_hwc: the same, with a texture where `mask` is true.
        mask: (H, W) bool.
    """

    image_hwc: ImageArray
    augmented_hwc: ImageArray
    mask: NDArray[np.bool_]


class Samples:
    """Batches of samples of any epoch."""

    def __init__(self, pictures: GoodPictures, textures: TexturePool, options: DraemTrainOptions) -> None:
        self._pictures, self._textures, self._options = pictures, textures, options
        self._count = options.epoch_images or len(pictures)

    def steps(self) -> int:
        """Steps of one epoch."""
        return len(chunks(range(self._count), self._options.batch))

    def __call__(self, epoch: int) -> Iterator[list[Sample]]:
        """Batches of an epoch; the next one is made while one is in use."""
        drawn = generator(self._options.seed, epoch, ORDER).integers(len(self._pictures), size=self._count)
        places = list(enumerate(int(index) for index in drawn))
        return made_ahead(lambda part: self._batch(epoch, part), chunks(places, self._options.batch))

    def _batch(self, epoch: int, part: Sequence[tuple[int, int]]) -> list[Sample]:
        return [
            self._sample(self._pictures[index].image_hwc, generator(self._options.seed, epoch, ANOMALY, place))
            for place, index in part
        ]

    def _sample(self, image_hwc: ImageArray, rng: np.random.Generator) -> Sample:
        options = self._options
        if rng.random() < options.turn_share:
            image_hwc = turned(image_hwc, float(rng.uniform(-options.turn_deg, options.turn_deg)))
        shape_hw = image_hwc.shape[0], image_hwc.shape[1]
        if rng.random() < options.clean_share:
            return Sample(image_hwc, image_hwc, np.zeros(shape_hw, np.bool_))
        mask = thresholded_noise(shape_hw, rng)
        texture = self._textures.sample(rng, shape_hw)
        texture = augment_texture(texture, rng, options.augmentations, STRONGER_AUGMENTATIONS)
        beta = draw_even_beta(rng, *options.beta_range)
        return Sample(image_hwc, overlay(image_hwc, texture, mask, beta), mask)


def turned(image_hwc: ImageArray, degrees: float) -> ImageArray:
    """A picture turned about its middle, bilinear; black comes in."""
    import cv2

    height, width = image_hwc.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(image_hwc, turn, (width, height), flags=cv2.INTER_LINEAR), np.uint8)
