"""Epochs of DRAEM: both networks learn together from pictures with textures laid on (the paper's section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.errors import TrainingError
from edge_ad.image.frame import ImageArray
from edge_ad.models.draem.checkpoint import RECONSTRUCTION, SEGMENTATION
from edge_ad.models.draem.losses import draem_losses
from edge_ad.models.draem.network import Draem
from edge_ad.models.draem.training.options import DraemTrainOptions
from edge_ad.models.draem.training.samples import Sample, Samples
from edge_ad.models.training.drawing import chunks
from edge_ad.models.training.epochs import EpochFigures, is_due
from edge_ad.models.training.labelled import LabelledPictures, Standing
from edge_ad.models.training.session import SamplePair

LOSSES = ("l2", "ssim", "focal")
DROPS = {"steps": (0.2, (0.8, 0.9)), "text_steps": (0.1, (400 / 700, 600 / 700))}
"""Factor of the rate by schedule, and after which shares of the epochs it is applied."""
AFTER_DIVERGENCE = "no weights of this epoch are kept; try a lower --learning-rate"


class DraemTrainer:
    """Both networks, Adam, and what they learn from; see `edge_ad.models.training.session.Trainer`."""

    state_keys = (RECONSTRUCTION, SEGMENTATION, "optimizer")

    def __init__(
        self, network: Draem, samples: Samples, labelled: LabelledPictures | None, options: DraemTrainOptions
    ) -> None:
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
        self._samples, self._labelled, self._options = samples, labelled, options
        self._device = next(network.parameters()).device

    def steps(self) -> int:
        """Steps of one epoch."""
        return self._samples.steps()

    def epochs(self, first: int, after_step: Callable[[str], None]) -> Iterator[EpochFigures]:
        """Train from epoch `first` to the last."""
        for epoch in range(first, self._options.epochs):
            yield self._epoch(epoch, after_step)

    def checkpoint(self) -> dict[str, Any]:
        """Our own single file: both networks, and the order of colours that they were trained with."""
        return {
            RECONSTRUCTION: self.network.reconstruction.state_dict(),
            SEGMENTATION: self.network.segmentation.state_dict(),
            "color_order": "rgb",
        }

    def state(self) -> dict[str, Any]:
        return {
            RECONSTRUCTION: self.network.reconstruction.state_dict(),
            SEGMENTATION: self.network.segmentation.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.reconstruction.load_state_dict(state[RECONSTRUCTION])
        self.network.segmentation.load_state_dict(state[SEGMENTATION])
        self.optimizer.load_state_dict(state["optimizer"])

    def samples(self) -> Iterator[SamplePair]:
        """What the first epoch synthesises."""
        for batch in self._samples(0):
            for sample in batch:
                if sample.mask.any():
                    yield sample.image_hwc, sample.augmented_hwc, sample.mask

    def _epoch(self, epoch: int, after_step: Callable[[str], None]) -> EpochFigures:
        self.network.train()
        steps, found = self.steps(), []
        for number, batch in enumerate(self._samples(epoch)):
            self._set_rate((epoch + number / steps) / self._options.epochs)
            losses = self._step(batch)
            if not all(math.isfinite(value) for value in losses):
                told = ", ".join(f"{name} {value:.4g}" for name, value in zip(LOSSES, losses, strict=True))
                raise TrainingError(f"loss is not finite in epoch {epoch}, step {number} ({told}); {AFTER_DIVERGENCE}")
            found.append(losses)
            told = ", ".join(f"{name} {value:.3f}" for name, value in zip(LOSSES, losses, strict=True))
            after_step(f"loss {sum(losses):.3f} ({told})")
        self._check_weights(epoch)
        means = np.mean(found, axis=0)
        figures = {name: float(value) for name, value in zip(LOSSES, means, strict=True)}
        return EpochFigures(epoch, figures, standing=self._look(epoch))

    def _step(self, batch: Sequence[Sample]) -> tuple[float, ...]:
        image = self._tensor([sample.image_hwc for sample in batch])
        augmented = self._tensor([sample.augmented_hwc for sample in batch])
        mask = torch.from_numpy(np.stack([sample.mask for sample in batch])).to(self._device)
        reconstruction, logits = self.network.both(augmented)
        losses = draem_losses(image, reconstruction, logits, mask)
        self.optimizer.zero_grad()
        torch.autograd.backward(losses)
        self.optimizer.step()
        return tuple(loss.item() for loss in losses)

    def _tensor(self, images: Sequence[ImageArray]) -> Tensor:
        """(N, 3, H, W) float32 in [0, 1], RGB, in the memory format that convolutions run fastest in."""
        stacked = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2)
        return (stacked.float() / 255).contiguous(memory_format=torch.channels_last)

    def _set_rate(self, done: float) -> None:
        """Args: done: share of the training that is behind, 0 to 1."""
        factor = 1.0
        if self._options.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * done))
        elif self._options.schedule in DROPS:
            drop, shares = DROPS[self._options.schedule]
            factor = drop ** sum(done >= share for share in shares)
        for group in self.optimizer.param_groups:
            group["lr"] = self._options.learning_rate * factor

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
        """Of pictures, by the networks as they are; they are left in eval mode."""
        self.network.eval()
        maps: list[NDArray[np.float32]] = []
        with torch.no_grad():
            for part in chunks(range(len(images)), self._options.batch):
                maps += list(self.network(self._tensor([images[index] for index in part])).cpu().numpy())
        return maps
