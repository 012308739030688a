"""The constants that GLASS is trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Hypothesis = Literal["manifold", "hypersphere"]


@dataclass(frozen=True)
class Objective:
    """Constants of the three branches; the defaults are the published ones.

    Attributes:
        hypothesis: `manifold` keeps synthesised features near their own normal feature, `hypersphere` near the
            centre of all normal features of the same position.
        noise_std: standard deviation of the Gaussian noise that an ascent starts from.
        ascent_steps: steps of normalised gradient ascent; 0 trains on the noise alone.
        ascent_step_size: length of one step in feature space.
        project_every: ascent steps between two truncated projections.
        manifold_radii: nearest and farthest distance from the normal feature after a projection.
        radius_quantile: quantile of the distances of normal features to the centre that is called r; global
            anomalies are projected to [r, 2r], local ones to [2r, 4r] (`hypersphere`).
        hard_quantile: errors below this quantile are left out of the local loss; 0 keeps all.
        focal_gamma: exponent of the focal loss.
    """

    hypothesis: Hypothesis = "manifold"
    noise_std: float = 0.015
    ascent_steps: int = 20
    ascent_step_size: float = 0.001
    project_every: int = 5
    manifold_radii: tuple[float, float] = (0.5, 1.0)
    radius_quantile: float = 0.75
    hard_quantile: float = 0.5
    focal_gamma: float = 2.0
