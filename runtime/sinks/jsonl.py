"""Records as lines of JSON, to a file or to standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TextIO

from edge_ad.errors import OutputError, os_reason
from edge_ad.frame import Frame
from edge_ad.runtime.results import RECORDS
from edge_ad.runtime.sinks import output_folder, set_aside
from edge_ad.verdict import Verdict, record_line


class JsonLines:
    """One line for each frame, handed to the system as soon as it is judged.

    Args:
        folder: `verdicts.jsonl` is written here, and one that is there from an earlier run keeps its lines under a name
            with its date; None writes to standard output.
    """

    keeps_records = True

    def __init__(self, folder: Path | None) -> None:
        self.path = None if folder is None else folder / RECORDS
        self._file: IO[bytes] | None = None
        self._stream: TextIO = sys.stdout
        self._rest = b""  # of a line that could be written in part only
        self._begun: Mapping[str, Any] | None = None
        self._is_torn = False

    def __enter__(self) -> JsonLines:
        if self.path is None:
            if sys.stdout is None:
                raise OutputError("standard output is closed; give --output")
            return self
        output_folder(self.path.parent)
        try:
            set_aside(self.path)
            self._file = self.path.open("xb", buffering=0)
        except OSError as exc:
            raise OutputError(f"{self.path}: cannot be written: {os_reason(exc)}") from exc
        return self

    def fileno(self) -> int | None:
        """Descriptor to write to; None where standard output is no file of the system."""
        if self._file is not None:
            return self._file.fileno()
        try:
            return self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            return None

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self.event(entry)

    def event(self, entry: Mapping[str, Any]) -> None:
        """Write what happened between frames as a line of its own.

        After a failure, the same entry is written on from where the system stopped taking it: a buffer would keep it,
        and write it beside the next attempt.

        Raises: OutputError.
        """
        if entry is not self._begun:
            line = (record_line(entry) + "\n").encode()
            self._rest = self._rest + line if self._is_torn else line
            self._begun = entry
        try:
            self._write_rest()
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise OutputError(f"{self.path or 'standard output'}: cannot be written: {os_reason(exc)}") from exc
        self._begun, self._is_torn = None, False

    def _write_rest(self) -> None:
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

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
