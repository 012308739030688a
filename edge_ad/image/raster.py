"""Pictures that Pillow decodes, as 8-bit RGB: one rule for every bit depth, palette, alpha, page and orientation.

docs/sources.md states the rules; what is neither applied nor refused is noticed (`edge_ad.image.notices`).
"""

from __future__ import annotations

import io
import os
import struct
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import ImageError
from edge_ad.image import notices
from edge_ad.image.frame import ImageArray
from edge_ad.image.jpeg import decode_jpeg
from edge_ad.image.limits import LARGEST_FILE, check_size
from edge_ad.image.notices import notice
from edge_ad.image.orientation import TAG, UPRIGHT, upright
from edge_ad.image.pillow_rgb import as_rgb, in_strips, rows_of_strip
from edge_ad.image.tiff_strips import check_strips

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow opens 16-bit PNG (before 11.3) and PGM as "I" with values 0..65535; in other formats "I" is 32 bits.
_SIXTEEN_BIT_AS_I = frozenset({"PNG", "PPM"})
_FULL_16, _FULL_12 = 65535, 4095

_NEW_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES, _ROWS_PER_STRIP = 254, 258, 262, 277, 278
_MAX_SAMPLE_VALUE, _TILE_WIDTH, _TILE_LENGTH = 281, 322, 323
_REDUCED_OR_MASK = 1 | 4  # bits of the NewSubfileType: a preview, a transparency mask
_MOST_PAGES = 64  # that are looked at

_LOSSY_FORMATS = frozenset({"JPEG2000", "WEBP"})

# Decoders that hold a picture several times over, in bytes for each pixel; for the others see `_bytes_per_pixel`.
_DECODER_BYTES = {"WEBP": 18.0, "AVIF": 16.0, "JPEG2000": 24.0}

# Coded data of these formats holds no longer run of zeros than this share of the file, or this many bytes: measured on
# flat pictures of 9 megapixels, 16 bytes for the first two, 5 % of the file for the last.
_LONGEST_ZEROS = {"JPEG2000": (512, 0.0), "AVIF": (512, 0.0), "WEBP": (1024, 0.2)}


def check_head(picture: Image) -> None:
    """Refuse a picture by its head, before anything is decoded. Raises: ImageError."""
    width, height = picture.size
    check_size(width, height, bytes_per_pixel=_bytes_per_pixel(picture))
    pages = _pages(picture)
    if pages > 1:
        raise ImageError(f"wanted one picture, got {pages} (pages, or frames of an animation); split the file")


def to_rgb(picture: Image, path: str) -> ImageArray:
    """An opened picture as (H, W, 3) uint8 RGB, turned upright, owned by the caller.

    Raises: ImageError for a type of pixels without a defined white, and for 12-bit data that nothing says so of.
    """
    is_16_bit = _is_grey_16(picture)
    if not is_16_bit and picture.mode in ("I", "F"):
        kind = "floating-point" if picture.mode == "F" else "32-bit"
        raise ImageError(f"wanted 8 or 16 bits per channel, got {kind} values (no defined white); convert it to PNG")
    has_wide_samples = _has_wide_samples(picture)
    orientation = load(picture, path)
    if is_16_bit:
        return upright(_grey16_to_rgb(picture, path), orientation)
    if picture.mode == "CMYK":
        notice(notices.CMYK, path)
    alpha = _alpha(picture)
    if alpha is not None and alpha.min() != 255:
        notice(notices.TRANSPARENT, path)
    # Only the colours count, and Pillow warns about a palette whose transparency is a table.
    picture.info.pop("transparency", None)
    del alpha
    rgb = as_rgb(picture)
    if has_wide_samples and 0 < int(rgb.max()) <= _FULL_12 >> 8:
        raise _unsaid_bits("channel", int(rgb.max()) << 8)
    return upright(rgb, orientation)


def load(picture: Image, path: str) -> int:
    """Decode. Returns: the orientation that is still to be applied; Pillow does so itself for TIFF.

    Raises: ImageError when coded data is missing.
    """
    _check_zeros(picture, path)
    if picture.format == "TIFF":
        check_strips(picture, path, decode_jpeg)
    before = picture.getexif().get(TAG, UPRIGHT)
    picture.load()
    after = picture.getexif().get(TAG, UPRIGHT)
    if isinstance(before, int) and 1 < before <= 8:
        notice(notices.TURNED, path)
    if is_foreign_profile(picture.info.get("icc_profile") or b""):
        notice(notices.PROFILE, path)
    return after if isinstance(after, int) and 1 <= after <= 8 else UPRIGHT


def _alpha(picture: Image) -> NDArray[np.uint8] | None:
    """(H, W) uint8 of a loaded picture, from wherever it is stored; None where the format makes every pixel opaque."""
    if picture.mode in ("RGBA", "LA", "PA"):
        return np.asarray(picture.getchannel("A"))
    if picture.mode not in ("RGBa", "La") and "transparency" not in picture.info:
        return None
    return in_strips(picture, "RGBA", slice(3, 4))[:, :, 0]


def nonzero(picture: Image, path: str) -> NDArray[np.bool_]:
    """Where an opened picture is not black, or, on a transparent ground, painted at all: (H, W) bool, upright.

    In formats that lose detail only levels above 127 are not black.

    Raises: ImageError for a mask of which transparency leaves it open what is meant.
    """
    is_16_bit = _is_grey_16(picture)
    if not is_16_bit and picture.mode in ("I", "F") and _is_white_zero(picture):
        raise ImageError("wanted a mask of 8 or 16 bits where white is zero; save it anew as PNG")
    orientation = load(picture, path)
    if is_16_bit or picture.mode in ("I", "F"):
        black = _FULL_16 if _is_white_zero(picture) and not _pillow_inverts() else 0
        found = np.asarray(picture) != black
    else:
        found = _painted(picture, 127 if picture.format in _LOSSY_FORMATS else 0)
    return np.asarray(upright(found[:, :, None], orientation)[:, :, 0])


def _painted(picture: Image, black: int) -> NDArray[np.bool_]:
    alpha = _alpha(picture)
    picture.info.pop("transparency", None)
    coloured = as_rgb(picture).max(axis=2) > black
    if alpha is None:
        return np.asarray(coloured)
    visible = alpha > black
    if visible.all() or (not visible.any() and coloured.any() != coloured.all()):  # an alpha channel that says nothing
        return np.asarray(coloured)
    if not visible.any():
        raise ImageError("a mask that is transparent everywhere says nothing; paint what is defective, or save it grey")
    if coloured[visible].any() != coloured[visible].all():
        raise ImageError(
            "a mask with transparent, black and coloured pixels can be read in two ways; save it without transparency,"
            " black where good"
        )
    return np.asarray(visible)


def is_foreign_profile(profile: bytes) -> bool:
    """Whether a colour profile is one of colours, and not the usual sRGB."""
    usual = b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile
    return len(profile) > 20 and profile[16:20] == b"RGB " and not usual


def _grey16_to_rgb(picture: Image, path: str) -> ImageArray:
    white = _white(picture)
    grey = np.asarray(picture)
    brightest = int(grey.max())
    if white == _FULL_16 and 0 < brightest <= _FULL_12:
        raise _unsaid_bits("value", brightest)
    if white == _FULL_16 and 0 < brightest <= _FULL_16 >> 2:
        notice(notices.QUARTER, path)
    is_negative = _is_white_zero(picture) and not _pillow_inverts()
    rgb = np.empty((*grey.shape, 3), np.uint8)
    rows = rows_of_strip(grey.shape[1])
    for top in range(0, len(grey), rows):
        strip = np.minimum(grey[top : top + rows], white).astype(np.uint32)
        if is_negative:
            strip = white - strip
        rgb[top : top + rows] = ((strip * 255 + white // 2) // white)[:, :, None]
    return rgb


def _unsaid_bits(what: str, brightest: int) -> ImageError:
    return ImageError(
        f"16 bits per {what}, of which the brightest uses {brightest} of {_FULL_16}: 12-bit data in a 16-bit file would"
        " be judged nearly black; scale it to the full range, or write its white into the TIFF tag MaxSampleValue"
    )


def _white(picture: Image) -> int:
    """The value that is white: what the file says, else all bits."""
    tags = getattr(picture, "tag_v2", {})
    if tags.get(_BITS_PER_SAMPLE) == (12,):
        return _FULL_12
    said = tags.get(_MAX_SAMPLE_VALUE)
    white = said[0] if isinstance(said, tuple) and said else said
    return white if isinstance(white, int) and 255 < white < _FULL_16 else _FULL_16


def _is_grey_16(picture: Image) -> bool:
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in _SIXTEEN_BIT_AS_I)


def _is_white_zero(picture: Image) -> bool:
    return getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _has_wide_samples(picture: Image) -> bool:
    """Whether colours have 16 bits in the file, of which Pillow keeps the upper 8; to be asked before loading."""
    tiles = getattr(picture, "tile", None)
    arguments = tiles[0][3] if tiles else ()
    modes = arguments if isinstance(arguments, tuple) else (arguments,)
    return any(isinstance(mode, str) and ";16" in mode for mode in modes)


def _pages(picture: Image) -> int:
    """How many pictures of full size a file holds."""
    frames = int(getattr(picture, "n_frames", 1))
    if frames == 1 or picture.format != "TIFF":
        return frames
    full = 0
    for page in range(min(frames, _MOST_PAGES)):
        picture.seek(page)
        kind = picture.tag_v2.get(_NEW_SUBFILE_TYPE, 0)  # type: ignore[attr-defined]
        full += not (isinstance(kind, int) and kind & _REDUCED_OR_MASK)
    picture.seek(0)
    return max(full, 1)


def _bytes_per_pixel(picture: Image) -> float:
    """What decoding takes at its peak, the result of three bytes with it."""
    known = _DECODER_BYTES.get(picture.format or "")
    if known is not None:
        return known
    tags = getattr(picture, "tag_v2", None)
    if tags is None:
        return 8.0
    bits = tags.get(_BITS_PER_SAMPLE, (1,))
    sample_bits = max(bits) if isinstance(bits, tuple) and bits else 8
    width, height = picture.size
    rows, columns = tags.get(_TILE_LENGTH) or tags.get(_ROWS_PER_STRIP) or height, tags.get(_TILE_WIDTH) or width
    stored = sample_bits / 8 * int(tags.get(_SAMPLES, 1)) * max(1, columns / width)
    return 8.0 + stored * max(1.0 / height, min(1.0, rows / height), rows * columns / (width * height))


def _check_zeros(picture: Image, path: str) -> None:
    """Find zeros in place of coded data, where the decoder takes any bytes: a writer that reserved the space first."""
    if picture.format not in _LONGEST_ZEROS:
        return
    if os.path.getsize(path) > LARGEST_FILE:
        raise ImageError(f"a file of more than {LARGEST_FILE >> 20} MiB; convert it to PNG or TIFF")
    with open(path, "rb") as file:
        data = file.read()
    least, share = _LONGEST_ZEROS[picture.format]
    place = data.find(bytes(max(least, int(share * len(data)))))
    if place >= 0:
        raise ImageError(f"zeros in place of coded data at byte {place}: not written to its end, or damaged")


@lru_cache(maxsize=1)
def _pillow_inverts() -> bool:
    """Whether Pillow turns 16-bit TIFF with white as zero around itself; it does so with 8 bits, and up to 13.0 not."""
    from PIL import Image

    tags = ((256, 1), (257, 1), (258, 16), (259, 1), (262, 0), (273, 8), (277, 1), (278, 1), (279, 2))
    directory = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    pixel = struct.pack("<HH", 1, 0)
    file = b"II*\0" + struct.pack("<I", 12) + pixel + struct.pack("<H", len(tags)) + directory + bytes(4)
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as picture:
        return int(np.asarray(picture)[0, 0]) != 1
