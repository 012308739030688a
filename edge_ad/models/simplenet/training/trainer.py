"""Epochs of SimpleNet on frozen features, and a look at labelled pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.errors import TrainingError
from edge_ad.models.patch_head.checkpoint import ADAPTOR_KEY, DISCRIMINATOR_KEY
from edge_ad.models.patch_head.features import TapCache
from edge_ad.models.patch_head.frozen import FrozenFeatures
from edge_ad.models.simplenet.network import SimpleNet
from edge_ad.models.simplenet.training.options import SimpleNetTrainOptions
from edge_ad.models.simplenet.training.step import Losses, Optimizers, step
from edge_ad.models.training.drawing import NOISE, ORDER, chunks, generator
from edge_ad.models.training.epochs import EpochFigures, is_due
from edge_ad.models.training.labelled import LabelledPictures
from edge_ad.models.training.session import SamplePair

LOSSES = ("normal", "noisy")
AFTER_DIVERGENCE = "no weights of this epoch are kept; try a lower --learning-rate, or less --noise-std"


class SimpleNetTrainer:
    """A network, its optimisers and what they learn from; see `edge_ad.models.training.session.Trainer`."""

    state_keys = ("adaptor", "discriminator", "optimizers")

    def __init__(
        self,
        network: SimpleNet,
        features: FrozenFeatures,
        pictures: int,
        labelled: LabelledPictures | None,
        options: SimpleNetTrainOptions,
    ) -> None:
        self.network, self.optimizers = network, Optimizers(network, options.learning_rate)
        self._embedding, self._taps, self._cache = features.embedding, features.taps, features.cache
        self._count = pictures
        self._labelled, self._options = labelled, options
        self._labelled_taps: TapCache | None = None

    def steps(self) -> int:
        """Steps of one meta-epoch."""
        return len(self._order(0))

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        """Train from meta-epoch `first` to the last."""
        for epoch in range(first, self._options.epochs):
            yield self._epoch(epoch, after_step)

    def checkpoint(self) -> dict[str, Any]:
        """The weights as the authors keep them; a network without an adaptor has none to keep."""
        parts = {DISCRIMINATOR_KEY: self.network.discriminator.state_dict()}
        if len(self.network.adaptor.layers):
            parts[ADAPTOR_KEY] = self.network.adaptor.state_dict()
        return parts

    def state(self) -> dict[str, Any]:
        return {
            "adaptor": self.network.adaptor.state_dict(),
            "discriminator": self.network.discriminator.state_dict(),
            "optimizers": self.optimizers.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.adaptor.load_state_dict(state["adaptor"])
        self.network.discriminator.load_state_dict(state["discriminator"])
        self.optimizers.load_state_dict(state["optimizers"])

    def samples(self) -> Iterator[SamplePair]:
        """None: what is synthesised are features."""
        return iter(())

    def _order(self, epoch: int) -> list[tuple[int, ...]]:
        rng = generator(self._options.seed, epoch, ORDER)
        rounds = [rng.permutation(self._count) for _ in range(self._options.rounds)]
        return [tuple(map(int, part)) for once in rounds for part in chunks(list(once), self._options.batch)]

    def _epoch(self, epoch: int, after_step: Callable[[str], None]) -> EpochFigures:
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
        for name, value in self.network.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise TrainingError(f"weights {name!r} are not finite after epoch {epoch}; {AFTER_DIVERGENCE}")
        means = {name: float(np.mean([getattr(one, name) for one in found])) for name in Losses.__dataclass_fields__}
        shares = {name: means[name] for name in means if name not in LOSSES}
        standing = None
        if self._labelled is not None and is_due(self._options, epoch):
            standing = self._labelled.ranked(self._patch_maps(self._labelled))
        return EpochFigures(epoch, {name: means[name] for name in LOSSES}, shares, standing)

    def _noise(self, epoch: int, number: int, like: Tensor) -> Tensor:
        """(P, D) Gaussian noise, the same whenever it is drawn again."""
        seed = int(generator(self._options.seed, epoch, NOISE, number).integers(2**63))
        source = torch.Generator().manual_seed(seed)
        return (torch.randn(like.shape, generator=source) * self._options.noise_std).to(like.device)

    def _patch_maps(self, labelled: LabelledPictures) -> list[NDArray[np.float32]]:
        """Of all labelled pictures, by the network as it is; it is left in eval mode."""
        options = self._options
        if self._labelled_taps is None:
            self._labelled_taps = TapCache(self._taps, labelled.images, options.batch, options.cache_mb * 1_000_000)
        self.network.eval()
        maps: list[NDArray[np.float32]] = []
        with torch.no_grad():
            for part in self._labelled_taps.batches(options.batch):
                answer = self.network.discriminator(self.network.adaptor(self._embedding(part)))
                maps += list((self.network.sign * answer).view(-1, *part[0].shape[2:]).cpu().numpy())
        return maps
