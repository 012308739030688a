"""A captured frame: what every source hands to the runtime."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
ColorOrder = Literal["rgb", "bgr"]
Box = tuple[int, int, int, int]
"""x_min, y_min, x_max, y_max in pixels; the maxima are exclusive."""


@dataclass(frozen=True)
class Truth:
    """What is known to be in a frame (simulated lines, labelled data)."""

    anomalous: bool
    boxes_xyxy: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Frame:
    """One captured frame, or the record that capturing it failed.

    Attributes:
        frame_id: counts captured frames of one source from 0; failed ones count too.
        source: name of the source as given by the user, credentials removed.
        captured_at: wall-clock time of capture, UTC.
        captured_ns: `time.monotonic_ns()` at capture; deadlines count from here.
        image_hwc: (H, W, 3) uint8 in `color_order`, owned by the frame; None when `error` is set.
        color_order: order of the three channels.
        decode_ms: time spent in grabbing and decoding.
        path: file of the frame, for sources that read files.
        error: why there is no image; None for a good frame.
        truth: ground truth, where the source knows it.
        part_id: the part that it was captured for, where somebody announced one.
    """

    frame_id: int
    source: str
    captured_at: datetime
    captured_ns: int
    image_hwc: ImageArray | None
    color_order: ColorOrder = "rgb"
    decode_ms: float = 0.0
    path: str | None = None
    error: str | None = None
    truth: Truth | None = None
    part_id: str | None = None


class FrameSource(Protocol):
    """Where frames come from. Nothing is opened before `__enter__`.

    Attributes:
        name: what the user asked for, credentials removed.
        live: True when frames arrive by the clock and must be taken or lost; False when the source waits.
        length: number of frames, where it is known before reading.
    """

    name: str
    live: bool
    length: int | None

    def __enter__(self) -> FrameSource:
        """Open the source. Raises: SourceError when it gives no frame."""
        ...

    def __exit__(self, *exc_info: object) -> None: ...

    def read(self) -> Frame | None:
        """Next frame (blocking until there is one), or None at the end of the source.

        A frame that cannot be decoded is returned with `error` set; the frames behind it go on.

        Raises: SourceError when a live source stops delivering.
        """
        ...
