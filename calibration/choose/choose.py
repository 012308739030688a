"""Trying configurations within a time budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_ad.calibration.choose.candidates import Candidate
from edge_ad.calibration.choose.rule import Tried
from edge_ad.errors import EdgeAdError, one_line

Try = Callable[[Candidate], Tried]
"""Trains a candidate on the trial's pictures and judges those held out."""


@dataclass(frozen=True)
class Trial:
    """What was tried, and what was not.

    Attributes:
        tried: in their order.
        left_out: name and reason of the others.
    """

    tried: tuple[Tried, ...]
    left_out: tuple[tuple[str, str], ...]


def try_all(
    candidates: Sequence[Candidate],
    attempt: Try,
    seconds: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Trial:
    """Try candidates one after the other, as long as each may be expected to end in time.

    The first is tried in any case. What another takes is reckoned from the first and their costs, and as much again is
    kept for training the one that is taken.

    Raises: EdgeAdError where the first fails; others that fail are left out.
    """
    began = clock()
    tried: list[Tried] = []
    left_out: list[tuple[str, str]] = []
    unit_s = 0.0
    for candidate in candidates:
        wanted_s = 2 * candidate.cost * unit_s
        left_s = seconds - (clock() - began)
        if tried and wanted_s > left_s:
            left_out.append((candidate.name, f"would take about {wanted_s:.0f} s, {max(0, left_s):.0f} are left"))
            continue
        try:
            found = attempt(candidate)
        except (EdgeAdError, MemoryError, RuntimeError) as exc:  # what torch and engines raise beyond their means
            if not tried:
                raise
            left_out.append((candidate.name, one_line(exc)))
            continue
        if not tried:
            unit_s = found.training_s / candidate.cost
        tried.append(found)
        say(described(found, candidate.says))
    for name, reason in left_out:
        say(f"not tried: {name}: {reason}")
    return Trial(tuple(tried), tuple(left_out))


def described(tried: Tried, says: str) -> str:
    """One line."""
    pixel = "" if tried.pixel_auroc is None else f", pixel AUROC {tried.pixel_auroc:.3f}"
    return (
        f"tried {tried.name} ({says}): image AUROC {tried.image_auroc:.3f}{pixel}, {tried.latency_ms:.1f} ms a frame,"
        f" {tried.training_s:.0f} s"
    )
