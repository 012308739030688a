"""Writing files and directories so that a crash leaves the old state or the new one, never half of either."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that nobody else sees yet, and flush it to the device."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path`, in place of whatever was there, in one step."""
    handle, scratch_name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    scratch = Path(scratch_name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def publish_directory(scratch: Path, path: Path, *, replace: bool) -> None:
    """Rename a finished directory to `path`.

    A directory that is replaced is moved aside first and put back when the second rename fails.
    """
    if not (replace and path.exists()):
        scratch.rename(path)
    else:
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
        try:
            path.rename(aside / path.name)
            scratch.rename(path)
        except BaseException:
            if os.path.lexists(aside / path.name):
                (aside / path.name).rename(path)
            aside.rmdir()
            raise
        shutil.rmtree(aside, ignore_errors=True)
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make renames inside a directory durable, where the system has such a thing."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
