"""Chance, order and pace of an epoch.

Everything that is drawn comes from a generator seeded by what it is for, so an epoch is the same whether training was
interrupted before it or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

ORDER, ANOMALY, NOISE, VARIATION = range(4)  # what a generator is for; part of its seed

Part = TypeVar("Part")
Made = TypeVar("Made")


def generator(*seed: int) -> np.random.Generator:
    """A generator that is the same for the same numbers."""
    return np.random.default_rng(seed)


def chunks(things: Sequence[Part], size: int) -> list[Sequence[Part]]:
    """Consecutive parts of `size`, the last one shorter."""
    return [things[start : start + size] for start in range(0, len(things), size)]


def made_ahead(make: Callable[[Part], Made], parts: Sequence[Part]) -> Iterator[Made]:
    """`make(part)` for every part in order; the next one is made in a thread while one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="edge-ad-synthesis") as worker:
        ahead = worker.submit(make, parts[0])
        for following in [*parts[1:], None]:
            ready = ahead.result()
            if following is not None:
                ahead = worker.submit(make, following)
            yield ready
