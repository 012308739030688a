"""Parts of a line that do as they are told, on a clock that only they advance."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

import numpy as np
import pytest
from kept_records import Records
from patience import PATIENCE_S

from edge_ad.engine import BatchArray, Outputs
from edge_ad.errors import EngineError, SourceError
from edge_ad.image.frame import Frame, ImageArray
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.line.telemetry import Telemetry

MS = 1_000_000
POISON = 251  # grey level of a picture that the engine chokes on


class Clock:
    """Nanoseconds that pass when somebody says so."""

    def __init__(self) -> None:
        self._now_ns = 10**9
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            return self._now_ns

    def advance(self, milliseconds: float) -> None:
        with self._lock:
            self._now_ns += int(milliseconds * MS)


def picture(number: int, kind: str = "normal") -> ImageArray:
    image = np.repeat((40 + 2 * np.arange(32, dtype=np.uint8))[:, None, None].repeat(32, 1), 3, axis=2)
    if kind == "spot":
        image[8:20, 8:20] = 250
    if kind == "poison":
        image[:] = POISON
    if kind == "black":
        image[:] = 0
    image[0, 0] = number % 8
    return image


class Script:
    """A source that does what it is told: kinds of pictures, `repeat`, `error`, `break`, or a function to call."""

    length = None

    def __init__(
        self,
        steps: Sequence[str | Callable[[], None]],
        clock: Clock,
        *,
        name: str = "script",
        live: bool = True,
        every_ms: float = 0,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.live = name, live
        self.clock, self.every_ms, self.before = clock, every_ms, before
        self.steps = iter(steps)
        self.given: list[str] = []
        self.last: ImageArray | None = None

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def read(self) -> Frame | None:
        self.before()
        for step in self.steps:
            if not isinstance(step, str):
                step()
                continue
            if step == "break":
                raise SourceError(f"{self.name}: unplugged")
            number = len(self.given)
            self.given.append(step)
            self.clock.advance(self.every_ms)
            image: ImageArray | None = None
            if step != "error":
                image = self.last if step == "repeat" and self.last is not None else picture(number, step)
                self.last = image
                image = image.copy()
            error = "torn" if step == "error" else None
            return Frame(number, self.name, datetime.now(timezone.utc), self.clock(), image, error=error)
        return None


class Engine:
    """Stands before the fake engine's arithmetic: takes its time by the clock, and fails on poison."""

    def __init__(self, detector: Detector, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.original = detector._engine.infer_impl
        self.clock, self.takes_ms = clock, 0.0
        self.before: Callable[[], None] = lambda: None
        self.batches: list[int] = []
        monkeypatch.setattr(detector._engine, "infer_impl", self)

    def __call__(self, batch_nhwc: BatchArray) -> Outputs:
        self.batches.append(len(batch_nhwc))
        self.before()
        self.clock.advance(self.takes_ms)
        if (batch_nhwc[:, 16, 16] == POISON).any():
            raise EngineError("chokes on it")
        return self.original(batch_nhwc)


def one_by_one() -> tuple[Records, Callable[[], None]]:
    """A sink, and what a source calls before a read to wait until its last frame has left as a record."""
    settled = threading.Semaphore(1)

    def wait() -> None:
        assert settled.acquire(timeout=PATIENCE_S)

    return Records(after=lambda _: settled.release()), wait


def assert_accounted(sinks: Sequence[Records], telemetry: Telemetry, sources: Sequence[Script]) -> None:
    counts = telemetry.counters.snapshot()
    assert counts.adds_up
    assert [lane.captured for lane in counts.lanes] == [len(source.given) for source in sources]
    assert [lane.in_flight for lane in counts.lanes] == [0] * len(sources)
    for kept, sink in zip(sinks, counts.sinks, strict=True):
        assert len(kept.entries) + len(kept.events) == sink.delivered
        kept.check()
        ids = defaultdict(list)
        for entry in kept.entries:
            ids[entry["source"]].append(entry["frame_id"])
            kind = next(source for source in sources if source.name == entry["source"]).given[entry["frame_id"]]
            assert (entry["score"] is None) == (entry["verdict"] is None) == (entry["status"] not in ("ok", "late"))
            if entry["score"] is not None:
                assert kind in ("normal", "spot", "repeat")
        for source in sources:
            assert ids[source.name] == sorted(set(ids[source.name]))
            if sink.lost + sink.dropped == 0:
                assert ids[source.name] == list(range(len(source.given)))
