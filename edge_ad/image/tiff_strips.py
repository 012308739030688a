"""Damage in strips and tiles of a TIFF that libtiff reads past: it stops in front of checksums and fills up JPEGs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edge_ad.errors import ImageError
from edge_ad.image.limits import LARGEST_FILE

if TYPE_CHECKING:
    from PIL.Image import Image

_COMPRESSION, _JPEG_TABLES = 259, 347
_PLACES = ((273, 279), (324, 325))  # offsets and lengths, of strips and of tiles
_DEFLATE, _JPEG = (8, 32946), 7
_MOST_SHARED = 8  # times the file; writers let a few blank tiles share their data
_PIECE = 1 << 20  # bytes of a strip that are unpacked at once


def check_strips(picture: Image, path: str, check_jpeg: Callable[[bytes], object]) -> None:
    """Look at the coded data of the page that is open, where its compression has a way to tell.

    Args:
        picture: opened and not loaded.
        check_jpeg: raises ImageError for a damaged JPEG.

    Raises: ImageError.
    """
    tags = getattr(picture, "tag_v2", {})
    compression = tags.get(_COMPRESSION)
    if compression in _DEFLATE:
        for strip in _strips(picture, path):
            _check_deflate(strip)
    elif compression == _JPEG:
        tables = bytes(tags.get(_JPEG_TABLES, b""))[:-2]
        for strip in _strips(picture, path):
            check_jpeg(tables + strip[2:] if tables else strip)


def _strips(picture: Image, path: str) -> Iterator[bytes]:
    tags = getattr(picture, "tag_v2", {})
    left = os.path.getsize(path) * _MOST_SHARED
    with open(path, "rb") as file:
        for places, lengths in _PLACES:
            for place, length in zip(_numbers(tags.get(places)), _numbers(tags.get(lengths)), strict=False):
                left -= length
                if length > LARGEST_FILE or left < 0:
                    raise ImageError("strips that are larger than the file, or lie in one another; save it anew")
                file.seek(place)
                yield file.read(length)


def _numbers(value: object) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,)
    return tuple(number for number in value if isinstance(number, int)) if isinstance(value, tuple) else ()


def _check_deflate(strip: bytes) -> None:
    stream = zlib.decompressobj()
    try:
        stream.decompress(strip, _PIECE)
        while not stream.eof and stream.unconsumed_tail:
            stream.decompress(stream.unconsumed_tail, _PIECE)
    except zlib.error as exc:
        raise ImageError(f"damaged TIFF: {exc}; check the camera, the network, or what wrote it") from None
    if not stream.eof:
        raise ImageError(
            "damaged TIFF, cut off or incomplete: a strip has no end; check the camera, the network, or what wrote it"
        )
