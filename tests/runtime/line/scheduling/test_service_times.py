"""The forecast is a quantile of what was measured of late, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.line.scheduling.service_times import QUANTILE, STALE_CALLS, WINDOW, ServiceTimes, Window


@settings(max_examples=100, derandomize=True, deadline=None)
@given(durations=st.lists(st.integers(0, 10**9), max_size=3 * WINDOW))
def test_the_window_is_the_quantile_of_the_last(durations: list[int]) -> None:
    window = Window()
    for duration in durations:
        window.add(duration)
    expected = 0
    if durations:
        expected = int(np.quantile(durations[-WINDOW:], QUANTILE, method="inverted_cdf"))
        above = sorted(durations[-WINDOW:])
        # Of two neighbours that both are the quantile, the slower one may be taken.
        index = above.index(expected)
        assert window.high_ns in above[index : above.index(expected) + above.count(expected) + 1]
    assert bool(window.high_ns) == bool(expected) or window.high_ns >= expected


def test_one_hiccup_is_not_the_forecast_and_a_slower_engine_is() -> None:
    window = Window()
    for _ in range(50):
        window.add(10)
    window.add(1000)
    assert window.high_ns == 10
    for _ in range(20):
        window.add(30)
    assert window.high_ns == 30


def test_batches_that_were_never_measured() -> None:
    times = ServiceTimes()
    assert times.infer_ns(3) == 0
    times.inferred(2, 100)
    assert [times.infer_ns(size) for size in (1, 2, 3, 4)] == [100, 100, 150, 200]
    times.inferred(4, 120)
    assert [times.infer_ns(size) for size in (1, 2, 3, 4, 8)] == [100, 100, 120, 120, 240]


@pytest.mark.parametrize("stage", ["prepare", "conclude"])
def test_what_is_forgotten_is_tried_again(stage: str) -> None:
    times = ServiceTimes()
    getattr(times, stage).add(5)
    times.inferred(1, 7)
    times.forget()
    assert (getattr(times, stage).high_ns, times.infer_ns(1)) == (0, 0)


def test_a_camera_is_forecast_by_its_own_preparations() -> None:
    times = ServiceTimes()
    assert times.prepare_ns(0) == 0
    times.prepared(0, 40)
    assert (times.prepare_ns(0), times.prepare_ns(1)) == (40, 40)  # nothing better is known of the other
    times.prepared(1, 3)
    assert (times.prepare_ns(0), times.prepare_ns(1)) == (40, 3)
    times.forget()
    assert times.prepare_ns(0) == 0


def test_one_hiccup_does_not_forbid_a_size_of_batch_for_ever() -> None:
    times = ServiceTimes()
    times.inferred(1, 10)
    times.inferred(4, 20)
    times.inferred(4, 900)
    assert times.infer_ns(4) == 900
    for _ in range(STALE_CALLS):
        times.inferred(1, 10)
    assert times.infer_ns(4) == 40  # as if it had never been measured
    times.inferred(4, 21)
    assert times.infer_ns(4) == 21
    for _ in range(STALE_CALLS):
        times.inferred(1, 10)
    assert times.infer_ns(4) == 21  # what was good news stays
