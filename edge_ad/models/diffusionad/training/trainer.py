"""Steps of DiffusionAD: both passes, their guidance and the comparison learn together (the paper's section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_ad.models.diffusionad.checkpoint import EPOCH, SEGMENTATION, SETTINGS, UNET, Settings
from edge_ad.models.diffusionad.fold import PublishedDiffusionAd
from edge_ad.models.diffusionad.losses import FOCAL_WEIGHT, diffusionad_losses
from edge_ad.models.diffusionad.network import DiffusionAd
from edge_ad.models.diffusionad.schedule import STEPS, linear_schedule
from edge_ad.models.diffusionad.training.options import DiffusionAdTrainOptions
from edge_ad.models.diffusionad.training.samples import Samples
from edge_ad.models.training.drawing import NOISE, generator
from edge_ad.models.training.labelled import LabelledPictures
from edge_ad.models.training.overlaid import OverlaidSample, OverlayTrainer

HALF_SWING = 10  # steps from the full rate to none
OPTIMIZERS = ("unet_optimizer", "seg_optimizer")


class DiffusionAdTrainer(OverlayTrainer[DiffusionAd, DiffusionAdTrainOptions]):
    """Both networks, an Adam for each, and what they learn from."""

    losses = ("noise", "focal", "smooth")
    state_keys = (UNET, SEGMENTATION, *OPTIMIZERS)

    def __init__(
        self,
        network: DiffusionAd,
        samples: Samples,
        labelled: LabelledPictures | None,
        options: DiffusionAdTrainOptions,
    ) -> None:
        super().__init__(network, samples, labelled, options)
        self.optimizers = optimizers_of(network, options.learning_rate, options.segmentation_rate)
        self._schedule = linear_schedule()
        used = Settings(options.normal_t, options.noisier_t, options.condition_w, 2, None)
        self._used = PublishedDiffusionAd(network, used, options.imgsz).to(self._device)
        self._epochs_done = 0

    def checkpoint(self) -> dict[str, Any]:
        """The authors' single file."""
        options = self._options
        return {
            EPOCH: self._epochs_done,
            UNET: self.network.unet.state_dict(),
            SEGMENTATION: self.network.segmentation.state_dict(),
            SETTINGS: {
                "img_size": options.image_size,
                "base_channels": options.base_channels,
                "segment_base_channels": options.segmentation_channels,
                "num_heads": options.num_heads,
                "groups": options.groups,
                "T": STEPS,
                "eval_normal_t": options.normal_t,
                "eval_noisier_t": options.noisier_t,
                "condition_w": options.condition_w,
            },
        }

    def state(self) -> dict[str, Any]:
        return {
            UNET: self.network.unet.state_dict(),
            SEGMENTATION: self.network.segmentation.state_dict(),
            **{name: each.state_dict() for name, each in zip(OPTIMIZERS, self.optimizers, strict=True)},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.unet.load_state_dict(state[UNET])
        self.network.segmentation.load_state_dict(state[SEGMENTATION])
        for name, each in zip(OPTIMIZERS, self.optimizers, strict=True):
            each.load_state_dict(state[name])

    def _step(self, batch: Sequence[OverlaidSample], epoch: int, number: int) -> tuple[float, ...]:
        self._set_rates(epoch, number)
        self._epochs_done = epoch + 1
        image = self._tensor([sample.augmented_hwc for sample in batch])
        rng = generator(self._options.seed, epoch, NOISE, number)
        split = self._options.split_t
        steps = tuple(
            torch.from_numpy(rng.integers(least, most, len(batch))).to(self._device)
            for least, most in ((0, split), (split, STEPS))
        )
        noises = tuple(
            torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32)).to(image) for _ in range(2)
        )
        found = self.network.denoised(
            image, (noises[0], noises[1]), (steps[0], steps[1]), self._schedule, self._options.condition_w
        )
        logits = self.network.compared(image, found.guided)
        noise, focal, smooth = diffusionad_losses(found, (noises[0], noises[1]), logits, self._masks(batch))
        losses = noise, FOCAL_WEIGHT * focal, smooth
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(losses)
        for optimizer in self.optimizers:
            optimizer.step()
        return tuple(loss.item() for loss in losses)

    def _maps(self, images: Tensor) -> Tensor:
        return torch.sigmoid(self._used(images))

    def _set_rates(self, epoch: int, number: int) -> None:
        options = self._options
        factors = {
            "swing": (1.0, swing(epoch * self.steps() + number)),
            "cosine": (0.5 * (1 + math.cos(math.pi * self._done(epoch, number))),) * 2,
            "constant": (1.0, 1.0),
        }[options.schedule]
        rates = options.learning_rate, options.segmentation_rate
        for optimizer, rate, factor in zip(self.optimizers, rates, factors, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor


def optimizers_of(network: DiffusionAd, unet_rate: float, segmentation_rate: float) -> tuple[torch.optim.Adam, ...]:
    """Adam for the UNet and for the segmentation."""
    return (
        torch.optim.Adam(network.unet.parameters(), lr=unet_rate),
        torch.optim.Adam(network.segmentation.parameters(), lr=segmentation_rate),
    )


def swing(step: int) -> float:
    """Factor of the segmentation's rate in a step: a cosine that falls to 0 within ten and rises within ten more."""
    return 0.5 * (1 + math.cos(math.pi * step / HALF_SWING))
