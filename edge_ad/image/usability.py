"""Frames that show nothing: they must never be reported as normal, nor must anything be measured on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import UsabilityLimits
from edge_ad.image.frame import ImageArray
from edge_ad.image.preprocess import ModelInput
from edge_ad.image.sharpness import sharpness

SHARE = 0.999  # of the pixels; the rest may be hot or dead ones
SAMPLING = 3  # every third pixel in both directions is plenty to tell black from not black
EVERY_LINE = UsabilityLimits()
"""What is too little on any line, whatever its good frames look like."""


def unusable_reason(image_hwc: ImageArray, limits: UsabilityLimits = EVERY_LINE) -> str | None:
    """Why a picture cannot be judged, or None.

    Args:
        image_hwc: (H, W, 3) uint8, at model size.
        limits: what is too little.

    A picture is black or saturated when 99.9 % of it is, flat when all of it has one colour (no signal, the green frame
    of a broken stream), and blurred when its sharpness is below what the line's good frames allow.
    """
    brightest, darkest = colour_extremes(image_hwc)
    most = (1 - SHARE) * brightest.size
    if np.count_nonzero(brightest >= limits.black_below) <= most:
        return "the frame is black; check lens cover, lighting and exposure"
    if np.count_nonzero(darkest <= limits.saturated_above) <= most:
        return "the frame is saturated; check lighting and exposure"
    if not limits.one_colour and has_one_colour(image_hwc):
        return "the frame has one colour only; check the camera and its signal"
    if limits.sharpness_min is None:
        return None
    measured = sharpness(image_hwc)
    if measured is None or measured >= limits.sharpness_min:
        return None
    return (
        f"the frame is far blurrier than the line's good frames: sharpness {measured:.2g}, limit"
        f" {limits.sharpness_min:.2g}; check focus, motion and lens"
    )


def unusable_input(model_input: ModelInput, limits: UsabilityLimits = EVERY_LINE) -> str | None:
    """Why a frame cannot be judged, or None.

    Only what shows the frame counts: padding is neither dark nor bright nor a second colour, nor has it sharp edges.
    """
    return unusable_reason(shown(model_input), limits)


def shown(model_input: ModelInput) -> ImageArray:
    """The part of a model input that shows the frame, without padding; (h, w, 3) uint8, a view."""
    x_min, y_min, x_max, y_max = model_input.geometry.content_box
    return model_input.image_hwc[y_min:y_max, x_min:x_max]


def colour_extremes(image_hwc: ImageArray) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The highest and the lowest of the three values of some of the pixels, of two shapes alike."""
    sample = _sample(image_hwc)
    red, green, blue = sample[..., 0], sample[..., 1], sample[..., 2]  # reducing along an axis of three is slow
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def has_one_colour(image_hwc: ImageArray) -> bool:
    sample = _sample(image_hwc)
    return bool((sample == sample[0, 0]).all())


def _sample(image_hwc: ImageArray) -> ImageArray:
    return np.ascontiguousarray(image_hwc[::SAMPLING, ::SAMPLING])
