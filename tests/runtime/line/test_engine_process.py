"""A whole line whose engine crashes for real: it costs the frames in hand, and everybody is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib import resources
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engine_process import CRASH_AT, CRASHING, HANG, SEGV
from kept_records import Records

from edge_ad.engine import EngineHealth
from edge_ad.image.frame import Frame
from edge_ad.runtime.engines.process.engine import EngineProcess
from edge_ad.runtime.engines.process.keeper import Limits
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.line.engine_watch import EngineWatch
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.counters import Counters
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.status import GONE_S, LineStatus
from edge_ad.runtime.line.telemetry import Telemetry

GOOD = 100
LIMITS = Limits(answer_s=1.0, wait_s=30.0)


class Pictures:
    """Frames of the model's size that wait to be read, whose first pixel tells the engine what to do."""

    live = False

    def __init__(self, name: str, first_pixels: Sequence[int]) -> None:
        self.name = name
        self.length = len(first_pixels)
        self._left = list(first_pixels)

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def read(self) -> Frame | None:
        if not self._left:
            return None
        number = self.length - len(self._left)
        image = np.random.default_rng(number).integers(0, 200, (256, 256, 3), np.uint8)
        image[0, 0] = self._left.pop(0)
        return Frame(number, self.name, datetime.now(timezone.utc), time.monotonic_ns(), image)


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Detector]]:
    monkeypatch.setenv("PYTHONPATH", str(CRASHING))
    monkeypatch.setenv(CRASH_AT, "")
    bundle = str(resources.files("edge_ad.demo") / "disc.edgead")
    with ExitStack() as stack:

        def loaded(batch: int) -> Detector:
            process = stack.enter_context(EngineProcess("fake", LIMITS))
            detector = open_detector(bundle, engine="fake", threshold=0.99, batch=batch, make=process.engine)
            return stack.enter_context(detector)

        yield loaded


@pytest.mark.parametrize("fault", [SEGV, HANG])
def test_only_the_frames_in_hand_are_lost(crashing: Callable[..., Detector], fault: int) -> None:
    kept, telemetry, said = Records(), Telemetry(), list[str]()
    source = Pictures("files", [fault if number in (3, 7) else GOOD for number in range(12)])
    line = Line(crashing(1), [Lane(source, "files")], [kept], telemetry, say=said.append)
    line.run(threading.Event())
    assert kept.statuses == ["error" if number in (3, 7) else "ok" for number in range(12)]
    kept.check()
    for number in (3, 7):
        reason = kept.entries[number]["reason"]
        assert reason.startswith("engine fake: its process ") and reason.endswith("; a fresh one takes over")
        assert kept.entries[number]["score"] is kept.entries[number]["verdict"] is None
    counts = telemetry.counters.snapshot()
    assert counts.adds_up
    assert (counts.captured, counts.engine_restarts) == (12, 2)
    warned = [line for line in said if line.startswith("warning: engine fake: its process")]
    assert len(warned) in (1, 2)  # the line need not have looked between the two
    assert said[-1] == "the engine computes again, in a fresh process (number 2)"


def test_of_a_batch_only_the_frame_at_fault_is_lost(crashing: Callable[..., Detector]) -> None:
    kept, telemetry = Records(), Telemetry()
    sources = [Pictures("left", [GOOD] * 6), Pictures("right", [GOOD, GOOD, SEGV, GOOD, GOOD, GOOD])]
    lanes = [Lane(source, source.name) for source in sources]
    Line(crashing(2), lanes, [kept], telemetry).run(threading.Event())
    counts = telemetry.counters.snapshot()
    assert counts.adds_up
    assert dict(counts.statuses) == {"ok": 11, "error": 1}
    assert 1 <= counts.engine_restarts <= 2  # with its batch, and alone


def test_it_is_said_once_and_counted() -> None:
    said: list[str] = []
    counters, now = Counters(), {"health": EngineHealth(restarts=5, pid=1)}
    watch = EngineWatch(lambda: now["health"], counters, said.append)
    for _ in range(3):
        watch.look()
    assert said == []
    now["health"] = EngineHealth("engine fake: its process crashed", 5, "engine fake: its process crashed")
    for _ in range(3):
        watch.look()
    assert watch.fault == "engine fake: its process crashed"
    assert said == [
        "warning: engine fake: its process crashed; no frame is judged until a fresh process has taken over"
    ]
    now["health"] = EngineHealth(None, 6, "engine fake: its process crashed", 2)
    for _ in range(3):
        watch.look()
    assert said[1:] == ["the engine computes again, in a fresh process (number 1)"]
    now["health"] = EngineHealth(None, 8, "engine fake: its process hung", 4)  # between two looks
    watch.look()
    assert said[2:] == [
        "warning: engine fake: its process hung; a fresh process takes over",
        "the engine computes again, in a fresh process (number 3)",
    ]
    assert counters.snapshot().engine_restarts == 3


def test_an_engine_that_is_gone_for_good_asks_for_a_new_start(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = EngineWatch(lambda: EngineHealth("engine fake: gone"), Counters(), lambda _: None)
    stages: Any = SimpleNamespace(dead=[])
    status = LineStatus([], [], stages, stages, lambda _: None, lambda: 0, watch)
    watch.look()
    assert (status.computing(), status.dead()) == ("engine fake: gone", [])
    monkeypatch.setattr(EngineWatch, "down_for_s", GONE_S + 1)
    assert status.dead() == ["engine fake: gone; no fresh process has taken over for 300 s"]
