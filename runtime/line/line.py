"""A line: cameras judged by one engine, from capture to record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from edge_ad.record.verdict import Verdict
from edge_ad.runtime.host.messages import unfailing
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.line.engine_watch import EngineWatch
from edge_ad.runtime.line.events import LineEvents
from edge_ad.runtime.line.scheduling import output
from edge_ad.runtime.line.scheduling.capture import Capture, Silence
from edge_ad.runtime.line.scheduling.judging import Judging
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.ledger import Ledger
from edge_ad.runtime.line.scheduling.output import Outputs
from edge_ad.runtime.line.scheduling.schedule import Room, Schedule
from edge_ad.runtime.line.scheduling.service_times import ServiceTimes
from edge_ad.runtime.line.scheduling.thresholds import InUse, ThresholdBoard
from edge_ad.runtime.line.scheduling.ticket import Ticket
from edge_ad.runtime.line.scheduling.trigger import Software, TriggerGate, Triggers
from edge_ad.runtime.line.status import LineStatus
from edge_ad.runtime.line.telemetry import Telemetry
from edge_ad.runtime.sinks import Sink
from edge_ad.runtime.sources.outage import Interruptible, ReportsOutages

STOP_S = 2.0  # how long a stopped run waits for a read, and beyond the budget for frames in hand; either may hang
HUNG_S = 10.0  # for how long the engine may work on one batch before the user hears of it
TICK_S = 0.1  # how often the caller's thread looks for silence and for the stop
DEPTH = 8  # frames that wait, of a live source of which every one is judged
READ_AHEAD = 2  # frames that wait, of a source that waits itself
STOPPED = "the run ended before it was judged"


class Line:
    """Sources judged by one detector; for one run.

    Args:
        detector: loaded; it is warm before the sources open.
        lanes: the sources and their rules.
        sinks: receive every record; those of one lane in order of capture.
        telemetry: new.
        say: receives what the user should know while the line runs, one line of text each; what it raises is ignored.
        clock_ns: the clock of `Frame.captured_ns`.

    Attributes:
        thresholds: those in use; they may be changed while the line runs.
        triggers: where parts are announced to cameras that are triggered by software; from any thread.
        status: how the line is doing; None while it does not run.
        hung: sinks in which a write still hung at the end of `run`; closing them would hang as well.

    Raises: ConfigError for a lane that drops frames of a source that waits.
    """

    def __init__(
        self,
        detector: Detector,
        lanes: Sequence[Lane],
        sinks: Sequence[Sink],
        telemetry: Telemetry,
        *,
        say: Callable[[str], None] = lambda _: None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.hung: tuple[Sink, ...] = ()
        self.status: LineStatus | None = None
        self._detector = detector
        self._lanes = lanes
        self._telemetry = telemetry
        self._say = unfailing(say)
        self._clock_ns = clock_ns
        self._live = any(lane.live for lane in lanes)
        self._failure: Exception | None = None
        self._attended_ns = 0  # when the caller's thread looked after the line last
        self._stop = threading.Event()
        self._changed = threading.Event()
        counters = telemetry.counters
        for lane in lanes:
            counters.add_lane(lane.name)
        self._outputs = Outputs(
            sinks,
            counters,
            forgiving=self._live,
            failed=self._failed,
            say=self._say,
            wrote=telemetry.wrote,
            wake=self._changed.set,
        )
        names = [lane.name for lane in lanes]
        self._events = LineEvents(names, counters, self._outputs.event, self._say, clock_ns)
        self._ledgers = [
            Ledger(number, lane, detector.provenance, counters, self._deliver) for number, lane in enumerate(lanes)
        ]
        self._gates = [
            TriggerGate(number, lane.trigger, counters, self._events.trigger_missed, clock_ns)
            if isinstance(lane.trigger, Software)
            else None
            for number, lane in enumerate(lanes)
        ]
        self.triggers = Triggers(dict(zip(names, self._gates, strict=True)), self._say)
        self.thresholds = ThresholdBoard(names, [_in_use(lane, detector) for lane in lanes])
        self._engine = EngineWatch(lambda: detector.health, counters, self._say)
        self._times = ServiceTimes()
        self._judging = Judging(
            detector,
            lanes,
            Schedule([_room(lane, detector.max_batch) for lane in lanes], self._times, detector.max_batch),
            self.thresholds,
            settle=lambda ticket, verdict: self._ledgers[ticket.lane].settle(ticket, verdict),
            broke=self._failed,
            tell=self._changed.set,
            clock_ns=clock_ns,
        )

    def run(self, stop: threading.Event) -> None:
        """Judge open sources until all have ended or `stop` is set; frames in hand are finished.

        A source that breaks does not end the others, nor does a sink that fails, if one of the sources is live.

        Raises: EdgeAdError when a source broke, or a sink of a line without live sources cannot write.
        """
        self._stop = stop
        self._measure_batches()
        captures = [
            Capture(
                number,
                lane,
                self._ledgers[number],
                self._judging,
                self._outputs,
                self._telemetry.counters,
                self._gates[number],
                stop,
                self._changed.set,
                self._clock_ns,
            )
            for number, lane in enumerate(self._lanes)
        ]
        try:
            self._outputs.start()
            self._judging.start()
            for number, lane in enumerate(self._lanes):
                if isinstance(lane.source, ReportsOutages):
                    lane.source.report_to(partial(self._events.outage, number))
            for capture in captures:
                capture.start()
            self._attended_ns = self._clock_ns()
            self.status = LineStatus(
                captures,
                self._ledgers,
                self._judging,
                self._outputs,
                self._events.away,
                self._clock_ns,
                self._engine,
                lambda: self._attended_ns,
                lambda: self._judging.inferring_since_ns,
            )
            self._attend(captures, stop)
        except BaseException:
            stop.set()
            raise
        finally:
            self.status = None
            try:
                limit_s = output.FLUSH_S if self._live or stop.is_set() else None
                self._end(captures, stop, join_s=TICK_S, limit_s=limit_s)
            except KeyboardInterrupt:  # ends the waiting, and no more than that
                stop.set()
                self._end(captures, stop, join_s=0.0, limit_s=0.0)
                raise
            finally:
                self._engine.look()
        failures = [self._failure, *(capture.failure for capture in captures)]
        for failure in failures:
            if failure is not None:
                raise failure

    def _end(self, captures: Sequence[Capture], stop: threading.Event, *, join_s: float, limit_s: float | None) -> None:
        """Let all parts end. May be called again when an interrupt has ended it."""
        try:
            for capture in captures:
                capture.join(join_s)
            self.triggers.close()
            for ledger in self._ledgers:
                ledger.close(Verdict("error", reason=STOPPED))
        finally:
            self._judging.abandon()
            self.hung = self._outputs.writing  # should an interrupt end the waiting
            self.hung = self._outputs.close(limit_s, stop)

    def _attend(self, captures: Sequence[Capture], stop: threading.Event) -> None:
        """What the caller's thread does meanwhile: windows, silence, and the end."""
        engine = Silence(HUNG_S)
        silences = [None if lane.silence_s is None else Silence(lane.silence_s) for lane in self._lanes]
        budget_s = max((lane.budget_ms or 0) / 1e3 for lane in self._lanes)
        stopped_s: float | None = None
        said: set[Capture] = set()
        finishing = False
        while not self._judging.ended:
            self._changed.wait(TICK_S)
            self._changed.clear()
            self._attended_ns = self._clock_ns()
            self._outputs.work()
            self._engine.look()
            self.triggers.expire(self._clock_ns())
            hung_s = engine.silent_s(self._judging.inferring_since_ns, self._clock_ns())
            if hung_s is not None:
                self._say(f"warning: the engine has not answered for {hung_s:.0f} s; no frame is judged meanwhile")
            for capture, silence in zip(captures, silences, strict=True):
                if silence is not None and capture.lane.live:
                    silent_s = silence.silent_s(capture.reading_since_ns, self._clock_ns())
                    if silent_s is not None:
                        self._events.silence(capture.number, silent_s)
                if capture.failure is not None and len(captures) > 1 and capture not in said:
                    said.add(capture)
                    self._say(f"warning: {capture.failure}; the other sources go on")
            if stop.is_set() and stopped_s is None:
                stopped_s = time.monotonic()
                for lane in self._lanes:
                    if isinstance(lane.source, Interruptible):
                        lane.source.interrupt()
            waited_s = 0.0 if stopped_s is None else time.monotonic() - stopped_s
            if not finishing and (all(capture.ended for capture in captures) or waited_s > STOP_S):
                finishing = True
                self._judging.finish()
            if waited_s > STOP_S + STOP_S + budget_s:
                return

    def _deliver(self, ticket: Ticket) -> None:
        assert ticket.settled is not None
        self._outputs.deliver(ticket)  # before the figures, which no record may be lost for
        self._telemetry.add(ticket.frame, ticket.settled[0])

    def _failed(self, exc: Exception) -> None:
        self._failure = self._failure or exc
        self._stop.set()
        self._changed.set()

    def _measure_batches(self) -> None:
        """Run every size of batch once to warm it up, and once to know how long it takes."""
        if self._detector.max_batch == 1:
            return
        height, width = self._detector.bundle.manifest.preprocess.size_hw
        ramp = np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)
        prepared = self._detector.prepare(np.repeat(ramp[:, :, None], 3, axis=2))
        for size in range(1, self._detector.max_batch + 1):
            self._detector.infer([prepared] * size)
            began_ns = self._clock_ns()
            self._detector.infer([prepared] * size)
            self._times.inferred(size, self._clock_ns() - began_ns)


def _in_use(lane: Lane, detector: Detector) -> InUse:
    return InUse(detector.thresholds) if lane.thresholds is None else InUse(lane.thresholds, "camera")


def _room(lane: Lane, max_batch: int) -> Room:
    """How many frames of a lane may wait.

    With a budget, a source that waits is read only when its last frame is through: read ahead, its frames would be
    late for nothing but waiting for each other.
    """
    if lane.freshest:
        return Room(freshest=True)
    if lane.live:
        return Room(depth=DEPTH)
    return Room(in_hand=1) if lane.budget_ms is not None else Room(depth=max(READ_AHEAD, max_batch))
