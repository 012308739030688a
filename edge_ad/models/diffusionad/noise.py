"""The noise that a bundle lays over every picture: two constants, so that a picture has one score.

The authors draw new noise for each picture and each run. Here both are drawn once, from their names, or from a seed
with their names; the manifest keeps which.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

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
