"""Resizes that look at the whole frame at once: OpenCV's, and Pillow's bicubic, as some detectors are trained with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from edge_ad.bundle.specs import Filter
from edge_ad.image.frame import ColorOrder, ImageArray
from edge_ad.image.geometry import FrameGeometry


class WholeFrameResizer:
    """Resizes all of a frame and takes the part that is wanted; safe to share between threads.

    Args:
        filter: any but Pillow's bilinear, which has a faster way.
    """

    def __init__(self, filter: Filter) -> None:
        self.name = FILTERS[filter][0]
        self._resize = FILTERS[filter][1]

    def parts(
        self, image_hwc: ImageArray, color_order: ColorOrder, geometry: FrameGeometry, out: ImageArray, threads: int
    ) -> list[Callable[[], None]]:
        """See `edge_ad.image.preprocess.Resizer`; there is one part."""
        return [partial(self._fill, image_hwc, color_order, geometry, out)]

    def _fill(self, image_hwc: ImageArray, color_order: ColorOrder, geometry: FrameGeometry, out: ImageArray) -> None:
        x_0, y_0, x_1, y_1 = geometry.region
        resized = self._resize(np.ascontiguousarray(image_hwc[y_0:y_1, x_0:x_1]), geometry.resized_hw)
        x_min, y_min, x_max, y_max = geometry.content_box
        part = resized[y_min + geometry.top : y_max + geometry.top, x_min + geometry.left : x_max + geometry.left]
        out[:] = part if color_order == "rgb" else part[:, :, ::-1]


def _opencv(interpolation: str, image_hwc: ImageArray, size_hw: tuple[int, int]) -> Any:
    import cv2

    return cv2.resize(image_hwc, (size_hw[1], size_hw[0]), interpolation=getattr(cv2, interpolation))


def _pillow_bicubic(image_hwc: ImageArray, size_hw: tuple[int, int]) -> Any:
    from PIL import Image

    return np.asarray(Image.fromarray(image_hwc).resize((size_hw[1], size_hw[0]), Image.Resampling.BICUBIC))


FILTERS: dict[Filter, tuple[str, Callable[[ImageArray, tuple[int, int]], Any]]] = {
    "pillow_bicubic": ("Pillow, bicubic", _pillow_bicubic),
    "opencv_bilinear": ("OpenCV, bilinear", partial(_opencv, "INTER_LINEAR")),
    "opencv_area": ("OpenCV, area", partial(_opencv, "INTER_AREA")),
}
