"""Standard output as a file of lines, none of which is written twice or left torn."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from edge_ad.errors import OutputError


class StandardOutput:
    """Hands lines to the system at once.

    What was written of a line cannot be taken back here. So a line that failed goes on, when it is tried again, from
    where the system stopped taking it; a buffer would keep that rest and write it beside the next attempt.
    """

    def __init__(self) -> None:
        self._stream: TextIO | None = sys.stdout
        self._rest = b""
        self._begun: bytes | None = None
        self._is_torn = False

    def check(self) -> None:
        """Raises: OutputError where there is none."""
        if self._stream is None:
            raise OutputError("standard output is closed; give --output")

    def append(self, line: bytes) -> None:
        """Write a line of ASCII with its break. Raises: OSError."""
        if line != self._begun:
            self._rest = self._rest + line if self._is_torn else line
            self._begun = line
        self._write_rest()
        self._begun, self._is_torn = None, False

    def fileno(self) -> int | None:
        """Descriptor; None where standard output is no file of the system."""
        try:
            return self._stream.fileno() if self._stream is not None else None
        except (OSError, ValueError, AttributeError):
            return None

    def _write_rest(self) -> None:
        assert self._stream is not None
        descriptor = self.fileno()
        if descriptor is None:
            self._stream.write(self._rest.decode())
            self._rest = b""
        else:
            while self._rest:
                taken = os.write(descriptor, self._rest)
                self._rest = self._rest[taken:]
                self._is_torn = self._is_torn or taken > 0
        self._stream.flush()
