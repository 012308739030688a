"""Pictures on disk: which files are some, in what order, and their pixels, the same for training and at the line.

`edge_ad.image.jpeg` and `edge_ad.image.raster` decode; docs/sources.md states what they apply and what they refuse.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import ConfigError, ImageError, SourceError, os_reason
from edge_ad.image import notices, raster
from edge_ad.image.frame import ImageArray
from edge_ad.image.jpeg import checked_head, decode_jpeg
from edge_ad.image.jpeg_marks import START as JPEG_START
from edge_ad.image.limits import LARGEST_FILE
from edge_ad.image.notices import notice, pass_over
from edge_ad.image.orientation import TAG, UPRIGHT, upright_size

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)

NaturalKey = tuple[tuple[tuple[str | int, ...], ...], str]

_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats by content, whatever the file is called: none that runs a program (EPS) or that has no mark of its own."""

_PLUGINS = ("Avif", "Jpeg2K", "Tga", "Tiff", "WebP")  # besides those that Pillow loads itself

_BY_SUFFIX = {".tga": "TGA"}  # a format without a mark; only the name tells
_MARKS = (JPEG_START + b"\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM", b"RIFF")

HEAD_BYTES = 4 << 20  # of a JPEG, in which its head ends, with thumbnails and profiles

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
        shown = [name for name in names if not name.startswith(".")]
        candidates = (os.path.join(here, name) for name in shown if is_picture(name))
        found += [path for path in candidates if os.path.isfile(path)]
        pass_over(os.path.join(here, name) for name in shown if not is_picture(name))
    return sorted(found, key=natural_key)


def _enter(folder: str, visited: set[str]) -> bool:
    real = os.path.realpath(folder)
    if real in visited:
        return False
    visited.add(real)
    return True


def looks_like_picture(path: str) -> bool:
    """Whether the file at `path` begins like a picture, whatever its name is."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(_MARKS) and (not head.startswith(b"RIFF") or head[8:] == b"WEBP")


def read_picture(path: str) -> ImageArray:
    """The picture at `path` as (H, W, 3) uint8 RGB, upright, owned by the caller.

    16-bit greyscale is scaled to 8 bits (white stays white), an alpha channel is dropped, a palette and CMYK are
    resolved, and the orientation tag is applied.

    Raises:
        ImageError: not a picture, damaged, too large (`edge_ad.image.limits`), not readable, of several pages, or of a
            pixel type without a defined white (floating point, 32-bit integers, 12 bits in 16 that nothing says).
    """
    data = _jpeg_bytes(path)
    if data is not None:
        return _jpeg_pixels(path, data)
    with _opened(path) as picture:
        return raster.to_rgb(picture, path)


def read_nonzero(path: str) -> NDArray[np.bool_]:
    """Where the picture at `path` is not black, as (H, W) bool: a mask, whatever levels it was drawn with.

    VisA's masks number the defects 1, 2, ...; a 16-bit mask may hold a 1 that `read_picture` would round away. In
    formats that lose detail (JPEG, WebP) compression lights up black pixels, so there only levels above 127 count. Of a
    mask with transparent pixels what is painted counts, in any one colour.

    Raises: ImageError as `read_picture` does, but for the pixel type: every type has a zero; and for a mask whose
        transparency leaves it open what is meant.
    """
    data = _jpeg_bytes(path)
    if data is not None:
        return np.asarray(_jpeg_pixels(path, data).max(axis=2) > 127)
    with _opened(path) as picture:
        return raster.nonzero(picture, path)


def picture_size(path: str) -> tuple[int, int]:
    """Height and width of the picture at `path` in pixels, upright, by its head alone. Raises: ImageError."""
    data = _jpeg_bytes(path, HEAD_BYTES)
    if data is not None:
        with _named(path):
            head = checked_head(data)
        return upright_size((head.height, head.width), head.orientation)
    with _opened(path) as picture:
        turned = picture.getexif().get(TAG, UPRIGHT)
        return upright_size((picture.height, picture.width), turned if turned in range(1, 9) else UPRIGHT)


def picture_fault(path: str) -> str | None:
    """Why the file at `path` is no picture, by its head alone, or None; damage further down is not seen."""
    try:
        data = _jpeg_bytes(path, HEAD_BYTES)
        if data is None:
            with _opened(path):
                return None
        with _named(path):
            checked_head(data)
    except ImageError as exc:
        return str(exc)
    return None


def _jpeg_bytes(path: str, most: int = LARGEST_FILE) -> bytes | None:
    """The file, up to `most` bytes, when it is a JPEG. Raises: ImageError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(JPEG_START) + 1)
            if head != JPEG_START + b"\xff":
                return None
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_FILE:
                raise ImageError(f"picture {path}: a JPEG of {size >> 20} MiB, wanted {LARGEST_FILE >> 20} at most")
            return head + file.read(most)
    except OSError as exc:
        raise ImageError(f"picture {path}: {_reason_of_os(exc)}") from exc


def _jpeg_pixels(path: str, data: bytes) -> ImageArray:
    with _named(path):
        image, head = decode_jpeg(data)
    if head.orientation != 1:
        notice(notices.TURNED, path)
    if len(head.components) == 4:
        notice(notices.CMYK, path)
    if head.further:
        notice(notices.FURTHER, path)
    if raster.is_foreign_profile(head.profile):
        notice(notices.PROFILE, path)
    return image


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except ImageError as exc:
        raise ImageError(f"picture {path}: {exc}") from exc


@contextmanager
def _opened(path: str) -> Iterator[Image]:
    """The picture at `path`, with whatever goes wrong inside of the block turned into an ImageError that names it."""
    # Decoders raise a whole zoo on hostile bytes (OSError, SyntaxError, struct.error, ...), hence Exception: one
    # bad file must not end a run over thousands.
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from PIL import Image

            with _without_pillow_limit(Image), Image.open(path, formats=_formats(Image, path)) as picture:
                raster.check_head(picture)
                yield picture
        except ImageError as exc:
            raise ImageError(f"picture {path}: {exc}") from exc
        except ConfigError:
            raise
        except Exception as exc:
            raise ImageError(f"picture {path}: {_reason(path, exc)}") from exc


@contextmanager
def _without_pillow_limit(image: Any) -> Iterator[None]:
    """`check_head` has a limit of its own, which a user can raise. Under the lock, for the limit is a global."""
    before, image.MAX_IMAGE_PIXELS = image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        image.MAX_IMAGE_PIXELS = before


def _formats(image: Any, path: str) -> tuple[str, ...]:
    _load_plugins()
    named = _BY_SUFFIX.get(os.path.splitext(path)[1].lower())
    wanted = _FORMATS if named is None else (*_FORMATS, named)
    return tuple(name for name in wanted if name in image.OPEN)


@lru_cache(maxsize=1)
def _load_plugins() -> None:
    """The plugins of Pillow that are in use; `Image.init` would load forty more, which takes a tenth of a second."""
    from PIL import Image

    Image.preinit()
    for name in _PLUGINS:
        with suppress(ImportError):
            import_module(f"PIL.{name}ImagePlugin")


def _reason(path: str, exc: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(exc, UnidentifiedImageError):
        empty = os.path.getsize(path) == 0
        return "the file is empty" if empty else "not a picture in a format that Pillow reads, or damaged"
    if isinstance(exc, OSError) and exc.errno is not None:
        return _reason_of_os(exc)
    return f"cannot be decoded: {' '.join(str(exc).split()) or type(exc).__name__}"


def _reason_of_os(exc: OSError) -> str:
    if isinstance(exc, PermissionError):
        return "permission denied; make the file readable"
    if isinstance(exc, FileNotFoundError):
        return "the file is gone"
    return f"cannot be read: {os_reason(exc)}"
