"""Timing in turns: A B C, A B C, … so that a machine that slows down slows all of them down."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def times_ms(
    subjects: Mapping[Name, Callable[[], object]], *, rounds: int, warmup: int = 2, pause_s: float = 0.0
) -> dict[Name, list[float]]:
    """Milliseconds of each subject in each of `rounds` rounds, after `warmup` that do not count.

    Args:
        pause_s: rest before each call, so that threads which one subject leaves spinning do not disturb the next.
    """
    times: dict[Name, list[float]] = {name: [] for name in subjects}
    for turn in range(warmup + rounds):
        for name, subject in subjects.items():
            time.sleep(pause_s)
            began = time.perf_counter()
            subject()
            if turn >= warmup:
                times[name].append((time.perf_counter() - began) * 1e3)
    return times


def medians_ms(
    subjects: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2, pause_s: float = 0.0
) -> dict[str, float]:
    """Median milliseconds of each subject; see `times_ms`."""
    times = times_ms(subjects, rounds=rounds, warmup=warmup, pause_s=pause_s)
    return {name: statistics.median(values) for name, values in times.items()}


def print_table(medians: Mapping[str, float], reference: str) -> None:
    """Medians, and how many times faster than `reference` each is."""
    width = max(map(len, medians))
    for name, value in medians.items():
        print(f"{name:{width}}  {value:9.3f} ms  {medians[reference] / value:6.2f}x")
