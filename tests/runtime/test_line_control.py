"""What reaches into a line that runs: triggers, thresholds, regions of interest; and what the line says of itself."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edge_ad.bundle import Bundle
from edge_ad.errors import ConfigError, SourceError
from edge_ad.frame import Frame, ImageArray
from edge_ad.runtime import line as line_module
from edge_ad.runtime.detector import Detector, open_detector
from edge_ad.runtime.line import Line
from edge_ad.runtime.line_status import LineStatus
from edge_ad.runtime.scheduling.lane import Lane
from edge_ad.runtime.scheduling.thresholds import InUse
from edge_ad.runtime.scheduling.trigger import (
    CAMERA_ENDED,
    LINE_ENDED,
    TOO_LATE,
    Fired,
    Interval,
    Software,
    Trigger,
)
from edge_ad.runtime.telemetry import Telemetry
from edge_ad.specs import Thresholds
from edge_ad.verdict import Verdict, record_schema

PATIENCE_S = 20
MS = 1_000_000
VALIDATOR = Draft202012Validator(record_schema())


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


class Records:
    """Keeps everything, and says when something comes."""

    keeps_records = True

    def __init__(self) -> None:
        self.entries: list[Mapping[str, Any]] = []
        self.events: list[Mapping[str, Any]] = []
        self.came = threading.Condition()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self._keep(self.entries, entry)

    def event(self, entry: Mapping[str, Any]) -> None:
        self._keep(self.events, entry)

    def _keep(self, kept: list[Mapping[str, Any]], entry: Mapping[str, Any]) -> None:
        VALIDATOR.validate(dict(entry))
        with self.came:
            kept.append(entry)
            self.came.notify_all()

    def wait(self, entries: int = 0, events: int = 0) -> None:
        with self.came:
            assert self.came.wait_for(
                lambda: len(self.entries) >= entries and len(self.events) >= events, PATIENCE_S
            ), (self.entries, self.events)


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
        counts = self.telemetry.counters.snapshot()
        assert counts.adds_up
        for lane in counts.lanes:
            assert lane.in_flight == 0
            assert lane.triggers.waiting == 0
            ids = [entry["frame_id"] for entry in self.kept.entries if entry["source"] == lane.name]
            assert ids == list(range(lane.captured))
        parts = [entry["part_id"] for entry in (*self.kept.entries, *self.kept.events) if entry.get("part_id")]
        assert len(parts) == len(set(parts)) == sum(lane.triggers.accepted for lane in counts.lanes)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, fake_bundle: Callable[..., Bundle]) -> Bundle:
    return fake_bundle(tmp_path_factory.mktemp("line") / "fake.edgead")


@pytest.fixture(scope="module")
def detector(bundle: Bundle) -> Iterator[Detector]:
    with open_detector(bundle, engine="fake") as detector:
        yield detector


def lane(camera: Camera, trigger: Trigger | None = None, **more: Any) -> Lane:
    return Lane(camera, camera.name, trigger=trigger or Software(60_000), **more)


def until(true: Callable[[], bool]) -> None:
    """Wait for something that no thread announces."""
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.002)


def test_the_first_frame_after_a_trigger_is_judged_and_the_others_leave_nothing(detector: Detector) -> None:
    camera = Camera()
    with Running(detector, [lane(camera)]) as running:
        for _ in range(3):
            camera.give("spot")
        until(lambda: camera.steps.empty())
        assert camera.asked.acquire(timeout=PATIENCE_S)
        assert running.line.triggers.fire("door", "part 1")
        camera.give("good", captured_ns=1)  # it was taken long before and comes only now
        camera.give("good")
        camera.give("spot")
        running.kept.wait(entries=1)
        assert running.line.triggers.fire("door", "part 2")
        camera.give("spot")
        running.kept.wait(entries=2)
        camera.end()
    assert [(entry["part_id"], entry["verdict"]) for entry in running.kept.entries] == [
        ("part 1", "normal"),
        ("part 2", "anomalous"),
    ]
    counts = running.telemetry.counters.snapshot().lanes[0]
    assert (counts.captured, counts.left_out) == (2, 5)
    assert running.kept.events == []


def test_two_triggers_before_a_frame_are_both_answered_from_it(detector: Detector) -> None:
    camera = Camera()
    with Running(detector, [lane(camera)]) as running:
        until(lambda: running.line.status is not None)
        assert running.line.triggers.fire("door", "a")
        assert running.line.triggers.fire("door", "b")
        camera.give("spot")
        running.kept.wait(entries=2)
        camera.give("good")
        camera.end()
    first, second = running.kept.entries
    assert [first["part_id"], second["part_id"]] == ["a", "b"]
    assert first["captured_monotonic_ns"] == second["captured_monotonic_ns"]
    assert [first["verdict"], second["verdict"]] == ["anomalous"] * 2  # the second is no repeat of a frozen camera


def test_a_torn_frame_answers_its_trigger_with_an_error(detector: Detector) -> None:
    camera = Camera()
    with Running(detector, [lane(camera)]) as running:
        until(lambda: running.line.status is not None)
        running.line.triggers.fire("door", "a")
        camera.give("torn")
        running.kept.wait(entries=1)
        camera.end()
    (entry,) = running.kept.entries
    assert (entry["part_id"], entry["status"], entry["reason"]) == ("a", "error", "torn")


def test_a_camera_that_froze_between_two_triggers_is_found_out(detector: Detector) -> None:
    camera = Camera()
    with Running(detector, [lane(camera)]) as running:
        camera.give("good")
        for _ in range(2):
            camera.give("frozen")
        until(lambda: running.line.status is not None and camera.steps.empty())
        running.line.triggers.fire("door", "a")
        camera.give("frozen")
        running.kept.wait(entries=1)
        camera.end()
    assert [entry["status"] for entry in running.kept.entries] == ["stale"]


def test_a_trigger_without_a_frame_leaves_an_event(detector: Detector) -> None:
    camera = Camera()
    with Running(detector, [lane(camera, Software(1.0), silence_s=None)]) as running:
        until(lambda: running.line.status is not None)
        assert running.line.triggers.fire("door", "lost")
        running.kept.wait(events=1)
        camera.give()
        camera.end()
    (event,) = running.kept.events
    assert (event["event"], event["source"], event["part_id"], event["reason"]) == (
        "trigger_missed",
        "door",
        "lost",
        TOO_LATE,
    )
    assert event["waited_ms"] >= 1.0
    assert running.kept.entries == []


@pytest.mark.parametrize("how", ["ends", "breaks", "stops"])
def test_triggers_that_wait_at_the_end_leave_events(
    detector: Detector, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "STOP_S", 0.1)
    camera, other = Camera(), Camera("window")
    with Running(detector, [lane(camera), lane(other)]) as running:
        until(lambda: running.line.status is not None)
        assert running.line.triggers.fire("door", "a")
        if how == "stops":
            running.stop.set()
            until(lambda: bool(running.kept.events))
        else:
            camera.end(SourceError("unplugged") if how == "breaks" else None)
            running.kept.wait(events=1)
        assert running.line.triggers.fire("door", "b") is Fired.ENDED
        camera.end()
        other.end()
    (event,) = running.kept.events
    assert (event["part_id"], event["reason"]) == ("a", LINE_ENDED if how == "stops" else CAMERA_ENDED)
    assert (running.failure is not None) == (how == "breaks")


def test_a_source_that_waits_gives_one_picture_for_each_trigger(detector: Detector) -> None:
    folder = Camera(live=False)
    for kind in ("good", "spot", "good"):
        folder.give(kind)
    folder.end()
    with Running(detector, [lane(folder)]) as running:
        until(lambda: running.line.status is not None)
        assert not folder.asked.acquire(blocking=False)
        for part_id in ("a", "b", "c", "d"):
            assert running.line.triggers.fire("door", part_id)
    assert [(entry["part_id"], entry["verdict"]) for entry in running.kept.entries] == [
        ("a", "normal"),
        ("b", "anomalous"),
        ("c", "normal"),
    ]
    assert [event["part_id"] for event in running.kept.events] == ["d"]


def test_one_frame_of_every_interval_is_judged(detector: Detector) -> None:
    clock = [0]
    camera = Camera()
    kept, telemetry = Records(), Telemetry()
    times_ms = [0, 10, 99, 100, 101, 150, 201, 450, 460, 499, 500, 620]

    class Timed(Camera):
        def read(self) -> Frame | None:
            if camera.number == len(times_ms):
                return None
            clock[0] = times_ms[camera.number] * MS
            camera.give(captured_ns=clock[0])
            return camera.read()

    rule = Lane(Timed(), "door", trigger=Interval(100), buffer="every_frame")
    Line(detector, [rule], [kept], telemetry, clock_ns=lambda: clock[0]).run(threading.Event())
    taken_ms = [entry["captured_monotonic_ns"] // MS for entry in kept.entries]
    assert taken_ms == [0, 100, 201, 450, 500, 620]  # an interval without a frame is passed over
    assert telemetry.counters.snapshot().lanes[0].left_out == len(times_ms) - len(taken_ms)


def test_the_frame_of_a_trigger_may_not_be_replaced(detector: Detector) -> None:
    with pytest.raises(ConfigError, match="frame of a trigger is never replaced"):
        Line(detector, [lane(Camera(), buffer="freshest")], [], Telemetry())


def test_thresholds_change_between_frames_and_each_record_says_which_it_was(detector: Detector) -> None:
    camera = Camera()
    rules = [Lane(camera, "door", buffer="every_frame"), Lane(Camera("window"), "window", thresholds=Thresholds(0.3))]
    with Running(detector, rules) as running:
        board = running.line.thresholds
        for count, score in enumerate((0.6, 0.01, 0.99, None), start=1):
            if count > 1:
                board.change({"door": score})
            camera.give("spot")
            running.kept.wait(entries=count)
        board.configure([InUse(Thresholds(0.05)), InUse(Thresholds(0.2), "camera")])
        camera.give("good")
        running.kept.wait(entries=5)
        for fault in ({"door": 0.5, "gate": 0.1}, {"gate": None}):
            with pytest.raises(ConfigError, match="gate: there is no camera of that name, only door, window"):
                board.change(fault)
        assert {name: use.thresholds.image for name, use in board.snapshot().items()} == {"door": 0.05, "window": 0.2}
        camera.end()
        rules[1].source.end()  # type: ignore[attr-defined]
    told = [(entry["threshold"], entry["verdict"]) for entry in running.kept.entries]
    assert told == [
        (0.6, "anomalous"),
        (0.01, "anomalous"),
        (0.99, "normal"),
        (0.6, "anomalous"),
        (0.05, "anomalous"),
    ]


def test_a_threshold_never_disappears(bundle: Bundle) -> None:
    with open_detector(bundle, engine="fake") as detector:
        detector.thresholds = Thresholds()
        line = Line(detector, [lane(Camera())], [], Telemetry())
        line.thresholds.change({"door": 0.5})
        with pytest.raises(ConfigError, match="neither its settings nor the bundle hold a threshold"):
            line.thresholds.change({"door": None})
        assert line.thresholds.of(0) == Thresholds(0.5)


def test_a_region_outside_of_the_frame_is_an_error_record_and_the_next_camera_goes_on(detector: Detector) -> None:
    outside, inside = Camera("outside", live=False), Camera("inside", live=False)
    for camera in (outside, inside):
        camera.give("spot")
        camera.end()
    rules = [
        Lane(outside, "outside", roi=(0, 0, 61, 40)),
        Lane(inside, "inside", roi=(0, 0, 20, 40)),
    ]
    with Running(detector, rules) as running:
        pass
    by_name = {entry["source"]: entry for entry in running.kept.entries}
    assert by_name["outside"]["status"] == "error"
    assert "[0, 0, 61, 40]" in by_name["outside"]["reason"]
    assert "outside of the 60x40 frame" in by_name["outside"]["reason"]
    assert by_name["outside"]["inspected_box"] is None
    assert (by_name["inside"]["verdict"], by_name["inside"]["inspected_box"]) == ("normal", [0, 0, 20, 40])
    assert by_name["inside"]["frame_size"] == [60, 40]  # the spot lies beside the region


def test_a_thread_that_is_gone_is_named() -> None:
    class Stage:
        dead: ClassVar = ["edge-ad-infer"]

    class Sinks:
        dead: ClassVar = ["JsonLines"]

    class Gone:
        lane = Lane(Camera(), "door")
        is_alive, ended = False, False

    class Ended(Gone):
        ended = True

    status = LineStatus([Gone(), Ended()], [], Stage(), Sinks(), lambda _: None, lambda: 0)  # type: ignore[list-item, arg-type]
    assert status.dead() == [
        "the thread edge-ad-infer has ended",
        "the thread sink JsonLines has ended",
        "the thread capture of door has ended",
    ]


def test_a_line_says_what_is_wrong_with_it(detector: Detector) -> None:
    camera, other = Camera(), Camera("window")
    rules = [Lane(camera, "door", silence_s=0.1), Lane(other, "window", silence_s=PATIENCE_S)]
    with Running(detector, rules) as running:
        until(lambda: running.line.status is not None)
        status = running.line.status
        assert status is not None
        assert status.dead() == []
        camera.give()
        running.kept.wait(entries=1)
        until(lambda: "has given no frame for" in (status.delivering()["door"] or ""))
        assert status.delivering()["window"] == "camera window: has given no frame yet"
        other.give()
        until(lambda: status.delivering()["window"] is None)
        assert status.stuck() == []
        assert set(status.oldest_frame_s()) == {"door", "window"}
        camera.end(SourceError("door: unplugged"))
        until(lambda: status.delivering()["door"] == "camera door: door: unplugged")
        assert status.dead() == []  # it has ended, and was reported
        other.end()
    assert running.line.status is None


def test_a_camera_that_may_be_silent_is_ready_before_its_first_part(detector: Detector) -> None:
    camera = Camera()
    with Running(detector, [Lane(camera, "door", silence_s=None)]) as running:
        assert camera.asked.acquire(timeout=PATIENCE_S)
        until(lambda: running.line.status is not None)
        status = running.line.status
        assert status is not None
        later = replace(status, clock_ns=lambda: time.monotonic_ns() + 3600 * 10**9)
        assert later.delivering() == {"door": None}
        camera.end()


PLANS = st.lists(
    st.tuples(st.sampled_from(["fire", "fire", "good", "spot", "torn", "frozen", "old", "wait"]), st.integers(0, 1)),
    max_size=30,
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(plan=PLANS, how=st.sampled_from(["end", "stop", "break"]), live=st.booleans())
def test_every_part_comes_back_once_whatever_the_cameras_do(
    detector: Detector, plan: list[tuple[str, int]], how: str, live: bool
) -> None:
    """`Running` holds the account: every accepted part id in one record or event, every captured frame one record."""
    cameras = [Camera("0", live=live), Camera("1")]
    with Running(detector, [lane(camera, Software(500)) for camera in cameras]) as running:
        for number, (step, index) in enumerate(plan):
            if step == "fire":
                running.line.triggers.fire(str(index), f"part {number}")
            elif step == "wait":
                time.sleep(0.001)
            else:
                cameras[index].give(step, captured_ns=1 if step == "old" else None)
        if how == "stop" or not live:  # a source that waits would wait for one more trigger to find its end
            running.stop.set()
        for camera in cameras:
            camera.end(SourceError("unplugged") if how == "break" else None)
