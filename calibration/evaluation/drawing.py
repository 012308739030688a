"""Drawing that the pages of reports share: small pictures, anomaly maps as heat over them, JPEG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.evaluation.plots import load_matplotlib
from edge_ad.image.frame import Box, ImageArray

MAX_SIDE = 400  # pixels of a picture in a report
OPACITY = 0.6
UNSEEN = 0.35  # of its brightness
JPEG_QUALITY = 85


def heat_colours(count: int) -> list[str]:
    """Colours from no heat to full heat, for a legend."""
    colors = load_matplotlib().colors
    return [colors.to_hex(colour) for colour in _turbo(np.linspace(0, 1, count))]


def small_picture(image: ImageArray) -> ImageArray:
    """A picture of at most `MAX_SIDE` pixels, of the same shape."""
    from PIL import Image

    scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
    height, width = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.uint8)


def heat_picture(
    small: ImageArray, map_frame: NDArray[np.float32], heat: tuple[float, float], inspected_box: Box
) -> ImageArray:
    """A small picture with a map over it, and what the model does not see darkened.

    Args:
        small: (h, w, 3) uint8.
        map_frame: (H, W) float32, values for every pixel of the frame.
        heat: values that are drawn as no heat and as full heat.
        inspected_box: what the model sees, in pixels of the frame.
    """
    height, width = small.shape[:2]
    drawn = _heated(small, _resized_map(map_frame, (height, width)), heat)
    box = [round(edge * width / map_frame.shape[1]) for edge in inspected_box]
    unseen = np.ones((height, width), bool)
    unseen[box[1] : box[3], box[0] : box[2]] = False
    drawn[unseen] = (small[unseen] * UNSEEN).astype(np.uint8)
    return drawn


def jpeg(picture: ImageArray) -> bytes:
    """The picture as the bytes of a JPEG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _heated(picture: ImageArray, values: NDArray[np.float32], heat: tuple[float, float]) -> ImageArray:
    share = np.clip((values - heat[0]) / (heat[1] - heat[0]), 0, 1)
    opacity = (OPACITY * np.minimum(1, 2 * share))[..., None]  # what reaches the middle of the scale is drawn in full
    blended = picture * (1 - opacity) + 255 * _turbo(share)[..., :3] * opacity
    return np.asarray(blended, dtype=np.uint8)


def _turbo(share: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(load_matplotlib().colormaps["turbo"](share), dtype=np.float64)


def _resized_map(values: NDArray[np.float32], hw: tuple[int, int]) -> NDArray[np.float32]:
    from PIL import Image

    resized = Image.fromarray(np.ascontiguousarray(values)).resize((hw[1], hw[0]), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.float32)
