"""The pictures of an epoch, step by step, with textures overlaid; drawn ahead in a thread of its own.

Everything that is drawn for a picture comes from a generator seeded by (seed, epoch, place in the epoch), so an epoch
is the same whether training was interrupted before it or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.frame import ImageArray
from edge_ad.models.glass.training.features import chunks
from edge_ad.models.glass.training.options import TrainOptions
from edge_ad.models.glass.training.pictures import GoodPictures
from edge_ad.models.synthesis.sample import synthesise
from edge_ad.models.synthesis.textures import TexturePool

ORDER, ANOMALY, NOISE = range(3)  # what a generator is for; part of its seed


@dataclass(frozen=True)
class Batch:
    """Pictures of one step.

    Attributes:
        step: number in the epoch.
        indices: which good pictures.
        augmented: the same with a texture overlaid, (H, W, 3) uint8 each.
        anomalous: (N, h, w) bool, which patches the textures touch.
        pixels: (H, W) bool each, which pixels.
    """

    step: int
    indices: tuple[int, ...]
    augmented: list[ImageArray]
    anomalous: NDArray[np.bool_]
    pixels: list[NDArray[np.bool_]]


class Batches:
    """Batches of any epoch.

    Args:
        patch_hw: size of the patch map.
    """

    def __init__(
        self, pictures: GoodPictures, textures: TexturePool, options: TrainOptions, patch_hw: tuple[int, int]
    ) -> None:
        self._pictures, self._textures, self._options, self._patch_hw = pictures, textures, options, patch_hw

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
        with ThreadPoolExecutor(1, thread_name_prefix="edge-ad-synthesis") as worker:
            ahead = worker.submit(self._batch, epoch, *parts[0])
            for following in [*parts[1:], None]:
                ready = ahead.result()
                if following is not None:
                    ahead = worker.submit(self._batch, epoch, *following)
                yield ready

    def _batch(self, epoch: int, step: int, indices: Sequence[int]) -> Batch:
        options = self._options
        anomalies = []
        for place, index in enumerate(indices):
            picture = self._pictures[index]
            rng = generator(options.seed, epoch, ANOMALY, step * options.batch + place)
            anomalies.append(
                synthesise(
                    picture.image_hwc,
                    picture.foreground,
                    self._textures,
                    self._patch_hw,
                    rng,
                    beta_mean=options.beta_mean,
                    beta_std=options.beta_std,
                    augmentations=options.augmentations,
                )
            )
        masks = np.stack([anomaly.mask.patch for anomaly in anomalies])
        images = [anomaly.image_hwc for anomaly in anomalies]
        return Batch(step, tuple(indices), images, masks, [anomaly.mask.pixel for anomaly in anomalies])


def generator(*seed: int) -> np.random.Generator:
    """A generator that is the same for the same numbers."""
    return np.random.default_rng(seed)
