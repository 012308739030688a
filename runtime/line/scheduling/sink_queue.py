"""The queue in front of one sink, so that it can hold up neither the line nor another one."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_ad.errors import EdgeAdError, one_line
from edge_ad.runtime.host.messages import Seldom
from edge_ad.runtime.line.scheduling.counters import Counters
from edge_ad.runtime.line.scheduling.item import Item
from edge_ad.runtime.line.scheduling.threads import broken
from edge_ad.runtime.sinks import BusyError, OnePictureError, Sink, sink_name
from edge_ad.runtime.sinks.counts import SinkCounts

log = logging.getLogger(__name__)

MAX_RECORDS = 10_000  # records without pictures that wait for one sink, about 2 KB each
MAX_PICTURES = 8  # frames with pictures that wait for one sink, some megabytes each
ROOM = 64  # records waiting for a sink from which on sources that can wait are not read
MAX_TRIES = 10  # of a record that a sink fails on for another reason than the world around it; takes some seconds
RETRY_S = 1.0  # between attempts to write a record that a sink of a live line has refused, at most
FIRST_RETRY_S = 0.05  # after the first attempt; most refusals are short, and records pile up meanwhile
CLOSING_RETRY_S = 0.1  # between attempts while the line ends, at most
LOOK_S = 0.25  # how often a sink that has nothing to write looks after its files
MANY = 32  # records that a sink writes at once, where it can; fewer than ROOM, for which sources wait
BUSY_S = 30.0  # how long a line of files waits for what somebody else holds


class SinkQueue:
    """The queue in front of one sink.

    A sink that sets `keeps_records` gets frames without pictures and verdicts without maps, so that many can wait for
    it; a record that it fails to write is tried again. Others get everything, and are spared what they cannot keep up
    with.

    Args:
        forgiving: a live line, which goes on when a sink fails.
        failed: called with what a sink raised, when the line cannot go on.
        say: receives what the user should know.
        wrote: told the seconds of every write.
        room: notified when the queue is no longer full.
    """

    def __init__(
        self,
        sink: Sink,
        counters: Counters,
        *,
        forgiving: bool,
        failed: Callable[[Exception], None],
        say: Callable[[str], None],
        wrote: Callable[[float], None],
        room: threading.Condition,
    ) -> None:
        self.sink = sink
        self.name = sink_name(sink)
        self.keeps_records = bool(getattr(sink, "keeps_records", False))
        self._take_event: Callable[[Mapping[str, Any]], None] | None = getattr(sink, "event", None)
        self._write_many: Callable[[Sequence[Mapping[str, Any]]], None] | None = getattr(sink, "write_many", None)
        self._linger_s: float = getattr(sink, "linger_s", 0.0)
        self._look: Callable[[], None] | None = getattr(sink, "look", None)
        self._written_off: Callable[[], Mapping[str, int]] | None = getattr(sink, "written_off", None)
        self._number = counters.add_sink(self.name)
        account: Callable[[], SinkCounts] | None = getattr(sink, "account", None)
        if account is not None:
            counters.add_account(account)
        self._counters = counters
        self._forgiving = forgiving
        self._failed = failed
        self._say, self._say_seldom = say, Seldom(say)
        self._wrote = wrote
        self._room = room
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._pictures = 0
        self._closing = False
        self._broken = False
        self._refused: str | None = None
        self._missing = 0
        self._is_blind = False  # it could not look after its files
        self._tries = 0
        self._busy_since_s: float | None = None

    def stuck_s(self) -> float:
        """For how long the sink has not taken what it is given: a write that hangs, or records that it refuses."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    @property
    def trouble(self) -> str | None:
        """What is wrong with the sink at the moment, in words."""
        trouble: str | None = self._refused or getattr(self.sink, "trouble", None)
        return trouble

    def put(self, item: Item) -> None:
        """Queue an item, never waiting; the oldest that may be lost makes room."""
        if item.frame is None and self._take_event is None:
            return
        with self._changed:
            self._counters.sink(self._number, taken=1, waiting=1)
            if self._broken:
                self._give_up(1)
                return
            self._items.append(item)
            self._pictures += item.has_picture
            if self._pictures > MAX_PICTURES:
                self._lose_oldest(lambda one: one.has_picture)
            if len(self._items) > MAX_RECORDS:
                self._lose_oldest(lambda one: True)
            self._changed.notify()

    def _lose_oldest(self, wanted: Callable[[Item], bool]) -> None:
        for index, item in enumerate(self._items):
            if item.may_lose and wanted(item):
                del self._items[index]
                self._pictures -= item.has_picture
                self._give_up(1)
                return

    def _give_up(self, count: int) -> None:
        self._missing += count
        self._counters.sink(self._number, waiting=-count, **{"lost" if self.keeps_records else "dropped": count})

    @property
    def has_room(self) -> bool:
        return len(self._items) < ROOM and self._pictures < MAX_PICTURES

    def close(self) -> None:
        """Let `run` return when the queue is empty."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def abandon(self) -> int:
        """Write nothing more. Returns: how many records are given up by that."""
        with self._changed:
            count = len(self._items)
            self._broken = self._closing = True
            self._items.clear()
            self._pictures = 0
            self._give_up(count)
            self._changed.notify()
            return count

    def run(self) -> None:
        """Write until the queue is closed and empty, or the line has failed."""
        try:
            while self.step(None if self._look is None else LOOK_S) or not self._is_over():
                pass
        except BaseException as exc:
            self.abandon()
            self._failed(broken(self.name, exc))

    def _is_over(self) -> bool:
        """Whether there is nothing more to come; the sink looks after its files meanwhile, and once at the end."""
        with self._changed:
            is_over = self._broken or (self._closing and not self._items)
        if self._look is not None and not self._broken:
            try:
                self._look()
            except Exception as exc:
                self._is_blind = True
                self._complain(exc)
            else:
                if self._is_blind:
                    self._accept()
            self._count_off()
        return is_over

    def step(self, timeout_s: float | None) -> bool:
        """Write what is next. Returns: False when there is nothing (any more, if nothing limits the wait)."""
        items = self._take(timeout_s)
        if not items:
            return False
        if self._busy_since_s is None:  # else it has refused the record before
            self._busy_since_s = time.monotonic()
        try:
            self._write(items)
        except Exception as exc:
            if not self.keeps_records:
                self._busy_since_s = None
            self._refuse(items, exc)
        except BaseException:
            with self._changed:
                self._give_up(len(items))
            raise
        else:
            self._busy_since_s = None
            self._counters.sink(self._number, waiting=-len(items), delivered=len(items))
            self._accept()
        self._count_off()
        return True

    def _take(self, timeout_s: float | None) -> list[Item]:
        """What is to be written at once: one item, or several for a sink that can, none of which was refused before."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closing, timeout_s)
            most = 1 if self._write_many is None or self._tries else MANY
            if most > 1 and self._linger_s and not self._closing:
                self._changed.wait_for(lambda: len(self._items) >= most or self._closing, self._linger_s)
            if not self._items or self._broken:
                return []
            was_full = len(self._items) >= ROOM or self._pictures >= MAX_PICTURES
            items = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._pictures -= sum(item.has_picture for item in items)
        if was_full:
            with self._room:
                self._room.notify_all()
        return items

    def _write(self, items: Sequence[Item]) -> None:
        began = time.perf_counter()
        if self._write_many is not None:
            self._write_many([item.entry for item in items])
        else:
            for item in items:
                if item.frame is None or item.verdict is None:
                    assert self._take_event is not None
                    self._take_event(item.entry)
                else:
                    self.sink.write(item.frame, item.verdict, item.entry)
        seconds = (time.perf_counter() - began) / len(items)
        for _ in items:
            self._wrote(seconds)

    def _count_off(self) -> None:
        """Count what is no longer where the sink has put it."""
        counts = {} if self._written_off is None else self._written_off()
        if not any(counts.values()):
            return
        gone = counts.get("gone", 0)
        kind = "lost" if self.keeps_records else "dropped"
        self._counters.sink(self._number, **counts, delivered=-gone, **{kind: gone})

    def _refuse(self, items: Sequence[Item], exc: Exception) -> None:
        """Have what a sink did not take tried again, or give it up. Of several items it has taken none."""
        self._counters.sink(self._number, failures=1)
        if isinstance(exc, OnePictureError):  # no reason not to keep the others, nor to end a run
            self._say_seldom(f"warning: {one_line(exc)}; it is left out")
            with self._changed:
                self._give_up(len(items))
            return
        is_defect = not isinstance(exc, (EdgeAdError, OSError))
        self._tries += 1
        if is_defect and self._refused is None:
            item = items[0]
            where = {"camera": item.frame.source, "frame_id": item.frame.frame_id} if item.frame else {}
            log.error("sink %s", self.name, exc_info=exc, extra=where)
        forgiving = self._forgiving or (isinstance(exc, BusyError) and self.stuck_s() < BUSY_S)
        if not forgiving or isinstance(exc, BrokenPipeError):
            with self._changed:
                self._give_up(len(items))
            self.abandon()
            self._failed(exc)
            return
        self._complain(exc)
        with self._changed:
            if not self.keeps_records or self._broken or (is_defect and self._tries >= MAX_TRIES):
                self._tries = 0
                self._give_up(len(items))
                return
            kept = items[max(0, len(items) + len(self._items) - MAX_RECORDS) :]
            self._give_up(len(items) - len(kept))  # the oldest
            self._items.extendleft(reversed(kept))
            self._pictures += sum(item.has_picture for item in kept)
            wait_s = min(RETRY_S, FIRST_RETRY_S * 2 ** min(self._tries - 1, 9))
            was_closing = self._closing
            self._changed.wait_for(
                lambda: self._broken or (self._closing and not was_closing),
                min(wait_s, CLOSING_RETRY_S) if was_closing else wait_s,
            )

    def _complain(self, exc: Exception) -> None:
        if self._refused is None:
            self._refused = one_line(exc)
            follows = "records wait for it" if self.keeps_records else "the run goes on without it"
            self._say(f"warning: {self._refused}; {follows}")

    def _accept(self) -> None:
        self._tries = 0
        self._is_blind = False
        if self._refused is not None:
            self._refused = None
            self._say(f"{self.name} writes again; {self._missing} of its records are lost")
