"""A line with real threads on a clock that only its parts advance: one that breaks costs the others nothing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kept_records import Records
from patience import PATIENCE_S
from scripted_line import POISON, Clock, Engine, Script, assert_accounted

from edge_ad.engine import BatchArray, Outputs
from edge_ad.errors import EngineError, OutputError, SourceError
from edge_ad.record.verdict import OVERTAKEN
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.line import line as line_module
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling import sink_queue
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import Telemetry


def test_a_camera_that_breaks_does_not_end_the_others(detector: Detector, clock: Clock) -> None:
    broken = threading.Event()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        broken.set()

    kept, telemetry = Records(), Telemetry()
    sources = [
        Script(["normal", "break"], clock, name="one"),
        Script(["normal", lambda: broken.wait(PATIENCE_S) and None, "spot"], clock, name="two"),
    ]
    lanes = [Lane(source, source.name) for source in sources]
    with pytest.raises(SourceError, match="one: unplugged"):
        Line(detector, lanes, [kept], telemetry, say=say, clock_ns=clock).run(threading.Event())
    assert said == ["warning: one: unplugged; the other sources go on"]
    assert_accounted([kept], telemetry, sources)
    assert telemetry.frames == 3


def test_a_sink_that_fails_does_not_end_a_live_line(
    detector: Detector, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.0)
    down = iter([True, True, True])
    said: list[str] = []

    def before(_: Mapping[str, Any]) -> None:
        if next(down, False):
            raise OutputError("disk full")

    good, bad, telemetry = Records(), Records(before), Telemetry()
    source = Script(
        ["normal"] * 10,
        clock,
    )
    lane = Lane(source, "script", buffer="every_frame")
    Line(detector, [lane], [good, bad], telemetry, say=said.append, clock_ns=clock).run(threading.Event())
    assert_accounted([good, bad], telemetry, [source])
    assert said[0] == "warning: disk full; records wait for it"
    assert telemetry.counters.snapshot().sinks[1].failures in (1, 2, 3)
    assert good.statuses == ["ok"] * 10


def test_a_stop_ends_a_camera_that_hangs(detector: Detector, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead network camera may never return from its read; Ctrl-C must."""
    monkeypatch.setattr(line_module, "STOP_S", 0.2)
    release, stop = threading.Event(), threading.Event()
    kept, telemetry = Records(), Telemetry()

    def hang() -> None:
        stop.set()
        assert release.wait(PATIENCE_S)

    source = Script(["normal", "spot", hang], clock)
    try:
        lane = Lane(source, "script", buffer="every_frame")
        Line(detector, [lane], [kept], telemetry, clock_ns=clock).run(stop)
        assert kept.statuses == ["ok", "ok"]
        assert "edge-ad-capture" in {thread.name for thread in threading.enumerate()}  # its read still hangs
    finally:
        release.set()


def test_a_stop_ends_an_engine_that_hangs(
    detector: Detector, engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "STOP_S", 0.1)
    release, stop = threading.Event(), threading.Event()
    kept, telemetry = Records(), Telemetry()

    def hang() -> None:
        stop.set()
        assert release.wait(PATIENCE_S)

    engine.before = hang
    source = Script(["normal"] * 5, clock)
    try:
        Line(detector, [Lane(source, "script")], [kept], telemetry, clock_ns=clock).run(stop)
        assert_accounted([kept], telemetry, [source])
        assert {entry["reason"] for entry in kept.entries} <= {OVERTAKEN, line_module.STOPPED}
        assert "error" in kept.statuses
        settled = len(kept.entries)
    finally:
        release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("edge-ad-"):
            thread.join(PATIENCE_S)
    assert len(kept.entries) == settled  # what the engine says afterwards is no second record


def test_a_window_is_drawn_by_the_thread_that_runs_the_line(detector: Detector, clock: Clock) -> None:
    drawn_by = set()

    class Window(Records):
        keeps_records = False
        in_caller_thread = True

    window = Window(before=lambda _: drawn_by.add(threading.current_thread()))
    source, telemetry = Script(["normal"] * 200, clock, live=False), Telemetry()
    Line(detector, [Lane(source, "script")], [window], telemetry, clock_ns=clock).run(threading.Event())
    assert drawn_by == {threading.current_thread()}
    assert len(window.entries) == 200


KINDS = st.sampled_from(["normal"] * 4 + ["spot"] * 2 + ["repeat", "error", "poison", "black"])
SCRIPTS = st.tuples(
    st.lists(KINDS, max_size=15),
    st.booleans(),  # live
    st.booleans(),  # breaks at the end
    st.sampled_from([0, 5, 60]),  # milliseconds between frames
    st.none() | st.sampled_from([20.0, 80.0]),  # budget
    st.sampled_from(["auto", "every_frame"]),
)
SINKS = st.tuples(st.booleans(), st.sets(st.integers(0, 20), max_size=8))  # keeps records; writes that fail


@settings(max_examples=80, derandomize=True, deadline=None)
@given(
    scripts=st.lists(SCRIPTS, min_size=1, max_size=3),
    sinks=st.lists(SINKS, max_size=2),
    engine_ms=st.lists(st.sampled_from([0.0, 1.0, 30.0, 200.0, -1.0, -2.0]), min_size=1, max_size=6),
    stop_after=st.none() | st.integers(0, 25),
)
def test_whatever_fails_every_frame_leaves_one_record(
    batching: Detector, scripts: Any, sinks: Any, engine_ms: list[float], stop_after: int | None
) -> None:
    clock, stop, telemetry = Clock(), threading.Event(), Telemetry()
    calls = 0

    def infer(batch_nhwc: BatchArray) -> Outputs:
        nonlocal calls
        calls += 1
        takes_ms = engine_ms[calls % len(engine_ms)] if calls > 8 else 1.0
        if takes_ms == -1.0:
            raise EngineError("device lost")
        if takes_ms == -2.0:
            raise RuntimeError("a defect")
        clock.advance(takes_ms)
        if (batch_nhwc[:, 16, 16] == POISON).any():
            raise EngineError("chokes on it")
        return original(batch_nhwc)

    def stop_in_time(_: Mapping[str, Any]) -> None:
        if len(kept.entries) == stop_after:
            stop.set()

    sources, lanes = [], []
    for number, (kinds, live, breaks, every_ms, budget_ms, buffer) in enumerate(scripts):
        name = f"camera {number}"
        source = Script([*kinds, "break"] if breaks else kinds, clock, name=name, live=live, every_ms=every_ms)
        sources.append(source)
        lanes.append(Lane(source, name, budget_ms=budget_ms, buffer=buffer))
    kept = Records(after=stop_in_time)
    if stop_after == 0:
        stop.set()
    broken = []
    for keeps_records, failing in sinks:
        writes = iter(range(10**6))

        def fail(_: object, writes: Iterator[int] = writes, failing: set[int] = failing) -> None:
            if next(writes) in failing:
                raise OutputError("disk full")

        sink = Records(before=fail)
        sink.keeps_records = keeps_records  # type: ignore[misc]
        broken.append(sink)
    retry_s, sink_queue.RETRY_S = sink_queue.RETRY_S, 0.0
    original, batching._engine.infer_impl = batching._engine.infer_impl, infer  # type: ignore[method-assign]
    try:
        Line(batching, lanes, [kept, *broken], telemetry, clock_ns=clock).run(stop)
    except (SourceError, OutputError):
        pass
    finally:
        batching._engine.infer_impl = original  # type: ignore[method-assign]
        sink_queue.RETRY_S = retry_s
    assert_accounted([kept, *broken], telemetry, sources)
    counts = telemetry.counters.snapshot()
    assert counts.sinks[0].lost == 0  # nobody suffers from a neighbour
    assert Counter(kept.statuses) == counts.statuses
    for entry in kept.entries:
        lane = lanes[int(entry["source"][-1])]
        if not lane.live:
            assert entry["status"] not in ("skipped", "stale")
        if entry["status"] == "ok" and lane.budget_ms is not None:
            assert entry["timings_ms"]["total"] <= lane.budget_ms
        if entry["status"] == "late":
            assert entry["timings_ms"]["total"] > lane.budget_ms
