"""A sound line keeps all promises under every fault, and every promise that a broken line does not keep is noticed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_ad.engine import BatchArray, Outputs
from edge_ad.errors import ConfigError, EngineError
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.engines.process.keeper import Keeper
from edge_ad.runtime.host.held import HeldName
from edge_ad.runtime.instruments.soak import dice as dice_module
from edge_ad.runtime.instruments.soak import faults, storms
from edge_ad.runtime.instruments.soak import round as round_module
from edge_ad.runtime.instruments.soak import soak as soak_module
from edge_ad.runtime.instruments.soak.faults import FAULTS, Fault
from edge_ad.runtime.instruments.soak.options import SoakOptions, soak_options
from edge_ad.runtime.instruments.soak.report import SoakResult, closing_lines
from edge_ad.runtime.instruments.soak.soak import Soak
from edge_ad.runtime.line import line as line_module
from edge_ad.runtime.line.events import LineEvents
from edge_ad.runtime.line.scheduling import sink_queue
from edge_ad.runtime.line.scheduling.counters import Counters
from edge_ad.runtime.line.scheduling.judging import Judging
from edge_ad.runtime.line.scheduling.ledger import Ledger
from edge_ad.runtime.line.scheduling.output import Outputs as SinkOutputs
from edge_ad.runtime.line.scheduling.repeats import Repeats
from edge_ad.runtime.line.scheduling.schedule import Schedule
from edge_ad.runtime.line.scheduling.sink_queue import SinkQueue
from edge_ad.runtime.line.telemetry import Telemetry
from edge_ad.runtime.sinks.ages import Ages
from edge_ad.runtime.sinks.jsonl import JsonLines
from edge_ad.runtime.sources.reconnect import Patience, Reconnecting
from edge_ad.signals.supervisor import Supervisor

BUNDLE = Path(str(resources.files("edge_ad.demo") / "disc.edgead"))
Patch = pytest.MonkeyPatch


def soak(seconds: float = 0.4, **options: Any) -> SoakResult:
    values = {"cameras": 2, "fps": 60.0, "budget_ms": 2000.0, "faults": (), "fault_rate": 0.3, **options}
    values.setdefault("engine_process", "off")  # which starts at once
    return Soak(SoakOptions(BUNDLE, seconds=seconds, **values)).run()


def broken(result: SoakResult) -> set[str]:
    return set(result.findings.counts)


def every(count: int) -> Callable[[], bool]:
    """True at every so many-th call."""
    calls = iter(range(1, 10**9))
    return lambda: next(calls) % count == 0


@pytest.fixture(autouse=True)
def quick(monkeypatch: Patch) -> None:
    monkeypatch.setattr(line_module, "STOP_S", 0.5)
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.05)


def test_a_line_without_faults_misses_nothing() -> None:
    result = soak(1.0, cameras=3, batch=3)
    assert broken(result) == set(), "\n".join(closing_lines(result))
    assert result.faults == {}
    statuses = result.totals.statuses
    assert set(statuses) <= {"ok", "skipped"}
    assert statuses["ok"] > 10


def test_the_same_seed_draws_the_same_faults() -> None:
    def drawn(seed: int) -> list[str | None]:
        plan = dice_module.Plan(FAULTS, seed=seed, rate=0.2)
        dice = dice_module.Dice("camera 0", "source", plan)
        kinds = {fault.strike: kind for kind, fault in FAULTS.items()}
        return [None if (fault := dice.draw()) is None else kinds[fault.strike] for _ in range(300)]

    assert drawn(3) == drawn(3) != drawn(4)
    assert len({kind for kind in drawn(3) if kind}) == 7


@pytest.mark.usefixtures("heard_interrupts")
def test_an_interrupt_ends_it_and_all_promises_hold() -> None:
    def interrupt(_: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    options = SoakOptions(
        BUNDLE, seconds=30, cameras=2, fps=60.0, faults=("repeat", "engine-slow"), fault_rate=0.3, every_s=0.4
    )
    result = Soak(options, interrupt).run()
    assert result.interrupted
    assert broken(result) == set(), "\n".join(closing_lines(result))
    assert result.totals.captured > 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
@pytest.mark.parametrize("heard", [True, False])
def test_control_a_storm_of_signals_is_not_heard(monkeypatch: Patch, heard: bool) -> None:
    if not heard:
        monkeypatch.setattr(storms, "HEARD_S", 0.2)
        monkeypatch.setattr(Supervisor, "_hangup", lambda self: None)
    result = soak(1.0, faults=("signal-storm",), fault_rate=0.5)
    assert result.faults["signal-storm"] > 0
    assert broken(result) == (set() if heard else {"signals"}), "\n".join(closing_lines(result))


def test_no_signal_is_sent_where_nobody_hears_it() -> None:
    """It would end the process."""
    results: list[SoakResult] = []
    thread = threading.Thread(target=lambda: results.append(soak(0.5, faults=("signal-storm",), fault_rate=1.0)))
    thread.start()
    thread.join()
    assert results[0].faults == {} and broken(results[0]) == set()


def test_cameras_that_drop_out_or_hang_come_back(monkeypatch: Patch) -> None:
    monkeypatch.setattr(soak_module, "WATCHDOG_S", 0.3)
    result = soak(2.0, faults=("drop", "hang", "corrupt"), fault_rate=0.03)
    assert broken(result) == set(), "\n".join(closing_lines(result))
    lost = sum(lane.disconnected for lane in result.totals.lanes)
    hung = sum(lane.hung for lane in result.totals.lanes)
    assert lost > hung > 0 and result.rounds == 1
    assert result.faults["drop"] + result.faults["hang"] - 4 <= lost  # a camera may be away when the line ends


def test_an_engine_that_crashes_or_hangs_costs_its_batch(monkeypatch: Patch) -> None:
    monkeypatch.setattr(soak_module, "LIMITS", replace(soak_module.LIMITS, answer_s=0.5))
    faults = ("engine-crash", "engine-hang")
    result = soak(4.0, engine_process="on", faults=faults, fault_rate=0.05, max_faults=4, fps=30.0)
    assert broken(result) == set(), "\n".join(closing_lines(result))
    assert sum(result.faults.values()) == 4
    assert 1 <= result.totals.statuses["error"] <= 4
    assert result.totals.statuses["ok"] > 10
    assert result.ended.processes == result.began.processes == 1


@pytest.mark.parametrize("way", ["no fresh process", "not counted"])
def test_control_an_engine_is_gone(monkeypatch: Patch, way: str) -> None:
    if way == "not counted":
        monkeypatch.setattr(Counters, "engine_restarts", lambda *_: None)
    else:
        monkeypatch.setattr(soak_module, "LIMITS", replace(soak_module.LIMITS, wait_s=0.3))
        original = Keeper._put_to_work

        def put_to_work(self: Keeper, worker: Any) -> None:
            if self._loaded is not None:
                raise EngineError("simulated: no fresh process")
            original(self, worker)

        monkeypatch.setattr(Keeper, "_put_to_work", put_to_work)
    result = soak(
        2.0, engine_process="on", faults=("engine-crash",), fault_rate=0.2, max_faults=3 if way == "not counted" else 1
    )
    assert "engine" in broken(result)


def test_what_strikes_a_process_needs_one() -> None:
    assert soak(0.3, faults=("engine-crash",), fault_rate=1.0).faults == {}
    with pytest.raises(ConfigError, match="engine-hang strike a process of the engine, and --engine-process is off"):
        soak_options({"bundle": "b", "engine_process": "off", "faults": "black,engine-hang"}, "options")
    assert soak_options({"bundle": "b", "engine_process": "off"}, "options").engine_process == "off"


def test_files_that_are_taken_away_and_a_clock_that_jumps_break_no_promise() -> None:
    faults = ("records-removed", "folder-removed", "clock-jump")
    result = soak(2.5, faults=faults, fault_rate=0.1, round_s=1.2, seed=3)
    assert broken(result) == set(), "\n".join(closing_lines(result))
    assert min(result.faults[kind] for kind in faults) > 0
    _, records, _, database = result.totals.sinks
    assert records.lost == records.gone > 0 and database.lost == database.gone > 0


@pytest.mark.parametrize("fault", ["records-removed", "folder-removed"])
def test_control_records_go_to_a_file_that_nobody_finds(monkeypatch: Patch, fault: str) -> None:
    monkeypatch.setattr(HeldName, "standing", "there")
    result = soak(1.0, faults=(fault,), fault_rate=0.1)
    assert "sinks" in broken(result)
    assert any("are counted as delivered" in example for example in result.findings.examples("sinks"))


def test_control_ages_by_a_clock_that_jumps(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Ages, "tick", lambda *_: None)
    monkeypatch.setattr(Ages, "age_s", lambda self, kind, number, at_s: self._now_s() - at_s)
    assert "kept" in broken(soak(1.0, faults=("clock-jump",), fault_rate=0.1))


def test_more_sinks_are_put_to_the_test_too(tmp_path: Path) -> None:
    options = SoakOptions(
        BUNDLE, seconds=0.8, cameras=2, fps=60.0, budget_ms=2000.0, faults=("sink-down",), fault_rate=0.1
    )
    made: list[JsonLines] = []

    def more_sinks() -> list[JsonLines]:
        made.append(JsonLines(tmp_path / str(len(made))))
        return made[-1:]

    result = Soak(options, more_sinks=more_sinks).run()
    assert broken(result) == set(), "\n".join(closing_lines(result))
    assert (result.rounds, len(made)) == (1, 1)
    counts = result.totals.sinks[4]
    assert counts.taken == result.totals.captured
    assert (tmp_path / "0" / "verdicts.jsonl").read_bytes().count(b"\n") == counts.delivered


@pytest.mark.parametrize("kind", ["disconnected", "reconnected"])
def test_control_nobody_is_told_of_an_outage(monkeypatch: Patch, kind: str) -> None:
    original = LineEvents.__init__

    def init(self: LineEvents, names: Any, counters: Any, write: Any, *rest: Any) -> None:
        original(self, names, counters, lambda entry: entry["event"] == kind or write(entry), *rest)

    monkeypatch.setattr(LineEvents, "__init__", init)
    assert "outages" in broken(soak(1.0, faults=("drop",), fault_rate=0.2))


def test_control_a_camera_that_is_not_opened_again_ends_the_line() -> None:
    options = SoakOptions(BUNDLE, seconds=5.0, cameras=1, fps=60.0, faults=("drop",), fault_rate=1.0, max_faults=1)
    result = Soak(options, protect=lambda open_anew: Reconnecting(open_anew, Patience(reconnect_s=0))).run()
    assert "goes on" in broken(result)
    assert "simulated: unplugged" in result.findings.examples("goes on")[0]


def test_control_a_frame_is_counted_twice(monkeypatch: Patch) -> None:
    original, now = Counters.captured, every(10)

    def captured(self: Counters, lane: int) -> None:
        original(self, lane)
        if now():
            original(self, lane)

    monkeypatch.setattr(Counters, "captured", captured)
    assert "account" in broken(soak())


@pytest.mark.parametrize("times", [0, 2])
def test_control_a_record_is_lost_or_doubled(monkeypatch: Patch, times: int) -> None:
    original, now = SinkOutputs.deliver, every(7)

    def deliver(self: SinkOutputs, ticket: Any) -> None:
        for _ in range(times if now() else 1):
            original(self, ticket)

    monkeypatch.setattr(SinkOutputs, "deliver", deliver)
    result = soak()
    assert "record" in broken(result)
    wanted = "has a second record" if times else "has no record"
    assert wanted in result.findings.examples("record")[0]


def test_control_records_overtake_each_other(monkeypatch: Patch) -> None:
    original, now = SinkOutputs.deliver, every(7)
    held: list[Any] = []

    def deliver(self: SinkOutputs, ticket: Any) -> None:
        if now():
            held.append(ticket)
            return
        original(self, ticket)
        while held and held[-1].lane == ticket.lane:
            original(self, held.pop())

    monkeypatch.setattr(SinkOutputs, "deliver", deliver)
    assert "order" in broken(soak())


@pytest.mark.parametrize("fault", ["black", "corrupt", "engine-error", "engine-nan"])
def test_control_a_frame_is_normal_without_having_been_scored(monkeypatch: Patch, fault: str) -> None:
    original = Ledger.settle

    def settle(self: Ledger, ticket: Any, verdict: Verdict) -> bool:
        if verdict.score is None:
            verdict = replace(verdict, status="ok", score=0.1, threshold=0.7, verdict="normal", reason=None)
            verdict = replace(verdict, timings_ms={**verdict.timings_ms, "total": 1.0})
        return original(self, ticket, verdict)

    monkeypatch.setattr(Ledger, "settle", settle)
    result = soak(faults=(fault,))
    assert "scored" in broken(result)
    assert "normal, but the engine never saw it" in result.findings.examples("scored")[0]


def test_control_a_torn_jpeg_is_completed_as_ffmpeg_does_it(monkeypatch: Patch) -> None:
    monkeypatch.setattr(faults, "bgr_of_packet", lambda packet: cv2.imdecode(packet, cv2.IMREAD_COLOR))
    result = soak(faults=("torn-mjpeg",))
    assert "spoiled" in broken(result)
    assert "corrupt, and its status is ok" in result.findings.examples("spoiled")[0]


def test_control_a_frame_gets_the_score_of_another(monkeypatch: Patch) -> None:
    original = Judging._concluded
    last: list[Any] = []

    def concluded(self: Judging, batch: Any, index: int) -> Verdict:
        mixed = replace(batch, outputs=last[-1]) if last else batch
        last[:] = [batch.outputs]
        return original(self, mixed, index)

    monkeypatch.setattr(Judging, "_concluded", concluded)
    assert "own score" in broken(soak())


def test_control_a_verdict_does_not_follow_from_the_score(monkeypatch: Patch) -> None:
    original = Judging._concluded

    def concluded(self: Judging, batch: Any, index: int) -> Verdict:
        return replace(original(self, batch, index), verdict="normal")

    monkeypatch.setattr(Judging, "_concluded", concluded)
    assert "own score" in broken(soak())


def test_control_a_record_goes_with_the_picture_of_another(monkeypatch: Patch) -> None:
    original = SinkOutputs.deliver
    last: list[Any] = []

    def deliver(self: SinkOutputs, ticket: Any) -> None:
        image = ticket.frame.image_hwc
        if last and image is not None:
            ticket.frame = replace(ticket.frame, image_hwc=last[-1])
        if image is not None:
            last[:] = [image]
        original(self, ticket)

    monkeypatch.setattr(SinkOutputs, "deliver", deliver)
    assert "own picture" in broken(soak())


def test_control_a_frozen_camera_is_judged(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Repeats, "is_repeat", lambda *_: False)
    assert "spoiled" in broken(soak(faults=("repeat",)))


@pytest.fixture
def slow_engine(monkeypatch: Patch) -> None:
    """A kind of fault that is not in the registry: an engine that takes 20 ms for every batch."""

    def dawdle(engine: Any, dice: Any, batch_nhwc: BatchArray) -> Outputs:
        engine.closed.wait(0.02)
        outputs: Outputs = engine.compute(batch_nhwc)
        return outputs

    monkeypatch.setitem(FAULTS, "dawdle", Fault("engine", dawdle))


def test_control_a_late_verdict_passes_for_one_in_time(monkeypatch: Patch, slow_engine: None) -> None:
    original = Judging._concluded

    def concluded(self: Judging, batch: Any, index: int) -> Verdict:
        return replace(original(self, batch, index), status="ok")

    monkeypatch.setattr(Judging, "_concluded", concluded)
    assert "deadline" in broken(soak(faults=("dawdle",), fault_rate=1.0, budget_ms=5.0))


def test_control_a_sink_is_said_to_have_what_it_has_not(monkeypatch: Patch) -> None:
    original, now = SinkQueue._write, every(9)

    def write(self: SinkQueue, item: Any) -> None:
        if not now():
            original(self, item)

    monkeypatch.setattr(SinkQueue, "_write", write)
    assert "sinks" in broken(soak())


def test_control_a_sink_ends_the_line(monkeypatch: Patch) -> None:
    original = SinkQueue.__init__

    def init(self: SinkQueue, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **{**named, "forgiving": False})

    monkeypatch.setattr(SinkQueue, "__init__", init)
    result = soak(faults=("sink-down",))
    assert "goes on" in broken(result)
    assert "simulated: no connection" in result.findings.examples("goes on")[0]


def test_control_a_line_does_not_stop_in_time(monkeypatch: Patch) -> None:
    monkeypatch.setattr(round_module, "STOP_SLACK_S", -100.0)
    assert "goes on" in broken(soak())


@pytest.mark.parametrize("fair", [True, False])
def test_control_one_camera_comes_first(monkeypatch: Patch, slow_engine: None, fair: bool) -> None:
    monkeypatch.setattr(round_module, "FEW", 10)

    def first(self: Schedule) -> int | None:
        return next((lane for lane, queue in enumerate(self._queues) if queue.waiting), None)

    if not fair:
        monkeypatch.setattr(Schedule, "_next_lane", first)
        monkeypatch.setattr(Schedule, "_held", lambda *_: None)
    result = soak(0.9, faults=("dawdle",), fault_rate=1.0, fps=200.0)
    assert ("fairness" in broken(result)) == (not fair), "\n".join(closing_lines(result))


def test_control_memory_grows(monkeypatch: Patch) -> None:
    original = Telemetry.add
    kept: list[Any] = []

    def add(self: Telemetry, frame: Any, verdict: Verdict) -> None:
        kept.append(np.ones(2**20, np.uint8))
        original(self, frame, verdict)

    monkeypatch.setattr(Telemetry, "add", add)
    assert broken(soak(1.6, memory_mib=8.0)) == {"memory"}


@pytest.fixture
def release() -> Iterator[threading.Event]:
    release = threading.Event()
    yield release
    release.set()


@pytest.mark.parametrize("what", ["thread", "file"])
def test_control_a_line_leaves_something_behind(monkeypatch: Patch, release: threading.Event, what: str) -> None:
    monkeypatch.setattr(soak_module, "SETTLE_S", 0.2)
    original = line_module.Line._end
    left: list[Any] = []

    def end(self: Any, *arguments: Any, **named: Any) -> None:
        if what == "thread":
            threading.Thread(target=release.wait, daemon=True).start()
        else:
            left.append(open(os.devnull))  # noqa: SIM115
        original(self, *arguments, **named)

    monkeypatch.setattr(line_module.Line, "_end", end)
    assert broken(soak(0.3)) == {"left over"}
    for file in left:
        file.close()
