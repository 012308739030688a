"""The noise that a bundle lays over every picture: two constants, so that a picture has one score.

The authors draw new noise for each picture and each run. Here both are drawn once, from their names, or from a seed
with their names; the manifest keeps which.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.models.diffusionad.schedule import linear_schedule

NOISES = ("noise.normal", "noise.noisier")
"""Of the two passes, in this order."""


def fixed_noise(name: str, size_hw: tuple[int, int], seed: int | None = None) -> NDArray[np.float32]:
    """One draw from N(0, 1), (1, 3, H, W) float32.

    Args:
        name: which of `NOISES`.
        seed: another draw; None for the one that belongs to the name, which the golden files have.
    """
    of_name = zlib.crc32(name.encode())
    rng = np.random.default_rng(of_name if seed is None else [seed, of_name])
    return rng.standard_normal((1, 3, *size_hw)).astype(np.float32)


def graph_noise(
    config: Mapping[str, Any], size_hw: tuple[int, int], seed: int | None
) -> dict[str, NDArray[np.float32]]:
    """The noise as an exported graph holds it: weighted by its time step, by the name of the constant.

    Args:
        config: `model.config` of the manifest.
    """
    schedule = linear_schedule(int(config["steps"]))
    steps = (int(config["normal_t"]), int(config["noisier_t"]))[: int(config["passes"])]
    return {
        f"logits.noise_{number}": np.float32(schedule.noise[step]) * fixed_noise(NOISES[number], size_hw, seed)
        for number, step in enumerate(steps)
    }
