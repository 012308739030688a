"""A line in a thread, whose cameras give what a test hands them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
from kept_records import Records
from patience import PATIENCE_S

from edge_ad.image.frame import Frame, ImageArray
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.trigger import Software, Trigger
from edge_ad.runtime.line.telemetry import Telemetry


class Camera:
    """Gives a frame when the test hands it one; the picture of frame k is darker or brighter by k."""

    length = None

    def __init__(self, name: str = "door", *, live: bool = True) -> None:
        self.name, self.live = name, live
        self.steps: queue.Queue[Any] = queue.Queue()
        self.asked = threading.Semaphore(0)  # reads that have begun
        self.number = 0

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def give(self, kind: str = "good", captured_ns: int | None = None) -> None:
        self.steps.put((kind, captured_ns))

    def end(self, failure: Exception | None = None) -> None:
        self.steps.put(failure)

    def read(self) -> Frame | None:
        self.asked.release()
        step = self.steps.get(timeout=PATIENCE_S)
        if not isinstance(step, tuple):
            if step is not None:
                raise step
            return None
        kind, captured_ns = step
        image: ImageArray | None = np.full((40, 60, 3), 60, np.uint8)
        image[::2, ::3] = 100
        if kind != "frozen":
            self.number += 1
        image[0, 0] = self.number % 256
        if kind == "spot":
            image[10:30, 20:40] = 255
        if kind == "torn":
            image = None
        at_ns = time.monotonic_ns() if captured_ns is None else captured_ns
        error = "torn" if kind == "torn" else None
        return Frame(0, self.name, datetime.now(timezone.utc), at_ns, image, error=error)


class Running:
    """A line in a thread."""

    def __init__(self, detector: Detector, lanes: Sequence[Lane]) -> None:
        self.kept, self.telemetry, self.stop = Records(), Telemetry(), threading.Event()
        self.said: list[str] = []
        self.line = Line(detector, lanes, [self.kept], self.telemetry, say=self.said.append)
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.line.run(self.stop)
        except Exception as exc:
            self.failure = exc

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self.kept.check()
        counts = self.telemetry.counters.snapshot()
        assert counts.adds_up
        for lane in counts.lanes:
            assert lane.in_flight == 0
            assert lane.triggers.waiting == 0
            ids = [entry["frame_id"] for entry in self.kept.entries if entry["source"] == lane.name]
            assert ids == list(range(lane.captured))
        parts = [entry["part_id"] for entry in (*self.kept.entries, *self.kept.events) if entry.get("part_id")]
        assert len(parts) == len(set(parts)) == sum(lane.triggers.accepted for lane in counts.lanes)


def lane(camera: Camera, trigger: Trigger | None = None, **more: Any) -> Lane:
    return Lane(camera, camera.name, trigger=trigger or Software(60_000), **more)
