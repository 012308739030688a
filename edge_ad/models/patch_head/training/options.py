"""What the training of every head can be told; the defaults are those of both authors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from pydantic import Field

from edge_ad.models.option_types import Name, Names, Positive, Size, option
from edge_ad.models.packaged import PACKAGED
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.options import HeadOptions
from edge_ad.models.training.options import CROP, TrainOptions, View
from edge_ad.validation import strict

FAST: Mapping[str, Any] = {
    "backbone": "mobilenet_v2",
    "backbone_weights": PACKAGED,
    "layers": ("features.11", "features.15"),
    "imgsz": 256,
    "pretrain_embed_dim": 160,
    "embed_dim": 320,
    "hidden_dim": 256,
    "select": "last",
    "eval_every": 0,
}
"""The network of the preset `fast`, and that nobody looks at labels."""


@strict
@dataclass(frozen=True, kw_only=True)
class HeadTrainOptions(TrainOptions, HeadOptions):
    """Options that the trainings of all heads have. A family derives from it.

    Attributes:
        backbone, backbone_weights, layers: as for export; `packaged` weights are those of an installed package.
        pretrain_embed_dim, embed_dim, hidden_dim, discriminator_layers: see HeadConfig.
    """

    backbone: Name = option(
        HeadConfig.backbone, "torchvision network, or timm:<name> (paper: wide_resnet50_2).", "NAME"
    )
    layers: Names = option(HeadConfig.layers, "Layers that give the features (paper: layer2,layer3).", "A,B")
    imgsz: Size = option((288, 288), "Model input in pixels (paper: 288).", "N|HxW")
    resize_mode: View = option(CROP, f"{CROP} (paper), stretch, letterbox or auto (fast).", "MODE")
    pretrain_embed_dim: Positive = option(HeadConfig.pretrain_embed_dim, "Pooled vector of one layer (paper: 1536).")
    embed_dim: Positive = option(HeadConfig.embed_dim, "Patch embedding (paper: 1536).")
    hidden_dim: Positive = option(HeadConfig.hidden_dim, "Discriminator's hidden layer (paper: 1024).")
    discriminator_layers: Annotated[int, Field(ge=2, le=8)] = option(
        HeadConfig.discriminator_layers, "Layers of the discriminator (paper: 2)."
    )

    @property
    def network(self) -> HeadConfig:
        """The network to train."""
        return HeadConfig(
            backbone=self.backbone,
            layers=self.layers,
            pretrain_embed_dim=self.pretrain_embed_dim,
            embed_dim=self.embed_dim,
            hidden_dim=self.hidden_dim,
            discriminator_layers=self.discriminator_layers,
        )

    @property
    def export(self) -> dict[str, Any]:
        names = [field.name for field in fields(HeadOptions) if field.name != "backbone_weights"]
        network = {name: getattr(self, name) for name in names}
        return {**network, "layers": list(self.layers), **super().export}

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        if len(set(self.layers)) != len(self.layers):
            yield f"layers: {', '.join(self.layers)} names a layer twice"

    def network_faults(self, faulty: set[str]) -> list[str]:
        from edge_ad.models.backbone import backbone_faults

        return [] if faulty & {"backbone", "layers"} else backbone_faults(self.backbone, self.layers)
