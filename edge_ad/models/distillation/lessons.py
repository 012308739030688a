"""What a student learns from: good pictures, mirrored and in parts, and textures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edge_ad.image.frame import ImageArray
from edge_ad.models.distillation.options import StudentTrainOptions
from edge_ad.models.synthesis.textures import TexturePool
from edge_ad.models.training.drawing import generator, made_ahead
from edge_ad.models.training.pictures import GoodPictures

FIRST_LESSON, LESSON = 3, 4  # what a generator is for; part of its seed, beside those of `training.drawing`


class Lessons:
    """Pictures in steps, (height, width, 3) uint8 RGB at model size; the same for the same seed."""

    def __init__(self, pictures: GoodPictures, textures: TexturePool, options: StudentTrainOptions) -> None:
        self._pictures, self._textures, self._options = pictures, textures, options

    def first(self, batches: int) -> Iterator[list[ImageArray]]:
        """Batches that no epoch sees."""
        return made_ahead(lambda step: self._batch(FIRST_LESSON, 0, step), range(batches))

    def epoch(self, epoch: int) -> Iterator[list[ImageArray]]:
        """The batches of an epoch."""
        return made_ahead(lambda step: self._batch(LESSON, epoch, step), range(self._options.epoch_steps))

    def _batch(self, purpose: int, epoch: int, step: int) -> list[ImageArray]:
        rng = generator(self._options.seed, purpose, epoch, step)
        return [self._drawn(rng) for _ in range(self._options.batch)]

    def _drawn(self, rng: np.random.Generator) -> ImageArray:
        height, width = self._options.imgsz
        if rng.random() < self._options.texture_share:
            return self._textures.sample(rng, (height, width))
        return changed(self._pictures[int(rng.integers(len(self._pictures)))].image_hwc, self._options, rng)


def changed(image_hwc: ImageArray, options: StudentTrainOptions, rng: np.random.Generator) -> ImageArray:
    """A part of a picture, enlarged to its size (Pillow's bilinear), in one of four mirrorings."""
    from PIL import Image

    height, width = image_hwc.shape[:2]
    share = float(rng.uniform(options.smallest_crop, 1))
    rows, columns = max(1, round(share * height)), max(1, round(share * width))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    part: ImageArray = image_hwc[top : top + rows, left : left + columns]
    if (rows, columns) != (height, width):
        part = np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BILINEAR))
    down, across = (int(step) for step in rng.choice((-1, 1), size=2))
    return np.ascontiguousarray(part[::down, ::across])


def in_batches(pictures: GoodPictures, batch: int) -> Iterator[Sequence[ImageArray]]:
    """Good pictures as they are, in order."""
    for start in range(0, len(pictures), batch):
        yield [pictures[index].image_hwc for index in range(start, min(start + batch, len(pictures)))]
