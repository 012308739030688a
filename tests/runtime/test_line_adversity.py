"""A line whose parts misbehave in ways that no contract allows: it goes on or ends, but never lies and never hangs."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from edge_ad.bundle import Bundle
from edge_ad.engine import BatchArray, Outputs
from edge_ad.errors import OutputError
from edge_ad.frame import Frame, ImageArray
from edge_ad.runtime import detector as detector_module
from edge_ad.runtime import line as line_module
from edge_ad.runtime.detector import Detector, open_detector
from edge_ad.runtime.line import Line
from edge_ad.runtime.scheduling import ledger as ledger_module
from edge_ad.runtime.scheduling import output, sink_queue
from edge_ad.runtime.scheduling.lane import Lane
from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.telemetry import Telemetry
from edge_ad.verdict import Verdict

PATIENCE_S = 10


def picture(number: int) -> ImageArray:
    image = np.repeat((40 + 2 * np.arange(32, dtype=np.uint8))[:, None, None].repeat(32, 1), 3, axis=2)
    image[0, 0] = number % 8
    return image


def frame_of(number: int, **changes: Any) -> Frame:
    frame = Frame(number, "script", datetime.now(timezone.utc), time.monotonic_ns(), picture(number))
    return replace(frame, **changes)


class Script:
    """Gives the frames that it is told, or what the steps return or raise."""

    name, length = "script", None

    def __init__(self, steps: list[Callable[[], Frame]], *, live: bool = True) -> None:
        self.live = live
        self.steps = iter(steps)

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def read(self) -> Frame | None:
        for step in self.steps:
            return step()
        return None


def frames(count: int) -> list[Callable[[], Frame]]:
    return [lambda number=number: frame_of(number) for number in range(count)]  # type: ignore[misc]


class Records:
    keeps_records = True

    def __init__(self, before: Callable[[Mapping[str, Any]], None] = lambda _: None) -> None:
        self.before = before
        self.entries: list[Mapping[str, Any]] = []

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self.before(entry)
        self.entries.append(entry)

    @property
    def statuses(self) -> list[str]:
        return [entry["status"] for entry in self.entries]


class Unprintable(BaseException):
    """What no `except Exception` catches, as the panics of some native extensions."""


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, fake_bundle: Callable[..., Bundle]) -> Iterator[Detector]:
    with open_detector(fake_bundle(tmp_path_factory.mktemp("line") / "fake.edgead"), engine="fake") as detector:
        yield detector


@pytest.fixture
def quick_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "STOP_S", 0.2)
    monkeypatch.setattr(output, "FLUSH_S", 0.2)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    until_s = time.monotonic() + PATIENCE_S
    while [t for t in threading.enumerate() if t.name.startswith("edge-ad-")] and time.monotonic() < until_s:
        time.sleep(0.01)
    assert [t.name for t in threading.enumerate() if t.name.startswith("edge-ad-")] == []


def run(
    detector: Detector, source: Script, *sinks: Any, stop: threading.Event | None = None, **rules: Any
) -> Telemetry:
    telemetry, say = Telemetry(), rules.pop("say", lambda _: None)
    lane = Lane(source, "script", buffer="every_frame" if source.live else "auto", **rules)
    try:
        Line(detector, [lane], sinks, telemetry, say=say).run(stop or threading.Event())
    finally:
        assert telemetry.counters.snapshot().adds_up
        assert telemetry.counters.snapshot().lanes[0].in_flight == 0
    return telemetry


@pytest.mark.parametrize("live", [False, True])
def test_a_user_interface_that_is_gone_costs_no_record(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    """Standard error is a file on the disk that is full, or a pipe that nobody reads any more."""
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.0)
    failing = iter([True, True])

    def fails(_: Mapping[str, Any]) -> None:
        if next(failing, False):
            raise OutputError("disk full")

    def say(_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = Records(fails if live else lambda _: None)
    run(detector, Script(frames(200), live=live), kept, say=say)
    assert [entry["frame_id"] for entry in kept.entries] == list(range(200))


@pytest.mark.parametrize(
    "changes",
    [
        {"image_hwc": np.zeros(7, np.uint8)},
        {"image_hwc": np.uint8(3)},
        {"image_hwc": np.zeros((0, 0, 3), np.uint8)},
        {"image_hwc": np.zeros((32, 32), np.uint8)},
        {"image_hwc": np.zeros((32, 32, 3), np.float32)},
        {"image_hwc": [[1, 2, 3]]},
        {"image_hwc": "no picture"},
        {"image_hwc": None, "error": "torn"},
        {"image_hwc": None, "error": ""},
        {"error": ValueError("torn")},
    ],
    ids=lambda changes: str(changes).replace("\n", " ")[:40],
)
@pytest.mark.parametrize("live", [False, True])
def test_a_frame_of_any_shape_is_an_error_and_the_next_goes_on(
    detector: Detector, changes: dict[str, Any], live: bool
) -> None:
    kept = Records()
    bad = lambda: frame_of(1, **changes)  # noqa: E731
    run(detector, Script([frames(1)[0], bad, bad, lambda: frame_of(3)], live=live), kept)
    assert kept.statuses == ["ok", "error", "error", "ok"]
    assert kept.entries[1]["reason"]
    json.dumps(kept.entries, allow_nan=False)


@pytest.mark.parametrize("decode_ms", [float("nan"), float("inf"), -1.0])
def test_times_that_are_no_times_do_not_reach_the_record(detector: Detector, decode_ms: float) -> None:
    kept = Records()
    run(detector, Script([lambda: frame_of(0, decode_ms=decode_ms)]), kept)
    assert kept.statuses == ["ok"]
    assert kept.entries[0]["timings_ms"]["decode"] == 0.0


def test_a_stamp_of_another_clock_does_not_extend_the_deadline(detector: Detector) -> None:
    """Stamped in the future, a frame could never be late."""
    kept = Records()
    before_ns = time.monotonic_ns()
    run(detector, Script([lambda: frame_of(0, captured_ns=time.time_ns() + 10**18)]), kept, budget_ms=60_000)
    assert before_ns <= kept.entries[0]["captured_monotonic_ns"] <= time.monotonic_ns()
    assert kept.entries[0]["timings_ms"]["total"] > 0


@pytest.mark.parametrize("where", ["engine", "source", "prepare"])
@pytest.mark.parametrize("raised", [Unprintable("out of this world"), SystemExit(0)])
def test_what_is_no_exception_does_not_end_the_line_in_silence(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, where: str, raised: BaseException, quick_stop: None
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise raised

    steps = frames(4)
    if where == "engine":
        monkeypatch.setattr(detector._engine, "infer_impl", fail)
    elif where == "prepare":
        monkeypatch.setattr(detector, "prepare", fail)
    else:
        steps[2] = fail
    kept = Records()
    with pytest.raises(Exception, match=type(raised).__name__):
        run(detector, Script(steps), kept)
    assert set(kept.statuses) <= {"ok", "error"}


@pytest.mark.parametrize("raised", [SystemError("error return without exception set"), MemoryError()])
def test_an_engine_that_fails_as_python_does_costs_a_frame(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    calls, original = iter(range(100)), detector._engine.infer_impl

    def infer(batch_nhwc: BatchArray) -> Outputs:
        if next(calls) == 1:
            raise raised
        return original(batch_nhwc)

    monkeypatch.setattr(detector._engine, "infer_impl", infer)
    kept = Records()
    run(detector, Script(frames(3)), kept)
    assert kept.statuses == ["ok", "error", "ok"]
    assert type(raised).__name__ in kept.entries[1]["reason"]


def test_an_interrupt_while_the_line_starts_leaves_no_thread(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None
) -> None:
    def interrupted(_: Line, *__: Any) -> None:
        raise KeyboardInterrupt

    kept, stop = Records(), threading.Event()
    monkeypatch.setattr(Line, "_attend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(detector, Script(frames(10**4)), kept, stop=stop)
    assert stop.is_set()


def test_a_system_without_threads_left_ends_the_line_cleanly(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None
) -> None:
    original = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "edge-ad-conclude":
            raise RuntimeError("can't start new thread")
        original(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run(detector, Script(frames(5)), Records())


def test_a_stop_ends_the_wait_for_a_sink_that_hangs_at_the_end_of_files(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM after the last picture: the disk does not answer, and the system would kill the process."""
    monkeypatch.setattr(output, "FLUSH_S", 0.2)
    hangs, release, stop = threading.Event(), threading.Event(), threading.Event()

    def hang(_: Mapping[str, Any]) -> None:
        hangs.set()
        release.wait(2 * PATIENCE_S)

    ended = threading.Event()

    def run_it() -> None:
        run(detector, Script(frames(3), live=False), Records(hang), stop=stop)
        ended.set()

    threading.Thread(target=run_it, daemon=True).start()
    try:
        assert hangs.wait(PATIENCE_S)
        assert not ended.wait(0.3)  # without a stop it waits, for nothing may be lost
        stop.set()
        assert ended.wait(PATIENCE_S)
    finally:
        release.set()


def test_pictures_do_not_pile_up_behind_a_frame_that_hangs_in_the_engine(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None
) -> None:
    """The engine hangs and the lights go out: black frames are settled at once, but may not leave before the first."""
    hangs, release, stop = threading.Event(), threading.Event(), threading.Event()
    original = detector._engine.infer_impl

    def infer(batch_nhwc: BatchArray) -> Outputs:
        hangs.set()
        release.wait(2 * PATIENCE_S)
        return original(batch_nhwc)

    monkeypatch.setattr(detector._engine, "infer_impl", infer)
    pictures: list[weakref.ref[Any]] = []
    alive = -1

    class Picture(np.ndarray[Any, Any]):
        """An array that can be referred to weakly."""

    def black(number: int) -> Callable[[], Frame]:
        def make() -> Frame:
            image = np.zeros((32, 32, 3), np.uint8).view(Picture)
            image[0, 0] = number % 8
            pictures.append(weakref.ref(image))
            return frame_of(number, image_hwc=image)

        return make

    def look() -> Frame:
        nonlocal alive
        assert hangs.wait(PATIENCE_S)
        alive = sum(picture() is not None for picture in pictures)
        release.set()
        return frame_of(301)

    steps = [frames(1)[0], *(black(number) for number in range(1, 300)), look]
    kept = Records()
    run(detector, Script(steps), kept, stop=stop)
    assert kept.statuses == ["ok", *["unusable"] * 299, "ok"]
    assert 0 < alive <= ledger_module.MAX_PICTURES + line_module.DEPTH + 3


def test_a_hanging_engine_is_said(detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None) -> None:
    monkeypatch.setattr(line_module, "HUNG_S", 0.2)
    said, release, original = [], threading.Event(), detector._engine.infer_impl

    def say(text: str) -> None:
        said.append(text)
        release.set()

    def infer(batch_nhwc: BatchArray) -> Outputs:
        assert release.wait(PATIENCE_S)
        return original(batch_nhwc)

    monkeypatch.setattr(detector._engine, "infer_impl", infer)
    run(detector, Script(frames(1)), Records(), say=say)
    assert "the engine has not answered" in said[0]


def test_an_engine_is_not_closed_under_a_call_that_hangs(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None
) -> None:
    """Freeing a network that computes ends the process with a crash."""
    monkeypatch.setattr(detector_module, "CLOSE_S", 0.1)
    release, stop, closed = threading.Event(), threading.Event(), []
    with open_detector(detector.bundle, engine="fake") as other:
        original = other._engine.close_impl

        def close() -> None:
            closed.append(release.is_set())
            original()

        def infer(batch_nhwc: BatchArray) -> Outputs:
            stop.set()
            release.wait(2 * PATIENCE_S)
            raise RuntimeError("too late")

        monkeypatch.setattr(other._engine, "close_impl", close)
        monkeypatch.setattr(other._engine, "infer_impl", infer)
        kept = Records()
        run(other, Script(frames(3)), kept, stop=stop)
        assert "error" in kept.statuses
    assert closed == []
    release.set()


@pytest.mark.parametrize("room", [0, 1, 300, 700, 1500])
def test_a_full_disk_behind_standard_output_neither_tears_nor_doubles_a_record(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """What a failed write has left in a buffer is not to be written beside the second attempt."""
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.0)
    left, refusals, original = room, 0, os.write

    def write(descriptor: int, data: bytes) -> int:
        nonlocal left, refusals
        if descriptor != watched:
            return original(descriptor, data)
        if left == 0 and refusals < 3:
            refusals += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = original(descriptor, data[: left or None])
        left = max(0, left - taken)
        return taken

    path = tmp_path / "verdicts.jsonl"
    monkeypatch.setattr("sys.stdout", path.open("w", encoding="utf-8"))
    watched = sys.stdout.fileno()
    with JsonLines(None) as sink:
        monkeypatch.setattr(os, "write", write)
        run(detector, Script(frames(6)), sink)
        monkeypatch.setattr(os, "write", original)
    sys.stdout.close()
    assert refusals == 3
    assert [json.loads(text)["frame_id"] for text in path.read_text().splitlines()] == list(range(6))


def test_a_record_that_can_never_be_written_does_not_block_those_behind_it(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.0)
    said: list[str] = []

    def chokes(entry: Mapping[str, Any]) -> None:
        if entry["frame_id"] == 2:
            raise TypeError("a defect of the sink")

    kept = Records(chokes)
    telemetry = run(detector, Script(frames(6)), kept, say=said.append)
    assert [entry["frame_id"] for entry in kept.entries] == [0, 1, 3, 4, 5]
    (counts,) = telemetry.counters.snapshot().sinks
    assert (counts.delivered, counts.lost, counts.failures) == (5, 1, sink_queue.MAX_TRIES)
    assert said[-1] == "Records writes again; 1 of its records are lost"


def test_an_interrupt_while_a_sink_hangs_at_the_end_does_not_close_it_under_its_write(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is out of patience: whoever runs the line then closes what does not hang."""
    monkeypatch.setattr(output, "FLUSH_S", PATIENCE_S)
    hangs, release, stop = threading.Event(), threading.Event(), threading.Event()

    def hang(_: Mapping[str, Any]) -> None:
        hangs.set()
        release.wait(2 * PATIENCE_S)

    hanging, other = Records(hang), Records()
    line = Line(detector, [Lane(Script(frames(3)), "script")], [hanging, other], Telemetry())
    original = threading.Thread.join

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "edge-ad-Records" and hangs.is_set():
            raise KeyboardInterrupt
        original(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    try:
        with pytest.raises(KeyboardInterrupt):
            line.run(stop)
        assert hanging in line.hung
    finally:
        release.set()


@pytest.mark.parametrize("moment", range(0, 70, 3))
def test_an_interrupt_at_any_moment_leaves_one_record_for_every_frame(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None, moment: int
) -> None:
    """Of a program that runs a line without catching Ctrl-C itself; at the start, in the middle, or while it ends."""
    watched = {Line._attend.__code__, Line._end.__code__}
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code not in watched:
            return None
        if event == "line":
            seen += 1
            if seen == moment + 1:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    monkeypatch.setattr(line_module, "TICK_S", 0.01)
    kept, telemetry, given = Records(), Telemetry(), frames(40)
    line = Line(detector, [Lane(Script(given), "script", buffer="every_frame")], [kept], telemetry)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        line.run(threading.Event())
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    (lane,), (sink,) = telemetry.counters.snapshot().lanes, telemetry.counters.snapshot().sinks
    assert telemetry.counters.snapshot().adds_up
    assert (lane.in_flight, sink.waiting) == (0, 0)
    assert sink.taken == lane.captured
    assert sink.delivered == len(kept.entries) == lane.captured - sink.lost
    assert [entry["frame_id"] for entry in kept.entries] == list(range(len(kept.entries)))
