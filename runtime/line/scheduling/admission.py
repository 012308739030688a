"""Which of the frames that a source gives are captured, and for which parts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from edge_ad.image.frame import Frame
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.pace import Pace
from edge_ad.runtime.line.scheduling.trigger import CAMERA_ENDED, Interval, Pending, TriggerGate

PartIds = tuple[str | None, ...]
"""One for each record that a frame is to leave: None where no part was announced. An empty one leaves it out."""


class Admission(Protocol):
    """Decides over the frames of one lane, for its thread.

    Attributes:
        sees_all: frames that are left out count when it is asked whether the picture is the one before.
    """

    sees_all: bool

    def wait(self, stop: threading.Event) -> bool:
        """Wait until the next frame of a source that waits is wanted. Returns: False when `stop` was set before."""
        ...

    def admit(self, frame: Frame) -> PartIds:
        """The parts that a frame shows."""
        ...

    def refused(self, part_ids: PartIds) -> None:
        """Be told of parts whose frame left no record, because the line has ended."""
        ...

    def ended(self) -> None:
        """Be told that no further frame comes."""
        ...


class Paced:
    """Every frame, or every so many-th, or so many per second."""

    sees_all = False

    def __init__(self, lane: Lane, clock_ns: Callable[[], int]) -> None:
        self._pace = Pace(lane)
        self._clock_ns = clock_ns

    def wait(self, stop: threading.Event) -> bool:
        return not stop.wait(self._pace.wait_s(self._clock_ns()))

    def admit(self, frame: Frame) -> PartIds:
        return (None,) if self._pace.takes(self._clock_ns()) else ()

    def refused(self, part_ids: PartIds) -> None:
        return None

    def ended(self) -> None:
        return None


class AtIntervals:
    """The first frame of every interval; one without a frame is passed over."""

    sees_all = True

    def __init__(self, interval: Interval, clock_ns: Callable[[], int]) -> None:
        self._interval_ns = max(1, round(interval.interval_ms * 1e6))
        self._clock_ns = clock_ns
        self._due_ns: int | None = None

    def wait(self, stop: threading.Event) -> bool:
        wait_ns = 0 if self._due_ns is None else self._due_ns - self._clock_ns()
        return not stop.wait(max(0.0, wait_ns / 1e9))

    def admit(self, frame: Frame) -> PartIds:
        now_ns = self._clock_ns()
        due_ns = now_ns if self._due_ns is None else self._due_ns
        if now_ns < due_ns:
            return ()
        self._due_ns = due_ns + self._interval_ns * ((now_ns - due_ns) // self._interval_ns + 1)
        return (None,)

    def refused(self, part_ids: PartIds) -> None:
        return None

    def ended(self) -> None:
        return None


class OnTrigger:
    """Frames that somebody has asked for. A source that waits is read once for every trigger."""

    sees_all = True

    def __init__(self, gate: TriggerGate, live: bool) -> None:
        self._gate = gate
        self._live = live
        self._taken: tuple[Pending, ...] = ()

    def wait(self, stop: threading.Event) -> bool:
        return self._gate.wait(stop)

    def admit(self, frame: Frame) -> PartIds:
        self._taken = self._gate.take(frame.captured_ns) if self._live else self._gate.take_kept()
        return tuple(one.part_id for one in self._taken)

    def refused(self, part_ids: PartIds) -> None:
        if part_ids:
            self._gate.give_back(self._taken[-len(part_ids) :])

    def ended(self) -> None:
        self._gate.close(CAMERA_ENDED)


def admission(lane: Lane, gate: TriggerGate | None, clock_ns: Callable[[], int]) -> Admission:
    """The rule of a lane. Args: gate: of a lane that is triggered by software."""
    if gate is not None:
        return OnTrigger(gate, lane.live)
    if isinstance(lane.trigger, Interval):
        return AtIntervals(lane.trigger, clock_ns)
    return Paced(lane, clock_ns)
