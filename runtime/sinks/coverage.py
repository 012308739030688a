"""Says once when the model does not see the whole frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from edge_ad.frame import Frame
from edge_ad.geometry import FrameGeometry
from edge_ad.verdict import Verdict


class CoverageWarning:
    """Warns at the first frame of which a part is not inspected.

    Args:
        place: geometry for a frame size.
        say: receives the warning.
    """

    def __init__(self, place: Callable[[tuple[int, int]], FrameGeometry], say: Callable[[str], None]) -> None:
        self._place = place
        self._say = say
        self._said = False

    def __enter__(self) -> CoverageWarning:
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        if self._said or frame.image_hwc is None:
            return
        height, width = frame.image_hwc.shape[:2]
        geometry = self._place((height, width))
        if geometry.covers_frame:
            return
        self._said = True
        x_min, y_min, x_max, y_max = geometry.inspected_box
        share = 1 - (x_max - x_min) * (y_max - y_min) / (width * height)
        self._say(
            f"warning: {share:.0%} of the {width}x{height} frame is outside of the crop and NOT inspected"
            f" (seen: x {x_min}..{x_max}, y {y_min}..{y_max});"
            " train and export with --resize-mode stretch or letterbox to see it all"
        )

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None
