"""Every captured frame leaves exactly one record, whatever happens to it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import Thresholds
from edge_ad.engine import BatchArray, Outputs
from edge_ad.errors import EngineError, OutputError, SourceError
from edge_ad.image.frame import Frame, Truth
from edge_ad.record.verdict import Verdict, record_schema
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import Telemetry
from edge_ad.runtime.sinks import Sink

PATIENCE_S = 10
EXPECTED = {  # status, verdict
    "normal": ("ok", "normal"),
    "spot": ("ok", "anomalous"),
    "black": ("unusable", None),
    "error": ("error", None),
    "no picture": ("error", None),
    "wrong shape": ("error", None),
}


def _picture(kind: str) -> np.ndarray | None:
    y, x = np.mgrid[:80, :120]
    image = np.repeat((40 + 20 * np.sin(x / 5 + y / 9))[..., None], 3, axis=2).astype(np.uint8)
    if kind == "spot":
        image[20:50, 30:70] = 255
    return {"black": np.zeros_like(image), "error": None, "no picture": None, "wrong shape": image[..., :1]}.get(
        kind, image
    )


class Kinds:
    """A source of pictures by kind; `live` and the age of the frames as wanted."""

    name, length = "kinds", None

    def __init__(self, kinds: list[str], *, live: bool = False, age_ms: float = 0) -> None:
        self.kinds = kinds
        self.live = live
        self.age_ms = age_ms
        self.read_so_far = 0
        self.over = threading.Event()

    def __enter__(self) -> Kinds:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def read(self) -> Frame | None:
        number = self.read_so_far
        if number == len(self.kinds):
            self.over.set()
            return None
        self.read_so_far += 1
        kind = self.kinds[number]
        captured_ns = time.monotonic_ns() - int(self.age_ms * 1e6)
        picture, error = _picture(kind), "cannot be decoded" if kind == "error" else None
        if picture is not None:
            picture[0, 0] = number % 8  # no two pictures of a camera are the same
        truth = Truth(kind == "spot")
        return Frame(number, self.name, datetime.now(timezone.utc), captured_ns, picture, error=error, truth=truth)


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self, *, keeps_records: bool = False) -> None:
        self.keeps_records = keeps_records
        self.entries: list[Mapping[str, Any]] = []
        self.verdicts: list[Verdict] = []

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self.entries.append(entry)
        self.verdicts.append(verdict)

    @property
    def statuses(self) -> list[str]:
        return [entry["status"] for entry in self.entries]

    @property
    def ids(self) -> list[int]:
        return [entry["frame_id"] for entry in self.entries]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, fake_bundle: Callable[..., Bundle]) -> Bundle:
    return fake_bundle(tmp_path_factory.mktemp("line") / "fake.edgead", side=64)


@pytest.fixture(scope="module")
def detector(bundle: Bundle) -> Iterator[Detector]:
    with open_detector(bundle.path, engine="fake") as detector:
        yield detector


def _run(
    detector: Detector, source: Kinds, *, budget_ms: float | None = None, max_frames: int | None = None
) -> tuple[Kept, Telemetry]:
    kept, telemetry = Kept(keeps_records=source.live), Telemetry()
    lane = Lane(source, source.name, budget_ms=budget_ms, max_frames=max_frames)
    Line(detector, [lane], [kept], telemetry).run(threading.Event())
    return kept, telemetry


def _assert_accounted(kept: Kept, telemetry: Telemetry, count: int) -> None:
    assert kept.ids == list(range(count))
    assert telemetry.frames == count
    assert telemetry.counters.snapshot().adds_up
    assert [lane.in_flight for lane in telemetry.counters.snapshot().lanes] == [0]
    assert telemetry.statuses == Counter(kept.statuses)
    assert telemetry.statuses["ok"] + telemetry.statuses["late"] == sum(
        entry["score"] is not None for entry in kept.entries
    )
    assert telemetry.verdicts == Counter(entry["verdict"] for entry in kept.entries if entry["verdict"])
    validator = Draft202012Validator(record_schema())
    for entry in kept.entries:
        validator.validate(dict(entry))


@settings(max_examples=25, derandomize=True, deadline=None)
@given(kinds=st.lists(st.sampled_from(sorted(EXPECTED)), max_size=12))
def test_one_record_for_every_frame(detector: Detector, kinds: list[str]) -> None:
    kept, telemetry = _run(detector, Kinds(kinds))
    _assert_accounted(kept, telemetry, len(kinds))
    assert [(entry["status"], entry["verdict"]) for entry in kept.entries] == [EXPECTED[kind] for kind in kinds]
    judged = [kind for kind in kinds if EXPECTED[kind][0] == "ok"]
    assert telemetry.confusion == Counter((kind == "spot", EXPECTED[kind][1]) for kind in judged)


@settings(max_examples=15, derandomize=True, deadline=None)
@given(kinds=st.lists(st.sampled_from(sorted(EXPECTED)), max_size=12))
def test_one_record_for_every_frame_of_a_live_source(detector: Detector, kinds: list[str]) -> None:
    kept, telemetry = _run(detector, Kinds(kinds, live=True))
    _assert_accounted(kept, telemetry, len(kinds))
    for entry, kind in zip(kept.entries, kinds, strict=True):
        # An overtaken frame is skipped, and never judged; one that could not be captured stays an error.
        assert (entry["status"], entry["verdict"]) in {EXPECTED[kind], ("skipped", None)}
        if kind == "error":
            assert entry["status"] == "error"


def test_the_spot_is_where_it_is(detector: Detector) -> None:
    kept, _ = _run(detector, Kinds(["spot"]))
    (entry,) = kept.entries
    (region,) = entry["regions"]
    x, y = region["peak_xy"]
    assert 30 <= x < 70
    assert 20 <= y < 50
    assert entry["inspected_box"] == [0, 0, 120, 80]
    assert set(entry["timings_ms"]) == {"decode", "wait", "preprocess", "infer", "postprocess", "total"}


class _Slow:
    """Replaces the engine's arithmetic: waits, then computes; or raises."""

    def __init__(self, detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
        self.original = detector._engine.infer_impl
        self.wait: Any = lambda: None
        self.calls = 0
        monkeypatch.setattr(detector._engine, "infer_impl", self)

    def __call__(self, batch_nhwc: BatchArray) -> Outputs:
        self.calls += 1
        self.wait()
        return self.original(batch_nhwc)


@pytest.fixture
def engine(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> _Slow:
    return _Slow(detector, monkeypatch)


def test_a_camera_faster_than_the_judge_skips_to_the_newest(detector: Detector, engine: _Slow) -> None:
    source = Kinds(["normal"] * 29 + ["spot"], live=True)
    engine.wait = lambda: source.over.wait(PATIENCE_S)
    kept, telemetry = _run(detector, source)
    _assert_accounted(kept, telemetry, 30)
    assert kept.entries[-1]["verdict"] == "anomalous"  # the newest was judged
    assert telemetry.statuses["skipped"] >= 27  # all but one in the engine, one ready for it, and the newest
    assert engine.calls <= 3
    for entry in kept.entries:
        if entry["status"] == "skipped":
            assert "newer frame" in entry["reason"]


@pytest.mark.parametrize("live", [False, True])
def test_max_frames_counts_captured_frames(detector: Detector, live: bool) -> None:
    source = Kinds(["error", "black", "normal", "spot", "normal"] * 3, live=live)
    kept, telemetry = _run(detector, source, max_frames=6)
    _assert_accounted(kept, telemetry, 6)
    assert source.read_so_far == 6


@pytest.mark.parametrize("live", [False, True])
def test_a_stop_ends_the_run_and_loses_nothing(detector: Detector, engine: _Slow, live: bool) -> None:
    source, stop, telemetry = Kinds(["normal"] * 100_000, live=live), threading.Event(), Telemetry()
    kept = Kept(keeps_records=live)

    def stop_at_the_third() -> None:
        if engine.calls == 3:
            stop.set()

    engine.wait = stop_at_the_third
    Line(detector, [Lane(source, source.name)], [kept], telemetry).run(stop)
    assert stop.is_set()
    assert source.read_so_far < 100_000
    _assert_accounted(kept, telemetry, source.read_so_far)
    assert telemetry.statuses["ok"] + telemetry.statuses["late"] >= 3


def test_a_frame_past_its_deadline_is_not_judged(detector: Detector, engine: _Slow) -> None:
    kept, telemetry = _run(detector, Kinds(["spot"], live=True, age_ms=500), budget_ms=100)
    _assert_accounted(kept, telemetry, 1)
    assert kept.statuses == ["skipped"]
    counts = telemetry.counters.snapshot()
    assert (counts.missed, counts.overtaken) == (1, 0)
    assert engine.calls == 0
    assert "budget 100 ms" in kept.entries[0]["reason"]
    assert kept.entries[0]["budget_ms"] == 100


def test_a_source_that_waits_is_judged_however_late(detector: Detector) -> None:
    kept, telemetry = _run(detector, Kinds(["spot"] * 3, age_ms=500), budget_ms=100)
    assert kept.statuses == ["late"] * 3
    assert telemetry.counters.snapshot().missed == 3


def test_a_verdict_after_the_deadline_is_late_and_still_given(detector: Detector, engine: _Slow) -> None:
    engine.wait = lambda: time.sleep(0.3)
    kept, telemetry = _run(detector, Kinds(["spot", "black"]), budget_ms=200)
    _assert_accounted(kept, telemetry, 2)
    assert kept.statuses == ["late", "unusable"]
    assert kept.entries[0]["verdict"] == "anomalous"
    assert kept.entries[0]["timings_ms"]["total"] > 200
    assert kept.verdicts[0].maps is not None


def test_within_the_budget_is_ok(detector: Detector) -> None:
    kept, _ = _run(detector, Kinds(["spot", "normal"]), budget_ms=60_000)
    assert kept.statuses == ["ok", "ok"]


def test_an_engine_that_fails_on_a_frame_does_not_end_the_run(detector: Detector, engine: _Slow) -> None:
    def fail_once() -> None:
        if engine.calls == 2:
            raise EngineError("device lost")

    engine.wait = fail_once
    kept, telemetry = _run(detector, Kinds(["normal", "spot", "spot"]))
    _assert_accounted(kept, telemetry, 3)
    assert kept.statuses == ["ok", "error", "ok"]
    assert kept.entries[1]["reason"] == "device lost"


@pytest.mark.parametrize("live", [False, True])
def test_a_source_that_breaks_ends_the_run_after_its_frames(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    source, kept, telemetry = Kinds(["normal"] * 3, live=live), Kept(keeps_records=live), Telemetry()
    read = source.read

    def unplugged() -> Frame:
        frame = read()
        if frame is None:
            raise SourceError("camera 0: unplugged")
        return frame

    monkeypatch.setattr(source, "read", unplugged)
    with pytest.raises(SourceError, match="unplugged"):
        Line(detector, [Lane(source, source.name)], [kept], telemetry).run(threading.Event())
    _assert_accounted(kept, telemetry, 3)


def test_a_sink_that_cannot_write_ends_the_run_and_the_capture(detector: Detector) -> None:
    class Full(Kept):
        def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
            raise OutputError("disk full")

    sinks: list[Sink] = [Full()]
    source = Kinds(["normal"] * 10_000)
    with pytest.raises(OutputError, match="disk full"):
        Line(detector, [Lane(source, source.name)], sinks, Telemetry()).run(threading.Event())
    assert source.read_so_far < 10_000
    assert not any(thread.name == "edge-ad-capture" for thread in threading.enumerate())


def test_without_a_threshold_there_are_scores_and_no_verdicts(
    fake_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    silent = fake_bundle(tmp_path / "silent.edgead", side=64, thresholds=Thresholds())
    with open_detector(silent.path, engine="fake") as detector:
        kept, telemetry = _run(detector, Kinds(["spot", "normal"]))
        assert [entry["verdict"] for entry in kept.entries] == [None, None]
        assert all(entry["score"] is not None for entry in kept.entries)
        _assert_accounted(kept, telemetry, 2)
        detector.thresholds = replace(detector.thresholds, image=0.6)
        assert [entry["verdict"] for entry in _run(detector, Kinds(["spot"]))[0].entries] == ["anomalous"]


def test_percentiles_are_those_of_the_stages(detector: Detector) -> None:
    _, telemetry = _run(detector, Kinds(["normal"] * 5 + ["error"]))
    rows = {row.stage: row for row in telemetry.stages()}
    assert set(rows) == {"decode", "wait", "preprocess", "infer", "postprocess", "total", "output"}
    for row in rows.values():
        assert 0 <= row.p50_ms <= row.p95_ms <= row.p99_ms <= row.max_ms
