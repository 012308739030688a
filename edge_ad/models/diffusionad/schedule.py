"""How much noise a picture holds at a time step: the linear schedule of DDPM, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 1000
LEAST_STEPS = 20  # with fewer, a beta would exceed 1
FIRST_BETA, LAST_BETA = 1e-4, 0.02  # at STEPS steps; other numbers of steps scale them


@dataclass(frozen=True)
class Schedule:
    """Tables over t = 0 .. steps − 1, float64.

    Attributes:
        signal: a, share of the picture in x_t = a·x + s·noise.
        noise: s.
        inverse: 1/a.
        excess: √(1/a² − 1), so that x = x_t·inverse − noise·excess.
    """

    signal: NDArray[np.float64]
    noise: NDArray[np.float64]
    inverse: NDArray[np.float64]
    excess: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.signal)


def linear_schedule(steps: int = STEPS) -> Schedule:
    """The authors' schedule. Args: steps: LEAST_STEPS or more."""
    scale = STEPS / steps
    kept = np.cumprod(1 - np.linspace(scale * FIRST_BETA, scale * LAST_BETA, steps))
    return Schedule(np.sqrt(kept), np.sqrt(1 - kept), np.sqrt(1 / kept), np.sqrt(1 / kept - 1))
