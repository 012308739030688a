"""Sinks, each behind a queue and a thread of its own, so that none can hold up the line or another one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_ad.runtime.host.health import Check
from edge_ad.runtime.line.scheduling.counters import Counters
from edge_ad.runtime.line.scheduling.item import Item, without_picture
from edge_ad.runtime.line.scheduling.sink_queue import ROOM, SinkQueue
from edge_ad.runtime.line.scheduling.ticket import Ticket
from edge_ad.runtime.sinks import Sink

POLL_S = 0.1  # how often a source that waits for the sinks looks whether it should stop
FLUSH_S = 5.0  # how long a line that stopped, or whose cameras are gone, waits for its sinks


class Outputs:
    """All sinks of a line, each with a thread, except for those that set `in_caller_thread` (a window).

    Args:
        forgiving: see `SinkQueue`.
        wrote: told the seconds of every write.
        wake: called when `work` has something to do.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        counters: Counters,
        *,
        forgiving: bool,
        failed: Callable[[Exception], None],
        say: Callable[[str], None],
        wrote: Callable[[float], None],
        wake: Callable[[], None],
    ) -> None:
        self._room = threading.Condition()
        self._say = say
        self._wake = wake
        self._queues = [
            SinkQueue(sink, counters, forgiving=forgiving, failed=failed, say=say, wrote=wrote, room=self._room)
            for sink in sinks
        ]
        self._here = [queue for queue in self._queues if getattr(queue.sink, "in_caller_thread", False)]
        self._threads = {
            queue: threading.Thread(target=queue.run, name=f"edge-ad-{queue.name}", daemon=True)
            for queue in self._queues
            if queue not in self._here
        }
        self._raising = [queue for queue in self._queues if hasattr(queue.sink, "raise_events")]
        for queue in self._raising:
            queue.sink.raise_events(self.event)  # type: ignore[attr-defined]

    def start(self) -> None:
        for thread in self._threads.values():
            thread.start()

    @property
    def checks(self) -> list[Check]:
        """Those of the sinks that say how they are."""
        return [queue.sink.conditions for queue in self._queues if hasattr(queue.sink, "conditions")]

    @property
    def names(self) -> list[str]:
        """Of every sink, in the order of their counters."""
        return [queue.name for queue in self._queues]

    @property
    def dead(self) -> list[str]:
        """Sinks whose thread has ended before its time."""
        return [queue.name for queue, thread in self._threads.items() if not thread.is_alive()]

    def stuck_s(self) -> list[float]:
        """For every sink, for how long it has not taken what it is given."""
        return [queue.stuck_s() for queue in self._queues]

    def troubles(self) -> dict[str, str]:
        """What is wrong with sinks at the moment, by their names."""
        return {queue.name: trouble for queue in self._queues if (trouble := queue.trouble)}

    def deliver(self, ticket: Ticket) -> None:
        """Queue a settled frame for every sink."""
        assert ticket.settled is not None
        verdict, entry = ticket.settled
        full = Item(entry, ticket.frame, verdict, ticket.may_skip)
        bare = without_picture(full)
        for queue in self._queues:
            queue.put(bare if queue.keeps_records else full)
        assert bare.frame is not None
        ticket.frame = bare.frame  # threads that are idle hold on to their last ticket; its picture need not stay
        if self._here:
            self._wake()

    def event(self, entry: Mapping[str, Any]) -> None:
        """Queue an event for the sinks that take events."""
        for queue in self._queues:
            queue.put(Item(entry))

    def wait_for_room(self, stop: threading.Event) -> bool:
        """Wait until every sink has kept up. Returns: False when `stop` was set before."""
        while not all(queue.has_room for queue in self._queues):
            if stop.is_set():
                return False
            with self._room:
                self._room.wait_for(lambda: all(queue.has_room for queue in self._queues), POLL_S)
        return True

    def work(self) -> None:
        """Write what waits for the sinks of the caller's thread, up to `ROOM` records."""
        for queue in self._here:
            for _ in range(ROOM):
                if not queue.step(0):
                    break

    def close(self, limit_s: float | None, stop: threading.Event | None = None) -> tuple[Sink, ...]:
        """Let every sink finish its queue, for `limit_s` seconds at most, and `FLUSH_S` once `stop` is set.

        Returns: sinks in which a write still hangs; they cannot be closed.
        """
        until_s = None if limit_s is None else time.monotonic() + limit_s
        for group in (self._raising, self._queues):  # what raises events first, so that the others still take them
            for queue in group:
                queue.close()
            for queue in self._here:
                while queue in group and (until_s is None or time.monotonic() < until_s) and queue.step(0):
                    pass
            for queue, thread in self._threads.items():
                while queue in group and thread.is_alive():
                    if until_s is None and stop is not None and stop.is_set():
                        until_s = time.monotonic() + FLUSH_S
                    left_s = POLL_S if until_s is None else until_s - time.monotonic()
                    if left_s <= 0:
                        break
                    thread.join(min(POLL_S, left_s))
        for queue in self._queues:
            count = queue.abandon()
            if count and queue.keeps_records:
                self._say(f"warning: {count} records could not be written any more ({queue.name})")
        for thread in self._threads.values():
            if thread.is_alive():
                thread.join(POLL_S)  # it may only have waited for its next attempt
        return self.writing

    @property
    def writing(self) -> tuple[Sink, ...]:
        """Sinks whose threads have not ended."""
        return tuple(queue.sink for queue, thread in self._threads.items() if thread.is_alive())
