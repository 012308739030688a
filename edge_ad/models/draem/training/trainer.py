"""Steps of DRAEM: both networks learn together from pictures with textures laid on (the paper's section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from edge_ad.models.draem.checkpoint import RECONSTRUCTION, SEGMENTATION
from edge_ad.models.draem.losses import draem_losses
from edge_ad.models.draem.network import Draem
from edge_ad.models.draem.training.options import DraemTrainOptions
from edge_ad.models.draem.training.samples import Samples
from edge_ad.models.training.labelled import LabelledPictures
from edge_ad.models.training.overlaid import OverlaidSample, OverlayTrainer

DROPS = {"steps": (0.2, (0.8, 0.9)), "text_steps": (0.1, (400 / 700, 600 / 700))}
"""Factor of the rate by schedule, and after which shares of the epochs it is applied."""


class DraemTrainer(OverlayTrainer[Draem, DraemTrainOptions]):
    """Both networks, Adam, and what they learn from."""

    losses = ("l2", "ssim", "focal")
    state_keys = (RECONSTRUCTION, SEGMENTATION, "optimizer")

    def __init__(
        self, network: Draem, samples: Samples, labelled: LabelledPictures | None, options: DraemTrainOptions
    ) -> None:
        super().__init__(network, samples, labelled, options)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)

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

    def _step(self, batch: Sequence[OverlaidSample], epoch: int, number: int) -> tuple[float, ...]:
        self._set_rate(self._done(epoch, number))
        image = self._tensor([sample.image_hwc for sample in batch])
        augmented = self._tensor([sample.augmented_hwc for sample in batch])
        reconstruction, logits = self.network.both(augmented)
        losses = draem_losses(image, reconstruction, logits, self._masks(batch))
        self.optimizer.zero_grad()
        torch.autograd.backward(losses)
        self.optimizer.step()
        return tuple(loss.item() for loss in losses)

    def _maps(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images)
        return found

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
