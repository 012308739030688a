"""What defines the two networks of DiffusionAD apart from their weights."""

from __future__ import annotations

from dataclasses import dataclass

MULTIPLE = 32
"""Sides of a picture have to be multiples of it: the segmentation halves them five times, the UNet at most as often."""
GROUPS = 32
"""Of every normalisation in the published UNet."""
MULTIPLIERS = {256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4), 32: (1, 2, 3, 4)}
"""Widths of the levels, in multiples of the first, by the size that a UNet was made for (the authors' table)."""
ATTENTION_SIDES = (32, 16, 8)
"""Sides of the features that attend to one another, where the picture has the size that the UNet was made for."""
MOST_PLACES = 8192
"""Places that may look at one another: their product in pairs is kept for every head, 270 MB of it."""
DOWN_BLOCKS = 2
"""Blocks of a level on the way down; there is one more on the way up."""


@dataclass(frozen=True)
class DiffusionAdConfig:
    """Shapes of the two networks; the defaults are the published ones (601 GMAC at 256²).

    Attributes:
        base_channels: width of the UNet's first level.
        multipliers: of each level, from the picture's size downwards; each has half the sides of the one before.
        attention_strides: pixels of the picture for one of the features that attend to one another.
        segmentation_channels: width of the segmentation's first block.
        num_heads: of the attention; no tensor tells.
        groups: of every normalisation, of whose number the widths have to be multiples; no tensor tells.
    """

    base_channels: int = 128
    multipliers: tuple[int, ...] = MULTIPLIERS[256]
    attention_strides: tuple[int, ...] = (8, 16, 32)
    segmentation_channels: int = 64
    num_heads: int = 4
    groups: int = GROUPS

    @property
    def blind(self) -> bool:
        """Whether some block has a single channel in each group, whose normalisation takes the time step out again."""
        return self.base_channels * min(self.multipliers) < 2 * self.groups

    def faults(self) -> list[str]:
        """What no network can be made of, one line each that begins with a key."""
        widths = sorted({self.base_channels * multiplier for multiplier in self.multipliers})
        found = []
        if self.base_channels % 2:
            found.append(f"base_channels: wanted an even number, for sines and cosines, got {self.base_channels}")
        if any(width % self.groups for width in widths):
            found.append(
                f"base_channels: wanted a multiple of the {self.groups} groups that are normalised, got {widths[0]}"
            )
        if any(width % self.num_heads for width in widths):
            found.append(f"num_heads: wanted a divisor of the widths {widths}, got {self.num_heads}")
        return found


BLIND = (
    "the UNet has blocks with one channel in each group of a normalisation, which takes the time step out again;"
    " they do not know how much noise there is"
)


def strides_of(image_size: int) -> tuple[int, ...]:
    """Where a UNet that was made for pictures of this size attends, as far as it has such levels."""
    levels = len(MULTIPLIERS[image_size])
    wanted = sorted(image_size // side for side in ATTENTION_SIDES)
    return tuple(stride for stride in wanted if stride in {2**level for level in range(levels)})


def made_for(config: DiffusionAdConfig) -> int | None:
    """The side of the pictures that a UNet with these levels is published for; None for levels of one's own."""
    shape = config.multipliers, config.attention_strides
    return next((side for side in MULTIPLIERS if (MULTIPLIERS[side], strides_of(side)) == shape), None)


def size_faults(config: DiffusionAdConfig, size_hw: tuple[int, int]) -> list[str]:
    """What is wrong with pictures of (height, width) pixels for a network of which the levels are known."""
    longest, usual = max(size_hw), made_for(config)
    if usual is not None and longest in MULTIPLIERS and longest != usual:
        return [
            f"imgsz: this UNet was made for {usual}x{usual}, with other levels than one for {longest}x{longest};"
            f" give --imgsz {usual}, or train at the other size"
        ]
    finest = min(config.attention_strides, default=longest)
    places = (size_hw[0] // finest) * (size_hw[1] // finest)
    if places > MOST_PLACES:
        return [
            f"imgsz: at {size_hw[0]}x{size_hw[1]}, {places} places would look at one another, {MOST_PLACES} are the"
            " most; give a smaller size, or --tiles"
        ]
    return []
