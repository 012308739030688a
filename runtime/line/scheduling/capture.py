"""The thread of one camera: reads, leaves out what is not wanted, and lets the rest wait to be judged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import OVERTAKEN, Verdict
from edge_ad.runtime.line.scheduling.admission import admission
from edge_ad.runtime.line.scheduling.counters import Counters
from edge_ad.runtime.line.scheduling.heavy import HEAVY
from edge_ad.runtime.line.scheduling.intake import checked
from edge_ad.runtime.line.scheduling.judging import Judging
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.ledger import Ledger
from edge_ad.runtime.line.scheduling.output import Outputs
from edge_ad.runtime.line.scheduling.repeats import Repeats
from edge_ad.runtime.line.scheduling.threads import broken
from edge_ad.runtime.line.scheduling.trigger import TriggerGate

REPEATED = "the picture is the one before it, bit for bit; the camera or its stream has frozen"


class Capture:
    """Reads one source in a thread of its own.

    Attributes:
        failure: what broke the source off.
        reading_since_ns: when the read began that is under way; None between reads.
        captured: frames so far.
        read: frames that the source has given so far, left out or not.
        ended: whether the last frame was captured.
        number: of the lane.

    Args:
        gate: of a lane that is triggered by software, else None.
        stop: ends the capture after the frame in hand.
        tell: called once, from the thread, when no further frame comes.
    """

    def __init__(
        self,
        number: int,
        lane: Lane,
        ledger: Ledger,
        judging: Judging,
        outputs: Outputs,
        counters: Counters,
        gate: TriggerGate | None,
        stop: threading.Event,
        tell: Callable[[], None],
        clock_ns: Callable[[], int],
    ) -> None:
        self.lane = lane
        self.failure: Exception | None = None
        self.reading_since_ns: int | None = None
        self.captured = 0
        self.read = 0
        self.ended = False
        self.number = number
        self._ledger = ledger
        self._judging = judging
        self._outputs = outputs
        self._counters = counters
        self._stop = stop
        self._tell = tell
        self._clock_ns = clock_ns
        self._admission = admission(lane, gate, clock_ns)
        self._repeats = Repeats() if lane.live else None
        self._thread = threading.Thread(target=self._run, name="edge-ad-capture", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self._wanted():
                self.reading_since_ns = self._clock_ns()
                frame = self.lane.source.read()
                self.reading_since_ns = None
                if frame is None:
                    return
                self.read += 1
                HEAVY.note(frame.image_hwc)
                if not self._sort(frame):
                    return
                del frame  # else its picture stays while the next one is read
        except Exception as exc:  # reported by the line, after the frames before it
            self.failure = exc
        except BaseException as exc:
            self.failure = broken("capture", exc)
        finally:
            self.reading_since_ns = None
            self.ended = True
            self._admission.ended()
            self._tell()

    def _wanted(self) -> bool:
        """Whether to read another frame; waits until it may be read."""
        if self.lane.max_frames is not None and self.captured >= self.lane.max_frames:
            return False
        if not self.lane.live:
            if not self._outputs.wait_for_room(self._stop) or not HEAVY.wait(self._stop):
                return False
            if not self._admission.wait(self._stop):
                return False
        return self._judging.wait_for_room(self.number, self._stop)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _sort(self, frame: Frame) -> bool:
        """Capture a frame or leave it out. Returns: False when the line has ended."""
        arrived_ns = self._clock_ns()
        frame = checked(frame, arrived_ns)
        part_ids = self._admission.admit(frame)
        if not part_ids:
            self._counters.left_out(self.number)
        before = self.captured
        try:
            repeats = self._is_repeat(frame, bool(part_ids))
            return all(self._captured(frame, arrived_ns, part_id, repeats) for part_id in part_ids)
        finally:
            self._admission.refused(part_ids[self.captured - before :])

    def _is_repeat(self, frame: Frame, wanted: bool) -> bool:
        if self._repeats is None or frame.image_hwc is None or not (wanted or self._admission.sees_all):
            return False
        return self._repeats.is_repeat(frame.image_hwc)

    def _captured(self, frame: Frame, arrived_ns: int, part_id: str | None, repeats: bool) -> bool:
        """Enter a frame. Returns: False when the line has ended."""
        if frame.frame_id != self.captured or frame.source != self.lane.name or part_id is not None:
            frame = replace(frame, frame_id=self.captured, source=self.lane.name, part_id=part_id)
        ticket = self._ledger.capture(frame)
        if ticket is None:
            return False
        ticket.arrived_ns = arrived_ns
        self.captured += 1
        timings_ms = {"decode": frame.decode_ms}
        if frame.error is not None or frame.image_hwc is None:
            self._ledger.settle(ticket, Verdict("error", timings_ms=timings_ms, reason=frame.error))
        elif repeats:
            self._ledger.settle(ticket, Verdict("stale", timings_ms=timings_ms, reason=REPEATED))
        else:
            for older in self._judging.offer(ticket):
                older_ms = {"decode": older.frame.decode_ms}
                self._ledger.settle(older, Verdict("skipped", timings_ms=older_ms, reason=OVERTAKEN))
        return True


class Silence:
    """Says when a source has given nothing for too long, again after each further `silence_s`.

    Only a read that is under way counts: a source that is made to wait is not silent.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_ns = round(silence_s * 1e9)
        self._since_ns: int | None = None
        self._reported = 0

    def silent_s(self, reading_since_ns: int | None, now_ns: int) -> float | None:
        """Seconds of silence that are to be reported now, or None."""
        if reading_since_ns != self._since_ns:
            self._since_ns, self._reported = reading_since_ns, 0
        if reading_since_ns is None:
            return None
        periods = (now_ns - reading_since_ns) // self._silence_ns
        if periods <= self._reported:
            return None
        self._reported = periods
        return (now_ns - reading_since_ns) / 1e9
