"""The pictures of an epoch: drawn with replacement, some of them turned, on half of them a texture laid."""

from __future__ import annotations

import numpy as np

from edge_ad.image.frame import ImageArray
from edge_ad.models.draem.training.options import DraemTrainOptions
from edge_ad.models.synthesis.augment import augment_texture
from edge_ad.models.synthesis.overlay import draw_even_beta, overlay
from edge_ad.models.synthesis.perlin import thresholded_noise
from edge_ad.models.synthesis.stronger import STRONGER_AUGMENTATIONS
from edge_ad.models.synthesis.textures import TexturePool
from edge_ad.models.training.overlaid import OverlaidSample, OverlaidSamples
from edge_ad.models.training.pictures import GoodPictures, Picture


class Samples(OverlaidSamples):
    """Batches of samples of any epoch; the good picture is the target of the reconstruction."""

    def __init__(self, pictures: GoodPictures, textures: TexturePool, options: DraemTrainOptions) -> None:
        super().__init__(pictures, options.epoch_images, options.batch, options.seed)
        self._textures, self._options = textures, options

    def _sample(self, picture: Picture, rng: np.random.Generator) -> OverlaidSample:
        options, image_hwc = self._options, picture.image_hwc
        if rng.random() < options.turn_share:
            image_hwc = turned(image_hwc, float(rng.uniform(-options.turn_deg, options.turn_deg)))
        shape_hw = image_hwc.shape[0], image_hwc.shape[1]
        if rng.random() < options.clean_share:
            return OverlaidSample(image_hwc, image_hwc, np.zeros(shape_hw, np.bool_))
        mask = thresholded_noise(shape_hw, rng)
        texture = self._textures.sample(rng, shape_hw)
        texture = augment_texture(texture, rng, options.augmentations, STRONGER_AUGMENTATIONS)
        beta = draw_even_beta(rng, *options.beta_range)
        return OverlaidSample(image_hwc, overlay(image_hwc, texture, mask, beta), mask)


def turned(image_hwc: ImageArray, degrees: float) -> ImageArray:
    """A picture turned about its middle, bilinear; black comes in."""
    import cv2

    height, width = image_hwc.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return np.asarray(cv2.warpAffine(image_hwc, turn, (width, height), flags=cv2.INTER_LINEAR), np.uint8)
