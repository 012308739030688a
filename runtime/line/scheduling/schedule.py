"""Which frame is judged next, with which others, and which is left out: decisions alone, no threads.

Times are nanoseconds of one monotonic clock, given by the caller. The caller locks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_ad.runtime.line.scheduling.service_times import ServiceTimes
from edge_ad.runtime.line.scheduling.ticket import Ticket

PROBE_NS = 1_000_000_000
"""When no frame of a lane was judged for so long because the forecast speaks against all of them even with a free
engine, one is judged to test the forecast."""

LEAD = 1  # frames that a lane may be served ahead of another that waits, when its deadline is nearer
CREDIT = 1  # turns that a lane keeps from a time in which it had no frame
DEBT = 16  # and from one in which it had frames that came when there was no time for them
LAG = 8  # turns behind, from which on the others wait for a lane whose frames always come at the wrong moment
HOLD_NS = 100_000_000  # for how long after such a frame


@dataclass(frozen=True)
class Room:
    """How many frames of one lane may wait.

    Attributes:
        freshest: a new frame takes the place of the one that waits.
        depth: frames that wait to be judged, at most.
        in_hand: frames that wait or are being judged, at most; None for no limit.
    """

    freshest: bool = False
    depth: int = 1
    in_hand: int | None = None


@dataclass(frozen=True)
class Skip:
    """A frame that is not judged, and why."""

    ticket: Ticket
    reason: str


@dataclass(frozen=True)
class Turn:
    """What to do now.

    Attributes:
        skips: frames that are left out.
        tickets: frames to prepare (one at most), or to infer as one batch.
        again_ns: when to ask again, if nothing else happens before.
    """

    skips: tuple[Skip, ...] = ()
    tickets: tuple[Ticket, ...] = ()
    again_ns: int | None = None

    def __bool__(self) -> bool:
        return bool(self.skips or self.tickets)


@dataclass
class _Queue:
    room: Room
    waiting: deque[Ticket] = field(default_factory=deque)
    in_hand: int = 0
    turns: int = 0
    denied_ns: int | None = None
    judged_ns: int | None = None


class Schedule:
    """The frames of all lanes between capture and verdict.

    Lanes take turns: of those with a frame that were served least (up to `LEAD` turns), the one with the nearest
    deadline comes first. Where budgets are so tight that a lane's frames, by their phase, always find the engine at
    work, the others leave it alone for a moment. A frame is prepared just in time for the engine, so that a newer one
    may still replace it.

    Args:
        rooms: one for each lane.
        times: forecast; fed by the caller.
        max_batch: images that the engine takes at once.
    """

    def __init__(self, rooms: Sequence[Room], times: ServiceTimes, max_batch: int = 1) -> None:
        self.times = times
        self.max_batch = max_batch
        self._queues = [_Queue(room) for room in rooms]
        self._prepared: deque[Ticket] = deque()
        self._preparing = 0
        self._engine_until_ns: int | None = None
        self._floor = 0
        self._finishing = False

    def has_room(self, lane: int) -> bool:
        """Whether a lane may read its next frame; always, where the newest replaces the older."""
        queue = self._queues[lane]
        if queue.room.freshest:
            return True
        limit = queue.room.in_hand
        return len(queue.waiting) < queue.room.depth and (limit is None or queue.in_hand < limit)

    def offer(self, ticket: Ticket) -> tuple[Ticket, ...]:
        """Let a captured frame wait. Returns: the frames that it replaces, which wait no more."""
        queue = self._queues[ticket.lane]
        overtaken: tuple[Ticket, ...] = ()
        if queue.room.freshest and queue.waiting:
            overtaken = tuple(queue.waiting)
            queue.waiting.clear()
            queue.in_hand -= len(overtaken)
        elif not queue.waiting:
            queue.turns = max(queue.turns, self._floor - (CREDIT if queue.denied_ns is None else DEBT))
        queue.waiting.append(ticket)
        queue.in_hand += 1
        return overtaken

    def finish(self) -> None:
        """Say that no further frame is offered: what waits need not be held back for other lanes."""
        self._finishing = True

    def settled(self, ticket: Ticket) -> None:
        """Say that a frame from `to_prepare` or `to_infer` has its verdict."""
        self._queues[ticket.lane].in_hand -= 1

    @property
    def waits_for_preparation(self) -> bool:
        return any(queue.waiting for queue in self._queues)

    def to_prepare(self, now_ns: int) -> Turn:
        """The next frame to make a model input of; the caller then says `prepared` or `given_up`."""
        skips: list[Skip] = []
        while len(self._prepared) + self._preparing < self.max_batch:
            lane = self._next_lane()
            if lane is None:
                break
            queue = self._queues[lane]
            if queue.room.freshest and (early_ns := self._too_early(now_ns)) is not None:
                return Turn(tuple(skips), again_ns=early_ns)
            reason = self._hopeless(queue.waiting[0], now_ns)
            if reason is None and (held_ns := self._held(queue, now_ns)) is not None:
                return Turn(tuple(skips), again_ns=held_ns)
            ticket = queue.waiting.popleft()
            if reason is not None:
                queue.in_hand -= 1
                if self._fits(ticket):
                    queue.denied_ns = now_ns
                skips.append(Skip(ticket, reason))
                continue
            self._floor = max(self._floor, queue.turns)
            queue.turns += 1
            if queue.turns > self._floor:
                queue.denied_ns = None
            self._preparing += 1
            queue.judged_ns = now_ns
            return Turn(tuple(skips), (ticket,))
        return Turn(tuple(skips))

    def prepared(self, ticket: Ticket) -> None:
        """Say that a frame is ready for the engine."""
        self._preparing -= 1
        self._prepared.append(ticket)

    def given_up(self, ticket: Ticket) -> None:
        """Say that a frame will not be inferred: it shows nothing, or cannot be prepared."""
        self._preparing -= 1

    def to_infer(self, now_ns: int) -> Turn:
        """A batch of what is ready, if the engine is free; the caller then says `inferred`.

        Nothing is waited for, and a frame joins only where the longer batch still keeps every deadline in it.
        """
        if self._engine_until_ns is not None:
            return Turn()
        skips: list[Skip] = []
        batch: list[Ticket] = []
        tightest_ns: int | None = None
        while self._prepared and len(batch) < self.max_batch:
            ticket = self._prepared[0]
            if self._misses(ticket, now_ns + self._judging_ns(1)):
                self._queues[ticket.lane].in_hand -= 1
                skips.append(Skip(self._prepared.popleft(), _overdue(ticket, now_ns)))
                continue
            if ticket.may_skip and not ticket.is_probe and ticket.deadline_ns is not None:
                tightest_ns = ticket.deadline_ns if tightest_ns is None else min(tightest_ns, ticket.deadline_ns)
            if batch and tightest_ns is not None and now_ns + self._judging_ns(len(batch) + 1) > tightest_ns:
                break
            batch.append(self._prepared.popleft())
        if batch:
            self._engine_until_ns = now_ns + self.times.infer_ns(len(batch))
        return Turn(tuple(skips), tuple(batch))

    def inferred(self) -> None:
        """Say that the engine is free again."""
        self._engine_until_ns = None

    def _next_lane(self) -> int | None:
        lanes = [lane for lane, queue in enumerate(self._queues) if queue.waiting]
        if len(lanes) < 2:
            return lanes[0] if lanes else None
        least = min(self._queues[lane].turns for lane in lanes)
        return min((lane for lane in lanes if self._queues[lane].turns <= least + LEAD), key=self._urgency)

    def _urgency(self, lane: int) -> tuple[bool, int]:
        ticket = self._queues[lane].waiting[0]
        if ticket.deadline_ns is None:
            return True, ticket.frame.captured_ns
        return False, ticket.deadline_ns

    def _held(self, queue: _Queue, now_ns: int) -> int | None:
        """Until when a lane waits for another that lags behind for no fault of its own, or None."""
        if self._finishing:
            return None
        ends = [
            other.denied_ns + HOLD_NS
            for other in self._queues
            if other.denied_ns is not None and other.turns < queue.turns - LAG
        ]
        return max((end_ns for end_ns in ends if end_ns > now_ns), default=None)

    def _fits(self, ticket: Ticket) -> bool:
        """Whether what the frame had left when it arrived is enough for an engine that is free."""
        assert ticket.deadline_ns is not None
        arrived_ns = ticket.frame.captured_ns if ticket.arrived_ns is None else ticket.arrived_ns
        return ticket.deadline_ns - arrived_ns >= self.times.prepare_ns(ticket.lane) + self._judging_ns(1)

    def _too_early(self, now_ns: int) -> int | None:
        """When to begin, if the engine is busy for longer than the preparation takes."""
        if self._engine_until_ns is None:
            return None
        room = self.max_batch - len(self._prepared) - self._preparing
        waiting = [lane for lane, queue in enumerate(self._queues) if queue.waiting]
        needed = sorted((self.times.prepare_ns(lane) for lane in waiting), reverse=True)[:room]
        begin_ns = self._engine_until_ns - sum(needed)
        return begin_ns if begin_ns > now_ns else None

    def _hopeless(self, ticket: Ticket, now_ns: int) -> str | None:
        """Why a waiting frame is not worth its judging, or None."""
        if not ticket.may_skip or ticket.deadline_ns is None:
            return None
        if now_ns >= ticket.deadline_ns:
            return _overdue(ticket, now_ns)
        begin_ns = max(now_ns + self.times.prepare_ns(ticket.lane), self._engine_until_ns or 0)
        verdict_ns = begin_ns + self._judging_ns(len(self._prepared) + 1)
        if verdict_ns <= ticket.deadline_ns:
            return None
        judged_ns = self._queues[ticket.lane].judged_ns
        if (judged_ns is None or now_ns - judged_ns >= PROBE_NS) and not self._fits(ticket):
            ticket.is_probe = True
            return None
        return _overdue(ticket, now_ns, (verdict_ns - now_ns) / 1e6)

    def _judging_ns(self, batch: int) -> int:
        return self.times.infer_ns(batch) + batch * self.times.conclude.high_ns

    def _misses(self, ticket: Ticket, verdict_ns: int) -> bool:
        return (
            ticket.may_skip
            and not ticket.is_probe
            and ticket.deadline_ns is not None
            and verdict_ns > ticket.deadline_ns
        )


def _overdue(ticket: Ticket, now_ns: int, more_ms: float | None = None) -> str:
    captured_ns = ticket.frame.captured_ns
    assert ticket.deadline_ns is not None
    age_ms, budget_ms = (now_ns - captured_ns) / 1e6, (ticket.deadline_ns - captured_ns) / 1e6
    if now_ns >= ticket.deadline_ns:
        return f"its deadline had passed ({age_ms:.0f} ms old, budget {budget_ms:g} ms)"
    needs = "" if more_ms is None else f", its verdict would take {more_ms:.0f} ms more"
    return f"it could not be judged in time ({age_ms:.0f} ms old{needs}, budget {budget_ms:g} ms)"
