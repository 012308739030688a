"""When what was written is flushed to the device: never, after each record, or every so many seconds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edge_ad.errors import os_reason


@dataclass(frozen=True)
class SyncPolicy:
    """Guards against a power cut; what a killed process wrote is kept by the system whatever the rule is.

    Attributes:
        interval_s: seconds between flushes; 0 flushes after each record, None leaves it to the system.
    """

    interval_s: float | None = None

    @property
    def every_record(self) -> bool:
        return self.interval_s == 0


class Flusher:
    """Flushes something every so many seconds from a thread of its own, until it is left.

    Args:
        interval_s: seconds between flushes; 0 or None makes no thread.
        flush: raises OSError when it fails, which is said once until it works again.
        path: what is flushed, as the user knows it.
        say: receives what the user should know.
        name: of the thread.

    Attributes:
        failed: whether the last flush did.
    """

    def __init__(
        self,
        interval_s: float | None,
        flush: Callable[[], None],
        path: Path | None,
        say: Callable[[str], None],
        name: str,
    ) -> None:
        self.failed = False
        self._interval_s = interval_s
        self._flush = flush
        self._path = path
        self._say = say
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True) if interval_s else None

    def __enter__(self) -> Flusher:
        if self._thread is not None:
            self._thread.start()
        return self

    def _run(self) -> None:
        while not self._end.wait(self._interval_s):
            try:
                self._flush()
            except OSError as exc:
                if not self.failed:
                    self._say(f"warning: {self._path}: cannot be flushed: {os_reason(exc)}")
                self.failed = True
            else:
                self.failed = False

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()


def flush_log(database: Path) -> None:
    """Flush the write-ahead log of an SQLite database, without holding up who writes meanwhile. Raises: OSError."""
    try:
        log = database.with_name(f"{database.name}-wal").open("rb+")
    except FileNotFoundError:
        return  # it has just been moved to the database, which flushes
    with log:
        os.fsync(log.fileno())
