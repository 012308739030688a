"""Pictures of a simulated line as files: data sets in the layout of MVTec AD, with masks, in a folder of the demo.

::

    pictures/
        .edge-ad-demo                                the files below, one in a line
        <set>/train/good/<number>.jpg                good parts to learn from
        <set>/test/good|defective/<number>.jpg       labelled parts
        <set>/ground_truth/defective/<number>_mask.png
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ad.disk.storage import publish_directory
from edge_ad.errors import OutputError, os_reason
from edge_ad.image.frame import ImageArray

LEDGER = ".edge-ad-demo"
DEFECTIVE = "defective"
VISIBLE_LEVELS = 12  # of 255, from which on a pixel counts as changed by a defect
JPEG_QUALITY = 95  # the sensor noise makes a PNG five times as large


@dataclass(frozen=True)
class PictureFile:
    """One file of a data set.

    Attributes:
        path: below the folder of pictures, with `/`.
        pixels: (H, W, 3) uint8 RGB, or (H, W) uint8 for a mask, 255 where anomalous.
    """

    path: str
    pixels: NDArray[np.uint8]


def training_file(data_set: str, number: int, image_bgr: ImageArray) -> PictureFile:
    """A good picture to learn from. Args: image_bgr: (H, W, 3) uint8."""
    return PictureFile(f"{data_set}/train/good/{number:03d}.jpg", image_bgr[:, :, ::-1])


def labelled_files(
    data_set: str, number: int, image_bgr: ImageArray, flawless_bgr: ImageArray
) -> Iterator[PictureFile]:
    """A test picture, and its mask when it is defective.

    Args:
        image_bgr: the frame, (H, W, 3) uint8.
        flawless_bgr: the same frame without its defects; the two differ nowhere else.
    """
    mask = defect_mask(image_bgr, flawless_bgr)
    kind = DEFECTIVE if mask.any() else "good"
    yield PictureFile(f"{data_set}/test/{kind}/{number:03d}.jpg", image_bgr[:, :, ::-1])
    if mask.any():
        yield PictureFile(
            f"{data_set}/ground_truth/{kind}/{number:03d}_mask.png", mask.astype(np.uint8) * np.uint8(255)
        )


def defect_mask(image_hwc: ImageArray, flawless_hwc: ImageArray) -> NDArray[np.bool_]:
    """(H, W) bool: where any channel of two (H, W, 3) uint8 pictures differs visibly."""
    change = np.abs(image_hwc.astype(np.int16) - flawless_hwc.astype(np.int16)).max(axis=2)
    return np.asarray(change >= VISIBLE_LEVELS)


def check_pictures(folder: Path) -> None:
    """Raise OutputError early when pictures could not be written to `folder`, or something else would be replaced."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder} exists and is no folder of the demo's; choose another --output")
    if folder.exists():
        foreign = _foreign(folder)
        if foreign is not None:
            raise OutputError(
                f"{folder} holds {foreign}, which the demo did not write; move it away, or choose another --output"
            )
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: nothing can be written in {existing}; choose another --output")


def write_pictures(folder: Path, files: Iterable[PictureFile]) -> None:
    """Write pictures and put them at `folder`, in place of those of an earlier demo: all of them, or none.

    Raises: OutputError.
    """
    from PIL import Image

    check_pictures(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            written = []
            for file in files:
                path = scratch / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(file.pixels).save(path, quality=JPEG_QUALITY)
                written.append(file.path)
            (scratch / LEDGER).write_text("".join(f"{path}\n" for path in written), "utf-8")
            scratch.chmod(0o755)
            publish_directory(scratch, folder, replace=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as exc:
        raise OutputError(f"pictures {folder}: cannot be written: {os_reason(exc)}") from exc


def _foreign(folder: Path) -> str | None:
    """The first file in a folder that no earlier demo wrote, relative to it; None without one. Raises: OutputError."""
    try:
        own = {LEDGER, *(folder / LEDGER).read_text("utf-8").splitlines()}
    except (FileNotFoundError, UnicodeDecodeError):
        own = set()
    except OSError as exc:
        raise OutputError(f"{folder / LEDGER}: cannot be read: {os_reason(exc)}") from exc
    held = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return next(
        (name for name in sorted(path.relative_to(folder).as_posix() for path in held) if name not in own), None
    )
