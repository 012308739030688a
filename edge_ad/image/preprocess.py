"""Frame → model input: the one implementation that training, calibration and the runtime share.

The resize is that of the spec, in most models Pillow's antialiased bilinear; `edge_ad.image.resize` computes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_ad.bundle.specs import Filter, PreprocessSpec
from edge_ad.errors import ImageError
from edge_ad.image.frame import ColorOrder, ImageArray
from edge_ad.image.geometry import FrameGeometry, place
from edge_ad.image.resize.native import native_resizer
from edge_ad.image.resize.strips import PillowResizer
from edge_ad.image.resize.whole import WholeFrameResizer


class Resizer(Protocol):
    """A way to resize.

    Attributes:
        name: what computes.
    """

    name: str

    def parts(
        self, image_hwc: ImageArray, color_order: ColorOrder, geometry: FrameGeometry, out: ImageArray, threads: int
    ) -> list[Callable[[], None]]:
        """Work that may be done at the same time, and in any order; each piece fills some rows of `out`.

        Args:
            image_hwc: (H, W, 3) uint8 in `color_order`, which stays as it is until the work is done.
            geometry: which part of the resized frame is wanted: its `content_box`.
            out: (rows, columns, 3) uint8 RGB, of the size of that box.
            threads: how many there are to do the work.
        """


@dataclass(frozen=True)
class ModelInput:
    """A frame as the model wants it.

    Attributes:
        image_hwc: (height, width, 3) uint8 RGB at model size, C-contiguous, newly allocated.
        geometry: where its pixels lie in the frame.
    """

    image_hwc: ImageArray
    geometry: FrameGeometry


class Preprocessor:
    """Resize and crop frames as `spec` says; for one caller at a time.

    Args:
        spec: target size and mode.
        threads: how many resize at once; by default the number of processors, four at most. The result does not
            depend on it.
        resizer: what resizes; by default the compiled kernel, and Pillow where that is not there.
    """

    def __init__(self, spec: PreprocessSpec, *, threads: int | None = None, resizer: Resizer | None = None) -> None:
        self.spec = spec
        self.resizer: Resizer = resizer or chosen_resizer(spec.filter)
        self.threads = threads or min(4, os.cpu_count() or 1)
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, image_hwc: ImageArray, color_order: ColorOrder = "rgb") -> ModelInput:
        """Make the model input from a frame.

        Args:
            image_hwc: (H, W, 3) uint8 in `color_order`.
            color_order: `rgb` (Pillow) or `bgr` (OpenCV).

        Raises: ImageError when the array is no such image.
        """
        check_image(image_hwc)
        if color_order not in ("rgb", "bgr"):
            raise ImageError(f"color_order: got {color_order!r}, wanted 'rgb' or 'bgr'")
        geometry = place(self.spec, (image_hwc.shape[0], image_hwc.shape[1]))
        x_min, y_min, x_max, y_max = geometry.content_box
        whole = (x_max - x_min, y_max - y_min) == (self.spec.width, self.spec.height)
        canvas = np.empty((*self.spec.size_hw, 3), np.uint8)
        if not whole:
            canvas[:] = self.spec.pad_rgb
        content = canvas[y_min:y_max, x_min:x_max]
        if geometry.resized_hw == geometry.frame_hw:
            top, left = y_min + geometry.top, x_min + geometry.left
            content[:] = image_hwc[top : top + len(content), left : left + content.shape[1], :: _step(color_order)]
        else:
            self._resize(image_hwc, geometry, content, color_order)
        return ModelInput(canvas, geometry)

    @property
    def resizes_with(self) -> str:
        """What resizes, by name."""
        return self.resizer.name

    def close(self) -> None:
        """Stop the threads that resize; they start again when they are needed."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _resize(self, image_hwc: ImageArray, geometry: FrameGeometry, out: ImageArray, order: ColorOrder) -> None:
        parts = self.resizer.parts(image_hwc, order, geometry, out, self.threads)
        own = -(-len(parts) // self.threads)
        if own == len(parts):
            others = []
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="edge-ad-resize")
            others = [self._pool.submit(part) for part in parts[own:]]
        for part in parts[:own]:
            part()
        for other in others:
            other.result()


def chosen_resizer(filter: Filter = "pillow_bilinear") -> Resizer:
    """What resizes on this machine: of Pillow's bilinear the compiled kernel, or Pillow where that is not there."""
    if filter != "pillow_bilinear":
        return WholeFrameResizer(filter)
    return native_resizer() or PillowResizer()


def check_image(image_hwc: object) -> None:
    """Raise ImageError unless the argument is a non-empty (H, W, 3) uint8 array."""
    if not isinstance(image_hwc, np.ndarray):
        raise ImageError(f"image: got {type(image_hwc).__name__}, wanted a NumPy array (H, W, 3) uint8")
    if image_hwc.ndim != 3 or image_hwc.shape[2] != 3 or image_hwc.dtype != np.uint8 or 0 in image_hwc.shape:
        raise ImageError(
            f"image: got {image_hwc.shape} {image_hwc.dtype}, wanted (H, W, 3) uint8;"
            " repeat a grey image three times, scale other types to 0..255"
        )


def _step(color_order: ColorOrder) -> int:
    return 1 if color_order == "rgb" else -1
