"""The Gaussian noise of a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edge_ad.models.glass.training.options import GlassTrainOptions
from edge_ad.models.training.drawing import NOISE, generator


@dataclass(frozen=True)
class Noise:
    """What is added to the adapted features of one step, (P, D) float32 each.

    Attributes:
        ascent: where the ascent starts, seen from the normal feature.
        jitter: added to the normal features themselves; None for nothing.
    """

    ascent: Tensor
    jitter: Tensor | None


def draw_noise(
    options: GlassTrainOptions, epoch: int, step: int, shape: tuple[int, int], device: torch.device
) -> Noise:
    """Noise for P × D = `shape`, the same whenever it is drawn again.

    With `noise_spread` s > 0, each patch has a standard deviation of its own, `noise_std` · 2^U(-s, s): the network
    then learns how far from normal a feature is, not only whether it is farther than one distance.
    """
    source = torch.Generator().manual_seed(int(generator(options.seed, epoch, NOISE, step).integers(2**63)))
    ascent = torch.randn(shape, generator=source) * options.noise_std
    if options.noise_spread > 0:
        ascent *= 2 ** ((torch.rand(shape[0], 1, generator=source) * 2 - 1) * options.noise_spread)
    if options.jitter_std == 0:
        return Noise(ascent.to(device), None)
    return Noise(ascent.to(device), (torch.randn(shape, generator=source) * options.jitter_std).to(device))
