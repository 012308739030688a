"""What was copied of a file before it was truncated, as logrotate's copytruncate does."""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

RECENT = 2000  # lines that may come while a file is copied
_STEP = 1 << 20


class Content:
    """What was written to a file, so that a copy of its beginning can be told from anything else."""

    def __init__(self) -> None:
        self._size = self._lines = self._crc = 0
        self._ends: deque[tuple[int, int, int]] = deque([(0, 0, 0)], maxlen=RECENT)  # bytes, lines and CRC up to there

    def add(self, line: bytes) -> None:
        self._size += len(line)
        self._lines += 1
        self._crc = zlib.crc32(line, self._crc)
        self._ends.append((self._size, self._lines, self._crc))

    def lines_copied(self, path: Path) -> int:
        """How many of the lines are in a copy that lies beside the file, under its name with something behind it."""
        return max((self._lines_in(one) for one in _copies(path)), default=0)

    def _lines_in(self, copy: Path) -> int:
        sums = {}
        wanted = iter(self._ends)
        end = next(wanted, None)
        size = crc = 0
        with suppress(OSError, EOFError, zlib.error), _opened(copy) as file:
            while end is not None:
                data = file.read(min(_STEP, end[0] - size)) if end[0] > size else b""
                size, crc = size + len(data), zlib.crc32(data, crc)
                if size == end[0]:
                    sums[end[1]] = crc == end[2]
                    end = next(wanted, None)
                elif not data:
                    break
        return max((lines for lines, is_same in sums.items() if is_same), default=0)


def _copies(path: Path) -> Iterable[Path]:
    with suppress(OSError):
        for other in sorted(path.parent.iterdir()):
            if other.name.startswith(path.name) and other != path and other.is_file() and not other.is_symlink():
                yield other


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
