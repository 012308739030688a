"""The two optimisers of GLASS: Adam for the adaptor, AdamW for the discriminator."""

from __future__ import annotations

import torch

from edge_ad.models.glass.network import Glass
from edge_ad.models.patch_head.training.optimizers import DISCRIMINATOR_RATE, HeadOptimizers

ADAPTOR_WEIGHT_DECAY = 1e-5  # the authors'
DISCRIMINATOR_WEIGHT_DECAY = 1e-2  # torch's default for AdamW, which the authors leave as it is


def optimizers_of(network: Glass, learning_rate: float) -> HeadOptimizers:
    """Fresh optimisers of the parts that train; `learning_rate` is the adaptor's.

    Without an adaptor that learns there is only the discriminator's.
    """
    discriminator = torch.optim.AdamW(
        network.discriminator.parameters(),
        lr=DISCRIMINATOR_RATE * learning_rate,
        weight_decay=DISCRIMINATOR_WEIGHT_DECAY,
    )
    weights = [weight for weight in network.adaptor.parameters() if weight.requires_grad]
    if not weights:
        return HeadOptimizers(discriminator)
    return HeadOptimizers(torch.optim.Adam(weights, lr=learning_rate, weight_decay=ADAPTOR_WEIGHT_DECAY), discriminator)
