"""JPEG → pixels, or the reason why these are not what was photographed.

libjpeg fills up what is missing with grey and counts a warning, which Pillow and OpenCV do not pass on. simplejpeg
does: the same libjpeg-turbo, the same pixels, and an error in place of every warning.
"""

from __future__ import annotations

import io
import logging
import re
from functools import lru_cache
from types import ModuleType

import numpy as np

from edge_ad.errors import ImageError
from edge_ad.image.frame import ColorOrder, ImageArray
from edge_ad.image.jpeg_marks import JpegHead, check_coded, is_suspicious, read_head
from edge_ad.image.limits import check_size
from edge_ad.image.orientation import upright
from edge_ad.image.pillow_rgb import as_rgb

log = logging.getLogger(__name__)

PADDING = 7
"""Bytes in front of the end marker that are taken for padding: some cameras fill up to multiples of 4 or 8 bytes."""

_EXTRANEOUS = re.compile(r"([0-9]+) extraneous bytes before marker 0xd9")
_NOT_KNOWN = "subsampling"  # what TurboJPEG says of layouts that libjpeg reads and it has no name for
_BASELINE_BYTES, _PROGRESSIVE_BYTES = 5.0, 10.0  # for each pixel while it is decoded, with three components


def decode_jpeg(data: bytes, order: ColorOrder = "rgb") -> tuple[ImageArray, JpegHead]:
    """The picture of a JPEG, turned upright, and what the file says of itself.

    Returns: (H, W, 3) uint8 in `order`, owned by the caller. Bytes behind the end marker do not matter.

    Raises: ImageError when coded data is missing, cut off or damaged so that the decoder noticed; for a picture that is
        too large, see `limits`; and for what no decoder here reads (12 bits, lossless).
    """
    head = checked_head(data)
    if is_suspicious(data, head):
        check_coded(data, head)
    image = _strictly(data, order) if len(head.components) in (1, 3) else None
    if image is None:
        image = _leniently(data, head, order)
    return upright(image, head.orientation), head


def checked_head(data: bytes) -> JpegHead:
    """What a JPEG says of itself, when that can be decoded. Raises: ImageError as `decode_jpeg` does."""
    head = read_head(data)
    check_size(head.width, head.height, bytes_per_pixel=_PROGRESSIVE_BYTES if head.is_progressive else _BASELINE_BYTES)
    if head.bits != 8:
        raise ImageError(f"wanted 8 bits per channel, got a JPEG of {head.bits}; convert it to PNG")
    return head


def _strictly(data: bytes, order: ColorOrder) -> ImageArray | None:
    """The pixels; None where another decoder has to be asked. Raises: ImageError."""
    simplejpeg = _library()
    if simplejpeg is None:
        return None
    try:
        image: ImageArray = simplejpeg.decode_jpeg(data, order.upper())
    except ValueError as exc:
        said = " ".join(str(exc).split())
        if _NOT_KNOWN in said:
            return None
        extra = _EXTRANEOUS.search(said)
        if extra is None or int(extra.group(1)) > PADDING:
            raise ImageError(
                f"damaged JPEG, cut off or incomplete: {said}; check the camera, the network, or what wrote it"
            ) from None
        image = simplejpeg.decode_jpeg(data, order.upper(), strict=False)
    return image


def _leniently(data: bytes, head: JpegHead, order: ColorOrder) -> ImageArray:
    """The pixels by Pillow, for CMYK and for rare layouts: of its damage only the markers tell."""
    from PIL import Image

    check_coded(data, head)
    simplejpeg = _library()
    if len(head.components) == 4 and simplejpeg is not None:
        try:
            simplejpeg.decode_jpeg(data, "CMYK")
        except ValueError as exc:
            if _NOT_KNOWN not in str(exc):
                raise ImageError(f"damaged JPEG, cut off or incomplete: {' '.join(str(exc).split())}") from None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            rgb = as_rgb(picture)
    except Exception as exc:  # decoders raise a whole zoo on hostile bytes
        raise ImageError(f"cannot be decoded: {' '.join(str(exc).split()) or type(exc).__name__}") from None
    return rgb if order == "rgb" else np.ascontiguousarray(rgb[:, :, ::-1])


@lru_cache(maxsize=1)
def _library() -> ModuleType | None:
    """simplejpeg, or None where it is not installed: a machine that it has no wheel for."""
    try:
        import simplejpeg
    except ImportError:
        log.warning("simplejpeg is not installed: JPEGs are slower to read, and less of their damage is found")
        return None
    module: ModuleType = simplejpeg
    return module
