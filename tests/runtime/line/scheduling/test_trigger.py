"""Triggers: each one that is accepted comes back exactly once, with its part id, whatever happens meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.line.scheduling.counters import Counters, TriggerCounts
from edge_ad.runtime.line.scheduling.trigger import (
    CAMERA_ENDED,
    MAX_PART_ID,
    MAX_PENDING,
    TOO_LATE,
    Fired,
    Pending,
    Software,
    TriggerGate,
    Triggers,
)

MS = 1_000_000


class Bench:
    """One gate with a clock, and everything that comes out of it."""

    def __init__(self, timeout_ms: float = 100) -> None:
        self.now_ns = 0
        self.counters = Counters()
        self.counters.add_lane("door")
        self.missed: list[tuple[str, float, str]] = []
        self.said: list[str] = []
        self.gate = TriggerGate(0, Software(timeout_ms), self.counters, self._missed, lambda: self.now_ns)
        self.triggers = Triggers({"door": self.gate, "window": None}, self.said.append)

    def _missed(self, lane: int, trigger: Pending, waited_ns: int, reason: str) -> None:
        assert lane == 0
        self.missed.append((trigger.part_id, waited_ns / MS, reason))

    @property
    def counts(self) -> TriggerCounts:
        return self.counters.snapshot().lanes[0].triggers


def test_a_frame_answers_the_triggers_before_it_and_only_those() -> None:
    bench = Bench()
    bench.now_ns = 10 * MS
    assert bench.triggers.fire("door", "a")
    bench.now_ns = 20 * MS
    assert bench.triggers.fire("door", "b")
    assert bench.gate.take(9 * MS) == ()  # a frame taken before, that arrives only now
    assert [one.part_id for one in bench.gate.take(15 * MS)] == ["a"]
    assert [one.part_id for one in bench.gate.take(20 * MS)] == ["b"]
    assert bench.gate.take(30 * MS) == ()
    assert bench.counts == TriggerCounts(accepted=2, answered=2)


def test_a_trigger_waits_no_longer_than_it_may() -> None:
    bench = Bench(timeout_ms=100)
    bench.triggers.fire("door", "a")
    bench.gate.expire(100 * MS)
    assert bench.missed == []
    bench.gate.expire(101 * MS)
    assert bench.missed == [("a", 101.0, TOO_LATE)]
    bench.now_ns = 200 * MS
    bench.triggers.fire("door", "b")
    assert bench.gate.take(301 * MS) == ()  # this frame shows whatever came long after the part
    assert bench.missed[1:] == [("b", 101.0, TOO_LATE)]
    assert bench.counts == TriggerCounts(accepted=2, missed=2)


def test_too_many_triggers_are_refused_counted_and_reported_once() -> None:
    bench = Bench()
    outcomes = Counter(bench.triggers.fire("door", f"part {number}") for number in range(MAX_PENDING + 5))
    assert outcomes == {Fired.ACCEPTED: MAX_PENDING, Fired.FULL: 5}
    assert bench.counts == TriggerCounts(accepted=MAX_PENDING, refused=5)
    (line,) = bench.said
    assert f"part 'part {MAX_PENDING}' is not inspected" in line
    assert len(bench.gate.take(0)) == MAX_PENDING
    assert bench.triggers.fire("door", "next")
    for number in range(MAX_PENDING):
        bench.triggers.fire("door", f"again {number}")
    assert len(bench.said) == 2  # a new jam is news


@pytest.mark.parametrize(
    ("camera", "part_id", "outcome"),
    [
        ("gate", "1", Fired.UNKNOWN),
        ("window", "1", Fired.NOT_BY_SOFTWARE),
        ("door", "", Fired.BAD_PART_ID),
        ("door", "x" * (MAX_PART_ID + 1), Fired.BAD_PART_ID),
        ("door", "a\nb", Fired.BAD_PART_ID),
        ("door", "\ud800", Fired.BAD_PART_ID),
        ("door", None, Fired.BAD_PART_ID),
        ("door", 7, Fired.BAD_PART_ID),
        ("door", "Ä 1/2 – ok", Fired.ACCEPTED),
        ("door", "x" * MAX_PART_ID, Fired.ACCEPTED),
    ],
)
def test_what_is_no_trigger(camera: str, part_id: Any, outcome: Fired) -> None:
    bench = Bench()
    assert bench.triggers.fire(camera, part_id) is outcome
    assert bench.counts == TriggerCounts(accepted=int(bool(outcome)))


def test_a_source_that_waits_is_read_for_one_trigger_at_a_time() -> None:
    bench, stop = Bench(timeout_ms=100), threading.Event()
    assert bench.gate.take_kept() == ()
    bench.triggers.fire("door", "a")
    bench.triggers.fire("door", "b")
    assert bench.gate.wait(stop)
    assert bench.gate.wait(stop)  # it is kept already
    bench.gate.expire(101 * MS)  # the picture of the first is on its way
    assert [part_id for part_id, _, _ in bench.missed] == ["b"]
    assert [one.part_id for one in bench.gate.take_kept()] == ["a"]
    assert bench.gate.take_kept() == ()
    stop.set()
    assert not bench.gate.wait(stop)


def test_a_camera_that_has_ended_takes_no_trigger() -> None:
    bench = Bench()
    bench.triggers.fire("door", "a")
    bench.gate.close(CAMERA_ENDED)
    assert bench.missed == [("a", 0.0, CAMERA_ENDED)]
    assert bench.triggers.fire("door", "b") is Fired.ENDED
    assert not bench.gate.wait(threading.Event())
    bench.triggers.close()
    assert len(bench.missed) == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("fire"), st.integers(1, 30)),  # so many triggers
        st.tuples(st.just("pass"), st.integers(1, 80)),  # milliseconds
        st.tuples(st.just("frame"), st.integers(0, 60)),  # taken so many milliseconds ago
        st.tuples(st.just("torn"), st.integers(0, 60)),  # the same, but the line ends before it is entered
        st.tuples(st.just("expire"), st.just(0)),
        st.tuples(st.just("keep"), st.just(0)),  # a source that waits is about to be read
        st.tuples(st.just("picture"), st.just(0)),  # and has given a picture
        st.tuples(st.just("close"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(steps=STEPS)
def test_every_accepted_trigger_comes_back_once(steps: list[tuple[str, int]]) -> None:
    ended = threading.Event()
    ended.set()
    bench, fired_ms, answered, number = Bench(timeout_ms=100), {}, {}, 0
    for step, value in steps:
        now_ms = bench.now_ns // MS
        if step == "fire":
            for _ in range(value):
                if bench.triggers.fire("door", str(number)):
                    fired_ms[str(number)] = now_ms
                number += 1
        elif step == "pass":
            bench.now_ns += value * MS
        elif step in ("frame", "torn"):
            taken = bench.gate.take((now_ms - value) * MS)
            if step == "torn":
                bench.gate.give_back(taken)
            else:
                for one in taken:
                    assert one.part_id not in answered
                    answered[one.part_id] = now_ms - value
        elif step == "keep":
            bench.gate.wait(ended)
        elif step == "picture":
            for one in bench.gate.take_kept():
                assert one.part_id not in answered
                answered[one.part_id] = fired_ms[one.part_id]
        elif step == "expire":
            bench.gate.expire(bench.now_ns)
        else:
            bench.gate.close(CAMERA_ENDED)
        counts = bench.counts
        assert counts.accepted == len(fired_ms)
        assert counts.answered == len(answered) and counts.missed == len(bench.missed)
        assert 0 <= counts.waiting <= MAX_PENDING + 1
        assert counts.accepted + counts.refused == number
    bench.triggers.close()
    missed = [part_id for part_id, _, _ in bench.missed]
    assert sorted([*answered, *missed]) == sorted(fired_ms)
    for part_id, frame_ms in answered.items():
        assert 0 <= frame_ms - fired_ms[part_id] <= 100


def test_every_trigger_comes_back_once_when_all_happens_at_the_same_time() -> None:
    bench = Bench(timeout_ms=1e9)
    outcomes: list[list[Fired]] = [[] for _ in range(4)]
    taken: list[list[str]] = [[] for _ in range(2)]
    firing = [
        threading.Thread(
            target=lambda n=n: outcomes[n].extend(bench.triggers.fire("door", f"{n}-{i}") for i in range(500))
        )
        for n in range(4)
    ]
    done = threading.Event()

    def take(number: int) -> None:
        while not done.is_set():
            taken[number] += [one.part_id for one in bench.gate.take(1)]

    taking = [threading.Thread(target=take, args=(number,)) for number in range(2)]
    for thread in (*taking, *firing):
        thread.start()
    for thread in firing:
        thread.join(30)
    bench.triggers.close()
    done.set()
    for thread in taking:
        thread.join(30)
    accepted = [f"{n}-{i}" for n in range(4) for i, outcome in enumerate(outcomes[n]) if outcome]
    back = [*taken[0], *taken[1], *(part_id for part_id, _, _ in bench.missed)]
    assert sorted(back) == sorted(accepted)
    expected: Mapping[str, int] = {"accepted": len(accepted), "refused": 2000 - len(accepted)}
    assert (bench.counts.accepted, bench.counts.refused) == (expected["accepted"], expected["refused"])
    assert bench.counts.waiting == 0
