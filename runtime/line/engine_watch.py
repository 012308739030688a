"""Tells the user when the engine fails and when it computes again, and keeps count."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_ad.engine import EngineHealth
from edge_ad.runtime.host.messages import UpAndDown
from edge_ad.runtime.line.scheduling.counters import Counters


class EngineWatch:
    """Looks at an engine's health from time to time.

    Args:
        health: asks the engine.
        say: receives what the user should know.
    """

    def __init__(self, health: Callable[[], EngineHealth], counters: Counters, say: Callable[[str], None]) -> None:
        self._health = health
        self._counters = counters
        self._before = health().restarts  # of other lines on the same engine
        self._seen = 0
        self._lock = threading.Lock()
        self._word = UpAndDown(say, lambda: f"the engine computes again, in a fresh process (number {self._seen})")

    def look(self) -> None:
        """Count and say what has changed; from any thread."""
        with self._lock:
            health = self._health()
            restarts = health.restarts - self._before
            if restarts > self._seen:
                self._word.down(f"warning: {health.last_fault}; a fresh process takes over")
                self._counters.engine_restarts(restarts)
                self._seen = restarts
            if health.fault is None:
                self._word.up()
            else:
                self._word.down(f"warning: {health.fault}; no frame is judged until a fresh process has taken over")
            self._word.remind()

    @property
    def fault(self) -> str | None:
        """Why nothing is computed at the moment."""
        return self._health().fault

    @property
    def down_for_s(self) -> float:
        """For how long nothing has been computed."""
        return self._word.down_for_s
