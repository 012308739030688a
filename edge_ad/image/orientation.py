"""Which way up a picture is: the orientation tag of EXIF and TIFF."""

from __future__ import annotations

import struct

import numpy as np

from edge_ad.image.frame import ImageArray

UPRIGHT = 1
TAG = 0x0112
_MOST_ENTRIES = 1000  # of a directory; cameras write a dozen


def exif_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, that an EXIF block (without its `Exif` header) holds; 1 where it holds none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return UPRIGHT
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return UPRIGHT
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for number in range(min(count, _MOST_ENTRIES)):
        entry = exif[start + 2 + 12 * number : start + 14 + 12 * number]
        if len(entry) < 12:
            break
        tag, kind, _, value = struct.unpack(f"{order}HHIH", entry[:10])
        if tag == TAG:
            return value if kind == 3 and 1 <= value <= 8 else UPRIGHT
    return UPRIGHT


def upright_size(size_hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Height and width as viewers show a picture that is stored with `size_hw`."""
    return (size_hw[1], size_hw[0]) if orientation >= 5 else size_hw


def upright(image_hwc: ImageArray, orientation: int) -> ImageArray:
    """The picture as viewers show it.

    Args:
        image_hwc: (H, W, 3) as stored.
        orientation: 1 to 8 as EXIF numbers them; with 5 to 8 height and width are exchanged.
    """
    if orientation == UPRIGHT:
        return image_hwc
    if orientation >= 5:
        image_hwc = image_hwc.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image_hwc = image_hwc[::-1]
    if orientation in (2, 3, 6, 7):
        image_hwc = image_hwc[:, ::-1]
    return np.ascontiguousarray(image_hwc)
