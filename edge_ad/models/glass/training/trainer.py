"""The training loop: epochs of steps, a look at labelled pictures, the best weights kept, all of it resumable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from edge_ad.errors import TrainingError
from edge_ad.models.glass.network import Glass
from edge_ad.models.glass.training.batches import Batch, Batches
from edge_ad.models.glass.training.embedding import PooledEmbedding
from edge_ad.models.glass.training.features import FrozenTaps, TapCache
from edge_ad.models.glass.training.labelled import LabelledPictures, Standing
from edge_ad.models.glass.training.noise import draw_noise
from edge_ad.models.glass.training.objective import Objective, StepLosses
from edge_ad.models.glass.training.optimizers import Optimizers
from edge_ad.models.glass.training.options import TrainOptions
from edge_ad.models.glass.training.step import fast_step

AFTER_DIVERGENCE = "no weights of this epoch are kept; try a lower --learning-rate, or less --noise-std"


@dataclass(frozen=True)
class EpochFigures:
    """Means over the steps of one epoch, and what labelled pictures say after it.

    Attributes:
        epoch: counted from 0.
        standing: None where nobody looked.
    """

    epoch: int
    normal: float
    gas: float
    las: float
    normal_right: float
    anomalous_right: float
    standing: Standing | None = None

    @property
    def loss(self) -> float:
        return self.normal + self.gas + self.las

    @property
    def row(self) -> dict[str, float | None]:
        """By the names of the CSV's columns."""
        standing = self.standing
        return {
            "epoch": self.epoch,
            "loss": self.loss,
            "loss_normal": self.normal,
            "loss_gas": self.gas,
            "loss_las": self.las,
            "normal_right": self.normal_right,
            "anomalous_right": self.anomalous_right,
            "image_auroc": None if standing is None else standing.image_auroc,
            "pixel_auroc": None if standing is None else standing.pixel_auroc,
        }


class Trainer:
    """A network, its optimisers and what they learn from; `epoch` trains once through the pictures."""

    def __init__(
        self,
        network: Glass,
        embedding: PooledEmbedding,
        taps: FrozenTaps,
        cache: TapCache,
        batches: Batches,
        labelled: LabelledPictures | None,
        objective: Objective,
        options: TrainOptions,
    ) -> None:
        self.network, self.optimizers = network, Optimizers.of(network, options.learning_rate)
        self._embedding, self._taps, self._cache, self._batches = embedding, taps, cache, batches
        self._labelled, self._objective, self._options = labelled, objective, options
        self._mean_embedding = embedding(cache.mean)

    def epochs(self, first: int, after_step: Callable[[int, StepLosses], None]) -> Iterator[EpochFigures]:
        """Train from epoch `first` to the last.

        Args:
            after_step: is told the number of the step in its epoch and the losses.

        Raises: TrainingError when a loss or a weight is not finite; the network is then of no use.
        """
        for epoch in range(first, self._options.epochs):
            yield self._epoch(epoch, after_step)

    def state(self) -> dict[str, object]:
        """All that changes while training."""
        return {
            "adaptor": self.network.adaptor.state_dict(),
            "discriminator": self.network.discriminator.state_dict(),
            "optimizers": self.optimizers.state_dict(),
        }

    def load_state(self, state: dict[str, object]) -> None:
        """The inverse of `state`."""
        self.network.adaptor.load_state_dict(state["adaptor"])  # type: ignore[arg-type]
        self.network.discriminator.load_state_dict(state["discriminator"])  # type: ignore[arg-type]
        self.optimizers.load_state_dict(state["optimizers"])  # type: ignore[arg-type]

    def _epoch(self, epoch: int, after_step: Callable[[int, StepLosses], None]) -> EpochFigures:
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
            after_step(batch.step, step)
        self._check_weights(epoch)
        means = {
            field.name: float(np.mean([getattr(step, field.name) for step in losses])) for field in fields(StepLosses)
        }
        return EpochFigures(epoch, **means, standing=self._look(epoch))

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
        options = self._options
        last = epoch + 1 == options.epochs
        due = options.eval_every and (last or (epoch + 1) % options.eval_every == 0)
        if self._labelled is None or not due:
            return None
        return self._labelled.standing(
            self.network, self._embedding, self._taps, options.batch, options.cache_mb * 1_000_000
        )


def _replaced(taps: Sequence[Tensor], places: Sequence[int], others: Sequence[Tensor]) -> list[Tensor]:
    """Taps (N, C, h, w) in which `others` (n, C, h, w) stand at the n `places`."""
    if not places:
        return list(taps)
    at = torch.tensor(places, device=taps[0].device)
    return [tap.index_copy(0, at, other) for tap, other in zip(taps, others, strict=True)]
