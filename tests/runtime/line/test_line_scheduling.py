"""A line with real threads on a clock that only its parts advance: deadlines, freezes, silence, batches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from kept_records import Records
from patience import PATIENCE_S
from scripted_line import Clock, Engine, Script, assert_accounted, one_by_one, picture

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import Thresholds
from edge_ad.errors import ConfigError
from edge_ad.record.verdict import OVERTAKEN
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import Telemetry


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
            clock.advance(5000)
            kept.wait(events=count)
            assert len(kept.events) == count
    finally:
        release.set()
        run.join(PATIENCE_S)
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
