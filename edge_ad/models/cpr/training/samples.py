"""The pairs of an epoch: a good picture on which something may be drawn, and one of those that look most like it.

What is drawn for a pair comes from a generator seeded by (seed, epoch, place in the epoch).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.image.frame import ImageArray
from edge_ad.models.cpr.config import CprConfig
from edge_ad.models.cpr.retrieval import block_distances, global_distances, nearest_first
from edge_ad.models.cpr.training.loss import Points
from edge_ad.models.cpr.training.options import CprTrainOptions
from edge_ad.models.cpr.training.points import batched, draw_points, full_size, least_distance, likelihood
from edge_ad.models.cpr.training.synthesis import defective, noisy
from edge_ad.models.synthesis.textures import TexturePool
from edge_ad.models.training.drawing import ANOMALY, ORDER, chunks, generator, made_ahead


@dataclass(frozen=True)
class Pair:
    """A picture and one that it retrieves.

    Attributes:
        source: which good picture it is made of.
        image_hwc: (H, W, 3) uint8 RGB, with noise and with a defect where `mask` is true.
        retrieved: number of the other one.
        retrieved_hwc: it, with noise; None where it is as it was.
    """

    source: int
    image_hwc: ImageArray
    mask: NDArray[np.bool_]
    retrieved: int
    retrieved_hwc: ImageArray | None


@dataclass(frozen=True)
class Batch:
    """Pairs of one step and their points."""

    pairs: tuple[Pair, ...]
    points: Points


class Samples:
    """Batches of any epoch.

    Args:
        images: good pictures at model size.
        foreground: (R, h, w) of them in 0..1; None for a texture.
        nearest: (R, K) numbers of those that look most like each.
    """

    def __init__(
        self,
        images: Sequence[ImageArray],
        foreground: NDArray[np.float32] | None,
        nearest: NDArray[np.int64],
        grid_hw: tuple[int, int],
        textures: TexturePool,
        options: CprTrainOptions,
    ) -> None:
        self._images, self._nearest, self._textures, self._options = images, nearest, textures, options
        self._size_hw = images[0].shape[0], images[0].shape[1]
        self._foreground = foreground
        self._apart = least_distance(self._size_hw, grid_hw, options.search_windows[0])

    def picture(self, number: int) -> ImageArray:
        """A good picture, (H, W, 3) uint8 RGB."""
        return self._images[number]

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Batches of an epoch; the next one is made while one is in use."""
        count = self._options.epoch_steps * self._options.batch
        drawn = generator(self._options.seed, epoch, ORDER).integers(len(self._images), size=count)
        places = list(enumerate(int(number) for number in drawn))
        return made_ahead(lambda part: self._batch(epoch, part), chunks(places, self._options.batch))

    def _batch(self, epoch: int, part: Sequence[tuple[int, int]]) -> Batch:
        pairs, points = [], []
        for place, source in part:
            rng = generator(self._options.seed, epoch, ANOMALY, place)
            pair = self._pair(source, rng)
            weight = None
            if self._foreground is not None:
                own, other = (
                    likelihood(self._foreground[number], self._size_hw) for number in (source, pair.retrieved)
                )
                weight = np.maximum(own, other)
            pairs.append(pair)
            points.append(draw_points(pair.mask, weight, self._options.points, self._apart, rng))
        return Batch(tuple(pairs), batched(points, self._options.points, self._size_hw))

    def _pair(self, source: int, rng: np.random.Generator) -> Pair:
        image, mask = self._images[source], np.zeros(self._size_hw, np.bool_)
        if rng.random() < self._options.overlay_share:
            where = None if self._foreground is None else full_size(self._foreground[source], self._size_hw)
            image, mask = defective(image, where, self._textures, rng)
        retrieved = int(rng.choice(self._nearest[source]))
        other = self._images[retrieved]
        noised = noisy(other, self._options.noise_share, rng)
        image = noisy(image, self._options.noise_share, rng)
        return Pair(source, image, mask, retrieved, None if noised is other else noised)


def nearest_others(histogram: Tensor, config: CprConfig) -> NDArray[np.int64]:
    """Numbers of the K pictures that look most like each, without itself, which one alone retrieves: (R, K).

    Args:
        histogram: (R, blocks, 13).
    """
    if len(histogram) == 1:
        return np.zeros((1, 1), np.int64)
    rows = []
    for number, each in enumerate(histogram):
        blocks = block_distances(each[None], histogram, config.retrieval_distance)
        order = nearest_first(global_distances(blocks, config.retrieval_share))[0]
        rows.append(order[order != number][: config.nearest])
    return np.asarray(torch.stack(rows).numpy(), np.int64)
