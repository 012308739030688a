"""Pictures from disk, one frame each, read as the training transform reads them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timezone

from edge_ad.errors import ImageError
from edge_ad.image.frame import Frame, ImageArray
from edge_ad.image.pictures import read_picture
from edge_ad.runtime.sources.listing import pictures_in_folder, pictures_matching


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
        number, self._next_id = self._next_id, self._next_id + 1
        return picture_frame(self._paths[number], self.name, number)


def picture_frame(path: str, source: str, number: int) -> Frame:
    """The frame that a picture file gives, read now; with an error in place of a picture that cannot be decoded."""
    captured_at, captured_ns = datetime.now(timezone.utc), time.monotonic_ns()
    image: ImageArray | None = None
    error: str | None = None
    try:
        image = read_picture(path)
    except ImageError as exc:
        error = str(exc)
    return Frame(
        frame_id=number,
        source=source,
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
