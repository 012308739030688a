"""Memory of the device and of the process while frames are judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge_ad.runtime.host.process_memory import process_bytes

MEBIBYTE = 1 << 20
PARTS = 3
LEAST_LEAK_BYTES = MEBIBYTE


@dataclass(frozen=True)
class MemoryFigures:
    """Memory, in bytes; None where nobody knows.

    Attributes:
        free_before, free_loaded: of the device, before engines were loaded, and when all were.
        free_while_timing: of the device, before the timed frames and after each third of them.
        process_growth: of the process over the timed frames.
    """

    free_before: int | None = None
    free_loaded: int | None = None
    free_while_timing: tuple[int, ...] = ()
    process_growth: int | None = None

    @property
    def leaked(self) -> int | None:
        """What was lost over the timed frames: in each third of them, so that it is no other program's doing."""
        free = self.free_while_timing
        steadily = len(free) == PARTS + 1 and all(free[index + 1] < free[index] for index in range(PARTS))
        return free[0] - free[-1] if steadily and free[0] - free[-1] >= LEAST_LEAK_BYTES else None


@dataclass
class MemoryWatch:
    """Looks at the memory before the timed frames, and after each third of them.

    Args:
        free_bytes: of the device; None where there is none.
        rounds: how many there will be.
    """

    free_bytes: Callable[[], int] | None
    rounds: int
    free: list[int] = field(default_factory=list)
    process: list[int | None] = field(default_factory=list)

    def look(self) -> None:
        if self.free_bytes is not None:
            self.free.append(self.free_bytes())
        self.process.append(process_bytes())

    def after(self, number: int) -> None:
        """To be called after every round, which are numbered from 0."""
        if number + 1 in {self.rounds * part // PARTS for part in range(1, PARTS + 1)}:
            self.look()

    @property
    def process_growth(self) -> int | None:
        first, last = self.process[0], self.process[-1]
        return None if first is None or last is None else last - first
