"""Pictures from disk, read as the training transform reads them.

That is `PIL.Image.open(path)` turned into RGB. The EXIF orientation is NOT applied, because training does not
apply it either: a phone picture that viewers turn upright is judged as it is stored.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np

from edge_ad.errors import ImageError
from edge_ad.frame import Frame, ImageArray
from edge_ad.runtime.sources.listing import pictures_in_folder, pictures_matching

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow opens 16-bit PNG (before 11.3) and PGM as "I" with values 0..65535; in other formats "I" is 32 bits.
_SIXTEEN_BIT_AS_I = frozenset({"PNG", "PPM"})
_TIFF_BITS_PER_SAMPLE = 258

# `warnings.catch_warnings` swaps global state; two threads that interleave it would leave warnings switched off.
_WARNINGS_LOCK = threading.Lock()


class FileSource:
    """Pictures in a given order, one frame each; a picture that cannot be read becomes a frame with `error`.

    Attributes:
        name: what the user asked for.
        live: False; the pictures wait to be read.
        length: number of pictures.
    """

    live = False

    def __init__(self, name: str, paths: Sequence[str]) -> None:
        self.name = name
        self.length: int | None = len(paths)
        self._paths = tuple(paths)
        self._next_id = 0

    def __enter__(self) -> FileSource:
        self._next_id = 0
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def read(self) -> Frame | None:
        """Next picture as (H, W, 3) uint8 RGB, or None behind the last. The deadline counts from opening the file."""
        if self._next_id >= len(self._paths):
            return None
        frame_id, path = self._next_id, self._paths[self._next_id]
        self._next_id += 1
        captured_at, captured_ns = datetime.now(timezone.utc), time.monotonic_ns()
        image: ImageArray | None = None
        error: str | None = None
        try:
            image = read_picture(path)
        except ImageError as exc:
            error = str(exc)
        return Frame(
            frame_id=frame_id,
            source=self.name,
            captured_at=captured_at,
            captured_ns=captured_ns,
            image_hwc=image,
            color_order="rgb",
            decode_ms=(time.monotonic_ns() - captured_ns) / 1e6,
            path=path,
            error=error,
        )


def open_picture(path: str) -> FileSource:
    """Source of the one picture at `path`."""
    return FileSource(path, (path,))


def open_folder(folder: str) -> FileSource:
    """Source of all pictures below `folder`. Raises: SourceError when there is none."""
    return FileSource(folder, pictures_in_folder(folder))


def open_pattern(pattern: str) -> FileSource:
    """Source of all pictures that match the glob `pattern` or lie below it. Raises: SourceError when there is none."""
    return FileSource(pattern, pictures_matching(pattern))


def read_picture(path: str) -> ImageArray:
    """The picture at `path` as (H, W, 3) uint8 RGB, owned by the caller.

    16-bit greyscale is scaled to 8 bits (white stays white), an alpha channel is dropped, a palette and CMYK are
    resolved; of several pages the first is read.

    Raises:
        ImageError: not a picture, damaged, larger than Pillow's decompression limit, not readable, or of a
            pixel type without a defined white (floating point, 32-bit integers).
    """
    # Decoders raise a whole zoo on hostile bytes (OSError, SyntaxError, struct.error, ...), hence Exception: one
    # bad file must not end a run over thousands.
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from PIL import Image

            with Image.open(path) as picture:
                return _to_rgb(picture)
        except ImageError as exc:
            raise ImageError(f"picture {path}: {exc}") from exc
        except Exception as exc:
            raise ImageError(f"picture {path}: {_reason(path, exc)}") from exc


def _to_rgb(picture: Image) -> ImageArray:
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in _SIXTEEN_BIT_AS_I):
        return _grey16_to_rgb(picture)
    if picture.mode in ("I", "F"):
        kind = "floating-point" if picture.mode == "F" else "32-bit"
        raise ImageError(f"wanted 8 or 16 bits per channel, got {kind} values (no defined white); convert it to PNG")
    picture.load()
    # Only the colours count, and Pillow warns about a palette whose transparency is a table.
    picture.info.pop("transparency", None)
    return np.array(picture.convert("RGB"), dtype=np.uint8)


def _grey16_to_rgb(picture: Image) -> ImageArray:
    tags = getattr(picture, "tag_v2", {})
    white = 4095 if tags.get(_TIFF_BITS_PER_SAMPLE) == (12,) else 65535
    grey = np.asarray(picture).astype(np.uint32)
    scaled = np.minimum((grey * 255 + white // 2) // white, 255).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)


def _reason(path: str, exc: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(exc, UnidentifiedImageError):
        empty = os.path.getsize(path) == 0
        return "the file is empty" if empty else "not a picture in a format that Pillow reads, or damaged"
    if isinstance(exc, PermissionError):
        return "permission denied; make the file readable"
    if isinstance(exc, FileNotFoundError):
        return "the file is gone"
    text = " ".join(str(exc).split()) or type(exc).__name__
    if isinstance(exc, Image.DecompressionBombError):
        return f"too large: {text}"
    return f"cannot be decoded: {text}"
