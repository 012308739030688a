"""What slow fixtures make, kept in pytest's cache for the other processes that a run of the tests consists of.

It is kept under a hash of everything that it can depend upon: every Python file of the checkout, the names and versions
of what is installed, and the Python that runs. Whatever changes, it is made anew; without pytest's cache it always is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

FOLDERS = ("edge_ad", "export", "calibration", "runtime", "tests")


def state_of_code(root: Path) -> str:
    """A hash of the files below the folders of a checkout, and of what is installed."""
    digest = hashlib.sha256(f"{sys.version} {platform.machine()}".encode())
    installed = {path.name for entry in sys.path for path in Path(entry).glob("*.dist-info")}  # NAME-VERSION.dist-info
    digest.update("\n".join(sorted(installed)).encode())
    for path in sorted(_python_files(root)):
        content = path.read_bytes()
        digest.update(f"\n{path.relative_to(root)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _python_files(root: Path) -> Iterable[Path]:
    for folder in FOLDERS:
        yield from (root / folder).rglob("*.py")


class Kept:
    """Folders that functions fill, each once for every state of the code.

    Args:
        place: for what is kept, of one state of the code; None keeps nothing.
        new_folder: makes an empty folder of that name for this process, where what was kept is copied to.
    """

    def __init__(self, place: Path | None, new_folder: Callable[[str], Path]) -> None:
        self._place = place
        self._new_folder = new_folder

    def folder(self, name: str, fill: Callable[[Path], object]) -> Path:
        """A folder of this process's own with what `fill` puts into an empty one."""
        folder = self._new_folder(name)
        if self._place is None:
            fill(folder)
            return folder
        stored = self._place / name
        try:
            shutil.copytree(stored, folder, dirs_exist_ok=True)
        except OSError:  # it was not made yet, or another process is clearing up
            shutil.rmtree(folder)
            folder.mkdir()
            fill(folder)
            self._store(folder, stored)
        return folder

    def _store(self, folder: Path, stored: Path) -> None:
        """Whole or not at all: other processes may look at the same time."""
        _remove_other_states(stored.parent)
        scratch = stored.with_name(f"{stored.name}.{os.getpid()}")
        try:
            shutil.copytree(folder, scratch)
            scratch.rename(stored)
        except OSError:  # another process was first
            shutil.rmtree(scratch, ignore_errors=True)


def _remove_other_states(place: Path) -> None:
    if place.parent.is_dir():
        for other in place.parent.iterdir():
            if other != place:
                shutil.rmtree(other, ignore_errors=True)
