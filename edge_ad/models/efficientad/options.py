"""What a user says about an EfficientAD network that was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_ad.models.efficientad.config import MapPadding
from edge_ad.models.option_types import option
from edge_ad.models.references import ReferenceOptions
from edge_ad.validation import strict


@strict
@dataclass(frozen=True, kw_only=True)
class EfficientAdOptions(ReferenceOptions):
    """Options of `edge-ad export` for EfficientAD; None is read from the checkpoint.

    Attributes:
        teacher, autoencoder: beside a checkpoint that holds the student alone; by default found beside it.
        map_padding: when the map is padded: after it was scaled, before, or not at all.
    """

    teacher: Path | None = option(
        None, "State dict of the teacher, where CHECKPOINT is the student's (default: beside it).", "FILE"
    )
    autoencoder: Path | None = option(None, "State dict of the autoencoder, likewise.", "FILE")
    map_padding: MapPadding | None = option(
        None, "after the map is scaled (nelson1425), before (anomalib) or none (default: as the checkpoint).", "WHEN"
    )
