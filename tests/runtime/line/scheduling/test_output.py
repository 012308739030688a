"""Sinks behind queues: order, limits, retries, and an account that adds up whatever a sink does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import OutputError
from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.host.messages import BURST
from edge_ad.runtime.line.scheduling import sink_queue
from edge_ad.runtime.line.scheduling.counters import Counters
from edge_ad.runtime.line.scheduling.output import Outputs
from edge_ad.runtime.line.scheduling.ticket import Ticket
from edge_ad.runtime.sinks import OnePictureError
from edge_ad.runtime.sinks.counts import SinkCounts

PATIENCE_S = 10


class Kept:
    """A sink that keeps the numbers of its frames; `before` may raise or hang."""

    keeps_records = True

    def __init__(self, before: Callable[[int], None] = lambda _: None) -> None:
        self.before = before
        self.numbers: list[int] = []
        self.pictures: list[bool] = []

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
        self.before(frame.frame_id)
        self.numbers.append(frame.frame_id)
        self.pictures.append(frame.image_hwc is not None)


class Pictures(Kept):
    keeps_records = False


class Here(Pictures):
    """Written when the caller works, so a test decides when."""

    in_caller_thread = True


class HereKept(Kept):
    in_caller_thread = True


class Bench:
    """Outputs with one sink, and what they report."""

    def __init__(self, *sinks: Kept, forgiving: bool = True) -> None:
        self.counters = Counters()
        self.said: list[str] = []
        self.failures: list[Exception] = []
        self.outputs = Outputs(
            sinks,
            self.counters,
            forgiving=forgiving,
            failed=self.failures.append,
            say=self.said.append,
            wrote=lambda _: None,
            wake=lambda: None,
        )
        self.outputs.start()

    def put(self, number: int, *, live: bool = True, picture: bool = True) -> None:
        image = np.zeros((4, 4, 3), np.uint8) if picture else None
        frame = Frame(number, "test", datetime.now(timezone.utc), 0, image)
        verdict = Verdict("ok", score=0.5) if picture else Verdict("skipped", reason="too old")
        self.outputs.deliver(Ticket(0, frame, may_skip=live, settled=(verdict, {"frame_id": number})))

    def counts(self, sink: int = 0) -> SinkCounts:
        counts = self.counters.snapshot().sinks[sink]
        assert counts.adds_up
        assert min(counts.taken, counts.delivered, counts.lost, counts.dropped, counts.waiting) >= 0
        return counts


def test_a_ticket_that_is_delivered_holds_no_picture() -> None:
    """Threads that wait for work still refer to their last ticket; a large picture is not kept by that."""
    here = Here()
    bench = Bench(here)
    frame = Frame(0, "test", datetime.now(timezone.utc), 0, np.zeros((4, 4, 3), np.uint8))
    ticket = Ticket(0, frame, settled=(Verdict("ok", score=0.5), {"frame_id": 0}))
    bench.outputs.deliver(ticket)
    assert ticket.frame.image_hwc is None
    bench.outputs.work()
    assert here.pictures == [True]
    bench.outputs.close(None)


def test_every_sink_gets_every_record_in_order() -> None:
    kept, pictures = Kept(), Pictures()
    bench = Bench(kept, pictures, forgiving=False)
    for number in range(500):
        bench.put(number, live=False)
    assert bench.outputs.close(None) == ()
    assert kept.numbers == pictures.numbers == list(range(500))
    assert (set(kept.pictures), set(pictures.pictures)) == ({False}, {True})  # records wait without their pictures
    assert bench.counts(0) == SinkCounts("Kept", taken=500, delivered=500)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["picture", "bare", "file", "work", "fails", "works", "event"]), max_size=60),
    kind=st.sampled_from([Here, HereKept]),
)
def test_the_account_adds_up_whatever_a_sink_does(steps: list[str], kind: type[Kept]) -> None:
    broken = False

    def before(_: int) -> None:
        if broken:
            raise OutputError("disk full")

    sink = kind(before)
    limits = (sink_queue.RETRY_S, sink_queue.MAX_RECORDS, sink_queue.MAX_PICTURES)
    sink_queue.RETRY_S, sink_queue.MAX_RECORDS, sink_queue.MAX_PICTURES = 0.0, 6, 3
    try:
        bench, put = Bench(sink), 0
        for step in steps:
            if step in ("picture", "bare", "file"):
                bench.put(put, live=step != "file", picture=step != "bare")
                put += 1
            elif step == "event":
                bench.outputs.event({"event": "no_frame"})  # this sink takes none
            elif step == "work":
                bench.outputs.work()
            else:
                broken = step == "fails"
            bench.counts()
        bench.outputs.close(0.05)
    finally:
        sink_queue.RETRY_S, sink_queue.MAX_RECORDS, sink_queue.MAX_PICTURES = limits
    counts = bench.counts()
    assert (counts.taken, counts.waiting) == (put, 0)
    assert counts.delivered == len(sink.numbers)
    assert sink.numbers == sorted(set(sink.numbers))
    assert (counts.dropped if sink.keeps_records else counts.lost) == 0


def test_the_oldest_pictures_make_room_and_records_of_files_do_not() -> None:
    sink = Here()
    bench = Bench(sink)
    bench.put(0, live=False)
    for number in range(1, 20):
        bench.put(number)
    bench.outputs.work()
    assert sink.numbers == [0, *range(13, 20)]
    assert (bench.counts().delivered, bench.counts().dropped) == (sink_queue.MAX_PICTURES, 12)


def test_records_without_pictures_do_not_push_pictures_out() -> None:
    sink = Here()
    bench = Bench(sink)
    for number in range(100):
        bench.put(number, picture=number < sink_queue.MAX_PICTURES)
    bench.outputs.work()
    bench.outputs.work()
    assert sink.numbers == list(range(100))


@pytest.mark.parametrize("forgiving", [True, False])
@pytest.mark.parametrize("kind", [OnePictureError, OutputError])
def test_one_picture_that_cannot_be_kept_ends_no_line_and_a_sink_that_fails_ends_one_of_files(
    kind: type[OutputError], forgiving: bool
) -> None:
    def before(number: int) -> None:
        if number % 2:
            raise kind(f"picture {number}")

    sink = Here(before)
    bench = Bench(sink, forgiving=forgiving)
    for number in range(2 * BURST + 4):
        bench.put(number, live=forgiving)
        bench.outputs.work()
    counts = bench.counts()
    assert counts.adds_up
    if kind is OutputError and not forgiving:
        assert [str(exc) for exc in bench.failures] == ["picture 1"]
        assert sink.numbers == [0]
        return
    assert bench.failures == []
    assert sink.numbers == list(range(0, 2 * BURST + 4, 2))
    assert (counts.dropped, counts.failures, counts.waiting) == (BURST + 2, BURST + 2, 0)
    if kind is OnePictureError:
        assert bench.said[0] == "warning: picture 1; it is left out"
        assert len(bench.said) == BURST


def test_a_failing_sink_of_a_live_line_is_said_once_and_gets_its_records_later(monkeypatch: Any) -> None:
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.0)
    down = True

    def before(_: int) -> None:
        if down:
            raise OutputError("disk full")

    sink = HereKept(before)
    bench = Bench(sink)
    for number in range(5):
        bench.put(number)
        bench.outputs.work()
    assert sink.numbers == []
    assert bench.said == ["warning: disk full; records wait for it"]
    assert bench.counts().waiting == 5
    down = False
    bench.outputs.work()
    assert sink.numbers == list(range(5))
    assert bench.said[1:] == ["HereKept writes again; 0 of its records are lost"]
    assert bench.failures == []


def test_a_sink_that_fails_while_the_line_ends_is_tried_until_the_time_is_up(monkeypatch: Any) -> None:
    """One refusal at that moment is no reason to give up all that waits."""
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.0)
    failing, gate = iter([True] * 5), threading.Event()

    def before(number: int) -> None:
        assert_set(gate)
        if number == 3 and next(failing, False):
            raise OutputError("no connection")

    sink = Kept(before)
    bench = Bench(sink)
    for number in range(50):
        bench.put(number)
    threading.Timer(0.05, gate.set).start()
    assert bench.outputs.close(PATIENCE_S) == ()
    assert sink.numbers == list(range(50))
    assert (bench.counts().delivered, bench.counts().failures) == (50, 5)


def test_a_sink_that_never_writes_does_not_hold_the_end_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.01)

    def before(_: int) -> None:
        raise OutputError("no connection")

    bench = Bench(Kept(before))
    for number in range(50):
        bench.put(number)
    assert bench.outputs.close(0.3) == ()
    assert (bench.counts().lost, bench.counts().waiting) == (50, 0)
    assert "could not be written any more (Kept)" in bench.said[-1]


def test_a_record_that_is_too_many_is_lost_and_counted(monkeypatch: Any) -> None:
    monkeypatch.setattr(sink_queue, "MAX_RECORDS", 10)
    sink = HereKept()
    bench = Bench(sink)
    for number in range(25):
        bench.put(number)
    bench.outputs.close(None)
    assert sink.numbers == list(range(15, 25))  # the oldest are lost first
    assert bench.counts().lost == 15


@pytest.mark.parametrize("failure", [OutputError("disk full"), ValueError("a defect")])
def test_a_failing_sink_ends_a_line_that_waits(failure: Exception) -> None:
    def before(number: int) -> None:
        if number == 3:
            raise failure

    sink = Kept(before)
    bench = Bench(sink, forgiving=False)
    for number in range(10):
        bench.put(number, live=False)
    bench.outputs.close(None)
    assert bench.failures == [failure]
    assert sink.numbers == [0, 1, 2]
    assert bench.counts().lost == 7


def test_a_closed_pipe_ends_a_live_line_too() -> None:
    def before(_: int) -> None:
        raise BrokenPipeError

    bench = Bench(Kept(before))
    bench.put(0)
    bench.outputs.close(None)
    assert [type(failure) for failure in bench.failures] == [BrokenPipeError]


def test_a_sink_that_hangs_holds_nothing_up() -> None:
    release = threading.Event()
    hanging, other = Kept(lambda _: assert_set(release)), Kept()
    bench = Bench(hanging, other)
    for number in range(10):
        bench.put(number)
    try:
        assert bench.outputs.close(0.2) == (hanging,)
        assert other.numbers == list(range(10))
        assert (bench.counts(0).lost, bench.counts(0).waiting) == (9, 1)  # one is still in its hands
        assert bench.said == ["warning: 9 records could not be written any more (Kept)"]
    finally:
        release.set()


def assert_set(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S)


def test_a_source_that_can_wait_does_so_while_a_sink_is_behind() -> None:
    release, stop, gone_on = threading.Event(), threading.Event(), threading.Event()
    bench = Bench(Pictures(lambda _: assert_set(release)), forgiving=False)
    for number in range(sink_queue.MAX_PICTURES + 1):
        bench.put(number, live=False)

    def wait() -> None:
        assert bench.outputs.wait_for_room(stop)
        gone_on.set()

    threading.Thread(target=wait, daemon=True).start()
    assert not gone_on.wait(0.05)
    release.set()
    assert gone_on.wait(PATIENCE_S)
    bench.outputs.close(None)
    assert bench.counts().delivered == sink_queue.MAX_PICTURES + 1


def test_events_go_to_the_sinks_that_take_them() -> None:
    class Events(Kept):
        def __init__(self) -> None:
            super().__init__()
            self.events: list[Mapping[str, Any]] = []

        def event(self, entry: Mapping[str, Any]) -> None:
            self.events.append(entry)

    sink = Events()
    bench = Bench(sink, Kept())
    bench.outputs.event({"event": "no_frame"})
    bench.outputs.close(None)
    assert sink.events == [{"event": "no_frame"}]
    assert (bench.counts(0).delivered, bench.counts(1).taken) == (1, 0)


def test_events_of_a_sink_reach_the_others_up_to_the_end() -> None:
    """Also those of its last records, though all queues close at the same time."""

    class Raising(Kept):
        def raise_events(self, emit: Callable[[Mapping[str, Any]], None]) -> None:
            self.emit = emit

        def write(self, frame: Frame, verdict: Verdict, entry: Mapping[str, Any]) -> None:
            time.sleep(0.002)
            self.emit({"event": "drift", "number": frame.frame_id})

    class Taking(Kept):
        def __init__(self) -> None:
            super().__init__()
            self.events: list[int] = []

        def event(self, entry: Mapping[str, Any]) -> None:
            self.events.append(entry["number"])

    sinks = [Taking(), Raising(), Taking()]
    bench = Bench(*sinks)
    for number in range(50):
        bench.put(number)
    assert bench.outputs.close(PATIENCE_S) == ()
    for index in (0, 2):
        assert sinks[index].events == list(range(50))  # type: ignore[attr-defined]
        assert bench.counts(index) == SinkCounts("Taking", taken=100, delivered=100)


def test_what_a_sink_still_has_to_deliver_stands_beside_it_in_the_counts() -> None:
    class Storing(Kept):
        def account(self) -> SinkCounts:
            return SinkCounts("store", taken=len(self.numbers), waiting=len(self.numbers) - 1, lost=1)

    bench = Bench(Storing())
    for number in range(5):
        bench.put(number)
    bench.outputs.close(None)
    snapshot = bench.counters.snapshot()
    assert snapshot.sinks == (SinkCounts("Storing", taken=5, delivered=5), SinkCounts("store", 5, 0, 1, 0, 4))
    assert snapshot.adds_up
