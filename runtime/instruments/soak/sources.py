"""Cameras of a soak: pictures with fingerprints, faults on the way, and a note of every frame that the line gets."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from edge_ad.errors import SourceError
from edge_ad.image.frame import Frame, FrameSource, ImageArray
from edge_ad.runtime.instruments.soak.books import Books, tag, tag_of
from edge_ad.runtime.instruments.soak.clock import WrongClock
from edge_ad.runtime.instruments.soak.dice import Dice
from edge_ad.runtime.instruments.soak.fingerprint import Fingerprint, stamp
from edge_ad.runtime.sources.outage import Interruptible, ReportsOutages


class Plug:
    """A camera from the outside: it can be pulled out, and opened as often as it takes.

    Args:
        make: gives the pictures; called for each opening.
        lane: number of the camera.
        numbers: of its pictures; no number is to come twice in a soak.
        clock: by which frames are dated.

    Attributes:
        dice: of all its faults.
        pulled: how often it was pulled out.
        absent: openings that still fail.
    """

    def __init__(
        self, make: Callable[[], FrameSource], lane: int, dice: Dice, numbers: Iterator[int], clock: WrongClock
    ) -> None:
        self.name = f"camera {lane}"
        self.lane = lane
        self.dice = dice
        self.numbers = numbers
        self.clock = clock
        self.pulled = self.absent = 0
        self._make = make
        self._opened: list[FaultySource] = []

    def open_anew(self) -> FaultySource:
        """The camera, to be opened."""
        source = FaultySource(self._make(), self)
        self._opened.append(source)
        return source

    def release(self) -> None:
        """Free whatever hangs, and forget it."""
        for source in self._opened:
            source.closed.set()
        self._opened.clear()


class FaultySource:
    """A source whose pictures carry fingerprints and whose reads meet faults.

    What a frame is stands in its `path`, which goes through every wrapper and into the record.

    Args:
        inner: gives the pictures; they belong to this source and are written on.
        plug: of the camera.

    Attributes:
        closed: set when the source is closed, or the soak has the camera released.
    """

    length: int | None = None

    def __init__(self, inner: FrameSource, plug: Plug) -> None:
        self.name = plug.name
        self.live = True
        self.lane = plug.lane
        self.closed = threading.Event()
        self._inner = inner
        self._plug = plug
        self._planned: deque[Callable[[], Frame | None]] = deque()
        self._last: Frame | None = None
        self._plain: ImageArray | None = None

    def __enter__(self) -> FaultySource:
        if self._plug.absent:
            self._plug.absent -= 1
            raise SourceError(f"{self.name}: simulated: not there")
        self._inner.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closed.set()
        self._inner.__exit__(*exc_info)

    def read(self) -> Frame | None:
        if self._planned:
            frame = self._planned.popleft()()
        else:
            dice = self._plug.dice
            fault = dice.draw()
            frame = self.next() if fault is None else fault.strike(self, dice.random)
        if frame is not None and tag_of(frame.path)[0] != "corrupt":
            self._last = frame
        return frame

    def pull_out(self, openings: int) -> None:
        """It gives no further frame, nor does it open for so many times."""
        self._plug.pulled += 1
        self._plug.absent = openings
        raise SourceError(f"{self.name}: simulated: unplugged")

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
        now_ns = time.monotonic_ns()
        return self._stamped(replace(self._last, image_hwc=self._plain.copy(), error=None, captured_ns=now_ns))

    def again(self) -> Frame | None:
        """The last picture once more, when the next one is due."""
        frame, last = self.next(), self._last
        if frame is None or last is None or last.image_hwc is None:
            return frame
        return self.spoiled("repeat", replace(frame, image_hwc=last.image_hwc.copy()))

    def spoiled(self, kind: str, frame: Frame) -> Frame:
        """A frame that shows something else than its fingerprint says; `kind` is a key of `books.ENDS`."""
        return replace(frame, path=tag(kind, self._fingerprint_of(frame)))

    def number_of(self, frame: Frame) -> int:
        return self._fingerprint_of(frame).number

    def _fingerprint_of(self, frame: Frame) -> Fingerprint:
        return tag_of(frame.path)[1]

    def _stamped(self, frame: Frame) -> Frame:
        assert frame.image_hwc is not None
        fingerprint = Fingerprint(self.lane, next(self._plug.numbers))
        stamp(frame.image_hwc, fingerprint)
        return replace(frame, path=tag("good", fingerprint), captured_at=self._plug.clock.now())


class Handed:
    """Notes every frame that the line is given; stands between the line and whatever protects it from its cameras."""

    def __init__(self, inner: FrameSource, name: str, books: Books) -> None:
        self.name = name
        self.live = inner.live
        self.length: int | None = None
        self._inner = inner
        self._books = books
        if isinstance(inner, ReportsOutages):
            self.report_to = inner.report_to
        if isinstance(inner, Interruptible):
            self.interrupt = inner.interrupt

    def __enter__(self) -> Handed:
        self._inner.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._inner.__exit__(*exc_info)

    def read(self) -> Frame | None:
        frame = self._inner.read()
        if frame is not None:
            self._books.handed(self.name, frame)
        return frame
