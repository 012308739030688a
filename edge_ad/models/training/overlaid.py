"""Networks that learn from good pictures with something laid over: their epochs, and the trainer around their step.

What is drawn for a picture comes from a generator seeded by (seed, epoch, place in the epoch).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.errors import TrainingError
from edge_ad.image.frame import ImageArray
from edge_ad.models.training.drawing import ANOMALY, ORDER, chunks, generator, made_ahead
from edge_ad.models.training.epochs import EpochFigures, is_due
from edge_ad.models.training.labelled import LabelledPictures, Standing
from edge_ad.models.training.options import TrainOptions
from edge_ad.models.training.pictures import GoodPictures, Picture
from edge_ad.models.training.session import SamplePair

AFTER_DIVERGENCE = "no weights of this epoch are kept; try a lower --learning-rate"
NetworkT = TypeVar("NetworkT", bound=nn.Module)
OptionsT = TypeVar("OptionsT", bound=TrainOptions)
Places = Sequence[tuple[int, int]]
"""Place in the epoch, and which picture."""


@dataclass(frozen=True)
class OverlaidSample:
    """One good picture and what was made of it.

    Attributes:
        image_hwc: (H, W, 3) uint8 RGB.
        augmented_hwc: the same, with something laid over where `mask` is true.
        mask: (H, W) bool.
    """

    image_hwc: ImageArray
    augmented_hwc: ImageArray
    mask: NDArray[np.bool_]


class OverlaidSamples(ABC):
    """Batches of samples of any epoch, of pictures that are drawn with replacement.

    Args:
        count: pictures in an epoch; None for as many as there are.
    """

    def __init__(self, pictures: GoodPictures, count: int | None, batch: int, seed: int) -> None:
        self._pictures, self._batch_size, self._seed = pictures, batch, seed
        self._count = count or len(pictures)

    def steps(self) -> int:
        """Steps of one epoch."""
        return len(self._parts(range(self._count)))

    def __call__(self, epoch: int) -> Iterator[list[OverlaidSample]]:
        """Batches of an epoch; the next one is made while one is in use."""
        drawn = generator(self._seed, epoch, ORDER).integers(len(self._pictures), size=self._count)
        places = list(enumerate(int(index) for index in drawn))
        return made_ahead(lambda part: self._batch(epoch, part), self._parts(places))

    def _batch(self, epoch: int, part: Places) -> list[OverlaidSample]:
        return [
            self._sample(self._pictures[index], generator(self._seed, epoch, ANOMALY, place)) for place, index in part
        ]

    def _parts(self, places: Sequence[Any]) -> list[Sequence[Any]]:
        return chunks(places, self._batch_size)

    @abstractmethod
    def _sample(self, picture: Picture, rng: np.random.Generator) -> OverlaidSample:
        """A picture with something laid over, or without."""


class OverlayTrainer(ABC, Generic[NetworkT, OptionsT]):
    """A network and what it learns from; see `edge_ad.models.training.session.Trainer`.

    Attributes:
        losses: names of what a step gives; their sum is what is minimised.
    """

    losses: ClassVar[tuple[str, ...]]

    def __init__(
        self, network: NetworkT, samples: OverlaidSamples, labelled: LabelledPictures | None, options: OptionsT
    ) -> None:
        self.network = network
        self._samples, self._labelled, self._options = samples, labelled, options
        self._device = next(network.parameters()).device

    def steps(self) -> int:
        """Steps of one epoch."""
        return self._samples.steps()

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        """Train from epoch `first` to the last."""
        for epoch in range(first, self._options.epochs):
            yield self._epoch(epoch, after_step)

    def samples(self) -> Iterator[SamplePair]:
        """What the first epoch synthesises."""
        for batch in self._samples(0):
            for sample in batch:
                if sample.mask.any():
                    yield sample.image_hwc, sample.augmented_hwc, sample.mask

    @abstractmethod
    def _step(self, batch: Sequence[OverlaidSample], epoch: int, number: int) -> tuple[float, ...]:
        """Learn from a batch. Args: number: which step of the epoch. Returns: the losses."""

    @abstractmethod
    def _maps(self, images: Tensor) -> Tensor:
        """Patch maps (N, h, w) of pictures (N, 3, H, W) in [0, 1], by the network in eval mode."""

    def _epoch(self, epoch: int, after_step: Callable[[str], None]) -> EpochFigures:
        self.network.train()
        found = []
        for number, batch in enumerate(self._samples(epoch)):
            losses = self._step(batch, epoch, number)
            if not all(math.isfinite(value) for value in losses):
                told = ", ".join(f"{name} {value:.4g}" for name, value in zip(self.losses, losses, strict=True))
                raise TrainingError(f"loss is not finite in epoch {epoch}, step {number} ({told}); {AFTER_DIVERGENCE}")
            found.append(losses)
            told = ", ".join(f"{name} {value:.3f}" for name, value in zip(self.losses, losses, strict=True))
            after_step(f"loss {sum(losses):.3f} ({told})")
        self._check_weights(epoch)
        means = np.mean(found, axis=0)
        figures = {name: float(value) for name, value in zip(self.losses, means, strict=True)}
        return EpochFigures(epoch, figures, standing=self._look(epoch))

    def _tensor(self, images: Sequence[ImageArray]) -> Tensor:
        """(N, 3, H, W) float32 in [0, 1], RGB, in the memory format that convolutions run fastest in."""
        stacked = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2)
        return (stacked.float() / 255).contiguous(memory_format=torch.channels_last)

    def _masks(self, batch: Sequence[OverlaidSample]) -> Tensor:
        """(N, H, W) bool."""
        return torch.from_numpy(np.stack([sample.mask for sample in batch])).to(self._device)

    def _done(self, epoch: int, number: int) -> float:
        """Share of the training that is behind, 0 to 1."""
        return (epoch + number / self.steps()) / self._options.epochs

    def _check_weights(self, epoch: int) -> None:
        """A finite loss may still leave weights that are of no use: they must not become a checkpoint."""
        for name, value in self.network.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise TrainingError(f"weights {name!r} are not finite after epoch {epoch}; {AFTER_DIVERGENCE}")

    def _look(self, epoch: int) -> Standing | None:
        if self._labelled is None or not is_due(self._options, epoch):
            return None
        return self._labelled.ranked(self._patch_maps(self._labelled.images))

    def _patch_maps(self, images: Sequence[ImageArray]) -> list[NDArray[np.float32]]:
        """Of pictures, by the network as it is; it is left in eval mode."""
        self.network.eval()
        maps: list[NDArray[np.float32]] = []
        with torch.no_grad():
            for part in chunks(range(len(images)), self._options.batch):
                maps += list(self._maps(self._tensor([images[index] for index in part])).cpu().numpy())
        return maps


def millions(network: nn.Module) -> float:
    """Of its weights."""
    return sum(weight.numel() for weight in network.parameters()) / 1e6
