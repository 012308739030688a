"""What a user says about a trained network of this kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_ad.models.option_types import Name, Names, Positive, option
from edge_ad.validation import strict


@strict
@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Options of `edge-ad export`; None is read from the checkpoint or left to the default.

    Attributes:
        backbone, backbone_weights, layers: network that gives the features, its weights, its taps.
        embed_dim, pretrain_embed_dim, hidden_dim: sizes of the head; read from the checkpoint where they can be.
    """

    backbone: Name | None = option(None, "torchvision network, or timm:<name> (default: wide_resnet50_2).", "NAME")
    backbone_weights: Path | None = option(
        None, "State dict of the backbone, whole or trunk alone, or packaged (default: torchvision's).", "FILE"
    )
    layers: Names | None = option(None, "Layers that give the features (default: layer2,layer3).", "A,B")
    embed_dim: Positive | None = option(None, "Patch embedding (default: read from the checkpoint).")
    pretrain_embed_dim: Positive | None = option(None, "Pooled vector of one layer (default: embed-dim).")
    hidden_dim: Positive | None = option(None, "Discriminator's hidden layer (default: read from the checkpoint).")
