"""When a frame of a network stream was captured, if it waited on the way."""

from __future__ import annotations

import math

FRESH_SHARE = 0.5
"""A read that took at least this share of the time between two frames had to wait for its frame: nothing was queued."""

OLDEST_NS = 60_000_000_000
"""Ages beyond are rather a jump of the stream's clock."""


class StreamClock:
    """Tells the age of frames by the stream's own time stamps.

    TCP loses nothing, so a reader that falls behind finds frames that are seconds old, one after the other, and taking
    the time of arrival for the time of capture would call them fresh. A frame for which the reader had to wait has
    just arrived; with that, the stamps of those that were there already say how long ago they were captured.
    """

    def __init__(self) -> None:
        self._position_ns: int | None = None
        self._offset_ns: int | None = None  # from the stream's clock to the monotonic one

    @property
    def knows_ages(self) -> bool:
        """Whether a frame has come for which the reader had to wait."""
        return self._offset_ns is not None

    def captured_ns(self, asked_ns: int, arrived_ns: int, position_ms: float) -> int:
        """Monotonic time of capture, nanoseconds; of arrival, where the stream does not tell.

        Args:
            asked_ns, arrived_ns: when the read began and ended.
            position_ms: the frame's time stamp.
        """
        position_ns = round(position_ms * 1e6) if math.isfinite(position_ms) else None
        last_ns, self._position_ns = self._position_ns, position_ns
        if position_ns is None or last_ns is None or position_ns <= last_ns:
            self._offset_ns = None
            return arrived_ns
        if arrived_ns - asked_ns >= FRESH_SHARE * (position_ns - last_ns):
            self._offset_ns = arrived_ns - position_ns
        if self._offset_ns is None:
            return arrived_ns
        age_ns = arrived_ns - (position_ns + self._offset_ns)
        return arrived_ns - age_ns if 0 < age_ns <= OLDEST_NS else arrived_ns
