"""Frames that a capture hands over as they were sent: JPEGs, decoded here so that damage is seen.

FFmpeg completes a torn JPEG with the frame before it, V4L2's decoder with grey, and neither tells; a frame of another
size is scaled to that of the first. Of codecs that build frames on one another OpenCV lets nothing of this be known.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from edge_ad.errors import ImageError
from edge_ad.image.frame import ImageArray
from edge_ad.image.jpeg import decode_jpeg
from edge_ad.image.jpeg_marks import START, picture_end

Decoder = Callable[[Any], ImageArray]
"""What a capture retrieved → (H, W, 3) uint8 BGR. Raises: ImageError."""

SECOND_FIELD = 64  # bytes behind the first field in which the second begins

_JPEG_CODES = frozenset({"MJPG", "JPEG"})
_QUARTER_TURNS = {90: 3, 180: 2, 270: 1}  # of OpenCV's orientation, clockwise, to NumPy's, counter-clockwise


class Capture(Protocol):
    """The part of `cv2.VideoCapture` in use."""

    def isOpened(self) -> bool: ...  # noqa: N802 - OpenCV's name
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...
    def get(self, prop: int) -> float: ...
    def set(self, prop: int, value: float) -> bool: ...
    def release(self) -> None: ...


def packets_of_file(cv2: ModuleType, capture: Capture) -> Decoder | None:
    """Let an open capture of FFmpeg give packets, where they are JPEGs; to be called before the first frame.

    Returns: what decodes them, turned as the file asks for; None where the capture goes on giving pixels.
    """
    if _code(cv2, capture) not in _JPEG_CODES:
        return None
    turns = _QUARTER_TURNS.get(orientation(cv2, capture), 0)
    if not capture.set(cv2.CAP_PROP_FORMAT, -1):
        return None

    def decode(packet: Any) -> ImageArray:
        return np.ascontiguousarray(np.rot90(bgr_of_packet(packet), turns))

    return decode


def packets_of_camera(cv2: ModuleType, capture: Capture) -> Decoder | None:
    """Let a camera that sends JPEGs give them as they are; None where the driver gives pixels or does not do so."""
    if _code(cv2, capture) not in _JPEG_CODES or not capture.set(cv2.CAP_PROP_CONVERT_RGB, 0):
        return None
    return bgr_of_packet


def orientation(cv2: ModuleType, capture: Capture) -> int:
    """How far a file asks its frames to be turned, clockwise, in degrees; OpenCV does so itself, but for packets."""
    degrees = capture.get(cv2.CAP_PROP_ORIENTATION_META)
    return int(degrees) % 360 if degrees in (90, 180, 270) else 0


def bgr_of_packet(packet: Any) -> ImageArray:
    """One JPEG of a stream as (H, W, 3) uint8 BGR; pixels pass as they are.

    Args:
        packet: (1, N), (N, 1) or (N,) uint8, or None; some drivers give pixels where they were asked for bytes.

    Raises: ImageError when it is no JPEG, damaged, or two pictures at once: the fields of interlaced video.
    """
    if packet is None or packet.size == 0:
        raise ImageError("cannot be decoded: an empty packet")
    if packet.dtype == np.uint8 and packet.ndim == 3 and packet.shape[2] == 3:
        return np.ascontiguousarray(packet)
    data = packet.tobytes()
    image, head = decode_jpeg(data, "bgr")
    if data.find(START, head.first_scan) >= 0:  # never in coded data; a driver may leave an old frame far behind it
        end = picture_end(data, head)
        if data.find(START, end, end + SECOND_FIELD) >= 0:
            raise ImageError("two JPEGs in one frame (interlaced video); wanted progressive frames, convert the video")
    return image


def _code(cv2: ModuleType, capture: Capture) -> str:
    """The four letters of the codec, in capitals; empty where the capture does not say."""
    number = capture.get(cv2.CAP_PROP_FOURCC)
    return int(number).to_bytes(4, "little").decode("latin-1").upper() if 0 < number < 1 << 32 else ""
