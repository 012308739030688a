"""What this process holds: memory, threads, open files, other processes. Known on Linux only."""

from __future__ import annotations

import os
import statistics
import threading
from contextlib import suppress
from dataclasses import dataclass

from edge_ad.runtime.host.process_memory import PROCESSES, process_bytes

MIB = 2**20
MOST_SAMPLES = 1024


@dataclass(frozen=True)
class Held:
    """What the process holds at one moment; None where the system does not say.

    Attributes:
        memory_mib: with that of the processes that it has started.
    """

    memory_mib: float | None
    threads: int
    files: int | None
    processes: int = 0

    @classmethod
    def now(cls) -> Held:
        started = children()
        held_bytes = process_bytes()
        if held_bytes is not None:
            held_bytes += sum(process_bytes(pid) or 0 for pid in started)
        try:
            files: int | None = len(os.listdir("/proc/self/fd"))
        except OSError:
            files = None
        memory_mib = None if held_bytes is None else held_bytes / MIB
        return cls(memory_mib, threading.active_count(), files, len(started))

    def __str__(self) -> str:
        memory = "?" if self.memory_mib is None else f"{self.memory_mib:.0f}"
        files = "?" if self.files is None else self.files
        return f"memory {memory} MiB, threads {self.threads}, files {files}, processes {self.processes}"


def children() -> list[int]:
    """Processes that this one has started and that are there, also those that have ended and were not waited for."""
    found = []
    try:
        entries = [entry for entry in os.listdir(PROCESSES) if entry.isdigit()]
    except OSError:
        return []
    for entry in entries:
        with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            parent = (PROCESSES / entry / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.append(int(entry))
    return found


class Growth:
    """Memory over time; keeps a bounded number of samples, evenly spread."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._every = 1
        self._count = 0

    def add(self, memory_mib: float) -> None:
        if self._count % self._every == 0:
            self._samples.append(memory_mib)
            if len(self._samples) == MOST_SAMPLES:
                self._samples = self._samples[::2]
                self._every *= 2
        self._count += 1

    @property
    def mib(self) -> float | None:
        """Median of the last quarter less that of the second: the first one is for warming up. None for few samples."""
        quarter = len(self._samples) // 4
        if quarter < 3:
            return None
        return statistics.median(self._samples[-quarter:]) - statistics.median(self._samples[quarter : 2 * quarter])
