"""The resize by `resize.c`, which the installation compiles where it can."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
from collections.abc import Callable
from functools import cache, lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

from edge_ad.errors import ImageError, one_line
from edge_ad.image.banded import Banded, resize_taps
from edge_ad.image.frame import ColorOrder, ImageArray
from edge_ad.image.geometry import FrameGeometry

log = logging.getLogger(__name__)

MODULE = "edge_ad.image.resize._resize"
FUNCTION = "edge_ad_resize_1"

BAND_PIXELS = 300_000  # source pixels below which a second thread costs more than it saves (measured on two cores)

KEPT_AXES = 64  # a line has some cameras, each with a part of the picture of its own; a table takes about 10 kB


class _Job(ctypes.Structure):
    """`Job` of resize.c."""

    _fields_ = (
        ("frame", ctypes.c_void_p),
        ("frame_pitch", ctypes.c_ssize_t),
        ("image", ctypes.c_void_p),
        ("image_pitch", ctypes.c_ssize_t),
        ("row_starts", ctypes.c_void_p),
        ("row_weights", ctypes.c_void_p),
        ("column_starts", ctypes.c_void_p),
        ("column_weights", ctypes.c_void_p),
        ("rows", ctypes.c_int32),
        ("row_taps", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("column_taps", ctypes.c_int32),
        ("red", ctypes.c_int32),
    )


class NativeResizer:
    """Resizes with the compiled kernel; safe to share between threads.

    Args:
        function: that of resize.c.
    """

    name = "compiled"

    def __init__(self, function: Callable[[Any], int]) -> None:
        self._function = function

    def parts(
        self, image_hwc: ImageArray, color_order: ColorOrder, geometry: FrameGeometry, out: ImageArray, threads: int
    ) -> list[Callable[[], None]]:
        """See `edge_ad.image.preprocess.Resizer`. The result does not depend on how many parts there are.

        The parts raise ImageError when there is no memory.
        """
        x_min, y_min, x_max, y_max = geometry.content_box
        (frame_rows, frame_columns), (resized_rows, resized_columns) = geometry.frame_hw, geometry.resized_hw
        rows = _taps(frame_rows, resized_rows, y_min + geometry.top, y_max + geometry.top)
        columns = _taps(frame_columns, resized_columns, x_min + geometry.left, x_max + geometry.left)
        if image_hwc.strides[1:] != (3, 1):
            image_hwc = np.ascontiguousarray(image_hwc)
        source_pixels = _reach(rows) * _reach(columns)
        bands = max(1, min(threads, source_pixels // BAND_PIXELS + 1, len(out)))
        edges = np.linspace(0, len(out), bands + 1).astype(int).tolist()
        return [
            partial(self._resize, image_hwc, color_order, _part(rows, first, last), columns, out[first:last])
            for first, last in pairwise(edges)
        ]

    def _resize(
        self, image_hwc: ImageArray, color_order: ColorOrder, rows: Banded, columns: Banded, out: ImageArray
    ) -> None:
        job = _Job(
            frame=image_hwc.ctypes.data,
            frame_pitch=image_hwc.strides[0],
            image=out.ctypes.data,
            image_pitch=out.strides[0],
            row_starts=rows.starts.ctypes.data,
            row_weights=rows.weights.ctypes.data,
            column_starts=columns.starts.ctypes.data,
            column_weights=columns.weights.ctypes.data,
            rows=len(rows.starts),
            row_taps=rows.taps,
            columns=len(columns.starts),
            column_taps=columns.taps,
            red=0 if color_order == "rgb" else 2,
        )
        if self._function(ctypes.byref(job)) != 0:
            height, width = image_hwc.shape[:2]
            raise ImageError(f"image: no memory is left to resize {width}x{height} pixels; close other programs")


@cache
def native_resizer() -> NativeResizer | None:
    """The compiled resize, or None on a machine where it was not compiled or cannot be loaded."""
    try:
        return load_native()
    except OSError as exc:
        log.warning("the compiled resize cannot be loaded (%s): frames are resized with Pillow, slower", one_line(exc))
        return None


def load_native() -> NativeResizer | None:
    """The compiled resize; None where it was not compiled. Raises: OSError when it cannot be loaded."""
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        return None
    function = getattr(ctypes.CDLL(spec.origin), FUNCTION, None)
    if function is None:
        raise OSError(f"{spec.origin} has no function {FUNCTION}")
    function.restype = ctypes.c_int
    function.argtypes = (ctypes.POINTER(_Job),)
    return NativeResizer(function)


@lru_cache(KEPT_AXES)
def _taps(n_in: int, n_out: int, first: int, last: int) -> Banded:
    return resize_taps(n_in, n_out, first, last)


def _part(taps: Banded, first: int, last: int) -> Banded:
    return Banded(taps.starts[first:last], taps.weights[first:last], taps.n_in)


def _reach(taps: Banded) -> int:
    """How many inputs are read."""
    return int(taps.starts[-1]) + taps.taps - int(taps.starts[0])
