"""Frame → model input: the one implementation that training, calibration and the runtime share.

The resize is Pillow's own antialiased bilinear, restricted to the part of the frame that the model sees. Large frames
are cut into horizontal strips that are resized at the same time (Pillow releases the interpreter lock); a strip reads
as many rows beyond its edge as the filter does, so the result does not depend on the number of strips.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edge_ad.errors import ImageError
from edge_ad.frame import ColorOrder, ImageArray
from edge_ad.geometry import FrameGeometry, place
from edge_ad.specs import PreprocessSpec

STRIP_PIXELS = 300_000  # source pixels below which a second thread costs more than it saves (measured on two cores)


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
    """Resize and crop frames as `spec` says. Safe to share between threads.

    Args:
        spec: target size and mode.
        threads: strips that are resized at once; by default the number of processors, four at most.
    """

    def __init__(self, spec: PreprocessSpec, *, threads: int | None = None) -> None:
        self.spec = spec
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

    def close(self) -> None:
        """Stop the strip threads; they start again when they are needed."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _resize(self, image_hwc: ImageArray, geometry: FrameGeometry, out: ImageArray, order: ColorOrder) -> None:
        x_min, y_min, x_max, y_max = geometry.content_box
        columns = _Axis(geometry.frame_hw[1], geometry.resized_hw[1], x_min + geometry.left, x_max + geometry.left)
        source_pixels = (y_max - y_min) * geometry.scale_y * (columns.stop - columns.start)
        n_strips = max(1, min(self.threads, int(source_pixels // STRIP_PIXELS) + 1, y_max - y_min))
        jobs = [
            (image_hwc, columns, _Axis(geometry.frame_hw[0], geometry.resized_hw[0], first, last), out[a:b], order)
            for a, b, first, last in _strips(y_max - y_min, y_min + geometry.top, n_strips)
        ]
        if len(jobs) == 1:
            _resize_strip(*jobs[0])
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="edge-ad-resize")
        others = [self._pool.submit(_resize_strip, *job) for job in jobs[1:]]
        _resize_strip(*jobs[0])
        for other in others:
            other.result()


def check_image(image_hwc: object) -> None:
    """Raise ImageError unless the argument is a non-empty (H, W, 3) uint8 array."""
    if not isinstance(image_hwc, np.ndarray):
        raise ImageError(f"image: got {type(image_hwc).__name__}, wanted a NumPy array (H, W, 3) uint8")
    if image_hwc.ndim != 3 or image_hwc.shape[2] != 3 or image_hwc.dtype != np.uint8 or 0 in image_hwc.shape:
        raise ImageError(
            f"image: got {image_hwc.shape} {image_hwc.dtype}, wanted (H, W, 3) uint8;"
            " repeat a grey image three times, scale other types to 0..255"
        )


@dataclass(frozen=True)
class _Axis:
    """Output samples [first, last) of one resampled axis, and the source samples [start, stop) that they read."""

    n_in: int
    n_out: int
    first: int
    last: int

    @property
    def scale(self) -> float:
        return self.n_in / self.n_out

    @property
    def margin(self) -> float:
        """Reach of the bilinear filter in source samples, and one for rounding."""
        return max(self.scale, 1.0) + 1.0

    @property
    def start(self) -> int:
        return max(0, math.floor(self.first * self.scale - self.margin))

    @property
    def stop(self) -> int:
        return min(self.n_in, math.ceil(self.last * self.scale + self.margin))

    @property
    def span(self) -> tuple[float, float]:
        """Edges of the output samples, counted from `start`."""
        low = self.first * self.scale - self.start
        return max(0.0, low), min(float(self.stop - self.start), self.last * self.scale - self.start)


def _strips(n_rows: int, offset: int, n_strips: int) -> Iterator[tuple[int, int, int, int]]:
    """Rows [a, b) of the output and the same rows [first, last) of the whole resized frame, for each strip."""
    for index in range(n_strips):
        a, b = index * n_rows // n_strips, (index + 1) * n_rows // n_strips
        yield a, b, a + offset, b + offset


def _resize_strip(image_hwc: ImageArray, columns: _Axis, rows: _Axis, out: ImageArray, order: ColorOrder) -> None:
    from PIL import Image

    part = np.ascontiguousarray(image_hwc[rows.start : rows.stop, columns.start : columns.stop])
    # The raw mode swaps the channels while the pixels are unpacked, so BGR frames cost nothing extra.
    picture = Image.frombuffer("RGB", (part.shape[1], part.shape[0]), part, "raw", order.upper(), 0, 1)
    box = (columns.span[0], rows.span[0], columns.span[1], rows.span[1])
    small = picture.resize((columns.last - columns.first, rows.last - rows.first), Image.Resampling.BILINEAR, box=box)
    out[:] = np.asarray(small)


def _step(color_order: ColorOrder) -> int:
    return 1 if color_order == "rgb" else -1
