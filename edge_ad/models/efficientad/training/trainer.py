"""Epochs of EfficientAD: student and autoencoder learn together, and quantiles are measured after each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.errors import CheckpointError, TrainingError
from edge_ad.image.frame import ImageArray
from edge_ad.models.efficientad.network import EfficientAd
from edge_ad.models.efficientad.sources import PARTS
from edge_ad.models.efficientad.statistics import measure_quantiles, normalised
from edge_ad.models.efficientad.training.objective import objective
from edge_ad.models.efficientad.training.options import EfficientAdTrainOptions
from edge_ad.models.efficientad.training.samples import Sample, Samples
from edge_ad.models.training.epochs import EpochFigures, is_due
from edge_ad.models.training.labelled import LabelledPictures, Standing
from edge_ad.models.training.session import SamplePair

LOWERED, LOWERED_AFTER = 0.1, 0.95  # factor of the rate, and the share of the steps after which (appendix A)
AFTER_DIVERGENCE = "no weights of this epoch are kept; try a lower --learning-rate"


class EfficientAdTrainer:
    """Student, autoencoder, Adam, and what they learn from; see `edge_ad.models.training.session.Trainer`.

    Args:
        network: with the teacher's mean and deviation measured.
        held_out: good pictures that give the quantiles.
    """

    state_keys = ("student", "autoencoder", "optimizer")

    def __init__(
        self,
        network: EfficientAd,
        samples: Samples,
        held_out: Sequence[ImageArray],
        labelled: LabelledPictures | None,
        options: EfficientAdTrainOptions,
    ) -> None:
        self.network = network
        learned = [*network.student.parameters(), *network.autoencoder.parameters()]
        self.optimizer = torch.optim.Adam(learned, lr=options.learning_rate, weight_decay=options.weight_decay)
        self._samples, self._held_out, self._labelled, self._options = samples, held_out, labelled, options
        self._taught: dict[int, Tensor] = {}
        self._room = options.cache_mb * 1_000_000

    def steps(self) -> int:
        """Steps of one epoch."""
        return self._options.epoch_steps

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        """Train from epoch `first` to the last."""
        for epoch in range(first, self._options.epochs):
            yield self._epoch(epoch, after_step)

    def checkpoint(self) -> dict[str, Any]:
        """Our own single file: all that it takes to export."""
        parts: dict[str, Any] = {part: self.network.get_submodule(part).state_dict() for part in PARTS}
        measured = {name: getattr(self.network, name) for name in ("mean", "std", "quantiles")}
        return {**parts, **measured, "map_padding": self.network.map_padding, "imgsz": list(self._options.imgsz)}

    def state(self) -> dict[str, Any]:
        return {
            "student": self.network.student.state_dict(),
            "autoencoder": self.network.autoencoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.student.load_state_dict(state["student"])
        self.network.autoencoder.load_state_dict(state["autoencoder"])
        self.optimizer.load_state_dict(state["optimizer"])

    def samples(self) -> Iterator[SamplePair]:
        """None: nothing is laid over a picture."""
        return iter(())

    def _epoch(self, epoch: int, after_step: Callable[[str], None]) -> EpochFigures:
        found: list[dict[str, float]] = []
        self._train_mode()
        for step, batch in enumerate(self._samples(epoch)):
            torch.manual_seed(int(np.random.SeedSequence((self._options.seed, epoch, step)).generate_state(1)[0]))
            self._set_rate((epoch * self.steps() + step) / (self._options.epochs * self.steps()))
            losses = self._step(batch)
            told = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            if not all(map(math.isfinite, losses.values())):
                raise TrainingError(f"loss is not finite in epoch {epoch}, step {step} ({told}); {AFTER_DIVERGENCE}")
            found.append(losses)
            after_step(f"loss {sum(losses.values()):.3f} ({told})")
        for name, value in self.network.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise TrainingError(f"weights {name!r} are not finite after epoch {epoch}; {AFTER_DIVERGENCE}")
        try:
            measure_quantiles(self.network, self._held_out)
        except CheckpointError as exc:
            raise TrainingError(f"after epoch {epoch}: {exc}; {AFTER_DIVERGENCE}") from exc
        means = {name: float(np.mean([losses[name] for losses in found])) for name in found[0]}
        return EpochFigures(epoch, means, standing=self._look(epoch))

    def _train_mode(self) -> None:
        self.network.train()
        self.network.teacher.eval()

    def _step(self, batch: Sequence[Sample]) -> dict[str, float]:
        device = self.network.mean.device
        image, jittered = (
            normalised([getattr(sample, name) for sample in batch], device) for name in ("image_hwc", "jittered_hwc")
        )
        others = [sample.penalty_hwc for sample in batch if sample.penalty_hwc is not None]
        taught = torch.cat(
            [self._taught_of(sample.index, image[place : place + 1]) for place, sample in enumerate(batch)]
        )
        losses = objective(
            self.network,
            taught,
            image,
            jittered,
            normalised(others, device) if others else None,
            self._options.hard_share,
        )
        parts = {name: loss for name, loss in losses._asdict().items() if loss is not None}
        self.optimizer.zero_grad()
        torch.autograd.backward(list(parts.values()))
        self.optimizer.step()
        return {name: float(loss.detach()) for name, loss in parts.items()}

    def _taught_of(self, index: int, image: Tensor) -> Tensor:
        """What the teacher says of a good picture, which never changes, as far as there is room to keep it."""
        if index in self._taught:
            return self._taught[index].to(image.device)
        with torch.no_grad():
            taught = self.network.taught(image)
        size = taught.numel() * taught.element_size()
        if size <= self._room:
            self._room -= size
            self._taught[index] = taught.cpu()
        return taught

    def _set_rate(self, done: float) -> None:
        """Args: done: share of the training that is behind, 0 to 1."""
        if self._options.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * done))
        else:
            factor = LOWERED if done >= LOWERED_AFTER else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self._options.learning_rate * factor

    def _look(self, epoch: int) -> Standing | None:
        if self._labelled is None or not is_due(self._options, epoch):
            return None
        patch_maps: list[NDArray[np.float32]] = []
        anomaly_maps: list[NDArray[np.float32]] = []
        with torch.no_grad():
            for image in self._labelled.images:
                answer = self.network(normalised([image], self.network.mean.device))
                patch_maps.append(answer.patches[0].cpu().numpy())
                anomaly_maps.append(answer.anomaly_map[0].cpu().numpy())
        return self._labelled.ranked(patch_maps, anomaly_maps)
