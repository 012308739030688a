"""A line of cameras, a preparer and an engine in which time passes by events, for the schedule alone."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial

from edge_ad.image.frame import Frame
from edge_ad.runtime.line.scheduling.schedule import Room, Schedule
from edge_ad.runtime.line.scheduling.service_times import ServiceTimes
from edge_ad.runtime.line.scheduling.ticket import Ticket

MS = 1_000_000
MOMENT = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass
class Camera:
    """When its frames arrive, and the rules for them."""

    arrivals_ns: list[int]
    budget_ns: int | None = None
    room: Room = field(default_factory=lambda: Room(freshest=True))
    live: bool = True
    age_ns: int = 0  # of a frame when it arrives: what decoding and the way have taken

    @classmethod
    def regular(cls, fps: float, seconds: float, phase_ms: float = 0, **rules: object) -> Camera:
        count = int(seconds * fps)
        return cls([int((phase_ms + 1000 * number / fps) * MS) for number in range(count)], **rules)  # type: ignore[arg-type]


@dataclass
class Station:
    """How long the stages really take."""

    prepare_ns: Callable[[int], int]
    infer_ns: Callable[[int, int], int]  # of the moment and the size of the batch
    conclude_ns: int = 0
    max_batch: int = 1

    @classmethod
    def steady(cls, prepare_ms: float, infer_ms: float, more_ms: float = 0, max_batch: int = 1) -> Station:
        return cls(
            lambda _: int(prepare_ms * MS),
            lambda _, batch: int((infer_ms + more_ms * (batch - 1)) * MS),
            int(infer_ms * MS) // 10,
            max_batch,
        )


@dataclass
class Fate:
    """What became of one frame."""

    ticket: Ticket
    verdict_ns: int | None = None
    reason: str | None = None
    batch: int = 0

    @property
    def is_late(self) -> bool:
        deadline_ns = self.ticket.deadline_ns
        return self.verdict_ns is not None and deadline_ns is not None and self.verdict_ns > deadline_ns


class Line:
    """A line in which time passes by events: arrivals, and the ends of what one preparer and one engine do."""

    def __init__(self, cameras: list[Camera], station: Station, times: ServiceTimes | None = None) -> None:
        self.cameras, self.station = cameras, station
        self.times = times or ServiceTimes()
        self.schedule = Schedule([camera.room for camera in cameras], self.times, station.max_batch)
        self.fates: list[Fate] = []
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._preparing = False
        self._by_ticket: dict[Ticket, Fate] = {}
        self.now_ns = 0
        self.most_waiting = 0

    def run(self) -> list[Fate]:
        for lane, camera in enumerate(self.cameras):
            for number, arrival_ns in enumerate(camera.arrivals_ns):
                self._at(arrival_ns, lambda lane=lane, number=number: self._arrive(lane, number))  # type: ignore[misc]
        while self._events:
            self.now_ns, _, happen = heapq.heappop(self._events)
            happen()
            self._go_on()
            assert all(queue.in_hand >= 0 for queue in self.schedule._queues)
        assert not (self.schedule.waits_for_preparation or self.schedule._preparing or self.schedule._prepared)
        assert all(queue.in_hand == 0 for queue in self.schedule._queues)
        return self.fates

    def _at(self, moment_ns: int, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (moment_ns, self._count, happen))

    def _arrive(self, lane: int, number: int) -> None:
        camera = self.cameras[lane]
        if not self.schedule.has_room(lane):  # the source waits
            self._at(self.now_ns + MS, lambda: self._arrive(lane, number))
            return
        captured_ns = self.now_ns - camera.age_ns
        frame = Frame(number, str(lane), MOMENT, captured_ns, None)
        deadline_ns = None if camera.budget_ns is None else captured_ns + camera.budget_ns
        ticket = Ticket(lane, frame, deadline_ns, may_skip=camera.live, arrived_ns=self.now_ns)
        self._by_ticket[ticket] = Fate(ticket)
        for older in self.schedule.offer(ticket):
            self._settle(older, reason="overtaken")

    def _settle(self, ticket: Ticket, **fate: object) -> None:
        end = self._by_ticket.pop(ticket)  # a second end of one frame is a KeyError
        for name, value in fate.items():
            setattr(end, name, value)
        self.fates.append(end)

    def _go_on(self) -> None:
        if not self._preparing:
            turn = self.schedule.to_prepare(self.now_ns)
            for skip in turn.skips:
                self._settle(skip.ticket, reason=skip.reason)
            for ticket in turn.tickets:
                self._preparing = True
                took_ns = self.station.prepare_ns(self.now_ns)
                self._at(self.now_ns + took_ns, partial(self._prepared, ticket, took_ns))
            if turn.again_ns is not None:
                assert turn.again_ns > self.now_ns
                self._at(turn.again_ns, lambda: None)
        turn = self.schedule.to_infer(self.now_ns)
        for skip in turn.skips:
            self._settle(skip.ticket, reason=skip.reason)
        if turn.tickets:
            assert len(turn.tickets) <= self.station.max_batch
            took_ns = self.station.infer_ns(self.now_ns, len(turn.tickets))
            self._at(self.now_ns + took_ns, lambda: self._inferred(turn.tickets, took_ns))
        if turn:
            self._go_on()

    def _prepared(self, ticket: Ticket, took_ns: int) -> None:
        self._preparing = False
        self.times.prepared(ticket.lane, took_ns)
        self.schedule.prepared(ticket)

    def _inferred(self, tickets: tuple[Ticket, ...], took_ns: int) -> None:
        self.schedule.inferred()
        self.times.inferred(len(tickets), took_ns)
        for index, ticket in enumerate(tickets):
            self.times.conclude.add(self.station.conclude_ns)
            verdict_ns = self.now_ns + (index + 1) * self.station.conclude_ns
            self.schedule.settled(ticket)
            if ticket.is_probe and ticket.deadline_ns is not None and verdict_ns <= ticket.deadline_ns:
                self.times.forget()
            self._settle(ticket, verdict_ns=verdict_ns, batch=len(tickets))


def served_by_lane(fates: list[Fate], lanes: int) -> list[int]:
    counts = [0] * lanes
    for fate in fates:
        counts[fate.ticket.lane] += fate.verdict_ns is not None
    return counts


def informed(station: Station) -> ServiceTimes:
    """A forecast that has seen one frame go through."""
    times = ServiceTimes()
    times.prepare.add(station.prepare_ns(0))
    times.inferred(1, station.infer_ns(0, 1))
    times.conclude.add(station.conclude_ns)
    return times
