"""Large pictures: a source that can wait gives the next one when those before it are out of memory."""

from __future__ import annotations

import threading
import time
import weakref

import numpy as np

LARGE = 24 << 20  # bytes of a picture, 8 megapixels; smaller ones are read ahead as ever
MOST = 64 << 20  # bytes of large pictures that are still in use when the next is read
POLL_S = 0.005
LONGEST_S = 60.0  # then the next is read all the same: better much memory than a line that stands still


class HeavyPictures:
    """Keeps account of the large pictures of this process, wherever they wait: for the engine, a sink, a window."""

    def __init__(self) -> None:
        self._bytes = 0
        # Arrays are freed in any thread, at any point of it, also while this very lock is held.
        self._lock = threading.RLock()

    def note(self, image_hwc: object) -> None:
        """Count a picture until nobody refers to it any more; a source may give anything in place of one."""
        if not isinstance(image_hwc, np.ndarray) or image_hwc.nbytes < LARGE:
            return
        self._add(image_hwc.nbytes)
        weakref.finalize(image_hwc, self._add, -image_hwc.nbytes).atexit = False

    def wait(self, stop: threading.Event) -> bool:
        """Wait until another large picture may be read. Returns: False when `stop` was set before."""
        until_s = time.monotonic() + LONGEST_S
        while self._bytes > MOST and time.monotonic() < until_s:
            if stop.wait(POLL_S):
                return False
        return True

    def _add(self, count: int) -> None:
        with self._lock:
            self._bytes += count


HEAVY = HeavyPictures()
