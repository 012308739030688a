"""Chance by plan: which fault strikes which call.

Whether and when a fault strikes is drawn from the seed by the number of the call, never by the clock: a run with the
same seed meets the same faults in the same calls of the same parts.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Seam = Literal["source", "engine", "sink", "process"]


@dataclass(frozen=True)
class Fault:
    """One kind of misfortune.

    Attributes:
        seam: what it strikes.
        strike: what happens in place of a call of that part, or before it.
        weight: how often, against the others of its seam.
        of_process: whether it can only strike an engine in a process of its own.
    """

    seam: Seam
    strike: Callable[..., Any]
    weight: float = 1.0
    of_process: bool = False


class Dice:
    """Draws the faults of one part from the seed and the part's name.

    Attributes:
        struck: how many it has drawn.
    """

    def __init__(self, name: str, seam: Seam, plan: Plan) -> None:
        self.random = random.Random(f"{plan.seed} {name}")
        self.struck = 0
        self._plan = plan
        self._kinds = [kind for kind in plan.kinds if plan.kinds[kind].seam == seam]
        self._weights = [plan.kinds[kind].weight for kind in self._kinds]

    def draw(self) -> Fault | None:
        """The fault that strikes this call, if one does; it is counted."""
        if not self._kinds or self.random.random() >= self._plan.rate:
            return None
        (kind,) = self.random.choices(self._kinds, self._weights)
        if not self._plan.count(kind):
            return None
        self.struck += 1
        return self._plan.kinds[kind]


class Plan:
    """Which faults there are to be, and how many there were.

    Args:
        kinds: faults by name.
        rate: share of the calls of every part that meet a fault, 0 to 1.
        limit: number of faults after which none strikes any more; None for no limit.

    Attributes:
        spent: set when the limit is reached.
    """

    def __init__(
        self, kinds: Mapping[str, Fault], *, seed: int = 0, rate: float = 0.01, limit: int | None = None
    ) -> None:
        self.kinds = dict(kinds)
        self.seed = seed
        self.rate = rate
        self.spent = threading.Event()
        self._limit = limit
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, kind: str) -> bool:
        """Note a fault. Returns: False when there were enough before."""
        with self._lock:
            if self.spent.is_set():
                return False
            self._counts[kind] += 1
            if self._limit is not None and self._counts.total() >= self._limit:
                self.spent.set()
            return True

    @property
    def counts(self) -> Counter[str]:
        with self._lock:
            return self._counts.copy()
