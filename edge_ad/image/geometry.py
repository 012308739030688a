"""Where the model's pixels lie in the frame, for every resize mode."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.image.counted import Counted, MaskArray
from edge_ad.image.frame import Box


@dataclass(frozen=True)
class FrameGeometry:
    """Placement of the resized frame on the model's canvas.

    Model pixel (x, y) shows the frame at ``((x + left) · scale_x, (y + top) · scale_y)``, edges counted, not centres,
    from the corner of the part of the frame that was resized.

    Attributes:
        frame_hw: frame size in pixels.
        model_hw: model input size in pixels.
        resized_hw: size of the whole frame, or of its part `roi`, after the resize, before crop or padding.
        top, left: offset of the canvas in the resized frame; negative where the canvas is padded.
        roi: the part of the frame that was resized, in frame pixels; None for all of it. Where a part was followed that
            has moved, it may reach beyond the frame, whose edge was repeated there.
        counts: what counts of that part; None for all of it.
    """

    frame_hw: tuple[int, int]
    model_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    top: int
    left: int
    roi: Box | None = None
    counts: Counted | None = None

    @property
    def region(self) -> Box:
        """The part of the frame that was resized, in frame pixels: `roi`, or all of it."""
        return self.roi or (0, 0, self.frame_hw[1], self.frame_hw[0])

    @property
    def region_hw(self) -> tuple[int, int]:
        """Rows and columns of `region`."""
        x_min, y_min, x_max, y_max = self.region
        return y_max - y_min, x_max - x_min

    @property
    def scale_y(self) -> float:
        """Frame pixels per model pixel, downwards."""
        return self.region_hw[0] / self.resized_hw[0]

    @property
    def scale_x(self) -> float:
        """Frame pixels per model pixel, to the right."""
        return self.region_hw[1] / self.resized_hw[1]

    @property
    def content_box(self) -> Box:
        """Part of the model's canvas that shows the frame (the rest is padding), in model pixels."""
        rows, columns = self.resized_hw
        height, width = self.model_hw
        return (
            max(0, -self.left),
            max(0, -self.top),
            min(width, columns - self.left),
            min(height, rows - self.top),
        )

    @property
    def is_filled(self) -> bool:
        """Whether the frame fills the model's canvas; else the rest of it is padding."""
        return self.content_box == (0, 0, self.model_hw[1], self.model_hw[0])

    @property
    def is_inside(self) -> bool:
        """Whether all that was resized lies in the frame."""
        return self.seen_region == self.region

    @property
    def is_all(self) -> bool:
        """Whether all of the model's canvas counts: no padding, nothing masked out, nothing beyond the frame."""
        return self.is_filled and self.is_inside and (self.counts is None or self.counts.mask is None)

    @property
    def seen_region(self) -> Box:
        """The part of `region` that lies in the frame."""
        (x_min, y_min, x_max, y_max), (height, width) = self.region, self.frame_hw
        return max(0, x_min), max(0, y_min), min(width, x_max), min(height, y_max)

    @property
    def inspected_box(self) -> Box:
        """Part of the frame that the model sees, in frame pixels, rounded outwards."""
        return self.to_frame(self.content_box)

    @property
    def covers_region(self) -> bool:
        """Whether the model sees all of the frame, or of its part `roi`."""
        return self.inspected_box == self.seen_region

    @property
    def share_outside(self) -> float:
        """Share of the frame, or of its part `roi`, that the model does not see: 0..1."""
        x_min, y_min, x_max, y_max = self.inspected_box
        height, width = self.region_hw
        return 1 - (x_max - x_min) * (y_max - y_min) / (width * height)

    def within(self, frame_hw: tuple[int, int], roi: Box) -> FrameGeometry:
        """The same placement, when what was taken for a frame is the part `roi` of one of `frame_hw` pixels."""
        assert self.roi is None and self.frame_hw == (roi[3] - roi[1], roi[2] - roi[0])
        return replace(self, frame_hw=frame_hw, roi=roi)

    def reduced(self, factor: float) -> FrameGeometry:
        """The same placement for a frame that is `factor` times smaller, rounded to whole pixels."""
        height, width = (max(1, round(side / factor)) for side in self.frame_hw)
        roi = self.roi
        if roi is not None:
            left, top = min(math.floor(roi[0] / factor), width - 1), min(math.floor(roi[1] / factor), height - 1)
            right, bottom = math.ceil(roi[2] / factor), math.ceil(roi[3] / factor)
            if self.is_inside:
                right, bottom = min(right, width), min(bottom, height)
            roi = left, top, max(right, left + 1), max(bottom, top + 1)
        return replace(self, frame_hw=(height, width), roi=roi)

    def to_frame(self, box: Box) -> Box:
        """A box on the model grid in frame pixels: rounded outwards, clipped to `seen_region`."""
        x_min, y_min, x_max, y_max = box
        x_0, y_0 = self.region[:2]
        left, top, right, bottom = self.seen_region
        slack = 1e-6  # keeps a product such as 288 · (1080 / 288) from being rounded up past its exact value
        return (
            max(left, x_0 + math.floor((x_min + self.left) * self.scale_x + slack)),
            max(top, y_0 + math.floor((y_min + self.top) * self.scale_y + slack)),
            min(right, x_0 + math.ceil((x_max + self.left) * self.scale_x - slack)),
            min(bottom, y_0 + math.ceil((y_max + self.top) * self.scale_y - slack)),
        )

    def counted_in(self, box: Box) -> MaskArray | None:
        """(rows, columns) bool of the pixels that count in a box of the frame, in `seen_region`; None where all do."""
        if self.counts is None or self.counts.mask is None:
            return None
        x_0, y_0 = self.region[:2]
        left, top, right, bottom = box
        return self.counts.resampled(self.region_hw)[top - y_0 : bottom - y_0, left - x_0 : right - x_0]

    def counted_pixels(self) -> MaskArray | None:
        """(H, W) bool over the frame of the pixels that count, as they lie there; None where all of them do."""
        part = self.counted_in(self.seen_region)
        if part is None:
            return None
        left, top, right, bottom = self.seen_region
        counted = np.zeros(self.frame_hw, np.bool_)
        counted[top:bottom, left:right] = part
        return counted


def place(spec: PreprocessSpec, frame_hw: tuple[int, int]) -> FrameGeometry:
    """Geometry of a frame of `frame_hw` pixels under `spec`.

    Sizes and offsets are those of torchvision's `Resize(int)` and `CenterCrop`, as in published recipes.
    """
    height, width = frame_hw
    if spec.resize_mode == "stretch":
        resized = spec.size_hw
    elif spec.resize_mode == "letterbox":
        scale = min(spec.height / height, spec.width / width)
        resized = max(1, round(height * scale)), max(1, round(width * scale))
    else:
        shorter = spec.resize if spec.resize is not None else min(spec.size_hw)
        if height <= width:
            resized = shorter, int(shorter * width / height)
        else:
            resized = int(shorter * height / width), shorter
    return FrameGeometry(
        frame_hw=frame_hw,
        model_hw=spec.size_hw,
        resized_hw=resized,
        top=_centre_offset(resized[0], spec.height),
        left=_centre_offset(resized[1], spec.width),
    )


def _centre_offset(n_resized: int, n_model: int) -> int:
    if n_resized >= n_model:
        return round((n_resized - n_model) / 2)  # banker's rounding, as torchvision does
    return -((n_model - n_resized) // 2)
