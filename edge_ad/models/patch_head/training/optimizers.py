"""The optimisers of a head, as one."""

from __future__ import annotations

from typing import Any

import torch

DISCRIMINATOR_RATE = 2.0  # both authors' discriminators learn at twice the adaptor's rate


class HeadOptimizers:
    """Those of the parts that train, stepped together. Attributes: parts: a family says in which order."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        self._rates = [[float(group["lr"]) for group in part.param_groups] for part in parts]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def scale_rates(self, factor: float) -> None:
        """Set the learning rates to `factor` times what they started with."""
        for part, rates in zip(self.parts, self._rates, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * factor

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
