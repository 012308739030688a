"""What a user says about a DRAEM network that was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_ad.models.option_types import option
from edge_ad.validation import strict

ColorOrder = Literal["rgb", "bgr"]
"""In which order a network was trained to see the channels; the authors' see B, G, R."""


@strict
@dataclass(frozen=True, kw_only=True)
class DraemOptions:
    """Options of `edge-ad export` for DRAEM; None is read from the checkpoint.

    Attributes:
        segmentation_checkpoint: the other file of the authors' pair; by default `<stem>_seg` beside the first.
        color_order: that the network was trained with.
    """

    segmentation_checkpoint: Path | None = option(
        None, "The other file of the authors' pair (default: <stem>_seg beside CHECKPOINT).", "FILE"
    )
    color_order: ColorOrder | None = option(
        None,
        "Order of colours it was trained with: rgb or bgr (default: what the checkpoint tells, else bgr).",
        "ORDER",
    )
