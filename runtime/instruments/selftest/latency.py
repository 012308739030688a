"""Times of several ways to do the same, taken in turns, and whether one is really faster than another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError

CHANCE = 1e-3  # of a two-sided sign test over the rounds, above which a difference is noise
GAIN = 0.02  # of the slower one's median, below which nobody would notice
WARM_UP_ROUNDS = 10
RULE = (
    "of two ways the one that needs less is taken, unless the other wins so many rounds that chance does it in less"
    f" than 1 of {1 / CHANCE:.0f} (sign test) and by {GAIN:.0%} in the median"
)

FloatArray = NDArray[np.float64]
Call = Callable[[int], tuple[float, float]]
"""Judges the frame of a round. Returns: milliseconds for the model input, and for the engine."""


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, times_ms: FloatArray) -> Percentiles:
        p50, p95, p99 = (float(value) for value in np.percentile(times_ms, (50, 95, 99)))
        return cls(p50, p95, p99, float(times_ms.max()))


@dataclass(frozen=True)
class Times:
    """What every round took, in milliseconds: (rounds,) each."""

    preprocess_ms: FloatArray
    infer_ms: FloatArray

    @property
    def total_ms(self) -> FloatArray:
        return self.preprocess_ms + self.infer_ms


def interleave(
    calls: Mapping[str, Call],
    rounds: Iterable[int],
    *,
    warm_up: int = WARM_UP_ROUNDS,
    after: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, Times], dict[str, str]]:
    """Let everybody take part in every round, so that a clock that goes down goes down for all.

    Each round begins with another one, so that nobody always follows the same.

    Args:
        calls: by name.
        rounds: numbers from 0.
        warm_up: rounds before, that do not count.
        after: called with the number of every round that counts, when it is over.

    Returns: the times of those that went through all rounds, and what the others failed with.
    """
    names = list(calls)
    failed: dict[str, str] = {}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}

    def run(number: int) -> None:
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            if name not in failed:
                try:
                    found[name].append(calls[name](number))
                except EdgeAdError as exc:
                    failed[name] = str(exc)

    for number in range(warm_up):
        run(number)
    for taken in found.values():
        taken.clear()
    for number in rounds:
        run(number)
        after(number)
    times = {name: Times(*np.array(taken, np.float64).reshape(-1, 2).T) for name, taken in found.items()}
    return {name: taken for name, taken in times.items() if name not in failed}, failed


def is_faster(one_ms: FloatArray, other_ms: FloatArray) -> bool:
    """Whether the first is faster than the second by more than noise, of which `RULE` says what it is.

    Args:
        one_ms, other_ms: (rounds,) of the same rounds.
    """
    gains = other_ms - one_ms
    differing = gains[gains != 0]
    wins = int((differing > 0).sum())
    enough = float(np.median(gains)) >= GAIN * float(np.median(other_ms)) > 0
    return enough and 2 * wins > len(differing) and sign_test(wins, len(differing)) <= CHANCE


def sign_test(wins: int, rounds: int) -> float:
    """How likely a fair coin is to be as one-sided as `wins` of `rounds`, either way: 0..1."""
    fewer = min(wins, rounds - wins)
    ways = term = 1
    for index in range(fewer):
        term = term * (rounds - index) // (index + 1)
        ways += term
    # Whole numbers to the end: they outgrow a float, their quotient does not.
    return float(min(1.0, 2 * ways / 2**rounds))


def fastest(total_ms: Mapping[str, FloatArray], order: Sequence[str]) -> str:
    """The first in `order` that nobody is faster than, by more than noise, where the fastest by its median decides.

    Args:
        total_ms: times by name, not empty.
        order: names; those that need less come first.
    """
    names = [name for name in order if name in total_ms]
    best = min(names, key=lambda name: float(np.median(total_ms[name])))
    return next(name for name in names if name == best or not is_faster(total_ms[best], total_ms[name]))
