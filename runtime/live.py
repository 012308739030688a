"""Live sources: a thread keeps reading, the newest frame waits, and what it replaces is accounted for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

from edge_ad.frame import Frame, FrameSource

MAX_PASSED_OVER = 10_000  # records of frames that wait for the judge; without their pictures, about 1 KB each
STOP_S = 2.0  # how long a stopped run waits for a read that is under way; a camera may hang in it for good
POLL_S = 0.1  # how often a waiting reader looks whether it should stop


@dataclass(frozen=True)
class Captured:
    """A frame on its way to the judge; `passed_over` when a newer one took its place."""

    frame: Frame
    passed_over: bool = False


def captured_frames(
    source: FrameSource, stop: threading.Event, max_frames: int | None
) -> Generator[Captured, None, None]:
    """Every captured frame of an open source, exactly once, in order of capture.

    A source that waits is read when its frame is wanted. A live one is read by a thread: a frame that is still waiting
    when the next arrives comes out as `passed_over`, without its picture.
    """
    frames = _live(source, stop, max_frames) if source.live else _in_turn(source, stop, max_frames)
    yield from frames


def _in_turn(source: FrameSource, stop: threading.Event, max_frames: int | None) -> Iterator[Captured]:
    count = 0
    while not stop.is_set() and (max_frames is None or count < max_frames):
        frame = source.read()
        if frame is None:
            return
        count += 1
        yield Captured(frame)


def _live(source: FrameSource, stop: threading.Event, max_frames: int | None) -> Iterator[Captured]:
    slot = FreshestSlot()
    reader = threading.Thread(target=_fill, args=(source, slot, stop, max_frames), name="edge-ad-capture", daemon=True)
    reader.start()
    try:
        while True:
            yield from slot.take(POLL_S)
            if slot.drained:
                break
            if stop.is_set():
                reader.join(STOP_S)
                break
        yield from slot.take(0)
        if slot.failure is not None:
            raise slot.failure
    finally:
        stop.set()
        reader.join(STOP_S)


def _fill(source: FrameSource, slot: FreshestSlot, stop: threading.Event, max_frames: int | None) -> None:
    count = 0
    try:
        while not stop.is_set() and (max_frames is None or count < max_frames):
            frame = source.read()
            if frame is None:
                break
            count += 1
            slot.put(frame)
    except Exception as exc:
        slot.failure = exc
    finally:
        slot.end()


class FreshestSlot:
    """Holds the newest frame for one taker; frames that it replaces are kept as records."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self._condition = threading.Condition()
        self._frame: Frame | None = None
        self._passed_over: deque[Frame] = deque()
        self._ended = False

    def put(self, frame: Frame) -> None:
        """Offer a frame. Waits only when the taker has stood still for very many frames."""
        with self._condition:
            self._condition.wait_for(lambda: len(self._passed_over) < MAX_PASSED_OVER or self._ended)
            if self._frame is not None:
                kept = self._frame if self._frame.error else replace(self._frame, image_hwc=None)
                self._passed_over.append(kept)
            self._frame = frame
            self._condition.notify_all()

    def take(self, timeout_s: float) -> list[Captured]:
        """Everything captured since the last call, oldest first; empty after `timeout_s` seconds of silence."""
        with self._condition:
            self._condition.wait_for(lambda: self._frame is not None or self._ended, timeout_s)
            taken = [Captured(frame, passed_over=True) for frame in self._passed_over]
            if self._frame is not None:
                taken.append(Captured(self._frame))
            self._passed_over.clear()
            self._frame = None
            self._condition.notify_all()
            return taken

    def end(self) -> None:
        """Say that no further frame comes."""
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    @property
    def drained(self) -> bool:
        with self._condition:
            return self._ended and self._frame is None and not self._passed_over
