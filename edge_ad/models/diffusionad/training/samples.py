"""The pictures of an epoch: drawn with replacement; on half of them, inside of the object, something is laid over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_ad.image.frame import ImageArray
from edge_ad.models.diffusionad.training.options import DiffusionAdTrainOptions
from edge_ad.models.synthesis.augment import augment_texture
from edge_ad.models.synthesis.overlay import draw_even_beta, overlay
from edge_ad.models.synthesis.perlin import thresholded_noise
from edge_ad.models.synthesis.stronger import STRONGER_AUGMENTATIONS
from edge_ad.models.synthesis.textures import TexturePool
from edge_ad.models.synthesis.tiles import shuffled_grid
from edge_ad.models.training.overlaid import OverlaidSample, OverlaidSamples
from edge_ad.models.training.pictures import GoodPictures, Picture

REDRAWS = 50  # of a mask that comes out empty; then nothing is laid over
OWN_PICTURE = 0.5  # share of what is laid over an object that is its own picture


class Samples(OverlaidSamples):
    """Batches of samples of any epoch; a last one that is not full is left out, but where it is the only one."""

    def __init__(self, pictures: GoodPictures, textures: TexturePool, options: DiffusionAdTrainOptions) -> None:
        super().__init__(pictures, options.epoch_images, options.batch, options.seed)
        self._textures, self._options = textures, options

    def _parts(self, places: Sequence[Any]) -> list[Sequence[Any]]:
        *full, last = super()._parts(places)
        return [*full, last] if len(last) == self._options.batch or not full else full

    def _sample(self, picture: Picture, rng: np.random.Generator) -> OverlaidSample:
        options, image_hwc = self._options, picture.image_hwc
        shape_hw = image_hwc.shape[0], image_hwc.shape[1]
        mask = np.zeros(shape_hw, np.bool_)
        if rng.random() < options.clean_share:
            return OverlaidSample(image_hwc, image_hwc, mask)
        for _ in range(REDRAWS):
            mask = thresholded_noise(shape_hw, rng)
            if picture.foreground is not None:
                mask &= picture.foreground
            if mask.any():
                break
        laid = self._laid(image_hwc, rng)
        return OverlaidSample(image_hwc, overlay(image_hwc, laid, mask, draw_even_beta(rng, *options.beta_range)), mask)

    def _laid(self, image_hwc: ImageArray, rng: np.random.Generator) -> ImageArray:
        count = self._options.augmentations
        if self._options.surface == "object" and rng.random() < OWN_PICTURE:
            return shuffled_grid(augment_texture(image_hwc, rng, count, STRONGER_AUGMENTATIONS), rng)
        texture = self._textures.sample(rng, (image_hwc.shape[0], image_hwc.shape[1]))
        return augment_texture(texture, rng, count, STRONGER_AUGMENTATIONS)
