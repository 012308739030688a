"""The three threads in which frames become verdicts: preparation, inference, conclusion.

While the engine works on one batch, the next frame is prepared and the regions of the last are found.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge_ad.engine import Outputs
from edge_ad.errors import EdgeAdError, one_line
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.judge.detector import Detector, Prepared
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.schedule import Schedule, Skip, Turn
from edge_ad.runtime.line.scheduling.threads import broken
from edge_ad.runtime.line.scheduling.thresholds import ThresholdBoard
from edge_ad.runtime.line.scheduling.ticket import Ticket

log = logging.getLogger(__name__)

MAX_INFERRED = 2  # batches that wait for their conclusion; then the engine waits
POLL_S = 0.1  # how often a waiting capture looks whether it should stop


@dataclass(frozen=True)
class _Inferred:
    tickets: Sequence[Ticket]
    prepared: Sequence[Prepared]
    outputs: Outputs
    infer_ms: float


class Judging:
    """Judges what the schedule picks.

    Args:
        detector: loaded.
        settle: takes the verdict of a frame; called from all three threads.
        broke: called with a defect in here, which ends the line.
        tell: called when the last frame has its verdict.
    """

    def __init__(
        self,
        detector: Detector,
        lanes: Sequence[Lane],
        schedule: Schedule,
        thresholds: ThresholdBoard,
        settle: Callable[[Ticket, Verdict], bool],
        broke: Callable[[Exception], None],
        tell: Callable[[], None],
        clock_ns: Callable[[], int],
    ) -> None:
        self._detector = detector
        self._lanes = lanes
        self._schedule = schedule
        self._thresholds = thresholds
        self._settle = settle
        self._broke = broke
        self._tell = tell
        self._clock_ns = clock_ns
        lock = threading.RLock()
        self._captured = threading.Condition(lock)  # something to prepare, or the time for it has come
        self._ready = threading.Condition(lock)  # something to infer
        self._concluding = threading.Condition(lock)  # something to conclude, or room for more of it
        self._room = threading.Condition(lock)  # room for another frame of some lane
        self._ready_inputs: dict[Ticket, Prepared] = {}
        self._inferred: deque[_Inferred] = deque()
        self._finishing = False
        self._abandoned = False
        self._inferring_since_ns: int | None = None
        self._gone: set[str] = set()
        self._threads = [
            threading.Thread(target=self._guarded, args=(name, stage), name=f"edge-ad-{name}", daemon=True)
            for name, stage in (("prepare", self._prepare), ("infer", self._infer), ("conclude", self._conclude))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def ended(self) -> bool:
        """Whether the last frame has its verdict."""
        return "conclude" in self._gone

    @property
    def inferring_since_ns(self) -> int | None:
        """When the engine was called that has not answered yet."""
        return self._inferring_since_ns

    def abandon(self) -> None:
        """Let all threads end as soon as they can, whatever still waits."""
        with self._captured:
            self._abandoned = self._finishing = True
            for condition in (self._captured, self._ready, self._concluding, self._room):
                condition.notify_all()

    @property
    def dead(self) -> list[str]:
        """Stages whose thread has ended before its time."""
        if self._finishing:
            return []
        return [thread.name for thread in self._threads if not thread.is_alive()]

    def finish(self) -> None:
        """No further frame is offered: the threads end when all have their verdicts."""
        with self._captured:
            self._finishing = True
            self._schedule.finish()
            self._captured.notify_all()

    def wait_for_room(self, lane: int, stop: threading.Event) -> bool:
        """Wait until a lane may capture its next frame. Returns: False when `stop` was set before."""
        with self._room:
            while not self._schedule.has_room(lane):
                if stop.is_set() or self._abandoned:
                    return False
                self._room.wait(POLL_S)
        return True

    def offer(self, ticket: Ticket) -> tuple[Ticket, ...]:
        """Let a frame wait to be judged. Returns: those that it replaces."""
        with self._captured:
            overtaken = self._schedule.offer(ticket)
            self._captured.notify()
        return overtaken

    def _guarded(self, name: str, stage: Callable[[], None]) -> None:
        try:
            stage()
        except Exception as exc:
            log.exception("thread %s", name)
            self._broke(exc)
        except BaseException as exc:
            self._broke(broken(name, exc))
        finally:
            with self._captured:
                self._gone.add(name)
                self._ready.notify_all()
                self._concluding.notify_all()
            if name == "conclude":
                self._tell()

    def _prepare(self) -> None:
        while True:
            with self._captured:
                turn = self._schedule.to_prepare(self._clock_ns())
                while not turn:
                    if self._abandoned or (self._finishing and not self._schedule.waits_for_preparation):
                        return
                    wait_s = None if turn.again_ns is None else max(0.0, (turn.again_ns - self._clock_ns()) / 1e9)
                    self._captured.wait(wait_s)
                    turn = self._schedule.to_prepare(self._clock_ns())
                self._room.notify_all()
            self._skip(turn.skips)
            for ticket in turn.tickets:
                self._make_input(ticket)

    def _make_input(self, ticket: Ticket) -> None:
        frame, began_ns = ticket.frame, self._clock_ns()
        assert frame.image_hwc is not None
        verdict: Verdict | None = None
        try:
            lane = self._lanes[ticket.lane]
            prepared = self._detector.prepare(
                frame.image_hwc, color_order=frame.color_order, roi=lane.roi, inspector=lane.inspector
            )
            if prepared.reason is not None:
                verdict = self._detector.unusable(prepared, thresholds=self._thresholds.of(ticket.lane))
        except Exception as exc:
            verdict = _failed(ticket, exc)
        with self._captured:
            self._schedule.times.prepared(ticket.lane, self._clock_ns() - began_ns)
            if verdict is None:
                self._ready_inputs[ticket] = prepared
                self._schedule.prepared(ticket)
                self._ready.notify()
            else:
                self._schedule.given_up(ticket)
        if verdict is not None:
            self._finish(ticket, verdict)

    def _infer(self) -> None:
        while True:
            with self._ready:
                turn = self._next_batch()
                if turn is None:
                    return
                prepared = [self._ready_inputs.pop(ticket) for ticket in turn.tickets]
                for skip in turn.skips:
                    del self._ready_inputs[skip.ticket]
                self._captured.notify()
            self._skip(turn.skips)
            if turn.tickets:
                self._run_engine(turn.tickets, prepared)

    def _next_batch(self) -> Turn | None:
        """What to infer; None at the end. Called with the lock."""
        while True:
            if self._abandoned:
                return None
            if len(self._inferred) < MAX_INFERRED:
                turn = self._schedule.to_infer(self._clock_ns())
                if turn:
                    return turn
                if "prepare" in self._gone:  # and nothing is prepared, for the engine is free
                    return None
            elif "conclude" in self._gone:
                return None
            self._ready.wait()

    def _run_engine(self, tickets: Sequence[Ticket], prepared: Sequence[Prepared]) -> None:
        began_ns = self._clock_ns()
        failure: Exception | None = None
        self._inferring_since_ns = began_ns
        try:
            outputs = self._detector.infer(prepared)
        except Exception as exc:
            if len(tickets) > 1:  # which of them it was is found out one by one
                for ticket, one in zip(tickets, prepared, strict=True):
                    self._run_engine([ticket], [one])
                return
            failure = exc
        self._inferring_since_ns = None
        took_ns = self._clock_ns() - began_ns
        with self._ready:
            self._schedule.inferred()
            if failure is None:
                self._schedule.times.inferred(len(tickets), took_ns)
                self._inferred.append(_Inferred(tickets, prepared, outputs, took_ns / 1e6))
                self._concluding.notify()
            self._captured.notify()
        if failure is not None:
            self._finish(tickets[0], _failed(tickets[0], failure))

    def _conclude(self) -> None:
        while True:
            with self._concluding:
                while not self._inferred:
                    if self._abandoned or "infer" in self._gone:
                        return
                    self._concluding.wait()
                batch = self._inferred.popleft()
                self._ready.notify()
            for index, ticket in enumerate(batch.tickets):
                self._finish(ticket, self._concluded(batch, index))

    def _concluded(self, batch: _Inferred, index: int) -> Verdict:
        ticket, began_ns = batch.tickets[index], self._clock_ns()
        thresholds = self._thresholds.of(ticket.lane)
        try:
            verdict = self._detector.conclude(batch.prepared[index], batch.outputs, index, thresholds=thresholds)
        except Exception as exc:
            return _failed(ticket, exc)
        now_ns = self._clock_ns()
        in_time = ticket.deadline_ns is None or now_ns <= ticket.deadline_ns
        with self._captured:
            times = self._schedule.times
            if ticket.is_probe and in_time:
                times.forget()
            times.conclude.add(now_ns - began_ns)
        frame = ticket.frame
        stages = {
            "preprocess": batch.prepared[index].took_ms,
            "infer": batch.infer_ms,
            "postprocess": (now_ns - began_ns) / 1e6,
        }
        total_ms = max(0.0, (now_ns - frame.captured_ns) / 1e6)
        waited_ms = max(0.0, total_ms - frame.decode_ms - sum(stages.values()))
        timings_ms = {"decode": frame.decode_ms, "wait": waited_ms, **stages, "total": total_ms}
        return replace(verdict, status="ok" if in_time else "late", timings_ms=timings_ms)

    def _finish(self, ticket: Ticket, verdict: Verdict) -> None:
        self._settle(ticket, verdict)
        with self._room:
            self._schedule.settled(ticket)
            self._room.notify_all()

    def _skip(self, skips: Sequence[Skip]) -> None:
        for skip in skips:
            timings_ms = {"decode": skip.ticket.frame.decode_ms}
            self._settle(skip.ticket, Verdict("skipped", timings_ms=timings_ms, reason=skip.reason))


def _failed(ticket: Ticket, exc: Exception) -> Verdict:
    """The verdict of a frame that an engine or a defect has cost; the line goes on."""
    frame = ticket.frame
    if isinstance(exc, EdgeAdError):
        reason = str(exc)
    else:
        where = {"camera": frame.source, "frame_id": frame.frame_id}
        log.error("frame %d of %s", frame.frame_id, frame.source, exc_info=exc, extra=where)
        reason = f"internal error: {type(exc).__name__}: {one_line(exc)}"
    return Verdict("error", timings_ms={"decode": frame.decode_ms}, reason=reason)
