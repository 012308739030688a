"""Records as lines of JSON, to a file or to standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

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
        self._stream: TextIO = sys.stdout

    def __enter__(self) -> JsonLines:
        if self.path is None:
            if sys.stdout is None:
                raise OutputError("standard output is closed; give --output")
            return self
        output_folder(self.path.parent)
        try:
            set_aside(self.path)
            self._stream = self.path.open("x", encoding="utf-8", newline="\n")
        except OSError as exc:
            raise OutputError(f"{self.path}: cannot be written: {os_reason(exc)}") from exc
        return self

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self.event(entry)

    def event(self, entry: Mapping[str, Any]) -> None:
        """Write what happened between frames as a line of its own. Raises: OutputError."""
        try:
            self._stream.write(record_line(entry) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise OutputError(f"{self.path or 'standard output'}: cannot be written: {os_reason(exc)}") from exc

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.path is not None:
            self._stream.close()
