"""Where verdicts go. A new kind of picture is a function in `pictures` and one line in PICTURES."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from edge_ad.errors import OutputError, OutputUnavailableError, may_pass, os_reason
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
    * `write_many(entries)`: takes records and events together, all of them or none, after which they count as written;
      then `linger_s` is for how long the first of them may wait for others. Raises: OutputError.
    * `look()`: is called several times a second by the thread that writes, when there is nothing to write: notices what
      somebody else does to its files, and goes on in new ones. Raises: OutputError.
    * `written_off()`: returns what became of records that it had written, since it was last asked: `gone`, which
      somebody else has taken away, and `expired`, deleted as its settings say.
    * `trouble`: what is wrong with its files at the moment, in words, or None.
    * `conditions()`: says what is wrong with its threads and its receiver (`edge_ad.runtime.host.health`).
    """

    def __enter__(self) -> Sink: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        """Take one frame, its verdict and its record. Raises: OutputError."""
        ...


class OnePictureError(OutputError):
    """This one picture cannot be kept; the next one may. It is left out, and the run goes on."""


def sink_name(sink: Sink) -> str:
    """What a sink is called in counters and messages."""
    return str(getattr(sink, "label", type(sink).__name__))


def output_folder(path: Path) -> Path:
    """Create a folder for results. Raises: OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        kind = OutputUnavailableError if may_pass(exc) else OutputError
        raise kind(f"output folder {path}: cannot be made: {os_reason(exc)}") from exc
    return path


class BusyError(OutputError):
    """Somebody else holds what a sink writes to. It passes, so that it is worth another attempt in any line."""


def set_aside(path: Path, note: Callable[[Path], None] = lambda _: None) -> Path | None:
    """Give results of an earlier run, file or folder, a name with their date, and return it; None where there are none.

    Args: note: is told the name before anything gets it. Raises: OSError.
    """
    if not os.path.lexists(path):
        return None
    other = free_name(path)
    note(other)
    path.rename(other)
    return other


def free_name(path: Path) -> Path:
    """The name that `set_aside` gives. Raises: OSError."""
    written = datetime.fromtimestamp(path.lstat().st_mtime, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    named = dated_name(path)
    same = [match for other in path.parent.iterdir() if (match := named.fullmatch(other.name)) and match[1] == written]
    # Above all that are there: one that was deleted leaves its number free, and the newest must not get it.
    number = 1 + max((int(match[2] or 0) for match in same), default=-1)
    return path.with_name(f"{path.stem}-{written}{f'-{number}' if number else ''}{path.suffix}")


def dated_name(path: Path) -> re.Pattern[str]:
    """Matches the names that `set_aside` gives: the date, and a number where several have the same."""
    return re.compile(rf"{re.escape(path.stem)}-(\d{{8}}T\d{{6}}Z)(?:-(\d+))?{re.escape(path.suffix)}")
