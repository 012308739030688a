"""Everything that training CPR can be told; the defaults are those of the authors' code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from edge_ad.bundle.specs import Filter
from edge_ad.models.cpr.config import CprConfig, ForegroundChoice, RetrievalDistance
from edge_ad.models.cpr.options import KNOWN_LAYERS, REFERENCE_COUNT, KeptShare, Windows, layer_faults
from edge_ad.models.cpr.specs import INPUT, OUTPUT, SIDE
from edge_ad.models.option_types import Name, Names, NotNegative, Positive, PositiveFloat, Share, Size, option
from edge_ad.models.packaged import PACKAGED
from edge_ad.models.training.options import TrainOptions
from edge_ad.validation import strict


@strict
@dataclass(frozen=True, kw_only=True)
class CprTrainOptions(TrainOptions):
    """Options of `edge-ad train --family cpr`.

    Attributes:
        backbone, backbone_weights, layers: the frozen network; `packaged` weights are those of an installed package.
        nearest, retrieval_distance, retrieval_share, search_windows: see CprConfig.
        metric: train metric networks; without them taps are compared as they are, and nothing is trained.
        foreground: what is object, see `edge_ad.models.cpr.options`; it also says where defects are drawn.
        reference_count: pictures that the checkpoint keeps to compare with.
        overlay_share: share of the pictures on which something is drawn.
        noise_share: of the pictures that get salt and pepper, and again of those that get another lightness.
        points: of each kind, in a picture.
        learning_rate, weight_decay: of AdamW.
        epochs, epoch_steps: their product is the number of steps; the authors' script takes 500 for textures.
    """

    input_spec = INPUT
    output_spec = OUTPUT

    imgsz: Size = option((SIDE, SIDE), "Model input in pixels (paper: 320).", "N|HxW")
    filter: Filter = option(
        INPUT.filter, "Of the resize: opencv_bilinear (paper), pillow_bilinear, pillow_bicubic or opencv_area.", "NAME"
    )
    backbone: Name = option(CprConfig.backbone, "torchvision network, or timm:<name> (paper: densenet201).", "NAME")
    backbone_weights: Path | None = option(
        None, "State dict of the backbone, or packaged (default: torchvision's).", "FILE"
    )
    layers: Names | None = option(None, "Two layers, at 1/4 and 1/8 of the picture (default: by backbone).", "A,B")
    nearest: Positive = option(CprConfig.nearest, "Pictures that a picture is compared with (paper: 10).")
    retrieval_distance: RetrievalDistance = option(CprConfig.retrieval_distance, "Of histograms: kl or l2.", "NAME")
    retrieval_share: KeptShare = option(
        CprConfig.retrieval_share, "Share of the blocks that count in it, those most alike (paper: 0.8).", "X"
    )
    search_windows: Windows = option(CprConfig.search_windows, "Sides of the two search windows (paper: 3,1).", "A,B")
    metric: bool = option(True, "Train metric networks (default), or compare taps as they are.", off="no-metric")
    foreground: ForegroundChoice = option(
        "auto", "Weigh the map by the object: auto (default, where one is found), on or off (textures).", "RULE"
    )
    reference_count: Positive = option(
        REFERENCE_COUNT, f"Pictures that are kept to compare with (default: {REFERENCE_COUNT})."
    )
    batch: Annotated[int, Field(gt=0, le=1024)] = option(32, "Pairs of pictures in a step (paper: 32).")
    overlay_share: Share = option(0.9, "Share of pictures with a drawn defect (paper: 0.9).", "X")
    noise_share: Share = option(0.3, "Share with salt and pepper, and with another lightness (paper: 0.3).", "X")
    points: Positive = option(300, "Points of each kind in a picture (paper: 300).")
    learning_rate: PositiveFloat = option(1e-3, "Of AdamW (paper: 1e-3).", "X")
    weight_decay: NotNegative = option(1e-2, "Of AdamW (paper: 1e-2).", "X")
    epochs: Positive = option(20, "Epochs (paper: 20 of 2000 steps; for textures 10 of 50).")
    epoch_steps: Positive = option(2000, "Steps of an epoch (paper: 2000).")
    select: Literal["best", "last"] = option("last", "Keep the last epoch, or the best by labels.", "RULE")
    eval_every: Annotated[int, Field(ge=0)] = option(
        0, "Epochs between looks at labelled pictures; 0: never (default: 0)."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = option(66, "Seed of everything that is drawn (paper: 66).")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {
            "backbone": "mobilenet_v2",
            "backbone_weights": PACKAGED,
            "batch": 2,
            "epochs": 10,
            "epoch_steps": 40,
        },
    }

    @property
    def network(self) -> CprConfig:
        """What is to be trained."""
        first, second = self.layers or KNOWN_LAYERS[self.backbone]
        return CprConfig(
            backbone=self.backbone,
            layers=(first, second),
            nearest=self.nearest,
            retrieval_distance=self.retrieval_distance,
            retrieval_share=self.retrieval_share,
            search_windows=self.search_windows,
            metric=self.metric,
        )

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        yield from layer_faults(self.layers, self.backbone)

    def network_faults(self, faulty: set[str]) -> list[str]:
        from edge_ad.models.backbone import backbone_faults

        if faulty & {"backbone", "layers"} or layer_faults(self.layers, self.backbone):
            return []
        return backbone_faults(self.backbone, self.network.layers)

    @classmethod
    def preset_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        values = super().preset_values(given)
        if given.get("metric") is False:
            values |= {"epochs": 1, "epoch_steps": 1}  # there is nothing to train
        return values
