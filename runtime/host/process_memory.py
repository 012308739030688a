"""Memory that this process and others hold, and how little of it is kept without need. Known on Linux only."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

PROCESSES = Path("/proc")
M_ARENA_MAX = -8  # malloc.h of glibc
FEW = 2


def process_bytes(pid: int | None = None) -> int | None:
    """Memory that a process holds, by default this one; None where the system does not say."""
    statm = PROCESSES / ("self" if pid is None else str(pid)) / "statm"  # in pages; the second figure is in memory
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def few_arenas() -> None:
    """Let all threads share two heaps, unless the environment says how many; before there are threads.

    glibc gives every thread a heap of its own, up to eight for each processor. Pictures that one thread allocates and
    another one frees, with small things between them, leave more and more holes in each of them: a line of four cameras
    grew by 34 MiB in four minutes, of which it used none.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
    if mallopt is not None:  # else the C library is another one
        mallopt(M_ARENA_MAX, FEW)
