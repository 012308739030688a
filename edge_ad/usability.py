"""Frames that show nothing: they must never be reported as normal, nor must anything be measured on them."""

from __future__ import annotations

import numpy as np

from edge_ad.frame import ImageArray
from edge_ad.preprocess import ModelInput

DARK_LEVEL = 10  # grey levels; sensor noise of a covered lens stays below, the darkest usable scene is far above
BRIGHT_LEVEL = 245
SHARE = 0.999  # of the pixels; the rest may be hot or dead ones
SAMPLING = 3  # every third pixel in both directions is plenty to tell black from not black


def unusable_reason(image_hwc: ImageArray) -> str | None:
    """Why a picture cannot be judged, or None.

    Args:
        image_hwc: (H, W, 3) uint8, at model size.

    A picture is black or saturated when 99.9 % of it is, and flat when all of it has one colour (no signal, the green
    frame of a broken stream).
    """
    sample = np.ascontiguousarray(image_hwc[::SAMPLING, ::SAMPLING])
    red, green, blue = sample[..., 0], sample[..., 1], sample[..., 2]  # reducing along an axis of three is slow
    most = (1 - SHARE) * red.size
    if np.count_nonzero(np.maximum(np.maximum(red, green), blue) >= DARK_LEVEL) <= most:
        return "the frame is black; check lens cover, lighting and exposure"
    if np.count_nonzero(np.minimum(np.minimum(red, green), blue) <= BRIGHT_LEVEL) <= most:
        return "the frame is saturated; check lighting and exposure"
    if bool((sample == sample[0, 0]).all()):
        return "the frame has one colour only; check the camera and its signal"
    return None


def unusable_input(model_input: ModelInput) -> str | None:
    """Why a frame cannot be judged, or None.

    Only what shows the frame counts: padding is neither dark nor bright nor a second colour.
    """
    x_min, y_min, x_max, y_max = model_input.geometry.content_box
    return unusable_reason(model_input.image_hwc[y_min:y_max, x_min:x_max])
