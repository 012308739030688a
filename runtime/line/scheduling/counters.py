"""The account of a line: for every lane, captured = settled + in flight; for every sink, taken = what became of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edge_ad.record.verdict import OVERTAKEN, Verdict
from edge_ad.runtime.sinks.counts import SinkCounts


@dataclass(frozen=True)
class TriggerCounts:
    """Triggers of one camera.

    Attributes:
        accepted: those that were to get a frame.
        answered: those that got one.
        missed: those that got none, each of which left an event.
        refused: those that were not accepted, because too many waited or the camera had ended.
    """

    accepted: int = 0
    answered: int = 0
    missed: int = 0
    refused: int = 0

    @property
    def waiting(self) -> int:
        return self.accepted - self.answered - self.missed


@dataclass(frozen=True)
class LaneCounts:
    """Frames of one lane.

    Attributes:
        name: of the lane.
        captured: frames that the source gave and that were not left out on purpose.
        statuses: settled frames by status.
        in_flight: captured frames without a verdict yet.
        overtaken: skipped frames that a newer one replaced.
        no_frame: times that the source was reported as silent.
        disconnected: times that the source was lost, or absent at the start.
        hung: how many of these were found by the watchdog.
        left_out: frames that the source gave and that were not captured, on purpose.
        verdicts: judged frames by verdict.
        triggers: those of a lane that is triggered by software.
    """

    name: str
    captured: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = 0
    overtaken: int = 0
    no_frame: int = 0
    disconnected: int = 0
    hung: int = 0
    left_out: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    triggers: TriggerCounts = TriggerCounts()

    @property
    def miss_rate(self) -> float:
        """Share of the captured frames without a verdict in time; 0 for none."""
        missed = self.statuses.get("late", 0) + self.statuses.get("skipped", 0)
        return missed / self.captured if self.captured else 0.0

    @property
    def adds_up(self) -> bool:
        return self.captured == sum(self.statuses.values()) + self.in_flight


@dataclass(frozen=True)
class Snapshot:
    """All counts at one moment.

    Attributes:
        engine_restarts: how often a fresh process of the engine has taken over from one that failed.
    """

    lanes: tuple[LaneCounts, ...] = ()
    sinks: tuple[SinkCounts, ...] = ()
    engine_restarts: int = 0

    @property
    def statuses(self) -> Counter[str]:
        """Settled frames of all lanes by status."""
        total: Counter[str] = Counter()
        for lane in self.lanes:
            total.update(lane.statuses)
        return total

    @property
    def captured(self) -> int:
        return sum(lane.captured for lane in self.lanes)

    @property
    def overtaken(self) -> int:
        return sum(lane.overtaken for lane in self.lanes)

    @property
    def missed(self) -> int:
        """Frames without a verdict in time: late or skipped."""
        statuses = self.statuses
        return statuses["late"] + statuses["skipped"]

    @property
    def miss_rate(self) -> float:
        """Share of the captured frames that are `missed`; 0 for none."""
        return self.missed / self.captured if self.captured else 0.0

    @property
    def adds_up(self) -> bool:
        return all(lane.adds_up for lane in self.lanes) and all(sink.adds_up for sink in self.sinks)


@dataclass
class _LaneCounters:
    name: str
    statuses: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    triggers: Counter[str] = field(default_factory=Counter)
    rest: Counter[str] = field(default_factory=Counter)

    def snapshot(self) -> LaneCounts:
        rest = self.rest
        return LaneCounts(
            self.name,
            rest["captured"],
            {status: count for status, count in self.statuses.items() if count},
            rest["captured"] - rest["settled"],
            rest["overtaken"],
            rest["no_frame"],
            rest["disconnected"],
            rest["hung"],
            rest["left_out"],
            dict(self.verdicts),
            TriggerCounts(**self.triggers),
        )


class Counters:
    """Counts from all threads of a line, under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: list[_LaneCounters] = []
        self._sinks: list[tuple[str, Counter[str]]] = []
        self._accounts: list[Callable[[], SinkCounts]] = []
        self._engine_restarts = 0

    def add_lane(self, name: str) -> int:
        """Returns: the number of the lane for the other methods."""
        with self._lock:
            self._lanes.append(_LaneCounters(name))
            return len(self._lanes) - 1

    def add_sink(self, name: str) -> int:
        """Returns: the number of the sink for the other methods."""
        with self._lock:
            self._sinks.append((name, Counter()))
            return len(self._sinks) - 1

    def add_account(self, read: Callable[[], SinkCounts]) -> None:
        """Show, beside the sinks, an account that somebody else keeps: what a sink took and still has to deliver."""
        with self._lock:
            self._accounts.append(read)

    def captured(self, lane: int) -> None:
        with self._lock:
            self._lanes[lane].rest["captured"] += 1

    def left_out(self, lane: int) -> None:
        with self._lock:
            self._lanes[lane].rest["left_out"] += 1

    def trigger(self, lane: int, **changes: int) -> None:
        """Add to counts of triggers, all at once, by the names of `TriggerCounts`."""
        with self._lock:
            counts = self._lanes[lane].triggers
            for name, change in changes.items():
                counts[name] += change

    def settled(self, lane: int, verdict: Verdict) -> None:
        with self._lock:
            counts = self._lanes[lane]
            counts.statuses[verdict.status] += 1
            counts.rest["settled"] += 1
            counts.rest["overtaken"] += verdict.reason == OVERTAKEN
            if verdict.verdict is not None:
                counts.verdicts[verdict.verdict] += 1

    def no_frame(self, lane: int) -> int:
        """Count a report of silence. Returns: how many there are for this lane."""
        with self._lock:
            rest = self._lanes[lane].rest
            rest["no_frame"] += 1
            return rest["no_frame"]

    def disconnected(self, lane: int, *, hung: bool) -> int:
        """Count a loss of the source. Returns: how many there are for this lane."""
        with self._lock:
            rest = self._lanes[lane].rest
            rest["disconnected"] += 1
            rest["hung"] += hung
            return rest["disconnected"]

    def engine_restarts(self, count: int) -> None:
        """Note how often a fresh process of the engine has taken over by now."""
        with self._lock:
            self._engine_restarts = count

    def sink(self, number: int, **changes: int) -> None:
        """Add to counts of a sink, all at once, by the names of `SinkCounts`."""
        with self._lock:
            counts = self._sinks[number][1]
            for name, change in changes.items():
                counts[name] += change

    def snapshot(self) -> Snapshot:
        with self._lock:
            lanes = tuple(lane.snapshot() for lane in self._lanes)
            sinks = tuple(SinkCounts(name, **counts) for name, counts in self._sinks)
            accounts, engine_restarts = tuple(self._accounts), self._engine_restarts
        sinks += tuple(read() for read in accounts)  # they have locks of their own
        return Snapshot(lanes, sinks, engine_restarts)
