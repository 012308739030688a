"""A line with real threads on a clock that only its parts advance: deadlines, freezes, silence, faults of all kinds."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edge_ad.bundle import Bundle
from edge_ad.engine import BatchArray, Outputs
from edge_ad.errors import ConfigError, EngineError, OutputError, SourceError
from edge_ad.frame import Frame, ImageArray
from edge_ad.runtime import line as line_module
from edge_ad.runtime.detector import Detector, open_detector
from edge_ad.runtime.line import Line
from edge_ad.runtime.scheduling import sink_queue
from edge_ad.runtime.scheduling.lane import Lane
from edge_ad.runtime.telemetry import Telemetry
from edge_ad.specs import Thresholds
from edge_ad.verdict import OVERTAKEN, Verdict, record_schema

PATIENCE_S = 10
MS = 1_000_000
VALIDATOR = Draft202012Validator(record_schema())
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


class Records:
    """Keeps records and events; `before` may raise or wait, `after` is told of every record."""

    keeps_records = True

    def __init__(
        self, before: Callable[[], None] = lambda: None, after: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> None:
        self.before, self.after = before, after
        self.entries: list[Mapping[str, Any]] = []
        self.events: list[Mapping[str, Any]] = []
        self.heard = threading.Event()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self.before()
        self.entries.append(entry)
        self.after(entry)

    def event(self, entry: Mapping[str, Any]) -> None:
        self.events.append(entry)
        self.heard.set()

    @property
    def statuses(self) -> list[str]:
        return [entry["status"] for entry in self.entries]


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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, fake_bundle: Callable[..., Bundle]) -> Bundle:
    return fake_bundle(tmp_path_factory.mktemp("line") / "fake.edgead")


@pytest.fixture(scope="module")
def detector(bundle: Bundle) -> Iterator[Detector]:
    with open_detector(bundle, engine="fake") as detector:
        yield detector


@pytest.fixture(scope="module")
def batching(bundle: Bundle) -> Iterator[Detector]:
    with open_detector(bundle, engine="fake", batch=4) as detector:
        yield detector


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(detector: Detector, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(detector, clock, monkeypatch)


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
        ids = defaultdict(list)
        for entry in kept.entries:
            VALIDATOR.validate(dict(entry))
            ids[entry["source"]].append(entry["frame_id"])
            kind = next(source for source in sources if source.name == entry["source"]).given[entry["frame_id"]]
            assert (entry["score"] is None) == (entry["verdict"] is None) == (entry["status"] not in ("ok", "late"))
            if entry["score"] is not None:
                assert kind in ("normal", "spot", "repeat")
        for source in sources:
            assert ids[source.name] == sorted(set(ids[source.name]))
            if sink.lost + sink.dropped == 0:
                assert ids[source.name] == list(range(len(source.given)))


def test_a_frame_that_cannot_make_it_never_reaches_the_engine(detector: Detector, engine: Engine, clock: Clock) -> None:
    kept, wait = one_by_one()
    source = Script(["normal"] * 80, clock, every_ms=40, before=wait)
    telemetry = Telemetry()
    engine.takes_ms = 120

    def recover() -> None:
        if len(source.given) > 60:
            engine.takes_ms = 5

    engine.before = recover
    lane = Lane(source, "script", budget_ms=100)
    Line(detector, [lane], [kept], telemetry, clock_ns=clock).run(threading.Event())
    assert_accounted([kept], telemetry, [source])
    # Nothing is known of the engine at first; then one frame a second is tried, until the engine is fast again.
    judged = [entry["frame_id"] for entry in kept.entries if entry["status"] != "skipped"]
    assert kept.entries[0]["status"] == "late"
    recovered = next(number for number in judged if number >= 60)
    assert judged[judged.index(recovered) :] == list(range(recovered, 80))
    assert all(entry["status"] == "ok" for entry in kept.entries[recovered:])
    tried = judged[: judged.index(recovered)]
    assert 2 <= len(tried) <= 4
    assert engine.batches == [1] * len(judged)
    reason = kept.entries[1]["reason"]
    assert "could not be judged in time" in reason
    assert "would take 120 ms more" in reason
    assert "budget 100 ms" in reason


def test_a_frozen_camera_is_stale_and_not_judged(detector: Detector, engine: Engine, clock: Clock) -> None:
    kept, wait = one_by_one()
    steps = ["normal", "repeat", "repeat", "spot", "repeat", "normal"]
    source, telemetry = Script(steps, clock, before=wait), Telemetry()
    Line(detector, [Lane(source, "script")], [kept], telemetry, clock_ns=clock).run(threading.Event())
    assert_accounted([kept], telemetry, [source])
    assert kept.statuses == ["ok", "stale", "stale", "ok", "stale", "ok"]
    assert "frozen" in kept.entries[1]["reason"]
    assert len(engine.batches) == 3


def test_repeated_pictures_of_files_are_judged(detector: Detector, clock: Clock) -> None:
    kept, source, telemetry = Records(), Script(["spot", "repeat"], clock, live=False), Telemetry()
    Line(detector, [Lane(source, "script")], [kept], telemetry, clock_ns=clock).run(threading.Event())
    assert [entry["verdict"] for entry in kept.entries] == ["anomalous", "anomalous"]


def test_neither_a_torn_nor_a_repeated_frame_takes_the_place_of_a_good_one(
    detector: Detector, engine: Engine, clock: Clock
) -> None:
    """The engine works on the first frame until the camera is through; the second is still the newest to judge."""
    over = threading.Event()
    source = Script(["normal", lambda: busy.wait(PATIENCE_S) and None, "spot", "repeat", "error", over.set], clock)
    busy, kept, telemetry = threading.Event(), Records(), Telemetry()

    def work() -> None:
        busy.set()
        assert over.wait(PATIENCE_S)

    engine.before = work
    Line(detector, [Lane(source, "script")], [kept], telemetry, clock_ns=clock).run(threading.Event())
    assert_accounted([kept], telemetry, [source])
    assert kept.statuses == ["ok", "ok", "stale", "error"]
    assert kept.entries[1]["verdict"] == "anomalous"


def test_a_silent_camera_is_reported_again_and_again(detector: Detector, clock: Clock) -> None:
    silent, release = threading.Event(), threading.Event()

    def hang() -> None:
        silent.set()
        assert release.wait(PATIENCE_S)

    kept, telemetry = Records(), Telemetry()
    source = Script(["normal", hang, "normal"], clock)
    lane = Lane(source, "script", silence_s=5)
    run = threading.Thread(
        target=Line(detector, [lane], [kept], telemetry, clock_ns=clock).run, args=(threading.Event(),)
    )
    run.start()
    try:
        assert silent.wait(PATIENCE_S)
        for count in (1, 2):
            kept.heard.clear()
            clock.advance(5000)
            assert kept.heard.wait(PATIENCE_S)
            assert len(kept.events) == count
    finally:
        release.set()
        run.join(PATIENCE_S)
    for event in kept.events:
        VALIDATOR.validate(dict(event))
    assert [(event["count"], event["silent_s"], event["source"]) for event in kept.events] == [
        (1, 5.0, "script"),
        (2, 10.0, "script"),
    ]
    assert telemetry.counters.snapshot().lanes[0].no_frame == 2
    assert_accounted([kept], telemetry, [source])


@pytest.mark.parametrize("buffer", ["freshest", "every_frame"])
def test_a_fast_camera_waits_or_skips(detector: Detector, clock: Clock, buffer: Any) -> None:
    kept, telemetry = Records(), Telemetry()
    source = Script(["spot"] * 300, clock)
    Line(detector, [Lane(source, "script", buffer=buffer)], [kept], telemetry, clock_ns=clock).run(threading.Event())
    assert_accounted([kept], telemetry, [source])
    if buffer == "every_frame":
        assert kept.statuses == ["ok"] * 300
    else:
        assert {entry["reason"] for entry in kept.entries} <= {None, OVERTAKEN}
        assert kept.statuses[-1] == "ok"


def test_frames_left_out_on_purpose_are_never_captured(detector: Detector, clock: Clock) -> None:
    kept, telemetry = Records(), Telemetry()
    source = Script(["normal", "spot"] * 10, clock, live=False)
    lane = Lane(source, "the door", vid_stride=2, max_frames=6)
    Line(detector, [lane], [kept], telemetry, clock_ns=clock).run(threading.Event())
    assert [entry["frame_id"] for entry in kept.entries] == list(range(6))
    assert {entry["verdict"] for entry in kept.entries} == {"normal"}
    assert {entry["source"] for entry in kept.entries} == {"the door"}
    assert telemetry.frames == 6


def test_every_camera_has_its_own_numbers_and_threshold(batching: Detector, clock: Clock) -> None:
    kept, telemetry = Records(), Telemetry()
    sources = [Script(["spot"] * (5 + number), clock, name=f"camera {number}", live=False) for number in range(3)]
    lanes = [
        Lane(source, source.name, thresholds=None if number else Thresholds(2.0))
        for number, source in enumerate(sources)
    ]
    Line(batching, lanes, [kept], telemetry, clock_ns=clock).run(threading.Event())
    assert_accounted([kept], telemetry, sources)
    verdicts = {(entry["source"], entry["threshold"], entry["verdict"]) for entry in kept.entries}
    assert verdicts == {
        ("camera 0", 2.0, "normal"),
        ("camera 1", 0.6, "anomalous"),
        ("camera 2", 0.6, "anomalous"),
    }


def test_cameras_share_batches_and_scores_do_not_depend_on_them(
    batching: Detector, detector: Detector, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(batching, clock, monkeypatch)
    kinds = ["normal", "spot", "black", "spot", "normal"] * 4
    kept, telemetry = Records(), Telemetry()
    sources = [Script(kinds, clock, name=str(number), live=False) for number in range(4)]
    lanes = [Lane(source, source.name) for source in sources]
    Line(batching, lanes, [kept], telemetry, clock_ns=clock).run(threading.Event())
    assert_accounted([kept], telemetry, sources)
    assert engine.batches[:8] == [1, 1, 2, 2, 3, 3, 4, 4]  # every size is tried before the first frame
    assert max(engine.batches) <= 4
    assert sum(engine.batches[8:]) == 4 * 16
    for entry in kept.entries:
        alone = detector.judge(picture(entry["frame_id"], kinds[entry["frame_id"]]))
        assert (entry["score"], entry["verdict"]) == (alone.score, alone.verdict)


def test_an_engine_that_fails_on_a_batch_costs_the_frame_that_is_to_blame(
    batching: Detector, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(batching, clock, monkeypatch)
    kept, telemetry = Records(), Telemetry()
    sources = [
        Script(["normal", "poison", "spot"] * 6, clock, name="bad", live=False),
        Script(["normal"] * 18, clock, name="good", live=False),
    ]
    Line(batching, [Lane(one, one.name) for one in sources], [kept], telemetry, clock_ns=clock).run(threading.Event())
    assert_accounted([kept], telemetry, sources)
    for entry in kept.entries:
        is_poison = sources[entry["source"] == "good"].given[entry["frame_id"]] == "poison"
        assert entry["status"] == ("error" if is_poison else "ok")
        assert entry["reason"] == ("chokes on it" if is_poison else None)
    assert max(engine.batches) > 1


def test_a_batch_needs_a_graph_that_takes_one(fake_bundle: Callable[..., Bundle], tmp_path: Any) -> None:
    fixed = fake_bundle(tmp_path / "fixed.edgead", batch=2)
    with pytest.raises(ConfigError, match="wanted 1 to 2"):
        open_detector(fixed, engine="fake", batch=3)
    with open_detector(fixed, engine="fake") as detector:
        assert detector.max_batch == 2  # it is filled up anyway
        assert detector.judge(picture(0, "spot")).verdict == "anomalous"


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

    def before() -> None:
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

    window = Window(before=lambda: drawn_by.add(threading.current_thread()))
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

        def fail(writes: Iterator[int] = writes, failing: set[int] = failing) -> None:
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
