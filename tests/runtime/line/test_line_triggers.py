"""What announces parts to a line that runs, and what becomes of each of them."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kept_records import Records
from patience import PATIENCE_S, wait_until
from running_line import Camera, Running, lane

from edge_ad.errors import ConfigError, SourceError
from edge_ad.image.frame import Frame
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.line import line as line_module
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.trigger import (
    CAMERA_ENDED,
    LINE_ENDED,
    TOO_LATE,
    Fired,
    Interval,
    Software,
)
from edge_ad.runtime.line.telemetry import Telemetry

MS = 1_000_000


def test_the_first_frame_after_a_trigger_is_judged_and_the_others_leave_nothing(detector: Detector) -> None:
    camera = Camera()
    with Running(detector, [lane(camera)]) as running:
        for _ in range(3):
            camera.give("spot")
        wait_until(lambda: camera.steps.empty())
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
        wait_until(lambda: running.line.status is not None)
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
        wait_until(lambda: running.line.status is not None)
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
        wait_until(lambda: running.line.status is not None and camera.steps.empty())
        running.line.triggers.fire("door", "a")
        camera.give("frozen")
        running.kept.wait(entries=1)
        camera.end()
    assert [entry["status"] for entry in running.kept.entries] == ["stale"]


def test_a_trigger_without_a_frame_leaves_an_event(detector: Detector) -> None:
    camera = Camera()
    with Running(detector, [lane(camera, Software(1.0), silence_s=None)]) as running:
        wait_until(lambda: running.line.status is not None)
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
        wait_until(lambda: running.line.status is not None)
        assert running.line.triggers.fire("door", "a")
        if how == "stops":
            running.stop.set()
            wait_until(lambda: bool(running.kept.events))
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
        wait_until(lambda: running.line.status is not None)
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
    kept.check()
    taken_ms = [entry["captured_monotonic_ns"] // MS for entry in kept.entries]
    assert taken_ms == [0, 100, 201, 450, 500, 620]  # an interval without a frame is passed over
    assert telemetry.counters.snapshot().lanes[0].left_out == len(times_ms) - len(taken_ms)


def test_the_frame_of_a_trigger_may_not_be_replaced(detector: Detector) -> None:
    with pytest.raises(ConfigError, match="frame of a trigger is never replaced"):
        Line(detector, [lane(Camera(), buffer="freshest")], [], Telemetry())


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
