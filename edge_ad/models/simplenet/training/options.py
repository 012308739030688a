"""Everything that training SimpleNet can be told; the defaults are those of the authors' code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from edge_ad.models.option_types import NotNegative, Positive, PositiveFloat, option
from edge_ad.models.patch_head.training.options import FAST, HeadTrainOptions
from edge_ad.models.simplenet.specs import OUTPUT
from edge_ad.validation import strict

AdaptorOptimizer = Literal["adamw", "adam"]


@strict
@dataclass(frozen=True, kw_only=True)
class SimpleNetTrainOptions(HeadTrainOptions):
    """Options of `edge-ad train --family simplenet`.

    Attributes:
        noise_std: standard deviation of the Gaussian noise that makes a feature anomalous.
        margin: both kinds of features are to answer beyond it, on their side of 0.
        learning_rate: the adaptor's; the discriminator's is twice that (Adam, decay 1e-5).
        adaptor_optimizer: `adamw` with decay 0.01, as the authors' code has it, or `adam` with decay 1e-5, as the
            paper's text does (section 4.2).
        epochs, rounds: meta-epochs, and how often each goes through the pictures (the authors: 40 of 4).
        amp: half precision for the backbone on CUDA.
    """

    output_spec = OUTPUT

    resize: Positive | None = option(329, "Shorter side before the centre crop (paper: 329).")
    noise_std: PositiveFloat = option(0.015, "Gaussian noise on normal features (paper: 0.015).", "X")
    margin: NotNegative = option(0.5, "Answers beyond it cost nothing (paper: 0.5).", "X")
    learning_rate: PositiveFloat = option(1e-4, "Adaptor's; the discriminator's is twice that (paper: 1e-4).", "X")
    adaptor_optimizer: AdaptorOptimizer = option(
        "adamw", "adamw (the authors' code, decay 0.01) or adam (the paper's text, decay 1e-5).", "NAME"
    )
    batch: Annotated[int, Field(gt=0, le=1024)] = option(8, "Pictures in a step (paper: 8).")
    epochs: Positive = option(40, "Meta-epochs (paper: 40).")
    rounds: Positive = option(4, "Times that a meta-epoch goes through the pictures (paper: 4).")
    select: Literal["best", "last"] = option("best", "Keep the best epoch (paper, by labels) or the last.", "RULE")
    amp: bool = option(True, "Half precision for the backbone on CUDA (default: yes).", off="no-amp")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}, "fast": {**FAST, "resize": 256}}

    @classmethod
    def preset_values(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        values = super().preset_values(given)
        if "imgsz" in given:
            values["resize"] = None  # that of another size
        return values
