"""What defines the three networks of EfficientAD apart from their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

PdnSize = Literal["small", "medium"]
"""EfficientAD-S and EfficientAD-M."""
MapPadding = Literal["after", "before", "none"]
"""When the map is padded: after it was scaled by the quantiles (nelson1425), before (anomalib), or not at all."""

WIDTHS: dict[PdnSize, int] = {"small": 128, "medium": 256}
"""Published channels of the first layer of teacher and student."""


class Layer(NamedTuple):
    """A convolution of teacher and student; a ReLU follows each but the last, an average over 2×2 the first two.

    Attributes:
        name: in nelson1425's sequential networks.
        kernel: its side.
        widths: its channels in widths of the first layer; 0 for as many as the answer has.
    """

    name: str
    kernel: int
    widths: int


LAYERS: dict[PdnSize, tuple[Layer, ...]] = {
    "small": (Layer("0", 4, 1), Layer("3", 4, 2), Layer("6", 3, 2), Layer("8", 4, 0)),
    "medium": (
        Layer("0", 4, 1),
        Layer("3", 4, 2),
        Layer("6", 1, 2),
        Layer("8", 3, 2),
        Layer("10", 4, 0),
        Layer("12", 1, 0),
    ),
}

MULTIPLE = 4
"""Sides of a picture have to be multiples of it: a cell of the map is as large."""
LEAST_SIDE = 256
"""Smaller pictures leave nothing for the 8×8 kernel of the autoencoder, which sees one in 32 of their rows."""
PADDED_CELLS = 4
"""Cells that networks without padding lose on each side, and that the map is padded with."""
BORDER = PADDED_CELLS * MULTIPLE
"""The same in pixels."""


@dataclass(frozen=True)
class EfficientAdConfig:
    """Sizes of the networks; the defaults are the published EfficientAD-S.

    Attributes:
        size: of teacher and student.
        width: channels of their first layer; twice as many in the others.
        channels: of the teacher's answer; the student's has twice as many.
        autoencoder_width: channels of the autoencoder's first layer; twice as many in the inner ones.
    """

    size: PdnSize = "small"
    width: int = WIDTHS["small"]
    channels: int = 384
    autoencoder_width: int = 32


def side_faults(size_hw: tuple[int, int]) -> list[str]:
    """What is wrong with pictures of (height, width) pixels."""
    if all(side >= LEAST_SIDE and side % MULTIPLE == 0 for side in size_hw):
        return []
    height, width = size_hw
    return [f"imgsz: efficientad wants multiples of {MULTIPLE}, {LEAST_SIDE} or more, got {height}x{width}"]
