"""Reading a bundle beside somebody who replaces it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge_ad.disk.storage import set_aside
from edge_ad.errors import BundleError

T = TypeVar("T")
PATIENCE_S = 3.0
"""How long a reader tries again; a gap between two bundles lasts as long as a rename."""
LONGEST_PAUSE_S = 0.05


def read_steadily(path: Path, witness: str, read: Callable[[], T]) -> T:
    """What `read` makes of one state of a bundle.

    A bundle is replaced in one step, but its files are opened one after the other: some may be of the old one, some of
    the new one. `read` notices, for it checks them against each other; it is tried again if the bundle has changed
    meanwhile, or is just being replaced on a system that leaves a gap.

    Args:
        path: of the bundle; may be a link that is pointed elsewhere.
        witness: name of a small file in it that differs between any two bundles.

    Raises: BundleError of `read`, for a bundle that stayed as it was.
    """
    deadline, pause_s = time.monotonic() + PATIENCE_S, 0.001
    while True:
        before = _state(path, witness)
        try:
            return read()
        except BundleError as exc:
            # Whatever is missing before and after may have been there in between, while a gap came and went.
            asides = [set_aside(path)] if before is None else []
            stayed = before == _state(path, witness)
            asides += [set_aside(path)] if asides and stayed else []
            old = next((aside for aside in asides if aside is not None), None)
            if stayed and old is None:
                raise
            if time.monotonic() >= deadline:
                if stayed:
                    raise BundleError(
                        f"bundle {path}: does not exist: somebody was interrupted while replacing it; the old one is"
                        f" {old}, move it back"
                    ) from exc
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _state(path: Path, witness: str) -> tuple[object, ...] | None:
    """What differs when a directory, or a bundle of other content, takes the place of another; None without one."""
    try:
        folder = os.stat(path)
    except OSError:
        return None
    try:
        with open(path / witness, "rb") as file:
            text = file.read(1024)
    except OSError:
        text = b""
    return folder.st_dev, folder.st_ino, folder.st_ctime_ns, text
