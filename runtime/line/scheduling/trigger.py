"""What makes a camera's frame a part's: a part that somebody announces, a clock, or nothing but the frame itself.

A camera that is triggered by software is read all the time, but a frame is only captured when a trigger waits for one:
the first frame taken after the trigger, or after several, which then all get that frame, each in a record of its own.
What else it gives is left out and counted. Every trigger that was accepted comes back exactly once, with its part id:
in a record, or in a `trigger_missed` event.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from edge_ad.runtime.line.scheduling.counters import Counters

log = logging.getLogger(__name__)

MAX_PENDING = 64  # triggers of one camera that wait for a frame
MAX_PART_ID = 200  # characters
POLL_S = 0.1  # how often a source that waits for a trigger looks whether it should stop

TOO_LATE = "no frame came in time"
CAMERA_ENDED = "the camera ended before it gave a frame"
LINE_ENDED = "the run ended before a frame came"


@dataclass(frozen=True)
class EveryFrame:
    """Every frame is captured (up to `vid_stride` and `max_fps`)."""


@dataclass(frozen=True)
class Interval:
    """One frame in every interval is captured: the first. Intervals follow each other from the first frame on."""

    interval_ms: float


@dataclass(frozen=True)
class Software:
    """Frames are captured when `Triggers.fire` says so.

    Attributes:
        timeout_ms: how long a trigger waits for its frame.
    """

    timeout_ms: float = 1000.0


Trigger = EveryFrame | Interval | Software
EVERY_FRAME = EveryFrame()


class Fired(Enum):
    """What became of a trigger; only `ACCEPTED` is true. The value says it in words."""

    ACCEPTED = "accepted"
    UNKNOWN = "there is no camera of that name"
    NOT_BY_SOFTWARE = "the camera is not triggered by software; set 'trigger: software'"
    BAD_PART_ID = f"wanted a part id of 1 to {MAX_PART_ID} printable characters"
    FULL = f"{MAX_PENDING} triggers wait for a frame of this camera already"
    ENDED = "the camera has ended"

    def __bool__(self) -> bool:
        return self is Fired.ACCEPTED


@dataclass(frozen=True)
class Pending:
    """A trigger that was accepted: the part, and when by the monotonic clock."""

    part_id: str
    fired_ns: int


class TriggerGate:
    """The triggers of one camera that wait for a frame. Thread-safe.

    Args:
        lane: its number.
        software: the rule.
        counters: told of every trigger.
        missed: takes each trigger that gets no frame, how long it waited in nanoseconds, and why; must not block.
        clock_ns: the clock of `Frame.captured_ns`.
    """

    def __init__(
        self,
        lane: int,
        software: Software,
        counters: Counters,
        missed: Callable[[int, Pending, int, str], None],
        clock_ns: Callable[[], int],
    ) -> None:
        self._lane = lane
        self._timeout_ns = round(software.timeout_ms * 1e6)
        self._counters = counters
        self._missed = missed
        self._clock_ns = clock_ns
        self._pending: deque[Pending] = deque()
        self._kept: Pending | None = None
        self._changed = threading.Condition()
        self._closed = False

    def fire(self, part_id: str) -> Fired:
        """Ask for the next frame."""
        with self._changed:
            if self._closed:
                outcome = Fired.ENDED
            elif len(self._pending) >= MAX_PENDING:
                outcome = Fired.FULL
            else:
                outcome = Fired.ACCEPTED
                self._pending.append(Pending(part_id, self._clock_ns()))
                self._changed.notify_all()
            self._counters.trigger(self._lane, **{"accepted" if outcome else "refused": 1})
        return outcome

    def wait(self, stop: threading.Event) -> bool:
        """Wait for a trigger and keep it for `take_kept`: from then on a frame is on its way, so it no longer expires.

        Returns: False when `stop` was set, or the gate closed, before.
        """
        with self._changed:
            while self._kept is None:
                if self._closed or stop.is_set():
                    return False
                if self._pending:
                    self._kept = self._pending.popleft()
                else:
                    self._changed.wait(POLL_S)
        return True

    def take_kept(self) -> tuple[Pending, ...]:
        """The trigger that `wait` has kept, once; none when the gate was closed since."""
        with self._changed:
            kept, self._kept = self._kept, None
            if kept is None:
                return ()
            self._counters.trigger(self._lane, answered=1)
        return (kept,)

    def take(self, captured_ns: int) -> tuple[Pending, ...]:
        """The triggers that a frame captured at `captured_ns` answers: those fired before it and still waiting."""
        taken: list[Pending] = []
        with self._changed:
            late = self._overdue(captured_ns)
            while self._pending and self._pending[0].fired_ns <= captured_ns:
                taken.append(self._pending.popleft())
            self._counters.trigger(self._lane, answered=len(taken), missed=len(late))
        self._report(late, captured_ns, TOO_LATE)
        return tuple(taken)

    def expire(self, now_ns: int) -> None:
        """Give up the triggers that have waited for too long."""
        with self._changed:
            late = self._overdue(now_ns)
            self._counters.trigger(self._lane, missed=len(late))
        self._report(late, now_ns, TOO_LATE)

    def give_back(self, taken: Sequence[Pending]) -> None:
        """Give up triggers from `take` whose frame left no record after all, because the line has ended."""
        with self._changed:
            self._counters.trigger(self._lane, answered=-len(taken), missed=len(taken))
        self._report(taken, self._clock_ns(), LINE_ENDED)

    def close(self, reason: str) -> None:
        """Accept no more, and give up all that wait."""
        with self._changed:
            self._closed = True
            left = [*([] if self._kept is None else [self._kept]), *self._pending]
            self._kept = None
            self._pending.clear()
            self._counters.trigger(self._lane, missed=len(left))
            self._changed.notify_all()
        self._report(left, self._clock_ns(), reason)

    def _overdue(self, now_ns: int) -> list[Pending]:
        late = []
        while self._pending and now_ns - self._pending[0].fired_ns > self._timeout_ns:
            late.append(self._pending.popleft())
        return late

    def _report(self, pending: Sequence[Pending], now_ns: int, reason: str) -> None:
        for one in pending:
            self._missed(self._lane, one, max(0, now_ns - one.fired_ns), reason)


class Triggers:
    """The gates of a line by the name of their camera: where HTTP and MQTT come in.

    Args:
        gates: one for each camera; None for one that is not triggered by software.
        say: told of a trigger that was refused because too many wait, once until one is accepted again.
    """

    def __init__(self, gates: Mapping[str, TriggerGate | None], say: Callable[[str], None]) -> None:
        self._gates = gates
        self._say = say
        self._lock = threading.Lock()
        self._full: set[str] = set()

    def fire(self, camera: str, part_id: object) -> Fired:
        """Ask for the next frame of a camera, for a part whose id is to stand in the record; from any thread.

        Returns: whether it was accepted, which is true or false, and in words why not. Never raises, never waits.
        """
        if camera not in self._gates:
            return Fired.UNKNOWN
        gate = self._gates[camera]
        if gate is None:
            return Fired.NOT_BY_SOFTWARE
        if not (isinstance(part_id, str) and 0 < len(part_id) <= MAX_PART_ID and part_id.isprintable()):
            return Fired.BAD_PART_ID
        outcome = gate.fire(part_id)
        if outcome is Fired.FULL:
            log.warning("camera %s: part %s refused: %s", camera, part_id, outcome.value)
        self._tell(camera, part_id, outcome)
        return outcome

    def _tell(self, camera: str, part_id: str, outcome: Fired) -> None:
        with self._lock:
            is_news = outcome is Fired.FULL and camera not in self._full
            (self._full.add if outcome is Fired.FULL else self._full.discard)(camera)
        if is_news:
            self._say(
                f"warning: {camera}: part {part_id!r} is not inspected: {outcome.value}; triggers come faster than"
                " frames are judged (further ones are counted, not reported)"
            )

    def expire(self, now_ns: int) -> None:
        """Give up, on every gate, the triggers that have waited for too long."""
        for gate in self._gates.values():
            if gate is not None:
                gate.expire(now_ns)

    def close(self) -> None:
        """Accept no more on any gate, and give up all that wait."""
        for gate in self._gates.values():
            if gate is not None:
                gate.close(LINE_ENDED)
