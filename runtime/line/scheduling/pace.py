"""Frames left out on purpose: every so many-th is captured, or so many per second."""

from __future__ import annotations

from edge_ad.runtime.line.scheduling.lane import Lane


class Pace:
    """Says which frames of one lane are captured. Times are monotonic nanoseconds."""

    def __init__(self, lane: Lane) -> None:
        self._stride = lane.vid_stride
        self._period_ns = None if lane.max_fps is None else round(1e9 / lane.max_fps)
        self._seen = -1
        self._due_ns: int | None = None

    def takes(self, now_ns: int) -> bool:
        """Whether a frame that arrives now is captured.

        A frame may come half a period early, so that a camera's jitter does not cost every second frame; the rate over
        time is kept all the same.
        """
        self._seen += 1
        if self._seen % self._stride:
            return False
        if self._period_ns is None:
            return True
        if self._due_ns is not None and now_ns < self._due_ns - self._period_ns // 2:
            return False
        self._due_ns = now_ns + self._period_ns if self._due_ns is None else max(self._due_ns + self._period_ns, now_ns)
        return True

    def wait_s(self, now_ns: int) -> float:
        """How long a source that waits is to be left alone before its next frame is read, seconds."""
        if self._due_ns is None or (self._seen + 1) % self._stride:
            return 0.0
        return max(0.0, (self._due_ns - now_ns) / 1e9)
