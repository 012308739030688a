"""Epochs of a head on frozen features: all but the steps of its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from edge_ad.errors import TrainingError
from edge_ad.models.patch_head.checkpoint import head_parts
from edge_ad.models.patch_head.features import TapCache
from edge_ad.models.patch_head.frozen import FrozenFeatures
from edge_ad.models.patch_head.network import PatchHead
from edge_ad.models.patch_head.training.optimizers import HeadOptimizers
from edge_ad.models.patch_head.training.options import HeadTrainOptions
from edge_ad.models.training.epochs import EpochFigures, is_due
from edge_ad.models.training.labelled import LabelledPictures, Standing

AFTER_DIVERGENCE = "no weights of this epoch are kept; try a lower --learning-rate, or less --noise-std"

HeadT = TypeVar("HeadT", bound=PatchHead)
OptionsT = TypeVar("OptionsT", bound=HeadTrainOptions)


class HeadTrainer(ABC, Generic[HeadT, OptionsT]):
    """A head, its optimisers and what they learn from; see `edge_ad.models.training.session.Trainer`.

    A family adds `steps`, `samples` and `train_epoch`.

    Attributes:
        losses: names of the figures of a step whose sum is minimised; its others are shares.
    """

    losses: ClassVar[tuple[str, ...]]
    state_keys = ("adaptor", "discriminator", "optimizers")

    def __init__(
        self,
        network: HeadT,
        features: FrozenFeatures,
        optimizers: HeadOptimizers,
        labelled: LabelledPictures | None,
        options: OptionsT,
    ) -> None:
        self.network, self.optimizers = network, optimizers
        self._embedding, self._taps, self._cache = features.embedding, features.taps, features.cache
        self._labelled, self._options = labelled, options
        self._mean_embedding = features.embedding(features.cache.mean)
        self._labelled_taps: TapCache | None = None

    @abstractmethod
    def train_epoch(self, epoch: int, after_step: Callable[[str], None]) -> Sequence[Any]:
        """Train on all pictures once, or as often as the family does in an epoch.

        Returns: figures of each step, as a dataclass. Raises: TrainingError for a loss that is not finite.
        """

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        """Train from epoch `first` to the last.

        Args:
            after_step: is told, in words, how the losses stand.

        Raises: TrainingError when a loss or a weight is not finite; the network is then of no use.
        """
        for epoch in range(first, self._options.epochs):
            found = self.train_epoch(epoch, after_step)
            self._check_weights(epoch)
            names = [field.name for field in fields(found[0])]
            means = {name: float(np.mean([getattr(step, name) for step in found])) for name in names}
            losses = {name: means.pop(name) for name in self.losses}
            yield EpochFigures(epoch, losses, means, self._look(epoch))

    def checkpoint(self) -> dict[str, Any]:
        """The weights as the authors keep them."""
        return head_parts(self.network)

    def state(self) -> dict[str, Any]:
        """All that changes while training."""
        return {
            "adaptor": self.network.adaptor.state_dict(),
            "discriminator": self.network.discriminator.state_dict(),
            "optimizers": self.optimizers.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.network.adaptor.load_state_dict(state["adaptor"])
        self.network.discriminator.load_state_dict(state["discriminator"])
        self.optimizers.load_state_dict(state["optimizers"])

    def _check_weights(self, epoch: int) -> None:
        """A finite loss may still leave weights that are of no use: they must not become a checkpoint."""
        for part in (self.network.adaptor, self.network.discriminator):
            for name, value in part.state_dict().items():
                if not bool(torch.isfinite(value).all()):
                    raise TrainingError(f"weights {name!r} are not finite after epoch {epoch}; {AFTER_DIVERGENCE}")
            part.eval()
        with torch.no_grad():  # weights that are finite and huge overflow on the way
            logit = self.network.discriminator(self.network.adaptor(self._mean_embedding))
        if not bool(torch.isfinite(logit).all()):
            raise TrainingError(f"scores are not finite after epoch {epoch}; {AFTER_DIVERGENCE}")

    def _look(self, epoch: int) -> Standing | None:
        if self._labelled is None or not is_due(self._options, epoch):
            return None
        return self._labelled.ranked(self._patch_maps(self._labelled))

    def _patch_maps(self, labelled: LabelledPictures) -> list[NDArray[np.float32]]:
        """Of all labelled pictures, by the network as it is; its head is left in eval mode."""
        options = self._options
        if self._labelled_taps is None:
            self._labelled_taps = TapCache(self._taps, labelled.images, options.batch, options.cache_mb * 1_000_000)
        self.network.adaptor.eval()
        self.network.discriminator.eval()
        maps: list[NDArray[np.float32]] = []
        with torch.no_grad():
            for part in self._labelled_taps.batches(options.batch):
                logit = self.network.sign * self.network.discriminator(self.network.adaptor(self._embedding(part)))
                answer = torch.sigmoid(logit) if options.postprocess.activation == "sigmoid" else logit
                maps += list(answer.view(-1, *part[0].shape[2:]).cpu().numpy())
        return maps
