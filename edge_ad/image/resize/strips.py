"""The resize by Pillow, restricted to the part of the frame that the model sees.

Large frames are cut into horizontal strips that are resized at the same time (Pillow releases the interpreter lock); a
strip reads as many rows beyond its edge as the filter does, so the result does not depend on the number of strips.
Columns are resized before rows, as Pillow did for every picture until version 12; newer ones turn that round for some
tall pictures, which moves pixels by one grey level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np

from edge_ad.image.frame import ColorOrder, ImageArray
from edge_ad.image.geometry import FrameGeometry

STRIP_PIXELS = 300_000  # source pixels below which a second thread costs more than it saves (measured on two cores)

MAX_STRIPS = 4
CHEAP_PIXELS = 1_000_000  # resized in about 3 ms
MAX_WIDENING = 1.2


class PillowResizer:
    """Resizes with Pillow; safe to share between threads."""

    name = "Pillow"

    def parts(
        self, image_hwc: ImageArray, color_order: ColorOrder, geometry: FrameGeometry, out: ImageArray, threads: int
    ) -> list[Callable[[], None]]:
        """See `edge_ad.image.preprocess.Resizer`.

        How many parts there are depends on the frame alone, so that every machine computes the same.
        """
        x_min, y_min, x_max, y_max = geometry.content_box
        rows, columns = _spans(
            geometry,
            (y_min + geometry.top, y_max + geometry.top),
            (x_min + geometry.left, x_max + geometry.left),
        )
        source_pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
        strips = rows.divided(min(MAX_STRIPS, source_pixels // STRIP_PIXELS + 1))
        return [
            partial(_resize_strip, image_hwc, columns, strip, out[strip.first - rows.first :], color_order)
            for strip in strips
        ]


@dataclass(frozen=True)
class _Span:
    """Output samples [first, last) of one resampled axis; `low` to `high` of them are computed, then cropped.

    `low` and `high` are the next multiples of `step`.
    """

    n_in: int
    n_out: int
    first: int
    last: int
    step: int

    @property
    def low(self) -> int:
        return self.first // self.step * self.step

    @property
    def high(self) -> int:
        return -(-self.last // self.step) * self.step

    @property
    def start(self) -> int:
        """First source sample that the filter can reach, rounding allowed for."""
        return max(0, math.floor(self.low * self.n_in / self.n_out - self._reach))

    @property
    def stop(self) -> int:
        """Behind the last source sample that the filter can reach."""
        return min(self.n_in, math.ceil(self.high * self.n_in / self.n_out + self._reach))

    @property
    def edges(self) -> tuple[float, float]:
        """Edges of the samples `low` to `high` in the source, counted from `start`."""
        low, high = (sample * self.n_in / self.n_out - self.start for sample in (self.low, self.high))
        return low, min(high, float(self.stop - self.start))

    @property
    def kept(self) -> slice:
        """The samples first to last among those from `low` to `high`."""
        return slice(self.first - self.low, self.last - self.low)

    @property
    def _reach(self) -> float:
        return max(self.n_in / self.n_out, 1.0) + 1.0

    def divided(self, parts: int) -> list[_Span]:
        """Up to `parts` spans of about the same length that meet at exact edges."""
        length = self.last - self.first
        inner = {round((self.first + part * length / parts) / self.step) * self.step for part in range(1, parts)}
        cuts = [self.first, *sorted(cut for cut in inner if self.first < cut < self.last), self.last]
        return [replace(self, first=a, last=b) for a, b in pairwise(cuts)]


def _spans(geometry: FrameGeometry, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[_Span, _Span]:
    """What to compute of each axis.

    Pillow keeps the edges of the box that it resizes in single precision, so a box whose edges need more bits gives
    another grey level in about one of 30,000 values than resizing everything and cropping does. Where it costs little,
    what is computed is therefore widened to samples whose edges in the source are whole 256ths.
    """
    exact, chosen = [], []
    for n_in, n_out, (first, last) in zip(geometry.frame_hw, geometry.resized_hw, (rows, columns), strict=True):
        span = _Span(n_in, n_out, first, last, n_out // math.gcd(n_in * 256, n_out))
        cheap = span.high - span.low <= MAX_WIDENING * (last - first)
        exact.append(span)
        chosen.append(span if cheap else replace(span, step=1))
    if _work(*exact) <= CHEAP_PIXELS:
        chosen = exact
    return chosen[0], chosen[1]


def _work(rows: _Span, columns: _Span) -> int:
    """Source pixels read, and pixels between the two passes."""
    source_rows = rows.stop - rows.start
    return source_rows * (columns.stop - columns.start) + source_rows * (columns.high - columns.low)


def _resize_strip(image_hwc: ImageArray, columns: _Span, rows: _Span, out: ImageArray, order: ColorOrder) -> None:
    from PIL import Image

    part = np.ascontiguousarray(image_hwc[rows.start : rows.stop, columns.start : columns.stop])
    # The raw mode swaps the channels while the pixels are unpacked, so BGR frames cost nothing extra.
    picture = Image.frombuffer("RGB", (part.shape[1], part.shape[0]), part, "raw", order.upper(), 0, 1)
    width, height = columns.high - columns.low, rows.high - rows.low
    left, right = columns.edges
    narrow = picture.resize((width, len(part)), Image.Resampling.BILINEAR, box=(left, 0, right, len(part)))
    top, bottom = rows.edges
    small = narrow.resize((width, height), Image.Resampling.BILINEAR, box=(0, top, width, bottom))
    out[: rows.last - rows.first] = np.asarray(small)[rows.kept, columns.kept]
