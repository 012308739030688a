"""Where the model's pixels lie in the frame, for every resize mode."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_ad.frame import Box
from edge_ad.specs import PreprocessSpec


@dataclass(frozen=True)
class FrameGeometry:
    """Placement of the resized frame on the model's canvas.

    Model pixel (x, y) shows the frame at ``((x + left) · scale_x, (y + top) · scale_y)``, edges counted, not centres.

    Attributes:
        frame_hw: frame size in pixels.
        model_hw: model input size in pixels.
        resized_hw: size of the whole frame after the resize, before crop or padding.
        top, left: offset of the canvas in the resized frame; negative where the canvas is padded.
    """

    frame_hw: tuple[int, int]
    model_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    top: int
    left: int

    @property
    def scale_y(self) -> float:
        """Frame pixels per model pixel, downwards."""
        return self.frame_hw[0] / self.resized_hw[0]

    @property
    def scale_x(self) -> float:
        """Frame pixels per model pixel, to the right."""
        return self.frame_hw[1] / self.resized_hw[1]

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
    def inspected_box(self) -> Box:
        """Part of the frame that the model sees, in frame pixels, rounded outwards."""
        return self.to_frame(self.content_box)

    @property
    def covers_frame(self) -> bool:
        return self.inspected_box == (0, 0, self.frame_hw[1], self.frame_hw[0])

    def to_frame(self, box: Box) -> Box:
        """A box on the model grid in frame pixels: rounded outwards, clipped to the frame."""
        x_min, y_min, x_max, y_max = box
        height, width = self.frame_hw
        slack = 1e-6  # keeps a product such as 288 · (1080 / 288) from being rounded up past its exact value
        return (
            max(0, math.floor((x_min + self.left) * self.scale_x + slack)),
            max(0, math.floor((y_min + self.top) * self.scale_y + slack)),
            min(width, math.ceil((x_max + self.left) * self.scale_x - slack)),
            min(height, math.ceil((y_max + self.top) * self.scale_y - slack)),
        )


def place(spec: PreprocessSpec, frame_hw: tuple[int, int]) -> FrameGeometry:
    """Geometry of a frame of `frame_hw` pixels under `spec`.

    Sizes and offsets are those of torchvision's `Resize(int)` and `CenterCrop`, which GLASS is trained with.
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
