"""What a step works on: good pictures, the same in changed colours, and pictures of anything.

What is drawn for a step comes from generators seeded by (seed, epoch, step).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_ad.image.frame import ImageArray
from edge_ad.models.efficientad.training.options import EfficientAdTrainOptions
from edge_ad.models.synthesis.augment import brightness, contrast, greyscale
from edge_ad.models.synthesis.textures import FolderTextures
from edge_ad.models.training.drawing import ANOMALY, ORDER, generator, made_ahead
from edge_ad.models.training.pictures import GoodPictures

FACTOR_RANGE = (0.8, 1.2)  # of saturation; those of brightness and contrast are the same (appendix A)
GREY_SHARE = 0.3  # of the pictures of anything (appendix A)
PENALTY_SCALE = 2  # they are resized to this many times the model's input, of which the middle is taken


@dataclass(frozen=True)
class Sample:
    """One picture of a step; all (H, W, 3) uint8 RGB.

    Attributes:
        index: of the good picture among those that are learned from.
        jittered_hwc: the same in changed colours.
        penalty_hwc: of something else; None where there is nothing.
    """

    index: int
    image_hwc: ImageArray
    jittered_hwc: ImageArray
    penalty_hwc: ImageArray | None


class Samples:
    """Batches of any epoch.

    Args:
        indices: of the pictures that are learned from.
        others: pictures of anything; None for none.
    """

    def __init__(
        self,
        pictures: GoodPictures,
        indices: Sequence[int],
        others: FolderTextures | None,
        options: EfficientAdTrainOptions,
    ) -> None:
        self._pictures, self._indices, self._others, self._options = pictures, tuple(indices), others, options

    def __call__(self, epoch: int) -> Iterator[list[Sample]]:
        """Batches of an epoch; the next one is made while one is in use."""
        return made_ahead(lambda step: self._batch(epoch, step), range(self._options.epoch_steps))

    def _batch(self, epoch: int, step: int) -> list[Sample]:
        batch = self._options.batch
        first = (epoch * self._options.epoch_steps + step) * batch
        rng = generator(self._options.seed, epoch, ANOMALY, step)
        return [self._sample(self._index(place), rng) for place in range(first, first + batch)]

    def _index(self, place: int) -> int:
        """All pictures in a drawn order, then all of them in another one, whatever epoch that falls into."""
        turn, within = divmod(place, len(self._indices))
        order = generator(self._options.seed, turn, ORDER).permutation(len(self._indices))
        return self._indices[int(order[within])]

    def _sample(self, index: int, rng: np.random.Generator) -> Sample:
        image = self._pictures[index].image_hwc
        return Sample(index, image, jittered(image, rng), None if self._others is None else self._other(image, rng))

    def _other(self, like: ImageArray, rng: np.random.Generator) -> ImageArray:
        from PIL import Image

        assert self._others is not None
        height, width = like.shape[:2]
        large = self._others.sample(rng, (PENALTY_SCALE * height, PENALTY_SCALE * width))
        top, left = height * (PENALTY_SCALE - 1) // 2, width * (PENALTY_SCALE - 1) // 2
        middle = large[top : top + height, left : left + width]
        return np.asarray(greyscale(Image.fromarray(middle), rng)) if rng.random() < GREY_SHARE else middle


def jittered(image_hwc: ImageArray, rng: np.random.Generator) -> ImageArray:
    """One of brightness, contrast and saturation changed a little: (H, W, 3) uint8 RGB, in a new array."""
    from PIL import Image, ImageEnhance

    picture, choice = Image.fromarray(image_hwc), rng.integers(3)
    if choice == 2:
        return np.asarray(ImageEnhance.Color(picture).enhance(rng.uniform(*FACTOR_RANGE)))
    return np.asarray((brightness, contrast)[choice](picture, rng))


def split(count: int, held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Which of `count` good pictures are learned from, and which give the quantiles; one picture does both."""
    order = [int(index) for index in generator(seed, ORDER).permutation(count)]
    if count == 1:
        return order, order
    learned = min(max(int((1 - held_out) * count), 1), count - 1)
    return sorted(order[:learned]), sorted(order[learned:])
