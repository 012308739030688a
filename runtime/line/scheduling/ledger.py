"""Every captured frame is settled once, and records leave in order of capture."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Provenance, Verdict, record
from edge_ad.runtime.line.scheduling.counters import Counters
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.ticket import Ticket

MAX_OPEN = 10_000
"""Records that may wait for a frame captured before theirs, about 2 KB each; then the source waits."""

MAX_PICTURES = 8
"""Settled frames of one lane that keep their pictures while they wait for one before them, some megabytes each."""

_BARE = ("skipped", "stale")  # statuses of frames whose pictures nobody needs


class Ledger:
    """The frames of one lane from capture to record.

    Args:
        number: of the lane.
        provenance: who judges.
        counters: told of every frame.
        deliver: takes settled frames in order of capture, never twice; must not block.
    """

    def __init__(
        self, number: int, lane: Lane, provenance: Provenance, counters: Counters, deliver: Callable[[Ticket], None]
    ) -> None:
        self._number = number
        self._lane = lane
        self._provenance = provenance
        self._counters = counters
        self._deliver = deliver
        self._open: deque[Ticket] = deque()
        self._pictures = 0
        self._changed = threading.Condition()
        self._closed = False

    def capture(self, frame: Frame) -> Ticket | None:
        """Enter a captured frame; None when the line has ended. Waits only when very many frames are open."""
        lane = self._lane
        deadline_ns = None if lane.budget_ns is None else frame.captured_ns + lane.budget_ns
        ticket = Ticket(self._number, frame, deadline_ns, may_skip=lane.live)
        with self._changed:
            self._changed.wait_for(lambda: len(self._open) < MAX_OPEN or self._closed)
            if self._closed:
                return None
            self._open.append(ticket)
            self._counters.captured(self._number)
        return ticket

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest frame was captured that has left no record yet; None when there is none."""
        with self._changed:
            return self._open[0].frame.captured_ns if self._open else None

    def settle(self, ticket: Ticket, verdict: Verdict) -> bool:
        """Give a frame its verdict. Returns: False when the line ended before and gave it another."""
        entry = record(ticket.frame, verdict, self._provenance, budget_ms=self._lane.budget_ms)
        with self._changed:
            if ticket.settled is not None:
                return False
            ticket.settled = verdict, entry
            waits = ticket is not self._open[0]
            if verdict.status in _BARE or (waits and self._pictures >= MAX_PICTURES):
                ticket.frame = replace(ticket.frame, image_hwc=None)
            self._counters.settled(self._number, verdict)
            if waits:
                self._pictures += ticket.frame.image_hwc is not None
                return True
            while self._open and self._open[0].settled is not None:
                first = self._open.popleft()
                self._pictures -= first is not ticket and first.frame.image_hwc is not None
                self._deliver(first)
            self._changed.notify()
        return True

    def close(self, verdict: Verdict) -> None:
        """Take no more frames, and settle all that are open."""
        with self._changed:
            self._closed = True
            remaining = [ticket for ticket in self._open if ticket.settled is None]
            self._changed.notify_all()
        for ticket in remaining:
            self.settle(ticket, verdict)
