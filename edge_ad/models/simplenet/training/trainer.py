"""Epochs of SimpleNet on frozen features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from edge_ad.errors import TrainingError
from edge_ad.models.patch_head.frozen import FrozenFeatures
from edge_ad.models.patch_head.training.trainer import AFTER_DIVERGENCE, HeadTrainer
from edge_ad.models.simplenet.network import SimpleNet
from edge_ad.models.simplenet.training.options import SimpleNetTrainOptions
from edge_ad.models.simplenet.training.step import Losses, optimizers_of, step
from edge_ad.models.training.drawing import NOISE, ORDER, chunks, generator
from edge_ad.models.training.labelled import LabelledPictures
from edge_ad.models.training.session import SamplePair


class SimpleNetTrainer(HeadTrainer[SimpleNet, SimpleNetTrainOptions]):
    """Steps against noise on features. An epoch of the record is a meta-epoch of the authors."""

    losses = ("normal", "noisy")

    def __init__(
        self,
        network: SimpleNet,
        features: FrozenFeatures,
        pictures: int,
        labelled: LabelledPictures | None,
        options: SimpleNetTrainOptions,
    ) -> None:
        optimizers = optimizers_of(network, options.learning_rate, options.adaptor_optimizer)
        super().__init__(network, features, optimizers, labelled, options)
        self._count = pictures

    def steps(self) -> int:
        """Steps of one meta-epoch."""
        return len(self._order(0))

    def samples(self) -> Iterator[SamplePair]:
        """None: what is synthesised are features."""
        return iter(())

    def train_epoch(self, epoch: int, after_step: Callable[[str], None]) -> list[Losses]:
        found: list[Losses] = []
        for number, indices in enumerate(self._order(epoch)):
            own, _ = self._cache.with_others(indices, [])
            embedding = self._embedding(own)
            losses = step(
                self.network,
                self.optimizers,
                embedding=embedding,
                noise=self._noise(epoch, number, embedding),
                margin=self._options.margin,
            )
            if not math.isfinite(losses.normal + losses.noisy):
                raise TrainingError(f"loss is not finite in epoch {epoch}, step {number}; {AFTER_DIVERGENCE}")
            found.append(losses)
            total = losses.normal + losses.noisy
            after_step(f"loss {total:.3f} (normal {losses.normal:.3f}, noisy {losses.noisy:.3f})")
        return found

    def _order(self, epoch: int) -> list[tuple[int, ...]]:
        rng = generator(self._options.seed, epoch, ORDER)
        rounds = [rng.permutation(self._count) for _ in range(self._options.rounds)]
        return [tuple(map(int, part)) for once in rounds for part in chunks(list(once), self._options.batch)]

    def _noise(self, epoch: int, number: int, like: Tensor) -> Tensor:
        """(P, D) Gaussian noise, the same whenever it is drawn again."""
        seed = int(generator(self._options.seed, epoch, NOISE, number).integers(2**63))
        source = torch.Generator().manual_seed(seed)
        return (torch.randn(like.shape, generator=source) * self._options.noise_std).to(like.device)
