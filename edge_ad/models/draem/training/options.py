"""Everything that training DRAEM can be told; the defaults are those of the authors' code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from edge_ad.bundle.specs import Filter
from edge_ad.models.draem.config import MULTIPLE, DraemConfig
from edge_ad.models.draem.specs import INPUT, OUTPUT
from edge_ad.models.option_types import NotNegative, Positive, PositiveFloat, Share, option
from edge_ad.models.training.options import TrainOptions
from edge_ad.validation import strict


def _pair(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


@strict
@dataclass(frozen=True, kw_only=True)
class DraemTrainOptions(TrainOptions):
    """Options of `edge-ad train --family draem`.

    Attributes:
        base_width, base_channels: see DraemConfig.
        clean_share: share of the pictures on which nothing is laid.
        turn_share, turn_deg: share of the good pictures that are turned, and by up to how many degrees (paper: 45).
        beta_range: least and largest share of the good picture that shines through a texture, drawn evenly.
        augmentations: how many of ten changes a texture undergoes.
        learning_rate: of Adam.
        schedule: `steps` multiplies the rate by 0.2 after 80 % and 90 % of the epochs, as the authors' code does;
            `text_steps` by 0.1 after 400 and 600 of 700, as the paper's text has it; `cosine` lowers it from the full
            rate to none; `constant` leaves it.
        epoch_images: pictures drawn in an epoch, with replacement; None for as many as there are.
    """

    input_spec = replace(INPUT, channel_order="rgb")
    output_spec = OUTPUT

    filter: Filter = option(
        INPUT.filter, "Of the resize: opencv_bilinear (paper), pillow_bilinear, pillow_bicubic or opencv_area.", "NAME"
    )
    base_width: Annotated[int, Field(gt=0, le=512)] = option(
        DraemConfig.base_width, "Channels of the reconstruction's first block (paper: 128)."
    )
    base_channels: Annotated[int, Field(gt=0, le=512)] = option(
        DraemConfig.base_channels, "Channels of the segmentation's first block (paper: 64)."
    )
    clean_share: Share = option(0.5, "Share of the pictures on which nothing is laid (paper: 0.5).", "X")
    turn_share: Share = option(0.3, "Share of the good pictures that are turned (paper: 0.3).", "X")
    turn_deg: NotNegative = option(90.0, "By up to so many degrees (the authors' code: 90, the paper: 45).", "DEG")
    beta_range: Annotated[tuple[Share, Share], BeforeValidator(_pair)] = option(
        (0.0, 0.8), "Shares of the good picture under a texture, drawn evenly (paper: 0,0.8).", "A,B"
    )
    augmentations: Annotated[int, Field(ge=0, le=10)] = option(3, "Changes of a texture, of ten (paper: 3).")
    learning_rate: PositiveFloat = option(1e-4, "Of Adam (paper: 1e-4).", "X")
    schedule: Literal["steps", "text_steps", "cosine", "constant"] = option(
        "steps", "steps (as published), text_steps (the paper's text), cosine or constant.", "NAME"
    )
    epochs: Positive = option(700, "Epochs (paper: 700).")
    epoch_images: Positive | None = option(None, "Pictures drawn in an epoch (default: as many as there are).")
    select: Literal["best", "last"] = option("last", "Keep the last epoch (paper) or the best.", "RULE")
    eval_every: Annotated[int, Field(ge=0)] = option(
        0, "Epochs between looks at labelled pictures; 0: never (paper: 0)."
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {
            "base_width": 16,
            "base_channels": 16,
            "imgsz": 128,
            "filter": "pillow_bilinear",
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "epochs": 160,
            "epoch_images": 64,
        },
    }

    @property
    def network(self) -> DraemConfig:
        """The networks to train."""
        return DraemConfig(self.base_width, self.base_channels)

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        if self.beta_range[0] > self.beta_range[1]:
            yield f"beta_range: wanted the smaller first, got {list(self.beta_range)}"
        if max(self.imgsz) == MULTIPLE:
            # No normalisation learns from it where the last batch of an epoch is one picture.
            yield f"imgsz: wanted more than {MULTIPLE}x{MULTIPLE} to train on, of which one pixel is left inside"
