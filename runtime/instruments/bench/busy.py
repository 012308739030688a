"""How much of this machine's processors other programs had during a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

CALM = 0.1
"""Share of the processors from which on elapsed times say more about the others than about the bundle."""
_IDLE = (3, 4)  # idle and iowait of a line of /proc/stat
_COUNTED = 8  # user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user


class OtherPrograms:
    """Looks at the processors that this process may use, from when it is made.

    Args:
        stat: the system's counters, as Linux writes them.
        own_s: seconds of processor time that this process has used.
    """

    def __init__(self, stat: Path = Path("/proc/stat"), own_s: Callable[[], float] = time.process_time) -> None:
        self._stat = stat
        self._own_s = own_s
        self._first = self._now()

    def share(self) -> float | None:
        """Share of the processors that others have had so far, 0 to 1, the time that a host took included.

        None where the system does not tell.
        """
        if self._first is None or (now := self._now()) is None:
            return None
        ticks, busy_ticks, own_s = (after - before for before, after in zip(self._first, now, strict=True))
        if ticks <= 0:
            return None
        return min(1.0, max(0.0, (busy_ticks - own_s * os.sysconf("SC_CLK_TCK")) / ticks))

    def _now(self) -> tuple[float, float, float] | None:
        """Ticks of all processors that may be used, those of them that were busy, and the process's own seconds."""
        try:
            lines = self._stat.read_text("ascii").splitlines()
            usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
            rows = [list(map(int, rest[:_COUNTED])) for name, *rest in map(str.split, lines) if name in usable]
        except (OSError, ValueError, AttributeError):
            return None
        if not rows or any(len(row) <= max(_IDLE) for row in rows):
            return None
        ticks = sum(map(sum, rows))
        return ticks, ticks - sum(row[index] for row in rows for index in _IDLE), self._own_s()
