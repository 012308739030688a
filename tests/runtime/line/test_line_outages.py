"""Outages of a camera as the records of a line tell them, and a line that ends while its camera is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from patience import wait_until

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict, record_schema
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import Telemetry
from edge_ad.runtime.sources import open_source
from edge_ad.runtime.sources.reconnect import Patience, Reconnecting
from edge_ad.runtime.sources.settings import SourceSettings

PATIENCE_S = 10
VALIDATOR = Draft202012Validator(record_schema())
RED_BGR = (0, 0, 255)


class Opening:
    """One opening of a camera: gives its frames, then hangs or is lost."""

    live = True
    length = None
    name = "cam"

    def __init__(self, frames: int, then: str, release: threading.Event) -> None:
        self.left, self.then, self.release = frames, then, release

    def __enter__(self) -> Opening:
        if self.then == "absent":
            raise SourceError("cam: is not there")
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def read(self) -> Frame | None:
        if self.left == 0:
            if self.then == "hang":
                self.release.wait(PATIENCE_S)
            raise SourceError("cam: gives no further frame")
        self.left -= 1
        image = np.full((64, 64, 3), RED_BGR, np.uint8)
        image[:, ::2] = np.random.default_rng(self.left).integers(0, 256, (64, 32, 3))
        return Frame(0, "cam", datetime.now(timezone.utc), time.monotonic_ns(), image, "bgr")


class Records:
    keeps_records = True

    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []
        self.heard = threading.Event()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self.lines.append(entry)

    def event(self, entry: Mapping[str, Any]) -> None:
        self.lines.append(entry)
        self.heard.set()


@pytest.fixture(scope="module")
def detector(tiny_bundle: Path) -> Iterator[Detector]:
    with open_detector(tiny_bundle, engine="fake") as detector:
        yield detector


def test_every_outage_is_recorded_counted_and_said(detector: Detector) -> None:
    release = threading.Event()
    openings = iter(
        [
            Opening(2, "lost", release),
            Opening(0, "absent", release),
            Opening(1, "hang", release),
            Opening(2, "", release),
        ]
    )
    patience = Patience(base_s=0.001, cap_s=0.002, watchdog_s=0.1)
    kept, telemetry, said = Records(), Telemetry(), list[str]()
    with Reconnecting(lambda: next(openings), patience) as source:
        lane = Lane(source, "cam (2)", buffer="every_frame", max_frames=5)
        Line(detector, [lane], [kept], telemetry, say=said.append).run(threading.Event())
    release.set()
    for line in kept.lines:
        VALIDATOR.validate(dict(line))
        assert line["source"] == "cam (2)"
    assert [line["frame_id"] for line in kept.lines if "event" not in line] == [0, 1, 2, 3, 4]
    events = [line for line in kept.lines if "event" in line]
    assert [(event["event"], event["count"]) for event in events] == [
        ("disconnected", 1),
        ("reconnected", 1),
        ("disconnected", 2),
        ("reconnected", 2),
    ]
    assert [event.get("cause") for event in events] == ["lost", None, "hung", None]
    assert events[0]["reason"] == "gives no further frame" and events[1]["attempts"] == 2
    counts = telemetry.counters.snapshot()
    assert (counts.lanes[0].disconnected, counts.lanes[0].hung) == (2, 1)
    assert counts.adds_up and counts.lanes[0].captured == 5
    assert said[0] == "warning: cam (2): lost: gives no further frame"
    assert said[1].startswith("cam (2): back after ") and len(said) == 4


def test_a_line_ends_while_its_camera_is_away(detector: Detector) -> None:
    release = threading.Event()
    source = Reconnecting(lambda: Opening(1, "lost", release), Patience(base_s=1e6, cap_s=1e6))
    kept, telemetry, stop = Records(), Telemetry(), threading.Event()
    ended: list[Frame | None] = []
    read = source.read
    source.read = lambda: ended.append(read()) or ended[-1]  # type: ignore[method-assign, func-returns-value]
    line = Line(detector, [Lane(source, "cam")], [kept], telemetry)
    with source:
        run = threading.Thread(target=line.run, args=(stop,))
        run.start()
        assert kept.heard.wait(PATIENCE_S)
        stop.set()
        run.join(PATIENCE_S)
        # Freed before the source was closed: the line has not given up on a reader that hangs.
        assert not run.is_alive() and len(ended) == 2 and ended[1] is None
    assert telemetry.counters.snapshot().adds_up


def test_a_camera_that_stays_away_ends_its_lane_only(detector: Detector) -> None:
    release = threading.Event()
    lost = Reconnecting(
        lambda: Opening(1, "lost", release), Patience(reconnect_s=0, base_s=0.001, cap_s=0.002, watchdog_s=PATIENCE_S)
    )
    many = iter([Opening(40, "lost", release)] * 2)
    good = Reconnecting(lambda: next(many), Patience())
    kept, telemetry = Records(), Telemetry()
    lanes = [Lane(lost, "a", buffer="every_frame"), Lane(good, "b", buffer="every_frame", max_frames=40)]
    with lost, good, pytest.raises(SourceError, match="cam: gives no further frame"):
        Line(detector, lanes, [kept], telemetry).run(threading.Event())
    counts = {lane.name: lane.captured for lane in telemetry.counters.snapshot().lanes}
    assert counts == {"a": 1, "b": 40}


def test_a_camera_that_is_away_is_not_ready_from_the_first_moment_on(detector: Detector) -> None:
    release, may_open = threading.Event(), threading.Event()

    class Gated(Opening):
        def __enter__(self) -> Opening:
            may_open.wait(PATIENCE_S)
            return self

    openings = iter([Opening(1, "lost", release), Gated(1, "hang", release)])
    kept, stop = Records(), threading.Event()
    with Reconnecting(lambda: next(openings), Patience(base_s=0.001, cap_s=0.002)) as source:
        line = Line(detector, [Lane(source, "cam", silence_s=PATIENCE_S)], [kept], Telemetry())
        run = threading.Thread(target=line.run, args=(stop,))
        run.start()
        assert kept.heard.wait(PATIENCE_S)
        wait_until(lambda: line.status is not None)  # which begins once the outage has been told
        status = line.status
        assert status is not None and status.delivering() == {"cam": "camera cam: lost: gives no further frame"}
        may_open.set()
        until_s = time.monotonic() + PATIENCE_S
        while status.delivering() != {"cam": None}:
            assert time.monotonic() < until_s
            time.sleep(0.005)
        stop.set()
        run.join(PATIENCE_S)
        release.set()


def test_a_watched_folder_into_which_nothing_comes_is_ready(detector: Detector, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    stop = threading.Event()
    with open_source(str(folder), SourceSettings(watch=True)) as source:
        line = Line(detector, [Lane(source, "folder", silence_s=5)], [Records()], Telemetry())
        run = threading.Thread(target=line.run, args=(stop,))
        run.start()
        until_s = time.monotonic() + PATIENCE_S
        while line.status is None or line.status.captures[0].reading_since_ns is None:
            assert time.monotonic() < until_s
            time.sleep(0.005)
        later = replace(line.status, clock_ns=lambda: time.monotonic_ns() + 3600 * 10**9)
        assert later.delivering() == {"folder": None}
        stop.set()
        run.join(PATIENCE_S)
