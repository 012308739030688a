"""How long the stages took of late, and so what the next frame will take."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

WINDOW = 100  # frames; a few seconds of a line: long enough for a quantile, short enough to follow a throttled clock

QUANTILE = 0.9
"""Of each stage. A verdict that comes late has cost engine time that the next frame needed, a skipped frame costs one
frame, so the forecast leans to the slow side; a higher quantile of 100 would be ruled by single hiccups."""

STALE_CALLS = 500
"""Calls of the engine after which the times of a size of batch that was not used count for less: after one hiccup, they
would forbid that size, and so never be corrected."""


class Window:
    """The last durations of one stage, nanoseconds."""

    def __init__(self) -> None:
        self._in_turn: deque[int] = deque()
        self._sorted: list[int] = []

    def add(self, duration_ns: int) -> None:
        if len(self._in_turn) == WINDOW:
            del self._sorted[bisect_left(self._sorted, self._in_turn.popleft())]
        self._in_turn.append(duration_ns)
        insort(self._sorted, duration_ns)

    @property
    def high_ns(self) -> int:
        """The quantile; 0 while nothing was measured, so that a line begins by trying."""
        count = len(self._sorted)
        return self._sorted[min(count - 1, int(QUANTILE * count))] if count else 0


class ServiceTimes:
    """Forecast of the three stages of judging. Not thread-safe; the schedule's owner locks."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, for when the past has turned out to be no guide."""
        self.prepare = Window()
        self.conclude = Window()
        self._prepare: dict[int, Window] = {}
        self._infer: dict[int, Window] = {}
        self._used: dict[int, int] = {}  # number of the last call with so many images
        self._calls = 0

    def prepared(self, lane: int, duration_ns: int) -> None:
        """Note one preparation of a frame of a lane: cameras of other sizes take other times."""
        self._prepare.setdefault(lane, Window()).add(duration_ns)
        self.prepare.add(duration_ns)

    def prepare_ns(self, lane: int) -> int:
        """Forecast for a frame of a lane; that of all lanes while none of this one was prepared."""
        known = self._prepare.get(lane)
        return (self.prepare if known is None else known).high_ns

    def inferred(self, batch: int, duration_ns: int) -> None:
        """Note one call of the engine with `batch` images."""
        if batch in self._infer and not self._is_fresh(batch):
            del self._infer[batch]
        self._calls += 1
        self._used[batch] = self._calls
        self._infer.setdefault(batch, Window()).add(duration_ns)

    def infer_ns(self, batch: int) -> int:
        """Forecast for a batch.

        A size that was never measured takes as long as the next larger one, or in proportion to the largest: engines
        are seldom slower than that. One that was not used for long takes no longer than that.
        """
        own = self._infer.get(batch)
        if own is not None and self._is_fresh(batch):
            return own.high_ns
        fresh = [size for size in self._infer if self._is_fresh(size)]
        if not fresh:
            return 0 if own is None else own.high_ns
        larger = [size for size in fresh if size > batch]
        size = min(larger) if larger else max(fresh)
        estimate_ns = self._infer[size].high_ns * (1 if larger else batch) // (1 if larger else size)
        return estimate_ns if own is None else min(estimate_ns, own.high_ns)

    def _is_fresh(self, batch: int) -> bool:
        return self._calls - self._used[batch] < STALE_CALLS
