"""The pictures of an epoch, step by step, with textures overlaid; drawn ahead in a thread of its own.

What is drawn for a picture comes from a generator seeded by (seed, epoch, place in the epoch).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray
from edge_ad.models.glass.training.options import GlassTrainOptions
from edge_ad.models.synthesis.sample import SyntheticAnomaly, synthesise
from edge_ad.models.synthesis.textures import TexturePool
from edge_ad.models.training.drawing import ANOMALY, ORDER, chunks, generator, made_ahead
from edge_ad.models.training.pictures import GoodPictures


@dataclass(frozen=True)
class Overlaid:
    """A good picture with a texture on it.

    Attributes:
        place: which one of its batch it is.
        anomaly: what was synthesised.
    """

    place: int
    anomaly: SyntheticAnomaly


@dataclass(frozen=True)
class Batch:
    """Pictures of one step.

    Attributes:
        step: number in the epoch.
        indices: which good pictures.
        overlaid: those of them that get a texture.
    """

    step: int
    indices: tuple[int, ...]
    overlaid: tuple[Overlaid, ...]

    def anomalous(self, patch_hw: tuple[int, int]) -> NDArray[np.bool_]:
        """(N, h, w) bool, which patches the textures touch."""
        masks = np.zeros((len(self.indices), *patch_hw), np.bool_)
        for each in self.overlaid:
            masks[each.place] = each.anomaly.mask.patch
        return masks


class Batches:
    """Batches of any epoch.

    Args:
        patch_hw: size of the patch map.
    """

    def __init__(
        self, pictures: GoodPictures, textures: TexturePool, options: GlassTrainOptions, patch_hw: tuple[int, int]
    ) -> None:
        self._pictures, self._textures, self._options, self.patch_hw = pictures, textures, options, patch_hw

    def picture(self, index: int) -> ImageArray:
        """A good picture, (H, W, 3) uint8."""
        return self._pictures[index].image_hwc

    def order(self, epoch: int) -> list[int]:
        """Which pictures epoch `epoch` looks at, in what order."""
        rng = generator(self._options.seed, epoch, ORDER)
        shuffled = [int(i) for _ in range(self._options.repeat) for i in rng.permutation(len(self._pictures))]
        return shuffled[: self._options.epoch_images]

    def steps(self) -> int:
        """Steps of one epoch."""
        return len(chunks(self.order(0), self._options.batch))

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Batches of an epoch; the next one is made while one is in use."""
        parts = list(enumerate(chunks(self.order(epoch), self._options.batch)))
        return made_ahead(lambda part: self._batch(epoch, *part), parts)

    def _batch(self, epoch: int, step: int, indices: Sequence[int]) -> Batch:
        options = self._options
        overlaid = []
        for place, index in enumerate(indices):
            rng = generator(options.seed, epoch, ANOMALY, step * options.batch + place)
            if rng.random() < options.overlay_share and self._has_room(index):
                overlaid.append(Overlaid(place, self._synthesise(index, rng)))
        return Batch(step, tuple(indices), tuple(overlaid))

    def _has_room(self, index: int) -> bool:
        """Whether a texture may lie anywhere; on a tile beside the object it may not."""
        foreground = self._pictures[index].foreground
        return foreground is None or bool(foreground.any())

    def _synthesise(self, index: int, rng: np.random.Generator) -> SyntheticAnomaly:
        picture = self._pictures[index]
        return synthesise(
            picture.image_hwc,
            picture.foreground,
            self._textures,
            self.patch_hw,
            rng,
            beta_mean=self._options.beta_mean,
            beta_std=self._options.beta_std,
            augmentations=self._options.augmentations,
        )
