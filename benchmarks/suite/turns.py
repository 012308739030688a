"""Subjects in turns, each between two measurements of the yardstick: A B C, A B C, …

A machine that slows down for a while slows all subjects of a group down, and the yardstick too; so a round gives a
ratio that is steadier than its time. The yardstick is that of `edge-ad bench`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ad.runtime.instruments.bench.clock import read_clocks
from edge_ad.runtime.instruments.bench.yardstick import yard_ms

SHORTEST_MS = 2.0
"""A round calls its subject as often as this takes, for shorter times say more about the clock than about the call."""
MOST_CALLS = 10_000

Subject = Callable[[], float | None]
"""One call. Returns: the seconds that it found itself to take, or None to be timed from outside."""


class Yard(Protocol):
    """The fixed work; `edge_ad.runtime.instruments.bench.yardstick.Yardstick` is one."""

    def times(self) -> NDArray[np.float64]:
        """(calls, 2, 2) ms: product and copy, by both clocks."""
        ...


@dataclass
class Rounds:
    """What was measured of one subject.

    Attributes:
        times_s: one for each round: seconds of one call.
        ratios: the same divided by the yardstick of that round.
        calls: that each round made.
    """

    times_s: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    calls: int = 1


def in_turns(subjects: Mapping[str, Subject], yardstick: Yard, *, rounds: int, warmup: int) -> dict[str, Rounds]:
    """Measure subjects in turns. Returns: what was measured, by the names of the subjects.

    Args:
        rounds: that count, of each subject.
        warmup: rounds before these; the fastest call in them says how many make a round. At least 1.
    """
    measured = {name: Rounds() for name in subjects}
    fastest_s = dict.fromkeys(subjects, float("inf"))
    for _ in range(warmup):
        yardstick.times()
        for name, subject in subjects.items():
            fastest_s[name] = min(fastest_s[name], _seconds(subject, 1))
    for name, found in measured.items():
        found.calls = max(1, min(MOST_CALLS, round(SHORTEST_MS / 1e3 / max(fastest_s[name], 1e-9))))
    before = yardstick.times()
    for _ in range(rounds):
        for name, subject in subjects.items():
            found = measured[name]
            taken_s = _seconds(subject, found.calls) / found.calls
            after = yardstick.times()
            yard = float(yard_ms(np.concatenate([before, after]))[0])
            found.times_s.append(taken_s)
            found.ratios.append(taken_s * 1e3 / yard)
            before = after
    return measured


def _seconds(subject: Subject, calls: int) -> float:
    """Of `calls` calls: what they say themselves, or what passes meanwhile."""
    said_s = 0.0
    own_clock = False
    began_ms = read_clocks()[0]
    for _ in range(calls):
        seconds = subject()
        if isinstance(seconds, float):
            own_clock, said_s = True, said_s + seconds
    return said_s if own_clock else (read_clocks()[0] - began_ms) / 1e3
