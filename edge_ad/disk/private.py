"""Folders and files that this user alone can change; what others could have put there is not trusted.

Owner and mode are those of POSIX. On Windows the folders of a user are closed to others by the system, and nothing is
looked at here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS_MAY_DO_ANYTHING = stat.S_IRWXG | stat.S_IRWXO


class NotPrivateError(OSError):
    """Others can change a file or folder, or could have made it; the message says which and why."""


def fault_of_folder(folder: Path) -> str | None:
    """Why others could put files into a folder, or another folder in its place; None where they cannot.

    The way to it is followed from the root, for what lies in a folder that is this user's alone cannot be changed
    below it while the rest is looked at. A folder above that all may write to is fine where it is sticky, as /tmp is;
    one that a group may write to, where nobody else is in that group. Of what does not exist yet, what does exist on
    the way to it is looked at.
    """
    if os.name != "posix":
        return None
    trusted = {0, os.geteuid()}
    path = real = Path(os.path.realpath(folder))
    try:
        for path in _links(Path(os.path.abspath(folder))):
            if os.lstat(path).st_uid not in trusted:
                return f"the link {path} belongs to user {os.lstat(path).st_uid}"
        for path in (*reversed(real.parents), real):
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode):
                return f"{path} is no folder"
            if found.st_uid not in trusted:
                return f"{path} belongs to user {found.st_uid}"
            if found.st_mode & OTHERS_MAY_WRITE and not (path != real and _is_fine_above(found)):
                return f"others can write to {path} (mode {stat.S_IMODE(found.st_mode):04o})"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        return f"{path} cannot be looked at: {exc.strerror}"
    return None


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above that are missing, for this user alone. Raises: OSError."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    if not folder.is_dir():
        folder.mkdir(mode=0o700)  # raises what is wrong


def read_private(path: Path, *, closed: bool = False) -> bytearray:
    """All of a file that others cannot change, in memory that is the caller's alone.

    Owner and mode are those of the file that was opened, so it does not matter what its name comes to mean later.

    Args:
        closed: others may not read it either, and it is this user's, not the system's.

    Raises: FileNotFoundError and other OSError; NotPrivateError for what others can change, a link, or no file.
    """
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    if path.is_symlink():
        raise NotPrivateError(f"{path} is a link")
    with open(os.open(path, flags), "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise NotPrivateError(f"{path} is no file")
        if os.name == "posix":
            _check(path, found, closed)
        # Not mapped: what changes in the file later is not to change here.
        data = bytearray(found.st_size)
        view, read = memoryview(data), 0
        while read < len(data) and (more := file.readinto(view[read:])):
            read += more
        view.release()
        del data[read:]
        return data


def _check(path: Path, found: os.stat_result, closed: bool) -> None:
    owners, forbidden = ({os.geteuid()}, OTHERS_MAY_DO_ANYTHING) if closed else ({0, os.geteuid()}, OTHERS_MAY_WRITE)
    if found.st_uid not in owners:
        raise NotPrivateError(f"{path} belongs to user {found.st_uid}")
    if found.st_mode & forbidden:
        what = "read or change" if closed else "write to"
        raise NotPrivateError(f"others can {what} {path} (mode {stat.S_IMODE(found.st_mode):04o})")


def _is_fine_above(found: os.stat_result) -> bool:
    """Whether others can make files in a folder, or nobody else is in its group, but not replace what lies there."""
    if found.st_mode & stat.S_ISVTX:
        return True
    return not found.st_mode & stat.S_IWOTH and _is_alone_in(found.st_gid)


def _is_alone_in(group: int) -> bool:
    """Whether a group is that of this user alone, as Linux distributions make one for every user but root."""
    import grp
    import pwd

    if group != os.geteuid() or group == 0:
        return False
    try:
        name, entry = pwd.getpwuid(group).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return entry.gr_name == name and {*entry.gr_mem} <= {name}


def _links(path: Path) -> Iterator[Path]:
    return (part for part in (*reversed(path.parents), path) if part.is_symlink())
