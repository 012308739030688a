"""Files and folders that somebody else may take away while they are written to."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from edge_ad.errors import OutputError, os_reason

Standing = Literal["there", "renamed", "removed"]


class HeldName:
    """A name and the file that was under it when this was made; tells when somebody parts the two.

    Args:
        path: of a file that is there. A link stands for what it points to.
        handle: of that file, which stays the caller's; by default one of its own, on systems other than Windows, where
            nobody can take away what is open. The file is not opened for it, so that closing it drops none of the locks
            that SQLite holds on the file.

    Raises: OSError.
    """

    def __init__(self, path: Path, handle: int | None = None) -> None:
        self.path = path
        self._handle = handle
        self._release: Callable[[], object] = lambda: None
        if handle is None and os.name == "posix":
            self._handle = os.open(path, getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC)
            # By itself, too: who holds several names may find the second one gone.
            self._release = weakref.finalize(self, os.close, self._handle)

    @property
    def standing(self) -> Standing:
        """Whether the file still has its name, has another one, or has none any more, so that nobody finds it.

        Where the file system does not answer, nothing is known to have changed.
        """
        if self._handle is None:
            return "there"
        named: os.stat_result | None = None
        try:
            with suppress(FileNotFoundError, NotADirectoryError):
                named = os.stat(self.path)
            held = os.fstat(self._handle)  # after the other: what was removed in between has no name here
        except OSError:
            return "there"
        if named is not None and os.path.samestat(named, held):
            return "there"
        return "removed" if held.st_nlink == 0 else "renamed"

    @property
    def size_bytes(self) -> int:
        """Of the file, wherever it is. Raises: OSError."""
        return (self.path.stat() if self._handle is None else os.fstat(self._handle)).st_size

    @property
    def now_at(self) -> Path | None:
        """Where a renamed file is; None where the system does not say."""
        try:
            found = Path(os.readlink(f"/proc/self/fd/{self._handle}"))
            is_it = os.path.samestat(os.stat(found), os.fstat(self._handle or 0))
        except OSError:
            return None
        return found if is_it else None

    def close(self) -> None:
        self._release()


class HeldFolder:
    """A folder for results that is made again when somebody takes it away.

    Not while its file system is not mounted: a share leaves an empty folder behind, and what is written there fills a
    disk that nobody looks at.

    Args: path: of a folder that is there. Raises: OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = HeldName(path)
        real = Path(os.path.realpath(path))
        self._mount = next((one for one in (real, *real.parents) if os.path.ismount(one)), None)

    def restore(self) -> Standing:
        """Make the folder where it is not there. Returns: what became of the one of last time. Raises: OutputError."""
        standing = self._name.standing
        if standing == "there":
            return standing
        try:
            if self._mount is not None and not os.path.ismount(self._mount):
                raise OutputError(f"{self.path}: nothing is mounted at {self._mount} any more")
            self.path.mkdir(parents=True, exist_ok=True)
            held = HeldName(self.path)
        except OSError as exc:
            raise OutputError(f"{self.path}: is gone, and cannot be made again: {os_reason(exc)}") from exc
        self._name.close()
        self._name = held
        return standing

    def close(self) -> None:
        self._name.close()
