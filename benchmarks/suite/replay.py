"""Hands times that were measured in turns to pytest-benchmark, which itself measures one test after the other."""

from __future__ import annotations

from typing import Any

from suite.turns import Rounds

RATIOS = "yardstick_ratio_rounds"
YARDSTICK = "yardstick"


class ReplayedClock:
    """A clock that moves on when it is told to; pytest-benchmark takes it for its timer."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds


CLOCK = ReplayedClock()
"""The timer of every benchmark of the suite."""


def report(benchmark: Any, rounds: Rounds, yardstick: str, **facts: object) -> None:
    """Store the rounds in pytest-benchmark's results, and the ratios for the gate.

    Args:
        benchmark: the fixture of that name.
        yardstick: identity of what the ratios are ratios to.
        facts: more to be stored.
    """
    times_s = iter(rounds.times_s)

    def one_round() -> None:
        CLOCK.advance(next(times_s))

    benchmark.extra_info.update({RATIOS: rounds.ratios, YARDSTICK: yardstick, "calls_per_round": rounds.calls, **facts})
    benchmark.pedantic(one_round, rounds=len(rounds.times_s))
