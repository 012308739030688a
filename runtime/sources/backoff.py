"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays drawn between nothing and a limit that doubles, so that many stations do not return at the same moment.

    This is "full jitter" of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Args:
        base_s: the first limit.
        cap_s: the largest.
        draw: uniform in 0 to 1.
    """

    def __init__(self, base_s: float, cap_s: float, draw: Callable[[], float] = random.random) -> None:
        self._base_s, self._cap_s, self._draw = base_s, cap_s, draw
        self._limit_s = base_s

    def next_s(self) -> float:
        """Seconds to wait; the limit doubles."""
        limit_s = self._limit_s
        self._limit_s = min(self._cap_s, 2 * limit_s)
        return self._draw() * limit_s

    def reset(self) -> None:
        """Begin with the first limit again."""
        self._limit_s = self._base_s
