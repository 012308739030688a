"""Memory that this process holds. Known on Linux only."""

from __future__ import annotations

import os
from pathlib import Path

STATM = Path("/proc/self/statm")  # in pages; the second figure is what is in memory


def process_bytes() -> int | None:
    """Memory that this process holds; None where the system does not say."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
