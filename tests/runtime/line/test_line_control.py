"""What reaches into a line that runs: thresholds, regions of interest; and what the line says of itself."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from patience import PATIENCE_S, wait_until
from running_line import Camera, Running, lane

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import Thresholds
from edge_ad.errors import ConfigError, SourceError
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.thresholds import InUse
from edge_ad.runtime.line.status import LineStatus
from edge_ad.runtime.line.telemetry import Telemetry


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
        failure: Exception | None = None

    class Ended(Gone):
        ended = True

    class GivenUp(Ended):
        failure = SourceError("unplugged")

    class Broken(Ended):
        lane = Lane(Camera(), "window")
        failure = RuntimeError("a defect")

    captures: Any = [Gone(), Ended(), GivenUp(), Broken()]
    now_ns: list[int] = [0]
    since_ns: list[int | None] = [None]
    clocks: Any = {"attended_ns": lambda: 0, "inferring_since_ns": lambda: since_ns[0]}
    status = LineStatus(captures, [], Stage(), Sinks(), lambda _: None, lambda: now_ns[0], **clocks)  # type: ignore[arg-type]
    ended = [
        "the thread edge-ad-infer has ended",
        "the thread sink JsonLines has ended",
        "the thread capture of door has ended",
        "the thread capture of window has ended",
    ]
    assert status.dead() == ended
    now_ns[0] = 11 * 10**9  # the thread that runs the line hangs, in a write to standard error or a window
    assert status.dead() == [*ended, "the thread that runs the line has not looked after it for 11 s"]
    since_ns[0] = 0
    assert status.waiting() == ["the engine has not answered for 11 s"]
    now_ns[0] = 61 * 10**9
    assert "the engine has not answered for 61 s" in status.dead()


def test_a_line_says_what_is_wrong_with_it(detector: Detector) -> None:
    camera, other = Camera(), Camera("window")
    rules = [Lane(camera, "door", silence_s=0.1), Lane(other, "window", silence_s=PATIENCE_S)]
    with Running(detector, rules) as running:
        wait_until(lambda: running.line.status is not None)
        status = running.line.status
        assert status is not None
        assert status.dead() == []
        camera.give()
        running.kept.wait(entries=1)
        wait_until(lambda: "has given no frame for" in (status.delivering()["door"] or ""))
        assert status.delivering()["window"] == "camera window: has given no frame yet"
        other.give()
        wait_until(lambda: status.delivering()["window"] is None)
        assert status.stuck() == []
        assert set(status.oldest_frame_s()) == {"door", "window"}
        camera.end(SourceError("door: unplugged"))
        wait_until(lambda: status.delivering()["door"] == "camera door: door: unplugged")
        assert status.dead() == []  # it has ended, and was reported
        other.end()
    assert running.line.status is None


def test_a_camera_that_may_be_silent_is_ready_before_its_first_part(detector: Detector) -> None:
    camera = Camera()
    with Running(detector, [Lane(camera, "door", silence_s=None)]) as running:
        assert camera.asked.acquire(timeout=PATIENCE_S)
        wait_until(lambda: running.line.status is not None)
        status = running.line.status
        assert status is not None
        later = replace(status, clock_ns=lambda: time.monotonic_ns() + 3600 * 10**9)
        assert later.delivering() == {"door": None}
        camera.end()
