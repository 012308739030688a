"""Writing files and directories so that a crash leaves the old state or the new one, never half of either."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux, fcntl.h and linux/fs.h
CANNOT = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})
"""What a kernel, a file system or a sandbox says that does not exchange; EPERM is of the latter."""


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


def write_new(path: Path, data: bytes) -> None:
    """Put `data` at `path`, where nothing was, in one step. Raises: FileExistsError; OSError."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        write_durably(scratch, data)
        try:
            os.link(scratch, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: whoever makes the name first has it
            path.open("xb").close()
            scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def publish_directory(scratch: Path, path: Path, *, replace: bool) -> None:
    """Rename a finished directory to `path`; where that is a link, to what it points to.

    A directory that is replaced is exchanged in one step: at every moment the old or the new one is there, and a
    process that is killed leaves one of them. Where the system cannot do that there is a moment without either, for
    which `set_aside` finds the old one.

    Args:
        scratch: on the file system of `path`; gone afterwards.
    """
    path = Path(os.path.realpath(path))
    if not (replace and path.exists()):
        scratch.rename(path)
    elif _exchange(scratch, path):
        shutil.rmtree(scratch, ignore_errors=True)
    else:
        _replace_with_a_gap(scratch, path)
    fsync_directory(path.parent)


def set_aside(path: Path) -> Path | None:
    """Where the old directory lies while `path` is replaced with a gap, or since that was interrupted; None else."""
    path = Path(os.path.realpath(path))
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return None
    asides = (name for name in names if name.startswith(f".{path.name}.") and name.endswith(".old"))
    return next((path.parent / name / path.name for name in asides), None)


def _replace_with_a_gap(scratch: Path, path: Path) -> None:
    """Move a directory aside and another one to its place; the first is put back when that fails."""
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


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step. Returns: False where the system cannot do that. Raises: OSError."""
    renameat2 = _renameat2()
    if renameat2 is None:
        return False
    code = renameat2(os.fsencode(one), os.fsencode(other), RENAME_EXCHANGE)
    if code in CANNOT:
        return False
    if code:
        raise OSError(code, os.strerror(code), str(one), None, str(other))
    return True


@cache
def _renameat2() -> Callable[[bytes, bytes, int], int] | None:
    """Linux's call, which returns an error number or 0; None where there is none (glibc has it from 2.28 on)."""
    if sys.platform != "linux":
        return None
    import ctypes

    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

    def call(one: bytes, other: bytes, flags: int) -> int:
        return ctypes.get_errno() if function(AT_FDCWD, one, AT_FDCWD, other, flags) else 0

    return call


def fsync_directory(path: Path) -> None:
    """Make renames inside a directory durable, where the system has such a thing."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
