"""What the queue does for sinks with files: several records at once, a look when there is nothing to write, losses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from edge_ad.errors import OutputError
from edge_ad.runtime.line.scheduling import sink_queue
from edge_ad.runtime.line.scheduling.counters import Counters
from edge_ad.runtime.line.scheduling.output import Outputs
from edge_ad.runtime.sinks import BusyError


class Files:
    """A sink that takes many records at once; `before` may raise or wait, `looks` may raise."""

    keeps_records = True
    linger_s = 0.0

    def __init__(self) -> None:
        self.before: Callable[[Sequence[int]], object] = lambda _: None
        self.looks: Callable[[], object] = lambda: None
        self.batches: list[list[int]] = []
        self.off: dict[str, int] = {}
        self.trouble: str | None = None
        self.looked = threading.Event()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def write(self, *_: Any) -> None:
        raise AssertionError("records are written together")

    def event(self, entry: Mapping[str, Any]) -> None:
        raise AssertionError("records are written together")

    def write_many(self, entries: Sequence[Mapping[str, Any]]) -> None:
        numbers = [entry["number"] for entry in entries]
        self.before(numbers)
        self.batches.append(numbers)

    def look(self) -> None:
        self.looked.set()
        self.looks()

    def written_off(self) -> Mapping[str, int]:
        off, self.off = self.off, {}
        return off

    @property
    def numbers(self) -> list[int]:
        return [number for batch in self.batches for number in batch]


class Bench:
    def __init__(self, sink: Files, *, forgiving: bool = True) -> None:
        self.counters, self.said, self.failures = Counters(), list[str](), list[Exception]()
        self.wrote: list[float] = []
        self.outputs = Outputs(
            [sink],
            self.counters,
            forgiving=forgiving,
            failed=self.failures.append,
            say=self.said.append,
            wrote=self.wrote.append,
            wake=lambda: None,
        )

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.outputs.event({"number": number})

    def counts(self) -> Any:
        counts = self.counters.snapshot().sinks[0]
        assert counts.adds_up
        return counts


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_queue, "LOOK_S", 0.01)
    monkeypatch.setattr(sink_queue, "RETRY_S", 0.01)


@pytest.fixture
def sink() -> Files:
    return Files()


def test_what_waits_is_written_together_in_order(sink: Files) -> None:
    bench = Bench(sink)
    bench.put(*range(100))
    bench.outputs.start()
    bench.outputs.close(None)
    assert sink.numbers == list(range(100))
    assert [len(batch) for batch in sink.batches] == [32, 32, 32, 4]
    assert (bench.counts().delivered, len(bench.wrote)) == (100, 100)


def test_the_first_waits_for_others_but_not_at_the_end(sink: Files, until: Any) -> None:
    sink.linger_s = 0.2
    bench = Bench(sink)
    bench.outputs.start()
    bench.put(0)
    time.sleep(0.02)
    bench.put(1, 2)
    until(lambda: bool(sink.batches))
    assert sink.batches == [[0, 1, 2]]
    sink.linger_s = bench.outputs._queues[0]._linger_s = 3600.0
    bench.put(3)
    bench.outputs.close(5.0)
    assert sink.numbers == [0, 1, 2, 3]


def test_a_record_that_cannot_be_written_takes_no_other_with_it(sink: Files) -> None:
    def choke(numbers: Sequence[int]) -> None:
        if 7 in numbers:
            raise ValueError("cannot be encoded")

    sink.before = choke
    bench = Bench(sink)
    bench.put(*range(20))
    bench.outputs.start()
    bench.outputs.close(None)
    assert sink.numbers == [number for number in range(20) if number != 7]
    counts = bench.counts()
    assert (counts.delivered, counts.lost) == (19, 1)


def test_what_is_refused_is_kept_in_order(sink: Files) -> None:
    fails = [OutputError("disk full")] * 5

    def refuse(numbers: Sequence[int]) -> None:
        if fails:
            raise fails.pop()

    sink.before = refuse
    bench = Bench(sink)
    bench.put(*range(40))
    bench.outputs.start()
    bench.put(*range(40, 60))
    bench.outputs.close(None)
    assert sink.numbers == list(range(60))
    assert bench.said == ["warning: disk full; records wait for it", "Files writes again; 0 of its records are lost"]


def test_a_line_of_files_waits_for_what_somebody_else_holds(sink: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [BusyError("locked")] * 3

    def refuse(numbers: Sequence[int]) -> None:
        if held:
            raise held.pop()

    sink.before = refuse
    bench = Bench(sink, forgiving=False)
    bench.put(0, 1)
    bench.outputs.start()
    bench.outputs.close(None)
    assert (sink.numbers, bench.failures) == ([0, 1], [])
    monkeypatch.setattr(sink_queue, "BUSY_S", 0.05)
    sink.before = lambda _: (_ for _ in ()).throw(BusyError("locked for ever"))
    bench = Bench(sink, forgiving=False)
    bench.put(2)
    bench.outputs.start()
    bench.outputs.close(None)
    assert [str(failure) for failure in bench.failures] == ["locked for ever"]


def test_a_sink_looks_after_its_files_when_there_is_nothing_to_write(sink: Files, until: Any) -> None:
    bench = Bench(sink)
    bench.outputs.start()
    assert sink.looked.wait(10)
    sink.looks = lambda: (_ for _ in ()).throw(OutputError("the folder is gone"))
    until(lambda: bool(bench.said))
    assert bench.outputs.troubles() == {"Files": "the folder is gone"}
    sink.looks = lambda: None
    until(lambda: len(bench.said) == 2)
    assert bench.said == [
        "warning: the folder is gone; records wait for it",
        "Files writes again; 0 of its records are lost",
    ]
    assert bench.outputs.troubles() == {}
    sink.trouble = "its log grows"
    assert bench.outputs.troubles() == {"Files": "its log grows"}
    bench.outputs.close(None)


def test_it_looks_once_more_at_the_end(sink: Files) -> None:
    """What was taken away since the last record counts, too."""
    bench = Bench(sink)
    bench.put(0, 1, 2)
    sink.looks = lambda: sink.off.update(gone=2) if sink.batches and len(sink.batches) < 2 else None
    bench.outputs.start()
    bench.outputs.close(None)
    counts = bench.counts()
    assert counts.delivered + counts.lost == 3 and counts.gone == counts.lost >= 2


@pytest.mark.parametrize("keeps_records", [True, False])
def test_what_is_gone_is_no_longer_delivered(sink: Files, until: Any, keeps_records: bool) -> None:
    sink.keeps_records = keeps_records
    bench = Bench(sink)
    bench.put(*range(10))
    bench.outputs.start()
    until(lambda: bench.counts().delivered == 10)
    sink.off = {"gone": 4, "expired": 2}
    until(lambda: bench.counts().gone == 4)
    counts = bench.counts()
    assert (counts.delivered, counts.lost, counts.dropped) == (6, 4 if keeps_records else 0, 0 if keeps_records else 4)
    assert counts.expired == 2
    bench.outputs.close(None)
