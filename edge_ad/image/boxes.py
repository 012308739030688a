"""Boxes in frames: left, top, right, bottom in pixels, maxima exclusive."""

from __future__ import annotations

import numpy as np

from edge_ad.errors import ImageError
from edge_ad.image.frame import Box, ImageArray


def whole(frame_hw: tuple[int, int]) -> Box:
    """All of a frame, as a box."""
    return 0, 0, frame_hw[1], frame_hw[0]


def check_box(roi: Box, frame_hw: tuple[int, int]) -> None:
    """Raise ImageError for a region of interest that a frame does not hold."""
    if not (roi[0] < roi[2] and roi[1] < roi[3] and holds(frame_hw, roi)):
        raise ImageError(
            f"region of interest {list(roi)} (left, top, right, bottom) lies outside of the"
            f" {frame_hw[1]}x{frame_hw[0]} frame; correct roi or the camera's resolution"
        )


def cropped(image_hwc: ImageArray, box: Box) -> ImageArray:
    """A box of a frame: a view of it; where it reaches beyond the frame, a copy with the frame's edge repeated."""
    height, width = image_hwc.shape[:2]
    x_min, y_min, x_max, y_max = box
    if holds((height, width), box):
        return image_hwc[y_min:y_max, x_min:x_max]
    # A box that lies wholly beyond an edge shows nothing but that edge.
    left, right = (min(max(x, low), high) for x, low, high in ((x_min, 0, width - 1), (x_max, 1, width)))
    top, bottom = (min(max(y, low), high) for y, low, high in ((y_min, 0, height - 1), (y_max, 1, height)))
    import cv2

    border = max(0, top - y_min), max(0, y_max - bottom), max(0, left - x_min), max(0, x_max - right)
    inner = image_hwc[top:bottom, left:right]
    return np.asarray(cv2.copyMakeBorder(inner, *border, cv2.BORDER_REPLICATE), np.uint8)


def holds(frame_hw: tuple[int, int], box: Box) -> bool:
    """Whether all of a box lies in a frame."""
    return box[0] >= 0 and box[1] >= 0 and box[2] <= frame_hw[1] and box[3] <= frame_hw[0]


def moved(box: Box, dx: int, dy: int) -> Box:
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy
