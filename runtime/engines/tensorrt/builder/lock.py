"""One process at a time at a place on disk; the system lets go of the lock when its holder ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None  # Windows has none


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of `path` while the block runs.

    The lock is a file beside it, which is removed afterwards. Where the system or the file system has no such locks the
    block runs at once: two processes then do the same work, and the later one's files stay.

    Args:
        path: the file that is to be made; its folder exists.
        waiting: called once, when another process holds the lock.
    """
    lock_path = path.with_name(f".{path.name}.lock")
    try:
        handle = _acquired(lock_path, waiting)
    except OSError:
        handle = None
    try:
        yield
    finally:
        if handle is not None:
            lock_path.unlink(missing_ok=True)
            os.close(handle)


def _acquired(lock_path: Path, waiting: Callable[[], None]) -> int | None:
    """Handle of the locked file. A holder removes the file, so one that is locked too late has to be opened anew."""
    if fcntl is None:
        return None
    said = False
    while True:
        handle = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not said:
                    waiting()
                    said = True
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_still(handle, lock_path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_still(handle: int, path: Path) -> bool:
    """Whether `path` is the file that was opened."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
