"""Records leave in order of capture and once each, in whatever order verdicts arrive."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from typing import Any, cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.image.frame import Frame, FrameSource
from edge_ad.record.verdict import Provenance, Status, Verdict
from edge_ad.runtime.line.scheduling import ledger
from edge_ad.runtime.line.scheduling.counters import Counters
from edge_ad.runtime.line.scheduling.lane import Lane
from edge_ad.runtime.line.scheduling.ledger import Ledger
from edge_ad.runtime.line.scheduling.ticket import Ticket

PATIENCE_S = 10
SOURCE = cast("FrameSource", type("Source", (), {"live": True}))


def _frame(number: int) -> Frame:
    image = np.full((4, 6, 3), number % 256, np.uint8)
    return Frame(number, "test", datetime.now(timezone.utc), 1000 * number, image)


def _ledger(budget_ms: float | None = None) -> tuple[Ledger, Counters, list[Ticket]]:
    counters, delivered = Counters(), []
    number = counters.add_lane("test")
    lane = Lane(SOURCE, "test", budget_ms=budget_ms)
    return Ledger(number, lane, Provenance("0" * 64, "fake", "fp32"), counters, delivered.append), counters, delivered


def _verdict(status: Status) -> Verdict:
    return Verdict(status, score=0.5) if status == "ok" else Verdict(status, reason=f"it was {status}")


@settings(max_examples=100, derandomize=True, deadline=None)
@given(data=st.data(), count=st.integers(0, 12))
def test_in_order_and_once(data: st.DataObject, count: int) -> None:
    book, counters, delivered = _ledger()
    tickets = [book.capture(_frame(number)) for number in range(count)]
    order = data.draw(st.permutations(range(count)))
    settled = data.draw(st.integers(0, count))
    for done, number in enumerate(order[:settled], 1):
        ticket = tickets[number]
        assert ticket is not None
        assert book.settle(ticket, _verdict("ok"))
        assert not book.settle(ticket, _verdict("error"))
        front = next((first for first in range(count) if first not in order[:done]), count)
        assert [one.frame.frame_id for one in delivered] == list(range(front))
    (lane,) = counters.snapshot().lanes
    assert (lane.captured, lane.statuses.get("ok", 0), lane.in_flight) == (count, settled, count - settled)
    assert lane.adds_up
    book.close(_verdict("error"))
    assert book.capture(_frame(count)) is None
    assert [one.frame.frame_id for one in delivered] == list(range(count))
    assert [one.settled[0].status for one in delivered if one.settled] == [
        "ok" if number in order[:settled] else "error" for number in range(count)
    ]
    assert counters.snapshot().lanes[0].in_flight == 0


def test_a_record_of_a_frame_that_was_passed_over_holds_no_picture_but_its_size() -> None:
    book, _, delivered = _ledger(budget_ms=40)
    for number, status in enumerate(("skipped", "stale", "ok", "unusable")):
        ticket = book.capture(_frame(number))
        assert ticket is not None
        assert ticket.deadline_ns == 1000 * number + 40_000_000
        book.settle(ticket, _verdict(cast("Status", status)))
    assert [one.frame.image_hwc is None for one in delivered] == [True, True, False, False]
    entries: list[dict[str, Any]] = [one.settled[1] for one in delivered if one.settled]
    assert [entry["frame_size"] for entry in entries] == [[6, 4]] * 4
    assert [entry["budget_ms"] for entry in entries] == [40] * 4


def test_a_source_waits_when_very_many_frames_are_open(monkeypatch: Any) -> None:
    monkeypatch.setattr(ledger, "MAX_OPEN", 5)
    book, counters, delivered = _ledger()
    tickets: list[Ticket | None] = []
    full, through = threading.Event(), threading.Event()

    def capture() -> None:
        for number in range(6):
            tickets.append(book.capture(_frame(number)))
            if number == 4:
                full.set()
        through.set()

    thread = threading.Thread(target=capture, daemon=True)
    thread.start()
    assert full.wait(PATIENCE_S)
    assert counters.snapshot().captured == 5
    assert not through.wait(0.05)
    assert tickets[0] is not None
    book.settle(tickets[0], _verdict("ok"))
    assert through.wait(PATIENCE_S)
    assert len(delivered) == 1
    assert counters.snapshot().captured == 6
