"""A line that is interrupted, or whose user interface and sinks fail: no record is lost, torn or doubled."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from kept_records import Records
from misbehaving_line import Script, frames, run
from patience import PATIENCE_S

from edge_ad.errors import OutputError
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.line import line as line_module
from edge_ad.runtime.line.line import Line
from edge_ad.runtime.line.scheduling import output, sink_queue
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.telemetry import Telemetry
from edge_ad.runtime.sinks.jsonl import JsonLines

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.mark.parametrize("live", [False, True])
def test_a_user_interface_that_is_gone_costs_no_record(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    """Standard error is a file on the disk that is full, or a pipe that nobody reads any more."""
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.0)
    failing = iter([True, True])

    def fails(_: Mapping[str, Any]) -> None:
        if next(failing, False):
            raise OutputError("disk full")

    def say(_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = Records(fails if live else lambda _: None)
    run(detector, Script(frames(200), live=live), kept, say=say)
    assert [entry["frame_id"] for entry in kept.entries] == list(range(200))


def test_an_interrupt_while_the_line_starts_leaves_no_thread(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None
) -> None:
    def interrupted(_: Line, *__: Any) -> None:
        raise KeyboardInterrupt

    kept, stop = Records(), threading.Event()
    monkeypatch.setattr(Line, "_attend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(detector, Script(frames(10**4)), kept, stop=stop)
    assert stop.is_set()


def test_a_stop_ends_the_wait_for_a_sink_that_hangs_at_the_end_of_files(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM after the last picture: the disk does not answer, and the system would kill the process."""
    monkeypatch.setattr(output, "FLUSH_S", 0.2)
    hangs, release, stop = threading.Event(), threading.Event(), threading.Event()

    def hang(_: Mapping[str, Any]) -> None:
        hangs.set()
        release.wait(2 * PATIENCE_S)

    ended = threading.Event()

    def run_it() -> None:
        run(detector, Script(frames(3), live=False), Records(hang), stop=stop)
        ended.set()

    threading.Thread(target=run_it, daemon=True).start()
    try:
        assert hangs.wait(PATIENCE_S)
        assert not ended.wait(0.3)  # without a stop it waits, for nothing may be lost
        stop.set()
        assert ended.wait(PATIENCE_S)
    finally:
        release.set()


@pytest.mark.parametrize("room", [0, 1, 300, 700, 1500])
def test_a_full_disk_behind_standard_output_neither_tears_nor_doubles_a_record(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """What a failed write has left in a buffer is not to be written beside the second attempt."""
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.0)
    left, refusals, original = room, 0, os.write

    def write(descriptor: int, data: bytes) -> int:
        nonlocal left, refusals
        if descriptor != watched:
            return original(descriptor, data)
        if left == 0 and refusals < 3:
            refusals += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = original(descriptor, data[: left or None])
        left = max(0, left - taken)
        return taken

    path = tmp_path / "verdicts.jsonl"
    monkeypatch.setattr("sys.stdout", path.open("w", encoding="utf-8"))
    watched = sys.stdout.fileno()
    with JsonLines(None) as sink:
        monkeypatch.setattr(os, "write", write)
        run(detector, Script(frames(6)), sink)
        monkeypatch.setattr(os, "write", original)
    sys.stdout.close()
    assert refusals == 3
    assert [json.loads(text)["frame_id"] for text in path.read_text().splitlines()] == list(range(6))


def test_a_record_that_can_never_be_written_does_not_block_those_behind_it(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.0)
    said: list[str] = []

    def chokes(entry: Mapping[str, Any]) -> None:
        if entry["frame_id"] == 2:
            raise TypeError("a defect of the sink")

    kept = Records(chokes)
    telemetry = run(detector, Script(frames(6)), kept, say=said.append)
    assert [entry["frame_id"] for entry in kept.entries] == [0, 1, 3, 4, 5]
    (counts,) = telemetry.counters.snapshot().sinks
    assert (counts.delivered, counts.lost, counts.failures) == (5, 1, sink_queue.MAX_TRIES)
    assert said[-1] == "Records writes again; 1 of its records are lost"


def test_an_interrupt_while_a_sink_hangs_at_the_end_does_not_close_it_under_its_write(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is out of patience: whoever runs the line then closes what does not hang."""
    monkeypatch.setattr(output, "FLUSH_S", PATIENCE_S)
    hangs, release, stop = threading.Event(), threading.Event(), threading.Event()

    def hang(_: Mapping[str, Any]) -> None:
        hangs.set()
        release.wait(2 * PATIENCE_S)

    hanging, other = Records(hang), Records()
    line = Line(detector, [Lane(Script(frames(3)), "script")], [hanging, other], Telemetry())
    original = threading.Thread.join

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "edge-ad-Records" and hangs.is_set():
            raise KeyboardInterrupt
        original(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    try:
        with pytest.raises(KeyboardInterrupt):
            line.run(stop)
        assert hanging in line.hung
    finally:
        release.set()


@pytest.mark.parametrize("moment", range(0, 70, 3))
def test_an_interrupt_at_any_moment_leaves_one_record_for_every_frame(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, quick_stop: None, moment: int
) -> None:
    """Of a program that runs a line without catching Ctrl-C itself; at the start, in the middle, or while it ends."""
    watched = {Line._attend.__code__, Line._end.__code__}
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code not in watched:
            return None
        if event == "line":
            seen += 1
            if seen == moment + 1:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    monkeypatch.setattr(line_module, "TICK_S", 0.01)
    kept, telemetry, given = Records(), Telemetry(), frames(40)
    line = Line(detector, [Lane(Script(given), "script", buffer="every_frame")], [kept], telemetry)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        line.run(threading.Event())
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    (lane,), (sink,) = telemetry.counters.snapshot().lanes, telemetry.counters.snapshot().sinks
    assert telemetry.counters.snapshot().adds_up
    assert (lane.in_flight, sink.waiting) == (0, 0)
    assert sink.taken == lane.captured
    assert sink.delivered == len(kept.entries) == lane.captured - sink.lost
    assert [entry["frame_id"] for entry in kept.entries] == list(range(len(kept.entries)))
