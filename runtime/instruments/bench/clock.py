"""The two clocks of a measurement: elapsed time, and processor time of all threads of this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

Clock = Literal["elapsed", "processor"]
CLOCKS: tuple[Clock, ...] = ("elapsed", "processor")
Read = Callable[[], tuple[float, float]]
"""Milliseconds of each clock, from any zero."""
FINE_S = 1e-5


def read_clocks() -> tuple[float, float]:
    """Milliseconds of both clocks, in the order of `CLOCKS`."""
    return time.perf_counter_ns() / 1e6, time.process_time_ns() / 1e6


def processor_clock_is_fine() -> bool:
    """Whether processor time is counted finely enough for a stage; on Windows it comes in steps of 16 ms."""
    return time.get_clock_info("process_time").resolution <= FINE_S
