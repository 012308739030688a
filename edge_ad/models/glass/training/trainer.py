"""Epochs of GLASS: steps on frozen features, and a look at labelled pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.errors import TrainingError
from edge_ad.models.glass.config import Objective
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.batches import Batch, Batches
from edge_ad.models.glass.training.noise import draw_noise
from edge_ad.models.glass.training.objective import StepLosses
from edge_ad.models.glass.training.optimizers import Optimizers
from edge_ad.models.glass.training.options import GlassTrainOptions
from edge_ad.models.glass.training.step import fast_step
from edge_ad.models.patch_head.checkpoint import ADAPTOR_KEY, DISCRIMINATOR_KEY
from edge_ad.models.patch_head.features import TapCache
from edge_ad.models.patch_head.frozen import FrozenFeatures
from edge_ad.models.training.epochs import EpochFigures, is_due
from edge_ad.models.training.labelled import LabelledPictures, Standing
from edge_ad.models.training.session import SamplePair

LOSSES = ("normal", "gas", "las")
AFTER_DIVERGENCE = "no weights of this epoch are kept; try a lower --learning-rate, or less --noise-std"


class GlassTrainer:
    """A network, its optimisers and what they learn from; see `edge_ad.models.training.session.Trainer`."""

    def __init__(
        self,
        network: Glass,
        features: FrozenFeatures,
        batches: Batches,
        labelled: LabelledPictures | None,
        objective: Objective,
        options: GlassTrainOptions,
    ) -> None:
        self.network, self.optimizers = network, Optimizers.of(network, options.learning_rate)
        self._embedding, self._taps, self._cache = features.embedding, features.taps, features.cache
        self._batches = batches
        self._labelled, self._objective, self._options = labelled, objective, options
        self._mean_embedding = features.embedding(features.cache.mean)
        self._labelled_taps: TapCache | None = None

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        """Train from epoch `first` to the last.

        Args:
            after_step: is told, in words, how the losses stand.

        Raises: TrainingError when a loss or a weight is not finite; the network is then of no use.
        """
        for epoch in range(first, self._options.epochs):
            yield self._epoch(epoch, after_step)

    @property
    def state_keys(self) -> tuple[str, ...]:
        return ("adaptor", "discriminator", "optimizers")

    def steps(self) -> int:
        """Steps of one epoch."""
        return self._batches.steps()

    def checkpoint(self) -> dict[str, Any]:
        """The weights as the authors keep them; a network without an adaptor has none to keep."""
        parts = {DISCRIMINATOR_KEY: self.network.discriminator.state_dict()}
        if len(self.network.adaptor.layers):
            parts[ADAPTOR_KEY] = self.network.adaptor.state_dict()
        return parts

    def samples(self) -> Iterator[SamplePair]:
        """What the first epoch synthesises: good, overlaid, mask."""
        if self._options.overlay_share == 0:
            return
        for batch in self._batches(0):
            for each in batch.overlaid:
                good = self._batches.picture(batch.indices[each.place])
                yield good, each.anomaly.image_hwc, each.anomaly.mask.pixel

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

    def _epoch(self, epoch: int, after_step: Callable[[str], None]) -> EpochFigures:
        with torch.no_grad():  # the adaptor is linear, so the mean may be taken before it
            center = self.network.adaptor(self._mean_embedding)
        losses = []
        for batch in self._batches(epoch):
            if self._options.schedule == "cosine":
                done = epoch + batch.step / self._batches.steps()
                self.optimizers.scale_rates(0.5 * (1 + math.cos(math.pi * done / self._options.epochs)))
            step = self._step(epoch, batch, center)
            if not math.isfinite(step.total):
                raise TrainingError(
                    f"loss is {step.total} in epoch {epoch}, step {batch.step} (normal {step.normal:.4g}, gas"
                    f" {step.gas:.4g}, las {step.las:.4g}); {AFTER_DIVERGENCE}"
                )
            losses.append(step)
            after_step(f"loss {step.total:.3f} (normal {step.normal:.3f}, gas {step.gas:.3f}, las {step.las:.3f})")
        self._check_weights(epoch)
        means = {
            field.name: float(np.mean([getattr(step, field.name) for step in losses])) for field in fields(StepLosses)
        }
        losses_of = {name: means[name] for name in LOSSES}
        shares = {name: means[name] for name in means if name not in LOSSES}
        return EpochFigures(epoch, losses_of, shares, self._look(epoch))

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

    def _step(self, epoch: int, batch: Batch, center: Tensor) -> StepLosses:
        own, others = self._cache.with_others(batch.indices, [each.anomaly.image_hwc for each in batch.overlaid])
        places = [each.place for each in batch.overlaid]
        normal_embedding, device = self._embedding(own), center.device
        noise = draw_noise(self._options, epoch, batch.step, tuple(normal_embedding.shape), device)
        return fast_step(
            self.network,
            self._objective,
            self.optimizers,
            normal_embedding=normal_embedding,
            local_embedding=self._embedding(_replaced(own, places, others)),
            anomalous=torch.from_numpy(batch.anomalous(self._batches.patch_hw).ravel()).to(device),
            noise=noise.ascent,
            center=center,
            jitter=noise.jitter,
        )

    def _look(self, epoch: int) -> Standing | None:
        if self._labelled is None or not is_due(self._options, epoch):
            return None
        return self._labelled.ranked(self._patch_maps(self._labelled))

    def _patch_maps(self, labelled: LabelledPictures) -> list[NDArray[np.float32]]:
        """Of all labelled pictures, by the network as it is; it is left in eval mode."""
        options = self._options
        if self._labelled_taps is None:
            self._labelled_taps = TapCache(self._taps, labelled.images, options.batch, options.cache_mb * 1_000_000)
        self.network.adaptor.eval()
        self.network.discriminator.eval()
        maps: list[NDArray[np.float32]] = []
        with torch.no_grad():
            for part in self._labelled_taps.batches(options.batch):
                logit = self.network.discriminator(self.network.adaptor(self._embedding(part)))
                maps += list(torch.sigmoid(logit).view(-1, *part[0].shape[2:]).cpu().numpy())
        return maps


def _replaced(taps: Sequence[Tensor], places: Sequence[int], others: Sequence[Tensor]) -> list[Tensor]:
    """Taps (N, C, h, w) in which `others` (n, C, h, w) stand at the n `places`."""
    if not places:
        return list(taps)
    at = torch.tensor(places, device=taps[0].device)
    return [tap.index_copy(0, at, other) for tap, other in zip(taps, others, strict=True)]
