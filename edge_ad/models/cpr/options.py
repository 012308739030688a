"""What a user says about a CPR network that was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from edge_ad.models.cpr.config import BankType, ForegroundChoice, RetrievalDistance
from edge_ad.models.option_types import Name, Names, Positive, option
from edge_ad.models.references import ReferenceOptions
from edge_ad.validation import strict

REFERENCE_COUNT = 32
"""Pictures in the bank where nobody says how many: 8.2 MB each at 320², of which more make files large, not slow."""


def _numbers(value: object) -> object:
    return tuple(value.split(",")) if isinstance(value, str) else value


def _odd(sides: tuple[int, int]) -> tuple[int, int]:
    if not all(side % 2 for side in sides):
        raise ValueError("wanted odd numbers, such as 3,1")
    return sides


Windows = Annotated[
    tuple[Annotated[int, Field(gt=0, le=15)], Annotated[int, Field(gt=0, le=15)]],
    BeforeValidator(_numbers),
    AfterValidator(_odd),
]
"""Sides of two search windows, `3,1` or [3, 1]."""
KeptShare = Annotated[float, Field(gt=0, le=1)]


@strict
@dataclass(frozen=True, kw_only=True)
class CprOptions(ReferenceOptions):
    """Options of `edge-ad export` for CPR; None is read from the checkpoint, or else the authors' setting.

    Attributes:
        references: training pictures, which the authors' checkpoints do not hold.
        reference_count: how many of them the bank holds, chosen so that every other one looks like one of them.
        backbone, backbone_weights, layers: the frozen network and its taps, see CprConfig.
        nearest, retrieval_distance, retrieval_share, search_windows, metric: see CprConfig.
        foreground: whether the map counts on the object alone; `auto` where one is found.
        bank: numbers that the bank is kept in.
    """

    reference_count: Positive | None = option(
        None, f"Pictures in the bank (default: all of the checkpoint's, else at most {REFERENCE_COUNT})."
    )
    backbone: Name | None = option(None, "torchvision network, or timm:<name> (default: densenet201).", "NAME")
    backbone_weights: Path | None = option(
        None, "State dict of the backbone, or packaged (default: the checkpoint's, else torchvision's).", "FILE"
    )
    layers: Names | None = option(None, "Two layers, at 1/4 and 1/8 of the picture (default: by backbone).", "A,B")
    nearest: Positive | None = option(None, "Pictures that a picture is compared with (default: 10).")
    retrieval_distance: RetrievalDistance | None = option(None, "Of histograms: kl (default) or l2.", "NAME")
    retrieval_share: KeptShare | None = option(
        None, "Share of the blocks that count in it, those most alike (default: 0.8).", "X"
    )
    search_windows: Windows | None = option(None, "Sides of the two search windows (default: 3,1).", "A,B")
    foreground: ForegroundChoice = option(
        "auto", "Weigh the map by the object: auto (default, where one is found), on or off (textures).", "RULE"
    )
    metric: bool | None = option(None, "Compare by the metric network (default), or taps as they are.", off="no-metric")
    bank: BankType = option("float32", "Numbers of the bank: float32 (default), float16 or int8.", "TYPE")


KNOWN_LAYERS = {
    "densenet121": ("features.denseblock1", "features.denseblock2"),
    "densenet161": ("features.denseblock1", "features.denseblock2"),
    "densenet169": ("features.denseblock1", "features.denseblock2"),
    "densenet201": ("features.denseblock1", "features.denseblock2"),
    "efficientnet_b0": ("features.2", "features.3"),
    "mobilenet_v2": ("features.3", "features.6"),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "wide_resnet50_2"), ("layer1", "layer2")),
}
"""Taps at 1/4 and 1/8 of the picture, by backbone."""


def layer_faults(layers: tuple[str, ...] | None, backbone: str) -> list[str]:
    """What is wrong with taps, each with its key."""
    if layers is None:
        if backbone in KNOWN_LAYERS:
            return []
        return [f"layers: none are known for {backbone!r}; give two, at 1/4 and 1/8 of the picture"]
    if len(layers) != 2 or layers[0] == layers[1]:
        return [f"layers: wanted two, the finer one first, got {', '.join(layers)}"]
    return []
