"""DiffusionAD as one graph: fixed time steps, fixed noise, two passes that share their weights.

The first convolution is linear, so its share of the noise could be a constant: that would be 33 MB at the published
width to spare 0.2 of 601 GMAC, and is left. Nothing else is the same in the two passes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from edge_ad.errors import ConfigError
from edge_ad.models.diffusionad.checkpoint import Settings
from edge_ad.models.diffusionad.config import size_faults
from edge_ad.models.diffusionad.denoising import Level, denoised
from edge_ad.models.diffusionad.fast import FastUNet
from edge_ad.models.diffusionad.network import DiffusionAd
from edge_ad.models.diffusionad.noise import NOISES, fixed_noise
from edge_ad.models.diffusionad.schedule import Schedule, linear_schedule
from edge_ad.models.draem.fold import without_normalisation

Size = tuple[int, int]


class FoldedDiffusionAd(nn.Module):
    """Export form of a network in eval mode; equal to it up to float rounding.

    `forward`: (N, 3, H, W) float32 RGB in [0, 1] → (N, H, W) float32 logits.

    Args:
        settings: time steps, guidance, noise.
        size_hw: of pictures.

    Raises: ConfigError for pictures of a size that the UNet was not made for.
    """

    def __init__(self, network: DiffusionAd, settings: Settings, size_hw: Size) -> None:
        super().__init__()
        _check(network, size_hw)
        schedule, steps = linear_schedule(settings.steps), (settings.normal_t, settings.noisier_t)
        self.guidance = settings.condition_w
        self.levels = _level(schedule, steps[0]), _level(schedule, steps[1])
        self.unet = FastUNet(network.unet, steps[: settings.passes], size_hw)
        self.segmentation = without_normalisation(network.segmentation)
        for number, name in enumerate(NOISES[: settings.passes]):
            noise = torch.from_numpy(fixed_noise(name, size_hw, settings.noise_seed))
            self.register_buffer(f"noise_{number}", self.levels[number].noise * noise)
        self.passes = settings.passes
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.segmentation(torch.cat([image, self.reconstructed(image)], dim=1))
        return logits.squeeze(1)

    def reconstructed(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [−1, 1]."""
        normal = self._noised(image, 0)
        if self.passes == 1:
            return self.levels[0].denoised(normal, self.unet(normal, 0))
        predict = partial(self.unet, number=0), partial(self.unet, number=1)
        return denoised((normal, self._noised(image, 1)), self.levels, predict, self.guidance).guided

    def _noised(self, image: Tensor, number: int) -> Tensor:
        return self.levels[number].signal * image + self.get_buffer(f"noise_{number}")


class PublishedDiffusionAd(nn.Module):
    """The network as published with the same noise, in terms of `FoldedDiffusionAd`."""

    noises: Tensor

    def __init__(self, network: DiffusionAd, settings: Settings, size_hw: Size) -> None:
        super().__init__()
        _check(network, size_hw)
        self.network, self.settings = network, settings
        self.schedule = linear_schedule(settings.steps)
        drawn = [torch.from_numpy(fixed_noise(name, size_hw, settings.noise_seed)) for name in NOISES]
        self.register_buffer("noises", torch.cat(drawn))

    def forward(self, image: Tensor) -> Tensor:
        normal, noisier = (noise.expand_as(image) for noise in self.noises[:, None])
        steps = (
            torch.full((len(image),), self.settings.normal_t, device=image.device),
            torch.full((len(image),), self.settings.noisier_t, device=image.device),
        )
        guidance = self.settings.condition_w if self.settings.passes == 2 else 0.0
        found = self.network.denoised(image, (normal, noisier), steps, self.schedule, guidance)
        return self.network.compared(image, found.guided)


def _check(network: DiffusionAd, size_hw: Size) -> None:
    if faults := size_faults(network.config, size_hw):
        raise ConfigError("export options", faults)


def _level(schedule: Schedule, step: int) -> Level:
    tables = schedule.signal, schedule.noise, schedule.inverse, schedule.excess
    return Level(*(float(table[step]) for table in tables))
