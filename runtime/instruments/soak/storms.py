"""Hangups that a soak sends to its own process, and whether they are heard."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from types import TracebackType

from edge_ad.runtime.instruments.soak.checks import Findings
from edge_ad.signals.supervisor import supervised
from edge_ad.signals.wakeup import HANGUP

HEARD_S = 5.0  # within which a hangup is to be heard, on a machine that has something else to do


class Storms:
    """Sends hangups, which a line takes for a reload, while the block lasts.

    Outside of the main thread, or where the system has no such signal, it sends none: they would end the process.

    Args:
        findings: receives what was not heard.

    Attributes:
        possible: whether somebody hears signals.
    """

    def __init__(self, findings: Findings) -> None:
        self.possible = False
        self._findings = findings
        self._stack = ExitStack()
        self._heard = 0
        self._due: tuple[float, int] | None = None  # until when the last storm is to be heard, and what was before it

    def __enter__(self) -> Storms:
        supervisor = self._stack.enter_context(supervised())
        if supervisor is not None and HANGUP is not None:
            self._stack.enter_context(supervisor.on_hangup(self._hear))
            self.possible = True
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.possible = False
        self._stack.close()

    def strike(self, count: int) -> None:
        """Send so many hangups at once."""
        assert self.possible and HANGUP is not None
        if self._due is None:
            self._due = time.monotonic() + HEARD_S, self._heard
        for _ in range(count):
            os.kill(os.getpid(), HANGUP)

    def check(self, *, is_over: bool = False) -> None:
        """Hold the last storm against what was heard. Args: is_over: wait for it, for no other check follows."""
        if self._due is None:
            return
        until_s, before = self._due
        while is_over and self._heard == before and time.monotonic() < until_s:
            time.sleep(0.01)
        if self._heard > before:
            self._due = None
        elif time.monotonic() >= until_s:
            self._due = None
            self._findings.add("signals", f"a storm of hangups was not heard within {HEARD_S:g} s")

    def _hear(self) -> None:
        self._heard += 1
