"""How old a frame of a stream is, told by the stream's own time stamps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.runtime.sources.stream_clock import OLDEST_NS, StreamClock

MS = 1_000_000
PERIOD_MS = 40


def ages_ms(reads: list[tuple[float, float, float]]) -> list[float]:
    """Ages by the clock for (asked, arrived, position), all milliseconds."""
    clock = StreamClock()
    return [
        (round(arrived * MS) - clock.captured_ns(round(asked * MS), round(arrived * MS), position)) / MS
        for asked, arrived, position in reads
    ]


def camera(count: int, stall_at: int, stall_ms: float, drift: float = 0.0) -> list[tuple[float, float, float]]:
    """Reads of a camera whose reader rests once, and then finds its frames waiting."""
    reads, now = [], 1000.0
    for number in range(count):
        taken = 1000.0 + PERIOD_MS * number
        asked = now + (stall_ms if number == stall_at else 0)
        now = max(asked + 1, taken)
        reads.append((asked, now, 5e6 + PERIOD_MS * number * (1 + drift)))
    return reads


@given(st.integers(3, 20), st.floats(100, 5000), st.floats(-1e-3, 1e-3))
def test_a_reader_that_rested_finds_frames_as_old_as_they_are(stall_at: int, stall_ms: float, drift: float) -> None:
    reads = camera(300, stall_at, stall_ms, drift)
    for number, ((_, arrived, _), age) in enumerate(zip(reads, ages_ms(reads), strict=True)):
        true_age = arrived - (1000.0 + PERIOD_MS * number)
        # A frame that waited less than half a period may pass for fresh; the drift counts from the last fresh one.
        assert age == pytest.approx(true_age, abs=PERIOD_MS / 2 + 1 + 6000 * 1e-3)


def test_a_camera_whose_clock_runs_wrong_is_not_called_old() -> None:
    assert max(ages_ms(camera(10_000, -1, 0, drift=0.01))) == 0


@pytest.mark.parametrize("position", [math.nan, math.inf, 0.0, -1.0])
def test_a_stream_without_time_stamps_counts_from_arrival(position: float) -> None:
    assert ages_ms([(10.0 * n, 10.0 * n + 1, position) for n in range(20)]) == [0.0] * 20


def test_one_read_that_a_busy_machine_delays_does_not_make_old_frames_new() -> None:
    reads = camera(60, 20, 2000.0)
    asked, arrived, position = reads[20]
    reads[20] = (asked - 30, arrived, position)  # took as long as if it had waited
    ages = ages_ms(reads)
    assert ages[20] == pytest.approx(2000, abs=2 * PERIOD_MS)
    assert ages[21] == pytest.approx(2000 - PERIOD_MS, abs=2 * PERIOD_MS)


def test_a_longer_way_is_the_present_after_a_while() -> None:
    """All frames come 300 ms later from one moment on; nobody can tell how long they were under way before."""
    reads = [(40.0 * n, 40.0 * n + 39, 40.0 * n) for n in range(10)]
    reads += [(40.0 * n + 300, 40.0 * n + 339, 40.0 * n) for n in range(10, 20)]
    ages = ages_ms(reads)
    assert ages[10:12] == [300.0, 300.0] and max(ages[12:]) == 0


def test_a_jump_of_the_stream_is_no_age() -> None:
    before = [(40.0 * n, 40.0 * n + 39, 40.0 * n) for n in range(1, 4)]
    back = [(200.0, 201.0, 3.0), (201.0, 202.0, 43.0)]
    assert ages_ms(before + back) == [0.0] * 5
    late_ms = 2 * OLDEST_NS / MS
    assert ages_ms([*before, (late_ms, late_ms + 1, 160.0)]) == [0.0] * 4


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e3), st.floats(-1e9, 1e9)), min_size=1, max_size=30))
def test_no_frame_is_younger_than_its_arrival_or_older_than_the_limit(reads: list[tuple[float, float, float]]) -> None:
    for age in ages_ms([(asked, asked + took, position) for asked, took, position in reads]):
        assert 0 <= age <= OLDEST_NS / MS
