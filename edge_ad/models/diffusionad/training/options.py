"""Everything that training DiffusionAD can be told; the defaults are those of the authors' code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from edge_ad.bundle.specs import Filter
from edge_ad.models.diffusionad.config import GROUPS, MULTIPLE, MULTIPLIERS, DiffusionAdConfig, strides_of
from edge_ad.models.diffusionad.options import GUIDANCE, NOISIER_STEP, NORMAL_STEP, TimeStep
from edge_ad.models.diffusionad.schedule import STEPS
from edge_ad.models.diffusionad.specs import INPUT, OUTPUT
from edge_ad.models.option_types import NotNegative, Positive, PositiveFloat, Share, option
from edge_ad.models.training.options import TrainOptions
from edge_ad.validation import strict


def _pair(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


@strict
@dataclass(frozen=True, kw_only=True)
class DiffusionAdTrainOptions(TrainOptions):
    """Options of `edge-ad train --family diffusionad`.

    Attributes:
        base_channels, segmentation_channels, num_heads, groups: see DiffusionAdConfig; levels and attention follow
            from `imgsz`.
        clean_share: share of the pictures on which nothing is laid.
        surface: what is laid over: on a `texture` other textures, on an `object` half of the time its own picture with
            the cells of a grid shuffled.
        foreground: where: everywhere (`none`), where an object is found (`auto`), or where the data set's foreground
            pictures say (`files`).
        beta_range: least and largest share of the good picture that shines through, drawn evenly.
        augmentations: how many of ten changes undergoes what is laid over.
        split_t: time steps of the normal pass are drawn below it, those of the noisier one from it on.
        normal_t, noisier_t, condition_w: with which the network is used, see DiffusionAdOptions.
        learning_rate, segmentation_rate: of the two Adams.
        schedule: `swing` leaves the UNet's rate and lets the segmentation's fall to none and rise again within 20
            steps, as the authors' code does; `cosine` lowers both from the full rate to none; `constant` leaves them.
        epoch_images: pictures drawn in an epoch, with replacement; None for as many as there are.
    """

    input_spec = INPUT
    output_spec = OUTPUT

    filter: Filter = option("opencv_bilinear", "Of the resize (paper: opencv_bilinear).", "NAME")
    base_channels: Annotated[int, Field(gt=0, le=512)] = option(
        DiffusionAdConfig.base_channels, "Channels of the UNet's first level (paper: 128)."
    )
    segmentation_channels: Annotated[int, Field(gt=0, le=512)] = option(
        DiffusionAdConfig.segmentation_channels, "Channels of the segmentation's first block (paper: 64)."
    )
    num_heads: Positive = option(DiffusionAdConfig.num_heads, "Heads of the attention (paper: 4).")
    groups: Positive = option(GROUPS, "Groups of a normalisation; fewer for narrow UNets (paper: 32).")
    batch: Annotated[int, Field(gt=0, le=1024)] = option(16, "Pictures in a step (paper: 16).")
    clean_share: Share = option(0.5, "Share of the pictures on which nothing is laid (paper: 0.5).", "X")
    surface: Literal["object", "texture"] = option("object", "What good pictures show: object or texture.", "KIND")
    foreground: Literal["none", "auto", "files"] = option(
        "auto", "Where defects are laid: none (everywhere), auto or files (paper).", "RULE"
    )
    beta_range: Annotated[tuple[Share, Share], BeforeValidator(_pair)] = option(
        (0.2, 0.8), "Shares of the good picture that shine through (paper: 0.2,0.8).", "A,B"
    )
    augmentations: Annotated[int, Field(ge=0, le=10)] = option(3, "Changes of what is laid over, of ten (paper: 3).")
    split_t: Annotated[int, Field(gt=0, lt=STEPS)] = option(
        300, "Noise below and from this time step on, in the two passes (paper: 300)."
    )
    normal_t: TimeStep = option(NORMAL_STEP, "Time step of the first pass in use (paper: 200).")
    noisier_t: TimeStep = option(NOISIER_STEP, "Time step of the guiding pass in use (paper: 400).")
    condition_w: NotNegative = option(GUIDANCE, "How much the second pass guides (paper: 1).", "X")
    learning_rate: PositiveFloat = option(1e-4, "Of the UNet's Adam (paper: 1e-4).", "X")
    segmentation_rate: PositiveFloat = option(1e-5, "Of the segmentation's Adam (paper: 1e-5).", "X")
    schedule: Literal["swing", "cosine", "constant"] = option(
        "swing", "swing (as published), cosine or constant.", "NAME"
    )
    epochs: Positive = option(3000, "Epochs (paper: 3000).")
    epoch_images: Positive | None = option(None, "Pictures drawn in an epoch (default: as many as there are).")
    eval_every: Annotated[int, Field(ge=0)] = option(
        50, "Epochs between looks at labelled pictures; 0: never (paper: 50)."
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {
            "base_channels": 32,
            "groups": 8,
            "segmentation_channels": 16,
            "imgsz": 64,
            "filter": "pillow_bilinear",
            "batch": 8,
            "learning_rate": 3e-4,
            "segmentation_rate": 1e-3,
            "schedule": "cosine",
            "epochs": 60,
            "epoch_images": 64,
            "select": "last",
            "eval_every": 0,
        },
    }

    @property
    def network(self) -> DiffusionAdConfig:
        """The networks to train."""
        side = self.image_size
        return DiffusionAdConfig(
            self.base_channels,
            MULTIPLIERS[side],
            strides_of(side),
            self.segmentation_channels,
            self.num_heads,
            self.groups,
        )

    @property
    def image_size(self) -> int:
        """The published size whose levels are taken: the least that the longer side does not exceed."""
        longest = max(self.imgsz)
        return min((side for side in MULTIPLIERS if side >= longest), default=max(MULTIPLIERS))

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        yield from self.network.faults()
        if self.beta_range[0] > self.beta_range[1]:
            yield f"beta_range: wanted the smaller first, got {list(self.beta_range)}"
        if self.normal_t >= self.noisier_t:
            yield f"normal_t: wanted a time step before noisier_t {self.noisier_t}, got {self.normal_t}"
        if max(self.imgsz) == MULTIPLE:
            # No normalisation learns from it where a batch is one picture.
            yield f"imgsz: wanted more than {MULTIPLE}x{MULTIPLE} to train on, of which one pixel is left inside"
