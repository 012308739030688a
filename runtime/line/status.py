"""How a line is doing, for whoever asks from another thread: what is dead, not ready, or waits for too long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_ad.errors import EdgeAdError
from edge_ad.runtime.host.health import Condition, found
from edge_ad.runtime.line.engine_watch import EngineWatch
from edge_ad.runtime.line.scheduling.capture import Capture
from edge_ad.runtime.line.scheduling.judging import Judging
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.ledger import Ledger
from edge_ad.runtime.line.scheduling.output import Outputs
from edge_ad.runtime.sources.outage import ReportsOutages

STUCK_S = 5.0  # a sink that has not taken a record for so long is stuck
GONE_S = 300.0  # an engine that no fresh process could bring back for so long is not brought back by further ones
HUNG_S = 10.0  # an engine that takes so long for one batch
DEAD_S = 60.0  # and one that will not answer any more
ABSENT_S = 10.0  # a write to a window or to standard error that takes so long hangs
SILENT_S = 5.0  # a read of a file that takes so long hangs


@dataclass(frozen=True)
class LineStatus:
    """The threads of a line that runs. Everything here only reads, and waits for nothing but short locks.

    Attributes:
        captures, ledgers: of every camera.
        away: why a camera, by number, is waited for at the moment; None when it is there.
        attended_ns: when the thread that runs the line has looked after it last.
        inferring_since_ns: when the engine was called that has not answered yet.
    """

    captures: Sequence[Capture]
    ledgers: Sequence[Ledger]
    judging: Judging
    outputs: Outputs
    away: Callable[[int], str | None]
    clock_ns: Callable[[], int]
    engine: EngineWatch | None = None
    attended_ns: Callable[[], int] | None = None
    inferring_since_ns: Callable[[], int | None] = lambda: None

    def dead(self) -> list[str]:
        """What should run and does not, so that only a new start helps; one line each."""
        dead = [*self.judging.dead, *(f"sink {name}" for name in self.outputs.dead)]
        dead += [f"capture of {capture.lane.name}" for capture in self.captures if _has_died(capture)]
        faults = [f"the thread {name} has ended" for name in dead]
        if self.engine is not None and self.engine.down_for_s > GONE_S:
            faults.append(f"{self.engine.fault}; no fresh process has taken over for {GONE_S:g} s")
        faults += self._silent_engine(DEAD_S)
        if self.attended_ns is not None:
            absent_s = (self.clock_ns() - self.attended_ns()) / 1e9
            if absent_s > ABSENT_S:
                faults.append(f"the thread that runs the line has not looked after it for {absent_s:.0f} s")
        return faults

    def computing(self) -> str | None:
        """Why no frame is judged at the moment, or None when they are."""
        return None if self.engine is None else self.engine.fault

    def waiting(self) -> list[str]:
        """The engine, when it takes too long for a batch."""
        return self._silent_engine(HUNG_S)

    def _silent_engine(self, limit_s: float) -> list[str]:
        since_ns = self.inferring_since_ns()
        silent_s = 0.0 if since_ns is None else (self.clock_ns() - since_ns) / 1e9
        return [f"the engine has not answered for {silent_s:.0f} s"] if silent_s > limit_s else []

    def conditions(self) -> list[Condition]:
        """What sinks say of themselves: of their threads and receivers."""
        return found(self.outputs.checks)

    def delivering(self) -> dict[str, str | None]:
        """For every camera why it gives no frames, or None when it does, or waits until one is wanted."""
        return {capture.lane.name: self._fault(capture) for capture in self.captures}

    def stuck(self) -> list[str]:
        """Sinks that do not take what they are given; one line each."""
        sinks = zip(self.outputs.names, self.outputs.stuck_s(), strict=True)
        return [f"sink {name}: has taken nothing for {stuck_s:.0f} s" for name, stuck_s in sinks if stuck_s > STUCK_S]

    def troubles(self) -> dict[str, str]:
        """What is wrong with sinks at the moment, by their names, though they may still take records."""
        return self.outputs.troubles()

    def oldest_frame_s(self) -> dict[str, float]:
        """For every camera the age of the oldest frame without a record, seconds; 0 when there is none."""
        now_ns = self.clock_ns()
        ages = {}
        for capture, ledger in zip(self.captures, self.ledgers, strict=True):
            oldest_ns = ledger.oldest_ns
            ages[capture.lane.name] = 0.0 if oldest_ns is None else max(0.0, (now_ns - oldest_ns) / 1e9)
        return ages

    def _fault(self, capture: Capture) -> str | None:
        lane = capture.lane
        if capture.failure is not None:
            return f"camera {lane.name}: {capture.failure}"
        if capture.ended:
            return f"camera {lane.name}: has ended"
        away = self.away(capture.number)
        if away is not None:
            return f"camera {lane.name}: {away}"
        limit_s = _longest_read_s(lane)
        if limit_s is None:
            return None
        since_ns = capture.reading_since_ns
        silent_s = 0.0 if since_ns is None else (self.clock_ns() - since_ns) / 1e9
        if silent_s > limit_s:
            return f"camera {lane.name}: has given no frame for {silent_s:.0f} s"
        if lane.live and capture.read == 0:
            return f"camera {lane.name}: has given no frame yet"
        return None


def _has_died(capture: Capture) -> bool:
    """Whether a defect has ended it, and not its source."""
    if capture.ended:
        return capture.failure is not None and not isinstance(capture.failure, EdgeAdError)
    return not capture.is_alive


def _longest_read_s(lane: Lane) -> float | None:
    """For how long a source may give nothing; None for one that may be silent, such as a folder that is watched."""
    if lane.live:
        return lane.silence_s
    return None if isinstance(lane.source, ReportsOutages) else SILENT_S
