"""A file of lines in which every line is whole: what a failing disk left of one is taken back."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path


class LineFile:
    """A new file; lines are handed to the system at once. Args: path: must not exist. Raises: OSError.

    Attributes:
        size_bytes: of the whole lines in it.
        began_s: `time.monotonic()` when it was made.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)  # a buffer would keep the rest of a refused line, and write it later
        self._lock = threading.Lock()
        self._torn = False
        self._dirty = False
        self.size_bytes = 0
        self.began_s = time.monotonic()

    def append(self, line: bytes, *, flush: bool) -> None:
        """Write a line with its break, to the device if `flush`. Raises: OSError; nothing of it stays in the file."""
        with self._lock:
            if self._torn:
                self._take_back()
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) :]
                if flush:
                    os.fsync(self._file.fileno())
            except OSError:
                self._torn = True
                with contextlib.suppress(OSError):
                    self._take_back()
                raise
            self.size_bytes += len(line)
            self._dirty = not flush

    def _take_back(self) -> None:
        self._file.truncate(self.size_bytes)
        self._file.seek(self.size_bytes)
        self._torn = False

    def flush(self) -> None:
        """Flush to the device what was written since the last time. Raises: OSError."""
        with self._lock:
            if not self._dirty or self._file.closed:
                return
            self._dirty = False
            handle = os.dup(self._file.fileno())  # writing goes on while a slow disk flushes
        try:
            os.fsync(handle)
        except OSError:
            self._dirty = True
            raise
        finally:
            os.close(handle)

    def close(self, *, flush: bool) -> None:
        """Raises: OSError when the last lines may not have reached the device; the file is closed all the same."""
        try:
            if flush:
                self.flush()
        finally:
            with self._lock:
                self._file.close()
