"""A folder of results: owned by one run at a time, and told apart from folders of the user."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import IO

from edge_ad.errors import OutputError, os_reason

RECORDS = "verdicts.jsonl"
LEDGER = ".edge-ad"
"""File in a folder of results: locked by the run that writes there, and naming the folders of pictures that runs drew.

Those are no input of a later run, and may be set aside; any other folder is the user's.
"""


def claim(folder: Path) -> None:
    """Note that a folder of pictures is edge-ad's. Raises: OSError."""
    with (folder.parent / LEDGER).open("a", encoding="utf-8") as file:
        file.write(folder.name + "\n")


def is_drawn(folder: Path) -> bool:
    """Whether edge-ad drew the pictures in a folder."""
    try:
        return folder.name in (folder.parent / LEDGER).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False


class ResultFolder:
    """Makes the folder and keeps other runs out of it while this one lasts. Args: path: the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> ResultFolder:
        """Raises: OutputError when the folder cannot be made, or another run writes to it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / LEDGER).open("ab")
        except OSError as exc:
            raise OutputError(f"output folder {self.path}: cannot be written: {os_reason(exc)}") from exc
        try:
            _lock(self._lock)
        except BlockingIOError as exc:
            self._lock.close()
            raise OutputError(f"{self.path}: another run is writing here; choose another --output") from exc
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The file stays: a lock on a name that comes and goes can be held by two.
        if self._lock is not None:
            self._lock.close()


def _lock(file: IO[bytes]) -> None:
    """Lock a file where the system and its file system can. Raises: BlockingIOError when another process holds it."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if isinstance(exc, BlockingIOError):
            raise
