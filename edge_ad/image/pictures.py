"""Pictures on disk: which files are some, in what order, and their pixels as the training transform reads them.

A picture is `PIL.Image.open(path)` turned into RGB. The EXIF orientation is NOT applied, because training does not
apply it either: a phone picture that viewers turn upright is judged as it is stored.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import ImageError, SourceError
from edge_ad.image.frame import ImageArray

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")

NaturalKey = tuple[tuple[tuple[str | int, ...], ...], str]

# Pillow opens 16-bit PNG (before 11.3) and PGM as "I" with values 0..65535; in other formats "I" is 32 bits.
_SIXTEEN_BIT_AS_I = frozenset({"PNG", "PPM"})
_TIFF_BITS_PER_SAMPLE = 258
_LOSSY_FORMATS = frozenset({"JPEG", "JPEG2000", "MPO", "WEBP"})

# `warnings.catch_warnings` swaps global state; two threads that interleave it would leave warnings switched off.
_WARNINGS_LOCK = threading.Lock()


def is_picture(path: str) -> bool:
    """Whether the name of `path` ends like a picture, in upper or lower case."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def natural_key(path: str) -> NaturalKey:
    """Sort key that puts `shot_2.png` before `shot_10.png`, folder by folder, upper and lower case alike."""
    parts = re.split(r"[/\\]", path) if os.sep == "\\" else path.split("/")
    # Splitting on a captured group alternates text and digits, so equal positions always hold equal types.
    return tuple(
        tuple(int(token) if index % 2 else token.casefold() for index, token in enumerate(re.split(r"([0-9]+)", part)))
        for part in parts
    ), path


def pictures_below(
    folder: str, *, visited: set[str] | None = None, left_out: Callable[[str], bool] | None = None
) -> list[str]:
    """All pictures below `folder`, naturally sorted, but for hidden files and folders. Links to folders are followed.

    Args:
        folder: path of an existing folder.
        visited: real folders that are not entered again; those that are entered are added.
        left_out: whether not to enter the subfolder of that path.

    Raises: SourceError when the folder or one below it cannot be listed.
    """
    visited = set() if visited is None else visited
    found: list[str] = []
    if not _enter(folder, visited):
        return found

    def refuse(exc: OSError) -> None:
        raise SourceError(f"folder {exc.filename} cannot be listed: {exc.strerror}; check its permissions") from exc

    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        paths = {name: os.path.join(here, name) for name in sorted(folders) if not name.startswith(".")}
        wanted = (name for name, path in paths.items() if left_out is None or not left_out(path))
        folders[:] = [name for name in wanted if _enter(paths[name], visited)]
        candidates = (os.path.join(here, name) for name in names if is_picture(name) and not name.startswith("."))
        found += [path for path in candidates if os.path.isfile(path)]
    return sorted(found, key=natural_key)


def _enter(folder: str, visited: set[str]) -> bool:
    real = os.path.realpath(folder)
    if real in visited:
        return False
    visited.add(real)
    return True


def read_picture(path: str) -> ImageArray:
    """The picture at `path` as (H, W, 3) uint8 RGB, owned by the caller.

    16-bit greyscale is scaled to 8 bits (white stays white), an alpha channel is dropped, a palette and CMYK are
    resolved; of several pages the first is read.

    Raises:
        ImageError: not a picture, damaged, larger than Pillow's decompression limit, not readable, or of a
            pixel type without a defined white (floating point, 32-bit integers).
    """
    with _opened(path) as picture:
        return _to_rgb(picture)


def read_nonzero(path: str) -> NDArray[np.bool_]:
    """Where the picture at `path` is not black, as (H, W) bool: a mask, whatever levels it was drawn with.

    VisA's masks number the defects 1, 2, ...; a 16-bit mask may hold a 1 that `read_picture` would round away. In
    formats that lose detail (JPEG, WebP) compression lights up black pixels, so there only levels above 127 count.

    Raises: ImageError as `read_picture` does, but for the pixel type: every type has a zero.
    """
    with _opened(path) as picture:
        if picture.format in _LOSSY_FORMATS:
            return np.asarray(_to_rgb(picture).max(axis=2) > 127)
        if picture.mode.startswith("I") or picture.mode == "F":
            return np.asarray(np.asarray(picture) != 0)
        return np.asarray(_to_rgb(picture).any(axis=2))


def picture_fault(path: str) -> str | None:
    """Why the file at `path` is no picture, by its head alone, or None; damage further down is not seen."""
    try:
        with _opened(path):
            return None
    except ImageError as exc:
        return str(exc)


@contextmanager
def _opened(path: str) -> Iterator[Image]:
    """The picture at `path`, with whatever goes wrong inside of the block turned into an ImageError that names it."""
    # Decoders raise a whole zoo on hostile bytes (OSError, SyntaxError, struct.error, ...), hence Exception: one
    # bad file must not end a run over thousands.
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from PIL import Image

            with Image.open(path) as picture:
                yield picture
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
