"""Waiting for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 20


def wait_until(holds: Callable[[], Any], what: str = "") -> None:
    """Wait for something that another thread or process does."""
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s, what or "it did not happen"
        time.sleep(0.01)
