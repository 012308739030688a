"""The Gaussian noise that an ascent starts from."""

from __future__ import annotations

import torch
from torch import Tensor

from edge_ad.models.glass.training.batches import NOISE, generator
from edge_ad.models.glass.training.options import TrainOptions


def draw_noise(options: TrainOptions, epoch: int, step: int, shape: tuple[int, int], device: torch.device) -> Tensor:
    """(P, D) float32 of one step, the same whenever it is drawn again.

    With `noise_spread` s > 0, each patch has a standard deviation of its own, `noise_std` · 2^U(-s, s): the network
    then learns how far from normal a feature is, not only whether it is farther than one distance.
    """
    source = torch.Generator().manual_seed(int(generator(options.seed, epoch, NOISE, step).integers(2**63)))
    noise = torch.randn(shape, generator=source) * options.noise_std
    if options.noise_spread > 0:
        noise *= 2 ** ((torch.rand(shape[0], 1, generator=source) * 2 - 1) * options.noise_spread)
    return noise.to(device)
