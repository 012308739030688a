"""When what was written is flushed to the device: never, after each record, or every so many seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType


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


class Ticker:
    """Calls something every so many seconds from a thread of its own, until it is left.

    Args:
        interval_s: seconds between calls; 0 or None makes no thread.
        call: must not raise.
    """

    def __init__(self, interval_s: float | None, call: Callable[[], None], name: str) -> None:
        self._interval_s = interval_s
        self._call = call
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True) if interval_s else None

    def __enter__(self) -> Ticker:
        if self._thread is not None:
            self._thread.start()
        return self

    def _run(self) -> None:
        while not self._end.wait(self._interval_s):
            self._call()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
