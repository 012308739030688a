"""Options of `edge-ad learn`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ad.calibration.agreement.tolerances import Share
from edge_ad.calibration.destination import ChangedBundle
from edge_ad.errors import ConfigError
from edge_ad.validation import build_rest, strict

MAX_RECALL_DROP = 0.02


@strict
@dataclass(frozen=True, kw_only=True)
class LearnOptions(ChangedBundle):
    """What a bundle is to learn, or to forget.

    Attributes:
        good: folder of good pictures that were falsely rejected.
        bad: folder of defective pictures that the cost is measured on; None leaves it unmeasured.
        undo: lesson to take back, in place of learning.
        max_recall_drop: share of the defective pictures that may fall below the threshold by it.
        engine: that pictures are judged with.
        engine_cache: folder for compiled models; the user's cache folder when None.
    """

    good: Path | None = None
    bad: Path | None = None
    undo: str | None = None
    max_recall_drop: Share = MAX_RECALL_DROP
    engine: str = "openvino"
    engine_cache: Path | None = None


def learn_options(values: dict[str, Any], where: str) -> LearnOptions:
    """Check options by name; None is the same as not given. Raises: ConfigError with every fault."""
    given = {key: value for key, value in values.items() if value is not None}
    options, wrong = build_rest(LearnOptions, given, {"bundle": Path()})
    faults = [fault.line for fault in wrong]
    faults += options.destination_faults()
    if ("good" in given) == ("undo" in given):
        faults.append("good: wanted either --good DIR, pictures that were falsely rejected, or --undo ID")
    elif "undo" in given:
        faults += [f"{key}: belongs to --good; leave it out" for key in ("bad", "max_recall_drop") if key in given]
    if faults:
        raise ConfigError(where, faults)
    return options
