"""Cameras of a soak: pictures with fingerprints, faults on the way, and a note of every frame that the line gets."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone

from edge_ad.frame import Frame, FrameSource, ImageArray
from edge_ad.runtime.soak.evidence import Evidence, tag, tag_of
from edge_ad.runtime.soak.faults import Dice
from edge_ad.runtime.soak.fingerprint import Fingerprint, stamp


class FaultySource:
    """A source whose pictures carry fingerprints and whose reads meet faults.

    What a frame is stands in its `path`, which goes through every wrapper and into the record.

    Args:
        inner: gives the pictures; they belong to this source and are written on.
        lane: number of the camera.
        numbers: of its pictures; no number is to come twice in a soak.

    Attributes:
        closed: set when the source is closed.
    """

    length: int | None = None

    def __init__(self, inner: FrameSource, lane: int, dice: Dice, numbers: Iterator[int]) -> None:
        self.name = f"camera {lane}"
        self.live = True
        self.lane = lane
        self.closed = threading.Event()
        self._inner = inner
        self._dice = dice
        self._numbers = numbers
        self._planned: deque[Callable[[], Frame | None]] = deque()
        self._last: Frame | None = None
        self._plain: ImageArray | None = None

    def __enter__(self) -> FaultySource:
        self.closed.clear()
        self._planned.clear()
        self._last = None
        self._inner.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closed.set()
        self._inner.__exit__(*exc_info)

    def read(self) -> Frame | None:
        if self._planned:
            frame = self._planned.popleft()()
        else:
            fault = self._dice.draw()
            frame = self.next() if fault is None else fault.strike(self, self._dice.random)
        if frame is not None and tag_of(frame.path)[0] != "corrupt":
            self._last = frame
        return frame

    def then(self, *reads: Callable[[], Frame | None]) -> None:
        """What the next reads are to do in place of reading."""
        self._planned.extend(reads)

    def next(self) -> Frame | None:
        """The next good frame, when it is due."""
        frame = self._inner.read()
        if frame is None or frame.image_hwc is None:
            return frame
        self._plain = frame.image_hwc.copy()
        return self._stamped(frame)

    def at_once(self) -> Frame | None:
        """A good frame that nobody has to wait for."""
        if self._last is None or self._plain is None:
            return self.next()
        now = {"captured_ns": time.monotonic_ns(), "captured_at": datetime.now(timezone.utc)}
        return self._stamped(replace(self._last, image_hwc=self._plain.copy(), error=None, **now))  # type: ignore[arg-type]

    def again(self) -> Frame | None:
        """The last picture once more, when the next one is due."""
        frame, last = self.next(), self._last
        if frame is None or last is None or last.image_hwc is None:
            return frame
        return self.spoiled("repeat", replace(frame, image_hwc=last.image_hwc.copy()))

    def spoiled(self, kind: str, frame: Frame) -> Frame:
        """A frame that shows something else than its fingerprint says; `kind` is a key of `evidence.ENDS`."""
        return replace(frame, path=tag(kind, self._fingerprint_of(frame)))

    def number_of(self, frame: Frame) -> int:
        return self._fingerprint_of(frame).number

    def _fingerprint_of(self, frame: Frame) -> Fingerprint:
        return tag_of(frame.path)[1]

    def _stamped(self, frame: Frame) -> Frame:
        assert frame.image_hwc is not None
        fingerprint = Fingerprint(self.lane, next(self._numbers))
        stamp(frame.image_hwc, fingerprint)
        return replace(frame, path=tag("good", fingerprint))


class Handed:
    """Notes every frame that the line is given; stands between the line and whatever protects it from its cameras."""

    def __init__(self, inner: FrameSource, name: str, evidence: Evidence) -> None:
        self.name = name
        self.live = inner.live
        self.length: int | None = None
        self._inner = inner
        self._evidence = evidence

    def __enter__(self) -> Handed:
        self._inner.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._inner.__exit__(*exc_info)

    def read(self) -> Frame | None:
        frame = self._inner.read()
        if frame is not None:
            self._evidence.handed(self.name, frame)
        return frame
