"""Pictures that arrive in a folder, each judged once, when it is completely written."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame
from edge_ad.image.pictures import natural_key, pictures_below
from edge_ad.runtime.host.results import is_drawn
from edge_ad.runtime.sources.files import picture_frame

POLL_S = 0.1
"""Pause between two looks at the folder; longer where a look takes long, so that looking costs a tenth of one core."""

SETTLE_S = 0.25
"""How long a picture has to stay as it is before it is read."""

DAMAGED_S = 10.0
"""How long one that cannot be decoded has to stay as it is before that counts as damage and no longer as writing."""

Stamp = tuple[int, int]  # size in bytes and time of the last change, nanoseconds


@dataclass
class _Arrival:
    stamp: Stamp
    since_s: float  # when it was first seen like this
    not_before_s: float  # when it may be read


class WatchedFolder:
    """Pictures of a folder and those below it, in order of arrival; what is there already comes first.

    The folder is looked at again and again rather than left to the notices of the kernel, which do not exist on
    network shares. A picture that has kept its size and time of change for `SETTLE_S` and can be decoded is complete;
    one that cannot be decoded may still be in writing, so it becomes an error only when nothing has changed for
    `DAMAGED_S`. A picture that is written anew under the same name is a new one. Memory grows with the pictures that
    lie in the folder, not with those that have been there.

    Attributes:
        name: the folder as the user gave it.
        live: False: pictures wait to be read, and none is dropped.
        length: None; there may always be another.

    Args:
        folder: its path.
        now_s: monotonic clock, seconds.
    """

    live = False
    length: int | None = None

    def __init__(self, folder: str, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self.name = folder
        self._now_s = now_s
        self._closed = threading.Event()
        self._judged: dict[str, Stamp] = {}
        self._arriving: dict[str, _Arrival] = {}
        self._ready: deque[str] = deque()
        self._next_id = 0
        self._look_again_s = 0.0

    def __enter__(self) -> WatchedFolder:
        """Open; what was judged stays judged. Raises: SourceError when the folder is absent or cannot be listed."""
        self._closed.clear()
        self._look()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.interrupt()

    def interrupt(self) -> None:
        self._closed.set()

    def read(self) -> Frame | None:
        """Next picture as (H, W, 3) uint8 RGB, when there is one; None when closed. Its deadline counts from reading.

        Raises: SourceError when the folder cannot be listed any more.
        """
        while not self._closed.is_set():
            while self._ready:
                frame = self._taken(self._ready.popleft())
                if frame is not None:
                    return frame
            if not self._closed.wait(max(0.0, self._look_again_s - self._now_s())):
                self._look()
        return None

    def _look(self) -> None:
        """Find out what is new, what has changed and what is complete."""
        began_s = self._now_s()
        if not os.path.isdir(self.name):
            raise SourceError(f"folder {self.name} does not exist; create it, or mount the share that it lies on")
        try:
            paths = pictures_below(self.name, left_out=lambda path: is_drawn(Path(path)))
        except SourceError as exc:
            if isinstance(exc.__cause__, FileNotFoundError) and os.path.isdir(self.name):
                self._look_again_s = began_s + POLL_S  # a folder below was taken away while it was looked at
                return
            raise
        present = dict(_stamped(paths))
        self._judged = {path: stamp for path, stamp in self._judged.items() if path in present}
        arriving: dict[str, _Arrival] = {}
        for path, stamp in present.items():
            if self._judged.get(path) == stamp:
                continue
            known = self._arriving.get(path)
            if known is None or known.stamp != stamp:
                known = _Arrival(stamp, began_s, began_s + SETTLE_S)
            arriving[path] = known
        self._arriving = arriving
        complete = [path for path, arrival in arriving.items() if began_s >= arrival.not_before_s]
        self._ready = deque(sorted(complete, key=lambda path: (arriving[path].stamp[1], natural_key(path))))
        ended_s = self._now_s()
        self._look_again_s = ended_s + max(POLL_S, 9 * (ended_s - began_s))

    def _taken(self, path: str) -> Frame | None:
        """The picture as a frame, or None when it is gone, or still in writing."""
        arrival = self._arriving[path]
        frame = picture_frame(path, self.name, self._next_id)
        now_s = self._now_s()
        stamp = _stamp(path)
        if stamp != arrival.stamp:
            return None  # written to meanwhile, or taken away: the next look decides
        if frame.error is not None and now_s - arrival.since_s < DAMAGED_S:
            age_s = now_s - arrival.since_s
            arrival.not_before_s = min(now_s + max(SETTLE_S, age_s), arrival.since_s + DAMAGED_S)
            return None
        self._judged[path] = stamp
        del self._arriving[path]
        self._next_id += 1
        return frame


def _stamped(paths: list[str]) -> Iterator[tuple[str, Stamp]]:
    for path in paths:
        stamp = _stamp(path)
        if stamp is not None:
            yield path, stamp


def _stamp(path: str) -> Stamp | None:
    """Size and time of change; None for a file that is gone or out of reach."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
