"""The loop of a line: every captured frame leaves exactly one record."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from edge_ad.errors import EdgeAdError, one_line
from edge_ad.frame import Frame, FrameSource
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.live import Captured, captured_frames
from edge_ad.runtime.sinks import Sink
from edge_ad.runtime.telemetry import Telemetry
from edge_ad.verdict import OVERTAKEN, Verdict, record

log = logging.getLogger(__name__)


class Line:
    """One source judged by one detector.

    Args:
        detector: loaded; it is warm before the source opens.
        sinks: receive every record, in order.
        budget_ms: time from capture to verdict; None for no deadline. A frame that is judged too late is `late`; one of
            a live source whose deadline has passed before it could be judged is `skipped`.
    """

    def __init__(
        self, detector: Detector, sinks: Sequence[Sink], telemetry: Telemetry, *, budget_ms: float | None = None
    ) -> None:
        self._detector = detector
        self._sinks = sinks
        self._telemetry = telemetry
        self._budget_ms = budget_ms

    def run(self, source: FrameSource, stop: threading.Event, *, max_frames: int | None = None) -> None:
        """Judge an open source until it ends, `stop` is set or `max_frames` frames were captured.

        Raises: EdgeAdError when the source breaks or a sink cannot write.
        """
        with closing(captured_frames(source, stop, max_frames)) as frames:
            for captured in frames:
                verdict = self._verdict(captured, live=source.live)
                began = time.perf_counter()
                entry = record(captured.frame, verdict, self._detector.provenance, budget_ms=self._budget_ms)
                for sink in self._sinks:
                    sink.write(captured.frame, verdict, entry)
                self._telemetry.add(captured.frame, verdict, output_ms=(time.perf_counter() - began) * 1e3)

    def _verdict(self, captured: Captured, *, live: bool) -> Verdict:
        frame = captured.frame
        waited_ms = _age_ms(frame)
        timings_ms = {"decode": frame.decode_ms}
        if frame.error is not None or (frame.image_hwc is None and not captured.passed_over):
            return Verdict("error", timings_ms=timings_ms, reason=frame.error or "the source gave no picture")
        if captured.passed_over:
            return Verdict("skipped", timings_ms=timings_ms, reason=OVERTAKEN)
        if live and self._budget_ms is not None and waited_ms >= self._budget_ms:
            reason = f"its deadline had passed ({waited_ms:.0f} ms old, budget {self._budget_ms:g} ms)"
            return Verdict("skipped", timings_ms=timings_ms, reason=reason)
        assert frame.image_hwc is not None
        try:
            verdict = self._detector.judge(frame.image_hwc, color_order=frame.color_order)
        except EdgeAdError as exc:
            return Verdict("error", timings_ms=timings_ms, reason=str(exc))
        except Exception as exc:  # a defect must cost one frame, not the line
            log.exception("frame %d of %s", frame.frame_id, frame.source)
            return Verdict(
                "error", timings_ms=timings_ms, reason=f"internal error: {type(exc).__name__}: {one_line(exc)}"
            )
        total_ms = _age_ms(frame)
        timings_ms |= {"wait": max(0.0, waited_ms - frame.decode_ms), **verdict.timings_ms, "total": total_ms}
        late = verdict.status == "ok" and self._budget_ms is not None and total_ms > self._budget_ms
        return replace(verdict, status="late" if late else verdict.status, timings_ms=timings_ms)


def _age_ms(frame: Frame) -> float:
    return (time.monotonic_ns() - frame.captured_ns) / 1e6
