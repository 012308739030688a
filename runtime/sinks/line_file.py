"""A file of lines in which every line is whole: what a failing disk left of one is taken back."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from io import FileIO
from pathlib import Path

from edge_ad.runtime.host.held import HeldName, Standing
from edge_ad.runtime.sinks.copies import Content

_STEP = 1 << 20


class LineFile:
    """A file to which lines are appended, and handed to the system at once; O_APPEND, so that one that somebody
    truncates goes on from its new end.

    Args: path: must not exist, or be empty where `adopt` says so. Raises: OSError.

    Attributes:
        size_bytes: of the whole lines in it.
        lines: that were appended and that nobody has cut off since.
        began_s: `time.monotonic()` when it was made.
    """

    def __init__(self, path: Path, *, adopt: bool = False) -> None:
        self._file = _open(path, adopt=adopt)
        self._name = HeldName(path, self._file.fileno())
        self._lock = threading.Lock()
        self._torn: tuple[int, int] | None = None  # where a line that failed begins, and how much of it there may be
        self._dirty = False
        self._cut_off: int | None = None
        self._content = Content()
        self.size_bytes = 0
        self.lines = 0
        self.began_s = time.monotonic()

    @property
    def standing(self) -> Standing:
        """Whether the file is still under its name."""
        return self._name.standing

    @property
    def now_at(self) -> Path | None:
        """Where it is, if the system says so."""
        return self._name.now_at

    def lines_copied(self) -> int:
        """How many of the lines are in a copy that somebody has left beside the file."""
        return min(self.lines, self._content.lines_copied(self._name.path))

    def append(self, line: bytes, *, flush: bool) -> None:
        """Write a line with its break, to the device if `flush`. Raises: OSError; nothing of it stays in the file."""
        with self._lock:
            while not self._append(line, flush):
                pass  # cut off at once; whoever does that over and over is not faster than a disk
            self.lines += 1
            self._content.add(line)
            self._dirty = not flush

    def _append(self, line: bytes, flush: bool) -> bool:
        """Returns: False when the line was cut off while it was written."""
        before = self._settle()
        rest, written = memoryview(line), 0
        try:
            while rest:
                count = self._file.write(rest)
                rest, written = rest[count:], written + count
            if flush:
                os.fsync(self._file.fileno())
        except OSError:
            self._torn = before, written
            with contextlib.suppress(OSError):
                self._take_back()
            raise
        size = self._size()
        is_there = size >= before + len(line) or self._read(size - len(line), len(line)) == line
        self.size_bytes = before + len(line) if size >= before + len(line) else size
        if size < before + len(line):
            self._count_cut(size - len(line) if is_there else size)
        return is_there

    def _settle(self) -> int:
        """Make the end of the file one at which a line can begin. Returns: its size."""
        if self._torn is not None:
            self._take_back()
        self._notice_cut()
        size = self._size()
        if size > self.size_bytes and self._read(size - 1, 1) != b"\n":  # somebody else writes here, too
            self._file.write(b"\n")
            size += 1
        self.size_bytes = size
        return size

    def _take_back(self) -> None:
        assert self._torn is not None
        begin, written = self._torn
        if self._size() == begin + written:  # else somebody has written or cut meanwhile, and `_settle` sees to it
            self._file.truncate(begin)
        self._torn = None

    def notice_cut(self) -> int | None:
        """How many lines somebody has cut off by truncating the file, since this was last asked, and not copied before.

        Returns: None when nobody has truncated it. Raises: OSError.
        """
        with self._lock:
            self._notice_cut()
            count, self._cut_off = self._cut_off, None
            return count

    def _notice_cut(self) -> None:
        size = self._size()
        if size >= self.size_bytes:
            return
        self._count_cut(size)
        while size and self._read(size - 1, 1) != b"\n":  # the rest of a line that was cut in two
            size = self._last_break(size)
            self._file.truncate(size)
        self.size_bytes = size

    def _count_cut(self, size: int) -> None:
        """Of the lines of which only those in the first `size` bytes are left."""
        left = min(self.lines, sum(self._read(at, min(_STEP, size - at)).count(b"\n") for at in range(0, size, _STEP)))
        copied = self.lines_copied() if left < self.lines else left
        self._cut_off = (self._cut_off or 0) + self.lines - max(left, copied)
        self._content = Content()
        self.lines = left

    def _last_break(self, size: int) -> int:
        """Where the last whole line in the first `size` bytes ends."""
        while size:
            begin = max(0, size - _STEP)
            found = self._read(begin, size - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            size = begin
        return 0

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _read(self, begin: int, count: int) -> bytes:
        if begin < 0 or count <= 0:
            return b""
        self._file.seek(begin)  # what is appended goes to the end all the same
        return self._file.read(count)

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


def _open(path: Path, *, adopt: bool) -> FileIO:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"):  # where the system has them
        flags |= getattr(os, name, 0)
    handle = os.open(path, flags if adopt else flags | os.O_EXCL, 0o666)
    return FileIO(handle, "r+b")  # a buffer would keep the rest of a refused line, and write it later
