"""Everything that fitting PatchCore can be told; the defaults are those of the authors' code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from edge_ad.models.option_types import Name, Names, Positive, Size, Weight, option
from edge_ad.models.packaged import PACKAGED
from edge_ad.models.patchcore.config import Distance, Embedding, PatchCoreConfig
from edge_ad.models.patchcore.options import Coreset
from edge_ad.models.patchcore.specs import INPUT, OUTPUT, SCORES
from edge_ad.models.training.options import CROP, TrainOptions, View
from edge_ad.validation import strict

ONE_PASS: Mapping[str, Any] = {"textures": None, "epochs": 1, "select": "last", "patience": 0}
"""Options of all families that mean nothing here, and their one value."""


@strict
@dataclass(frozen=True, kw_only=True)
class PatchCoreTrainOptions(TrainOptions):
    """Options of `edge-ad train --family patchcore`.

    Attributes:
        backbone: torchvision network, or `timm:<name>`.
        backbone_weights: its pretrained weights; a file, `packaged`, or None for the published ones.
        coreset: share of the patches that stay in the bank, or how many.
        amp: half precision for the backbone on CUDA.
        layers, embedding, pretrain_embed_dim, embed_dim, distance, nearest, neighbours, tile_position: see
            PatchCoreConfig.
        textures, epochs, select, patience: of other families; a bank is made in one pass over good pictures.
    """

    input_spec = INPUT
    output_spec = OUTPUT
    score_ranges = SCORES

    backbone: Name = option(
        PatchCoreConfig.backbone, "torchvision network, or timm:<name> (paper: wide_resnet50_2).", "NAME"
    )
    backbone_weights: Path | None = option(
        None, "Its pretrained weights: a file, or packaged (paper: torchvision's, the default).", "FILE"
    )
    layers: Names = option(PatchCoreConfig.layers, "Layers that give the features (paper: layer2,layer3).", "A,B")
    coreset: Coreset = option(0.1, "Patches that stay: a share such as 0.01 or 1%, or a number (paper: 0.1).", "X")
    imgsz: Size = option(INPUT.size_hw, "Model input in pixels (paper: 224).", "N|HxW")
    resize: Positive | None = option(INPUT.resize, "Shorter side before the centre crop (paper: 256).")
    resize_mode: View = option(CROP, f"{CROP} (paper), stretch, letterbox or auto (fast).", "MODE")
    embedding: Embedding = option("pooled", "Of patches: pooled (paper) or averaged (anomalib's).", "NAME")
    pretrain_embed_dim: Positive | None = option(None, "Pooled vector of one layer (paper: 1024); for pooled.")
    embed_dim: Positive | None = option(None, "Patch embedding (paper: 1024); for pooled.")
    distance: Distance = option("squared", "In map and score: squared (the authors' code) or root.", "NAME")
    nearest: Positive = option(PatchCoreConfig.nearest, "Entries whose mean distance counts (paper: 1).")
    neighbours: Positive = option(PatchCoreConfig.neighbours, "Of the nearest entry, for --score reweighted.")
    tile_position: Weight = option(0.0, "Where patches lie counts: spreads between the ends of a picture.", "X")
    batch: Annotated[int, Field(gt=0, le=1024)] = option(8, "Pictures that go through the backbone at once.")
    eval_every: Annotated[int, Field(ge=0, le=1)] = option(0, "1: look at the labelled pictures when it is done.")
    amp: bool = option(True, "Half precision for the backbone on CUDA (default: yes).", off="no-amp")
    textures: Path | None = None
    epochs: Positive = 1
    select: Literal["best", "last"] = "last"
    patience: Annotated[int, Field(ge=0)] = 0

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {
            "backbone": "mobilenet_v2",
            "backbone_weights": PACKAGED,
            "layers": ("features.6", "features.13"),
            "embedding": "averaged",
            "distance": "root",
            "coreset": 0.01,
            "imgsz": 256,
            "score": "map_max",
        },
    }

    @property
    def network(self) -> PatchCoreConfig:
        """What the bank is made with; the length of an embedding of the kind `averaged` is found out."""
        return PatchCoreConfig(
            backbone=self.backbone,
            layers=self.layers,
            embedding=self.embedding,
            pretrain_embed_dim=self.pretrain_embed_dim or PatchCoreConfig.pretrain_embed_dim,
            embed_dim=self.embed_dim or PatchCoreConfig.embed_dim,
            distance=self.distance,
            nearest=self.nearest,
            neighbours=self.neighbours,
            tile_position=self.tile_position,
        )

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        for name, only in ONE_PASS.items():
            if getattr(self, name) != only:
                yield f"{name}: a bank is made in one pass over good pictures; leave it out"
        if len(set(self.layers)) != len(self.layers):
            yield f"layers: {', '.join(self.layers)} names a layer twice"
        for name in ("pretrain_embed_dim", "embed_dim"):
            if self.embedding == "averaged" and getattr(self, name) is not None:
                yield f"{name}: belongs to --embedding pooled; leave it out"

        yield from self.place_faults()

    def place_faults(self) -> list[str]:
        """What is wrong with places of patches, one line each; asked again when the pictures have chosen the angles."""
        if self.tile_position and self.rotate == "any":
            return ["tile_position: parts at any angle have no place; leave it out, or give --rotate none"]
        return []

    def network_faults(self, faulty: set[str]) -> list[str]:
        from edge_ad.models.backbone import backbone_faults

        return [] if faulty & {"backbone", "layers"} else backbone_faults(self.backbone, self.layers)

    @classmethod
    def preset_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        values = super().preset_values(given)
        if "imgsz" in given:
            values["resize"] = None  # that of another size
        return values
