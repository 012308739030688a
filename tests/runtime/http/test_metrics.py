"""The figures for Prometheus: text that its own parser takes, from counters that add up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_ad.bundle.bundle import Bundle
from edge_ad.errors import OutputError
from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.http.metrics import KEEP_S, Metrics, _sinks
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.line import status as line_status
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.run_view import RunView, Work
from edge_ad.runtime.line.scheduling import output
from edge_ad.runtime.line.scheduling.counters import Snapshot
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import BOUNDS_MS, Telemetry
from edge_ad.runtime.sinks.counts import SinkCounts

PATIENCE_S = 20
NAMES = ('odd "name"\\\n', "no UTF-8 \udcff\x1b[1m", "no UTF-8 \\udcff\\u001b[1m")
LABELS = ('odd "name"\\\\u000a', "no UTF-8 \\udcff\\u001b[1m", "no UTF-8 \\udcff\\u001b[1m (2)")
"""What they are called in the figures: a name that looks like the escaped one is told apart."""


class Camera:
    """Five good frames and two with a spot, then a wait for the test."""

    live, length = False, None

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0
        self.done = threading.Event()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def read(self) -> Frame | None:
        if self.count == 7:
            assert self.done.wait(PATIENCE_S)
            return None
        image = np.random.default_rng(self.count).integers(40, 80, (40, 60, 3), np.uint8)
        if self.count in (2, 4):
            image[5:35, 5:55] = 255
        self.count += 1
        return Frame(0, self.name, datetime.now(timezone.utc), 0, image)


class Sink:
    """Takes records; may fail, or hang."""

    keeps_records = True

    def __init__(self) -> None:
        self.taken = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.last = threading.Event()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        assert self.may_go_on.wait(PATIENCE_S)
        self.taken += 1
        if self.taken == 21:
            self.last.set()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, fake_bundle: Callable[..., Bundle]) -> Iterator[Detector]:
    with open_detector(fake_bundle(tmp_path_factory.mktemp("bundle") / "fake.edgead"), engine="fake") as detector:
        yield detector


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    """Values by name of the metric and its labels' values in the order of their names; none comes twice."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, *(value for _, value in sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


class Reloads:
    done, failed = 3, 1


def test_before_there_is_a_line() -> None:
    text, content_type = Metrics(RunView())()
    assert samples(text)["edge_ad_ready",] == 0
    assert content_type.startswith("text/plain")


def test_the_figures_of_a_line(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_status, "STUCK_S", 0.0)
    now_s = [100.0]
    cameras, sinks, telemetry = [Camera(name) for name in NAMES], [Sink(), Sink()], Telemetry()
    line = Line(detector, [Lane(one, one.name) for one in cameras], sinks, telemetry)
    run_view = RunView()
    metrics = Metrics(run_view, clock_s=lambda: now_s[0])
    running = threading.Thread(target=line.run, args=(threading.Event(),))
    sinks[1].may_go_on.clear()
    running.start()
    try:
        assert sinks[0].last.wait(PATIENCE_S)
        work: Any = Work(line, telemetry, detector.provenance, Reloads())  # type: ignore[arg-type]
        run_view.open(work)
        got = samples(metrics()[0])
        assert "sink Sink: has taken nothing for 0 s" in run_view.unready()  # the other one is
        assert run_view.ill() == []
        sinks[1].may_go_on.set()
        assert sinks[1].last.wait(PATIENCE_S)
        assert samples(metrics()[0]) == got  # the text is kept for a moment
        now_s[0] += KEEP_S
        later = samples(metrics()[0])
    finally:
        sinks[1].may_go_on.set()
        for one in cameras:
            one.done.set()
        running.join(PATIENCE_S)
    assert got["edge_ad_sink_waiting", "Sink (2)"] >= 20
    assert got["edge_ad_sink_stuck_seconds", "Sink (2)"] > 0
    assert got["edge_ad_ready",] == 0
    assert later["edge_ad_ready",] == 1
    for camera in LABELS:
        assert later["edge_ad_frames_captured_total", camera] == 7
        assert later["edge_ad_frames_total", camera, "ok"] == 7
        assert later["edge_ad_verdicts_total", camera, "anomalous"] == 2
        assert later["edge_ad_verdicts_total", camera, "normal"] == 5
        assert later["edge_ad_threshold", camera] == 0.6
        assert later["edge_ad_source_up", camera] == 1
        assert later["edge_ad_miss_rate", camera] == 0
    for sink in ("Sink", "Sink (2)"):
        assert later["edge_ad_sink_records_total", "taken", sink] == 21
        assert later["edge_ad_sink_records_total", "delivered", sink] == 21
    assert later["edge_ad_stage_seconds_count", "infer"] == 21
    assert later["edge_ad_stage_seconds_bucket", "+Inf", "infer"] == 21
    classes = [later["edge_ad_stage_seconds_bucket", f"{bound / 1e3:g}", "infer"] for bound in BOUNDS_MS]
    assert classes == sorted(classes)
    assert later["edge_ad_threshold_reloads_total", "done"] == 3
    assert later["edge_ad_threshold_reloads_total", "failed"] == 1


def test_times_are_counted_in_their_classes() -> None:
    telemetry = Telemetry()
    frame = Frame(0, "x", datetime.now(timezone.utc), 0, None)
    for value_ms in (0.1, 0.5, 0.6, 5000.0, 9000.0):
        telemetry.add(frame, Verdict("ok", timings_ms={"total": value_ms}))
    histogram = telemetry.histograms()["total"]
    assert histogram.counts == (2, 1, *[0] * 10, 1, 1)
    assert histogram.sum_ms == pytest.approx(14001.2)


def test_what_is_gone_lets_no_counter_go_down() -> None:
    """Prometheus would take that for a restart."""
    work: Any = MagicMock()
    work.line.status = None
    for gone in (0, 2):
        sink = SinkCounts("S", taken=5, delivered=5 - gone, lost=gone, gone=gone, expired=1)
        (records,) = (one for one in _sinks(Snapshot((), (sink,)), work) if one.name == "edge_ad_sink_records")
        values = {sample.labels["outcome"]: sample.value for sample in records.samples}
        assert values == {"taken": 5, "delivered": 5, "lost": gone, "dropped": 0, "gone": gone, "expired": 1}


def test_a_sink_that_refuses_what_it_must_keep_is_stuck(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    monkeypatch.setattr(line_status, "STUCK_S", 0.0)
    monkeypatch.setattr(output, "FLUSH_S", 0.1)

    class Refusing(Sink):
        def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
            self.last.set()
            raise OutputError("disk full")

    class Live(Camera):
        live = True

    sink, camera, stop = Refusing(), Live("door"), threading.Event()
    line = Line(detector, [Lane(camera, "door")], [sink], Telemetry())
    running = threading.Thread(target=line.run, args=(stop,))
    running.start()
    try:
        assert sink.last.wait(PATIENCE_S)
        until(lambda: line.status)  # a frame may be through before the line has said how it is doing
        status = line.status
        assert status is not None and status.stuck() == ["sink Refusing: has taken nothing for 0 s"]
    finally:
        camera.done.set()
        stop.set()
        running.join(PATIENCE_S)
