"""Ctrl-C and SIGTERM while a line runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption(threading.Event):
    """Set by Ctrl-C and SIGTERM; `at_once` while nothing was captured, since a source may take minutes to open."""

    at_once = True


@contextmanager
def stopping(stop: threading.Event) -> Iterator[Interruption]:
    """Let Ctrl-C and SIGTERM end the run after the frame in hand; a second Ctrl-C interrupts at once."""
    interrupted = Interruption()

    def ask(number: int, _: FrameType | None) -> None:
        if interrupted.at_once or (interrupted.is_set() and number == signal.SIGINT):
            raise KeyboardInterrupt
        interrupted.set()
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
