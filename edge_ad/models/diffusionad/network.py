"""DiffusionAD as published: the UNet takes noise off a picture, DRAEM's segmentation compares the two.

Zhang, Wang, Wu, Jiang: "DiffusionAD: Norm-guided one-step denoising diffusion for anomaly detection", arXiv 2303.08730.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from edge_ad.models.diffusionad.config import DiffusionAdConfig
from edge_ad.models.diffusionad.denoising import Denoised, Level, denoised
from edge_ad.models.diffusionad.schedule import Schedule
from edge_ad.models.diffusionad.unet import UNet, last_layers
from edge_ad.models.draem.network import Segmentation


class DiffusionAd(nn.Module):
    """Both networks."""

    def __init__(self, config: DiffusionAdConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(config)
        self.segmentation = Segmentation(config.segmentation_channels, answers=1)

    def denoised(
        self,
        image: Tensor,
        noises: tuple[Tensor, Tensor],
        steps: tuple[Tensor, Tensor],
        schedule: Schedule,
        guidance: float,
    ) -> Denoised:
        """Both passes.

        Args:
            image: (N, 3, H, W) in [0, 1], RGB.
            noises: from N(0, 1), like `image`.
            steps: (N,) int64, the normal time step of each picture and the noisier one.
            guidance: w.
        """
        levels = level_of(schedule, steps[0], image), level_of(schedule, steps[1], image)
        noisy = levels[0].noised(image, noises[0]), levels[1].noised(image, noises[1])
        predict = partial(self.unet, steps=steps[0]), partial(self.unet, steps=steps[1])
        return denoised(noisy, levels, predict, guidance)

    def compared(self, image: Tensor, reconstruction: Tensor) -> Tensor:
        """(N, H, W) logits: how likely each pixel is anomalous."""
        logits: Tensor = self.segmentation(torch.cat([image, reconstruction], dim=1))
        return logits.squeeze(1)


def level_of(schedule: Schedule, steps: Tensor, like: Tensor) -> Level:
    """Coefficients of each picture, (N, 1, 1, 1), looked up in float64."""
    places = steps.cpu().numpy()
    signal, noise, inverse, excess = (
        torch.from_numpy(table[places]).to(like)[:, None, None, None]
        for table in (schedule.signal, schedule.noise, schedule.inverse, schedule.excess)
    )
    return Level(signal, noise, inverse, excess)


def initialise(network: DiffusionAd) -> None:
    """The last layers of the UNet's blocks start at zero; the rest keeps what PyTorch drew."""
    for layer in last_layers(network.unet):
        for weight in layer.parameters():
            nn.init.zeros_(weight)
