"""When a frame of a network stream was captured, if it waited on the way."""

from __future__ import annotations

import math

FRESH_SHARE = 0.5
"""A read that took at least this share of the time between two frames had to wait for its frame: nothing was queued."""

FIRST_WAITS = 2
"""Reads in a row that waited, after which the present is believed to be reached; a busy machine can delay one."""

OTHER_WAITS = 3
"""The same where the stamps say otherwise: the way through the network is longer now, or the camera's clock jumped."""

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
        self._waits = 0  # reads in a row that waited and were not believed

    @property
    def knows_ages(self) -> bool:
        """Whether frames have come for which the reader had to wait."""
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
            self._offset_ns, self._waits = None, 0
            return arrived_ns
        period_ns = position_ns - last_ns
        age_ns = None if self._offset_ns is None else arrived_ns - (position_ns + self._offset_ns)
        self._waits = self._waits + 1 if arrived_ns - asked_ns >= FRESH_SHARE * period_ns else 0
        if self._waits >= self._enough_waits(age_ns, period_ns):
            self._offset_ns, self._waits = arrived_ns - position_ns, 0
            return arrived_ns
        return arrived_ns - age_ns if age_ns is not None and 0 < age_ns <= OLDEST_NS else arrived_ns

    @staticmethod
    def _enough_waits(age_ns: int | None, period_ns: int) -> int:
        """How many reads in a row have to wait until the last frame counts as new."""
        if age_ns is None:
            return FIRST_WAITS
        return 1 if age_ns <= period_ns else OTHER_WAITS
