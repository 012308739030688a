"""What defines the two networks of DRAEM apart from their weights."""

from __future__ import annotations

from dataclasses import dataclass

MULTIPLE = 32
"""Sides of a picture have to be multiples of it: the discriminator halves them five times."""


@dataclass(frozen=True)
class DraemConfig:
    """Widths of the two networks; the defaults are the published ones (198 GMAC at 256²).

    Attributes:
        base_width: channels of the reconstruction's first block; the others are 2, 4 and 8 times as wide.
        base_channels: the same of the discriminator.
    """

    base_width: int = 128
    base_channels: int = 64
