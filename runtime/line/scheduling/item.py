"""What one sink is to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict


@dataclass(frozen=True)
class Item:
    """What one sink is to write: a frame with its verdict, or an event (no frame)."""

    entry: Mapping[str, Any]
    frame: Frame | None = None
    verdict: Verdict | None = None
    may_lose: bool = True

    @property
    def has_picture(self) -> bool:
        return self.frame is not None and self.frame.image_hwc is not None


def without_picture(item: Item) -> Item:
    """The same without picture and maps."""
    if item.frame is None or item.verdict is None:
        return item
    frame = item.frame if item.frame.image_hwc is None else replace(item.frame, image_hwc=None)
    verdict = item.verdict if item.verdict.maps is None else replace(item.verdict, maps=None)
    return replace(item, frame=frame, verdict=verdict)
