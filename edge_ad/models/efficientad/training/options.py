"""Everything that training EfficientAD can be told; the defaults are the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from edge_ad.models.efficientad.config import EfficientAdConfig
from edge_ad.models.efficientad.specs import INPUT, OUTPUT
from edge_ad.models.option_types import NotNegative, Positive, PositiveFloat, option
from edge_ad.models.training.options import TrainOptions
from edge_ad.validation import strict

WHERE_TEACHERS_COME_FROM = (
    "teacher: missing; give --teacher FILE, a patch description network that was trained on ImageNet:"
    " models/teacher_small.pth or teacher_medium.pth of github.com/nelson1425/EfficientAD,"
    " pretrained_teacher_small.pth or pretrained_teacher_medium.pth of anomalib's efficientad_pretrained_weights.zip,"
    " or a checkpoint of EfficientAD, whose teacher is then taken"
)


@strict
@dataclass(frozen=True, kw_only=True)
class EfficientAdTrainOptions(TrainOptions):
    """Options of `edge-ad train --family efficientad`.

    Attributes:
        teacher: state dict of the teacher; it tells S or M.
        penalty: folder of pictures of anything, on which the student shall not follow the teacher; None for no such.
        autoencoder_width: channels of the autoencoder's first layer.
        hard_share: share of the squared differences that the student learns from.
        held_out: share of the good pictures that are not learned from, and give the quantiles.
        learning_rate, weight_decay: of Adam.
        schedule: `steps` divides the rate by 10 after 95 % of the steps; `cosine` lowers it from the full one to none.
        epoch_steps: steps of an epoch; weights are kept and labelled pictures looked at after each epoch.
    """

    input_spec = INPUT
    output_spec = OUTPUT

    teacher: Path | None = option(None, "State dict of a teacher, S or M: required.", "FILE")
    penalty: Path | None = option(None, "Pictures of anything, such as ImageNet's (paper; default: none).", "DIR")
    autoencoder_width: Annotated[int, Field(gt=0, le=512)] = option(
        EfficientAdConfig.autoencoder_width, "Channels of the autoencoder's first layer (paper: 32)."
    )
    hard_share: Annotated[float, Field(gt=0, le=1)] = option(
        0.001, "Share of the differences that the student learns from (paper: 0.001).", "X"
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] = option(
        0.1, "Share of the good pictures that give the quantiles and are not learned from (paper: 0.1).", "X"
    )
    learning_rate: PositiveFloat = option(1e-4, "Of Adam (paper: 1e-4).", "X")
    weight_decay: NotNegative = option(1e-5, "Of Adam (paper: 1e-5).", "X")
    schedule: Literal["steps", "cosine"] = option("steps", "steps (paper) or cosine.", "NAME")
    tile_overlap: Positive = option(64, "Pixels that tiles share (default: 64).")
    batch: Annotated[int, Field(gt=0, le=1024)] = option(1, "Pictures in a step (paper: 1).")
    epochs: Positive = option(70, "Epochs (paper: 70 of 1000 steps).")
    epoch_steps: Positive = option(1000, "Steps of an epoch (paper: 70,000 in all).")
    select: Literal["best", "last"] = option("last", "Keep the last epoch (paper) or the best.", "RULE")
    eval_every: Annotated[int, Field(ge=0)] = option(
        0, "Epochs between looks at labelled pictures; 0: never (paper: 0)."
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "fast": {"learning_rate": 1e-3, "schedule": "cosine", "epochs": 5, "epoch_steps": 60},
    }

    def network_faults(self, faulty: set[str]) -> list[str]:
        return [WHERE_TEACHERS_COME_FROM] if self.teacher is None and "teacher" not in faulty else []
