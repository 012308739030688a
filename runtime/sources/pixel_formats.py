"""Pixels as machine vision cameras send them, by the names of the GenICam Pixel Format Naming Convention, as BGR."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import ImageError
from edge_ad.image.frame import ImageArray
from edge_ad.runtime.host.opencv import load_cv2

Samples = NDArray[np.generic]

KNOWN = "Mono, BayerRG, BayerGR, BayerGB and BayerBG of 8 to 16 bits, RGB8, BGR8, RGBa8, BGRa8, YUV422_8, YUV422_8_UYVY"

# The convention names the first two pixels of the first row, and so do these names of OpenCV; its older ones
# (COLOR_BayerRG2BGR and the like) name those of the second row.
_BAYER = {
    "RG": "COLOR_BayerRGGB2BGR",
    "GR": "COLOR_BayerGRBG2BGR",
    "GB": "COLOR_BayerGBRG2BGR",
    "BG": "COLOR_BayerBGGR2BGR",
}
_DIRECT = {  # channels, and the order in which BGR is taken from them
    "RGB8": (3, (2, 1, 0)),
    "BGR8": (3, (0, 1, 2)),
    "RGBa8": (4, (2, 1, 0)),
    "BGRa8": (4, (0, 1, 2)),
}
_YUV = {
    "YUV422_8": "COLOR_YUV2BGR_YUYV",
    "YCbCr422_8": "COLOR_YUV2BGR_YUYV",
    "YUV422_8_UYVY": "COLOR_YUV2BGR_UYVY",
    "YCbCr422_8_CbYCrY": "COLOR_YUV2BGR_UYVY",
}
_ONE_CHANNEL = re.compile(r"(Mono|Bayer(?:RG|GR|GB|BG))(8|10|12|14|16)(p|Packed)?")


def to_bgr(samples: Samples, pixel_format: str, width: int, height: int) -> ImageArray:
    """Samples of one image as (H, W, 3) uint8 BGR, a copy.

    Args:
        samples: 1-D, row by row; uint8, or uint16 with one sample each where a sample has more than 8 bits. Rows may
            be longer than the image is wide.
        pixel_format: such as `BayerRG8`.

    Raises: ImageError for a format that is not known, or too few samples.
    """
    if pixel_format in _DIRECT:
        channels, order = _DIRECT[pixel_format]
        return np.ascontiguousarray(
            _rows(samples, width * channels, height).reshape(height, width, channels)[..., order]
        )
    if pixel_format in _YUV:
        cv2: Any = load_cv2()
        pairs = np.ascontiguousarray(_rows(samples, 2 * width, height)).reshape(height, width, 2)
        converted: ImageArray = cv2.cvtColor(pairs, getattr(cv2, _YUV[pixel_format]))
        return converted
    form = _ONE_CHANNEL.fullmatch(pixel_format)
    if form is None:
        raise ImageError(f"wanted a pixel format of {KNOWN}, got {pixel_format}; set PixelFormat on the camera")
    kind, bits = form.group(1), int(form.group(2))
    grey = _to_8_bits(_rows(samples, width, height), bits)
    if kind == "Mono":
        return np.repeat(grey[:, :, None], 3, axis=2)
    cv2 = load_cv2()
    mosaic: ImageArray = cv2.cvtColor(np.ascontiguousarray(grey), getattr(cv2, _BAYER[kind.removeprefix("Bayer")]))
    return mosaic


def _rows(samples: Samples, length: int, height: int) -> Samples:
    """(height, length) of the samples, without what pads the rows."""
    if samples.size < length * height or samples.size % height:
        raise ImageError(f"wanted {height} rows of {length} samples or more, got {samples.size} samples")
    return samples.reshape(height, -1)[:, :length]


def _to_8_bits(samples: Samples, bits: int) -> ImageArray:
    """Scaled so that white stays white."""
    if bits == 8:
        return np.asarray(samples, np.uint8)
    white = (1 << bits) - 1
    wide = samples.astype(np.uint32)
    return np.minimum((wide * 255 + white // 2) // white, 255).astype(np.uint8)
