"""Ctrl-C and SIGTERM while a line runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edge_ad.signals.supervisor import supervised


class Interruption(threading.Event):
    """Set by Ctrl-C and SIGTERM; `at_once` while nothing was captured, since a source may take minutes to open."""

    at_once = True


@contextmanager
def stopping(stop: threading.Event) -> Iterator[Interruption]:
    """Let Ctrl-C and SIGTERM end the run after the frame in hand; a second Ctrl-C interrupts at once."""
    interrupted = Interruption()

    def take() -> bool:
        if interrupted.at_once:
            return False
        interrupted.set()
        stop.set()
        return True

    with supervised() as supervisor:
        if supervisor is None:
            yield interrupted
            return
        with supervisor.on_stop(take):
            yield interrupted
