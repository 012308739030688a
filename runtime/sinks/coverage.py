"""Says once for each camera when the model does not see all of its frame, or of its region of interest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.frame import Box, Frame
from edge_ad.image.geometry import FrameGeometry, place
from edge_ad.record.verdict import Verdict


class CoverageWarning:
    """Warns at the first frame of a camera of which a part is not inspected without anybody having asked for that.

    Args:
        spec: how frames become model inputs.
        say: receives the warning.
        rois: regions of interest by the name of their camera, in frame pixels.
    """

    def __init__(
        self, spec: PreprocessSpec, say: Callable[[str], None], rois: Mapping[str, Box | None] | None = None
    ) -> None:
        self._spec = spec
        self._say = say
        self._rois = rois or {}
        self._said: set[str] = set()

    def __enter__(self) -> CoverageWarning:
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        if frame.source in self._said or frame.image_hwc is None:
            return
        height, width = frame.image_hwc.shape[:2]
        geometry = self._placed(frame.source, (height, width))
        if geometry is None or geometry.covers_region:
            return
        self._said.add(frame.source)
        rows, columns = geometry.region_hw
        x_min, y_min, x_max, y_max = geometry.inspected_box
        self._say(
            f"warning: {frame.source}: {geometry.share_outside:.0%} of the {columns}x{rows}"
            f" {'frame' if geometry.roi is None else 'region of interest'} is outside of the crop and NOT inspected"
            f" (seen: x {x_min}..{x_max}, y {y_min}..{y_max});"
            " train and export with --resize-mode stretch or letterbox to see it all"
        )

    def _placed(self, source: str, frame_hw: tuple[int, int]) -> FrameGeometry | None:
        """The geometry of a frame; None when it does not hold the region of interest, of which its record speaks."""
        roi = self._rois.get(source)
        if roi is None:
            return place(self._spec, frame_hw)
        x_min, y_min, x_max, y_max = roi
        if x_max > frame_hw[1] or y_max > frame_hw[0]:
            return None
        return place(self._spec, (y_max - y_min, x_max - x_min)).within(frame_hw, roi)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None
