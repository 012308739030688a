"""Where verdicts go. A new kind of picture is a function in `pictures` and one line in PICTURES."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from edge_ad.errors import OutputError, os_reason
from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict


class Sink(Protocol):
    """Receives every record of a run from one thread, those of one source in order of capture.

    A sink may define, besides:

    * `keeps_records = True`: what it does not write is a lost verdict. It gets frames without pictures and verdicts
      without maps, so that many can wait for it, and gets again what it failed to write. Other sinks are spared what
      they cannot keep up with, when a source is live.
    * `in_caller_thread = True`: it is written from the thread that runs the line, not from one of its own.
    * `event(entry)`: takes events, which are no frames. Raises: OutputError.
    * `raise_events(emit)`: is given, before the first frame, what sends an event to all sinks that take events.
    * `account()`: returns what became of the records that it took and still had to deliver, for the counters.
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
    named = dated_name(path)
    same = [match for other in path.parent.iterdir() if (match := named.fullmatch(other.name)) and match[1] == written]
    # Above all that are there: one that was deleted leaves its number free, and the newest must not get it.
    number = 1 + max((int(match[2] or 0) for match in same), default=-1)
    other = path.with_name(f"{path.stem}-{written}{f'-{number}' if number else ''}{path.suffix}")
    path.rename(other)
    return other


def dated_name(path: Path) -> re.Pattern[str]:
    """Matches the names that `set_aside` gives: the date, and a number where several have the same."""
    return re.compile(rf"{re.escape(path.stem)}-(\d{{8}}T\d{{6}}Z)(?:-(\d+))?{re.escape(path.suffix)}")
