"""One training step of SimpleNet (section 3.3): the adapted features against the same with noise on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edge_ad.models.patch_head.training.optimizers import DISCRIMINATOR_RATE, HeadOptimizers
from edge_ad.models.simplenet.network import SimpleNet
from edge_ad.models.simplenet.training.options import AdaptorOptimizer

ADAMW_WEIGHT_DECAY = 1e-2  # torch's default for AdamW, which the authors leave as it is
WEIGHT_DECAY = 1e-5  # of Adam: the authors' for the discriminator, the paper's for both (section 4.2)


@dataclass(frozen=True)
class Losses:
    """One step in figures.

    Attributes:
        normal, noisy: hinge losses before the step; their sum was minimised.
        normal_right, noisy_right: share of the features that answer on their side of the margin.
    """

    normal: float
    noisy: float
    normal_right: float
    noisy_right: float


def optimizers_of(
    network: SimpleNet, learning_rate: float, adaptor_optimizer: AdaptorOptimizer = "adamw"
) -> HeadOptimizers:
    """Fresh optimisers; `learning_rate` is the adaptor's. Without an adaptor there is only the discriminator's."""
    discriminator = torch.optim.Adam(
        network.discriminator.parameters(), lr=DISCRIMINATOR_RATE * learning_rate, weight_decay=WEIGHT_DECAY
    )
    weights = list(network.adaptor.parameters())
    if not weights:
        return HeadOptimizers(discriminator)
    adaptor: torch.optim.Optimizer
    if adaptor_optimizer == "adamw":
        adaptor = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=ADAMW_WEIGHT_DECAY)
    else:
        adaptor = torch.optim.Adam(weights, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    return HeadOptimizers(discriminator, adaptor)


def step(network: SimpleNet, optimizers: HeadOptimizers, *, embedding: Tensor, noise: Tensor, margin: float) -> Losses:
    """Train on one batch.

    Args:
        embedding: (P, D) of `PatchHead.embed`, of normal pictures.
        noise: (P, D), already scaled.
        margin: answers beyond it cost nothing.
    """
    network.adaptor.train()
    network.discriminator.train()
    optimizers.zero_grad()
    normal = network.adaptor(embedding)
    # Both in one batch: the normalisation sees features of both kinds, as in the authors' code.
    answers = network.discriminator(torch.cat([normal, normal + noise]))
    good, noisy = answers[: len(normal)], answers[len(normal) :]
    normal_loss = torch.clip(margin - good, min=0).mean()
    noisy_loss = torch.clip(margin + noisy, min=0).mean()
    (normal_loss + noisy_loss).backward()  # type: ignore[no-untyped-call]
    optimizers.step()
    right = (good >= margin).float().mean(), (noisy <= -margin).float().mean()
    return Losses(normal_loss.item(), noisy_loss.item(), right[0].item(), right[1].item())
