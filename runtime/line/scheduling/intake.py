"""What a source gives, as far as the line can trust it: sources may be anybody's code, and cameras send anything."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from edge_ad.errors import ImageError
from edge_ad.image.frame import Frame
from edge_ad.image.preprocess import check_image

NO_PICTURE = "the source gave no picture"


def checked(frame: Frame, now_ns: int) -> Frame:
    """The same frame with a picture (H, W, 3) uint8 or, in place of one, an error.

    A stamp in the future, of another clock, becomes `now_ns` (monotonic): with it the frame would never be late.
    """
    changes: dict[str, Any] = {}
    error = None if frame.error is None else str(frame.error) or NO_PICTURE
    if error is None:
        error = NO_PICTURE if frame.image_hwc is None else _fault(frame.image_hwc)
    if error != frame.error:
        changes["error"] = error
    if error is not None and frame.image_hwc is not None:
        changes["image_hwc"] = None
    if frame.captured_ns > now_ns:
        changes["captured_ns"] = now_ns
    if not (math.isfinite(frame.decode_ms) and frame.decode_ms >= 0):
        changes["decode_ms"] = 0.0
    return replace(frame, **changes) if changes else frame


def _fault(image: object) -> str | None:
    try:
        check_image(image)
    except ImageError as exc:
        return str(exc)
    return None
