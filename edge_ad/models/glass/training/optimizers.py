"""The two optimisers of GLASS: Adam for the adaptor, AdamW for the discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from edge_ad.models.glass.network import Glass

ADAPTOR_WEIGHT_DECAY = 1e-5  # the authors'
DISCRIMINATOR_WEIGHT_DECAY = 1e-2  # torch's default for AdamW, which the authors leave as it is
DISCRIMINATOR_RATE = 2.0  # the authors' discriminator learns at twice the adaptor's rate


@dataclass(frozen=True)
class Optimizers:
    """Adaptor's and discriminator's, stepped together; without an adaptor that learns, only the second."""

    parts: tuple[torch.optim.Optimizer, ...]
    rates: tuple[float, ...]

    @classmethod
    def of(cls, network: Glass, learning_rate: float) -> Optimizers:
        """Fresh optimisers of the parts that train; `learning_rate` is the adaptor's."""
        rate = DISCRIMINATOR_RATE * learning_rate
        discriminator = torch.optim.AdamW(
            network.discriminator.parameters(), lr=rate, weight_decay=DISCRIMINATOR_WEIGHT_DECAY
        )
        weights = [weight for weight in network.adaptor.parameters() if weight.requires_grad]
        if not weights:
            return cls((discriminator,), (rate,))
        adaptor = torch.optim.Adam(weights, lr=learning_rate, weight_decay=ADAPTOR_WEIGHT_DECAY)
        return cls((adaptor, discriminator), (learning_rate, rate))

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def scale_rates(self, factor: float) -> None:
        """Set the learning rates to `factor` times what they started with."""
        for part, rate in zip(self.parts, self.rates, strict=True):
            for group in part.param_groups:
                group["lr"] = rate * factor

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
