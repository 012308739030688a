"""What a user says about a bank that was made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from edge_ad.models.option_types import Name, Names, Positive, Weight, option
from edge_ad.models.patchcore.config import NEIGHBOURS, Distance, Embedding
from edge_ad.validation import strict


def _coreset(value: object) -> object:
    """`0.01`, `1%` as a share, a whole number as entries."""
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"\d+", text):
            value = int(text)
        elif re.fullmatch(r"\d+(\.\d*)?%|\.?\d+(\.\d*)?(e-?\d+)?", text, re.IGNORECASE):
            value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    good = (isinstance(value, float) and 0 < value <= 1) or (
        isinstance(value, int) and not isinstance(value, bool) and value > 0
    )
    if not good:
        raise ValueError("wanted a share of the patches such as 0.01 or 1%, or a number of entries above 0")
    return value


Coreset = Annotated[int | float, BeforeValidator(_coreset)]
"""How much of the patches a bank keeps: a float is a share above 0 and at most 1, an int a number of entries."""


@strict
@dataclass(frozen=True, kw_only=True)
class PatchCoreOptions:
    """Options of `edge-ad export`; None is read from the checkpoint or left to the default of its source.

    Attributes:
        backbone, backbone_weights, layers: network that gives the features, its weights, its taps.
        embedding, pretrain_embed_dim, distance, nearest, neighbours, tile_position: see PatchCoreConfig.
    """

    backbone: Name | None = option(
        None, "torchvision network, or timm:<name> (default: the checkpoint's, else wide_resnet50_2).", "NAME"
    )
    backbone_weights: Path | None = option(
        None, "State dict of the backbone, or packaged (default: the checkpoint's, else torchvision's).", "FILE"
    )
    layers: Names | None = option(
        None, "Layers that give the features (default: the checkpoint's, else layer2,layer3).", "A,B"
    )
    embedding: Embedding | None = option(
        None, "Of patches: pooled (the authors') or averaged (anomalib's) (default: by the checkpoint).", "NAME"
    )
    pretrain_embed_dim: Positive | None = option(None, "Pooled vector of one layer (default: by the checkpoint).")
    distance: Distance | None = option(
        None, "In map and score: squared (the authors') or root (anomalib's) (default: by the checkpoint).", "NAME"
    )
    nearest: Positive | None = option(None, "Entries whose mean distance counts (default: the checkpoint's, else 1).")
    neighbours: Positive | None = option(
        None, f"Of the nearest entry, for --score reweighted (default: the checkpoint's, else {NEIGHBOURS})."
    )
    tile_position: Weight | None = option(
        None, "Spreads between the ends of a picture, of a bank with places (default: the checkpoint's).", "X"
    )
