"""Where verdicts go. A new kind of picture is a function in `pictures` and one line in PICTURES."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from edge_ad.errors import OutputError, os_reason
from edge_ad.frame import Frame
from edge_ad.verdict import Verdict


class Sink(Protocol):
    """Receives every record of a run from one thread, those of one source in order of capture.

    A sink may define, besides:

    * `keeps_records = True`: what it does not write is a lost verdict. It gets frames without pictures and verdicts
      without maps, so that many can wait for it, and gets again what it failed to write. Other sinks are spared what
      they cannot keep up with, when a source is live.
    * `in_caller_thread = True`: it is written from the thread that runs the line, not from one of its own.
    * `event(entry)`: takes events, which are no frames. Raises: OutputError.
    """

    def __enter__(self) -> Sink: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        """Take one frame, its verdict and its record. Raises: OutputError."""
        ...


def output_folder(path: Path) -> Path:
    """Create a folder for results. Raises: OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"output folder {path}: cannot be made: {os_reason(exc)}") from exc
    return path


def set_aside(path: Path) -> Path | None:
    """Give results of an earlier run, file or folder, a name with their date, and return it. Raises: OSError."""
    if not path.exists():
        return None
    written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    number = 0
    while True:
        other = path.with_name(f"{path.stem}-{written}{f'-{number}' if number else ''}{path.suffix}")
        if not other.exists():
            path.rename(other)
            return other
        number += 1
