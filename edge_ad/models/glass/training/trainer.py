"""Epochs of GLASS: steps on frozen features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from edge_ad.errors import TrainingError
from edge_ad.models.glass.config import Objective
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.batches import Batch, Batches
from edge_ad.models.glass.training.noise import draw_noise
from edge_ad.models.glass.training.objective import StepLosses
from edge_ad.models.glass.training.optimizers import optimizers_of
from edge_ad.models.glass.training.options import GlassTrainOptions
from edge_ad.models.glass.training.step import fast_step
from edge_ad.models.patch_head.frozen import FrozenFeatures
from edge_ad.models.patch_head.training.trainer import AFTER_DIVERGENCE, HeadTrainer
from edge_ad.models.training.labelled import LabelledPictures
from edge_ad.models.training.session import SamplePair


class GlassTrainer(HeadTrainer[Glass, GlassTrainOptions]):
    """Steps of gradient ascent on features, and of textures laid on pictures."""

    losses = ("normal", "gas", "las")

    def __init__(
        self,
        network: Glass,
        features: FrozenFeatures,
        batches: Batches,
        labelled: LabelledPictures | None,
        objective: Objective,
        options: GlassTrainOptions,
    ) -> None:
        super().__init__(network, features, optimizers_of(network, options.learning_rate), labelled, options)
        self._batches, self._objective = batches, objective

    def steps(self) -> int:
        """Steps of one epoch."""
        return self._batches.steps()

    def samples(self) -> Iterator[SamplePair]:
        """What the first epoch synthesises: good, overlaid, mask."""
        if self._options.overlay_share == 0:
            return
        for batch in self._batches(0):
            for each in batch.overlaid:
                good = self._batches.picture(batch.indices[each.place])
                yield good, each.anomaly.image_hwc, each.anomaly.mask.pixel

    def train_epoch(self, epoch: int, after_step: Callable[[str], None]) -> list[StepLosses]:
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
        return losses

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


def _replaced(taps: Sequence[Tensor], places: Sequence[int], others: Sequence[Tensor]) -> list[Tensor]:
    """Taps (N, C, h, w) in which `others` (n, C, h, w) stand at the n `places`."""
    if not places:
        return list(taps)
    at = torch.tensor(places, device=taps[0].device)
    return [tap.index_copy(0, at, other) for tap, other in zip(taps, others, strict=True)]
