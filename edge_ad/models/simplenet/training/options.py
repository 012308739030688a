"""Everything that training SimpleNet can be told; the defaults are those of the authors' code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from edge_ad.bundle.specs import ResizeMode
from edge_ad.models.option_types import Name, Names, NotNegative, Positive, PositiveFloat, Size, option
from edge_ad.models.packaged import PACKAGED
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patch_head.options import HeadOptions
from edge_ad.models.simplenet.specs import OUTPUT
from edge_ad.models.training.options import TrainOptions
from edge_ad.validation import strict


@strict
@dataclass(frozen=True, kw_only=True)
class SimpleNetTrainOptions(TrainOptions, HeadOptions):
    """Options of `edge-ad train --family simplenet`.

    Attributes:
        backbone, backbone_weights, layers: as for export; `packaged` weights are those of an installed package.
        pretrain_embed_dim, embed_dim, hidden_dim, discriminator_layers: see HeadConfig.
        noise_std: standard deviation of the Gaussian noise that makes a feature anomalous.
        margin: both kinds of features are to answer beyond it, on their side of 0.
        learning_rate: the adaptor's (AdamW, decay 0.01); the discriminator's is twice that (Adam, decay 1e-5).
        epochs, rounds: meta-epochs, and how often each goes through the pictures (the authors: 40 of 4).
        amp: half precision for the backbone on CUDA.
    """

    output_spec = OUTPUT

    backbone: Name = option(
        HeadConfig.backbone, "torchvision network, or timm:<name> (paper: wide_resnet50_2).", "NAME"
    )
    layers: Names = option(HeadConfig.layers, "Layers that give the features (paper: layer2,layer3).", "A,B")
    imgsz: Size = option((288, 288), "Model input in pixels (paper: 288).", "N|HxW")
    resize: Positive | None = option(329, "Shorter side before the centre crop (paper: 329).")
    resize_mode: ResizeMode = option("shorter_side_crop", "shorter_side_crop (default), stretch or letterbox.", "MODE")
    pretrain_embed_dim: Positive = option(HeadConfig.pretrain_embed_dim, "Pooled vector of one layer (paper: 1536).")
    embed_dim: Positive = option(HeadConfig.embed_dim, "Patch embedding (paper: 1536).")
    hidden_dim: Positive = option(HeadConfig.hidden_dim, "Discriminator's hidden layer (paper: 1024).")
    discriminator_layers: Annotated[int, Field(ge=2, le=8)] = option(
        HeadConfig.discriminator_layers, "Layers of the discriminator (paper: 2)."
    )
    noise_std: PositiveFloat = option(0.015, "Gaussian noise on normal features (paper: 0.015).", "X")
    margin: NotNegative = option(0.5, "Answers beyond it cost nothing (paper: 0.5).", "X")
    learning_rate: PositiveFloat = option(1e-4, "Adaptor's; the discriminator's is twice that (paper: 1e-4).", "X")
    batch: Annotated[int, Field(gt=0, le=1024)] = option(8, "Pictures in a step (paper: 8).")
    epochs: Positive = option(40, "Meta-epochs (paper: 40).")
    rounds: Positive = option(4, "Times that a meta-epoch goes through the pictures (paper: 4).")
    select: Literal["best", "last"] = option("best", "Keep the best epoch (paper, by labels) or the last.", "RULE")
    amp: bool = option(True, "Half precision for the backbone on CUDA (default: yes).", off="no-amp")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {
            "backbone": "mobilenet_v2",
            "backbone_weights": PACKAGED,
            "layers": ("features.11", "features.15"),
            "imgsz": 256,
            "resize": 256,
            "pretrain_embed_dim": 160,
            "embed_dim": 320,
            "hidden_dim": 256,
            "select": "last",
            "eval_every": 0,
        },
    }

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

    @classmethod
    def preset_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        values = super().preset_values(given)
        if given.get("backbone", values.get("backbone")) != values.get("backbone"):
            values.pop("backbone_weights", None)  # those of another network
        if "imgsz" in given or given.get("resize_mode", "shorter_side_crop") != "shorter_side_crop":
            values["resize"] = None  # that of another size
        return values
