"""What is said between the records of frames, as JSON objects; `verdict.schema.json` describes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from edge_ad.record.timestamps import utc_text


def _event(name: str, source: str, at: datetime, monotonic_ns: int, **more: Any) -> dict[str, Any]:
    """What every event begins with, and what is its own."""
    return {"event": name, "source": source, "at": utc_text(at), "monotonic_ns": monotonic_ns, **more}


def no_frame_event(source: str, *, at: datetime, monotonic_ns: int, silent_s: float, count: int) -> dict[str, Any]:
    """The JSON object that says that a live source gives nothing.

    Args:
        source: as in records.
        at: when this was found.
        monotonic_ns: the same by the monotonic clock.
        silent_s: seconds since the read began that has not returned.
        count: which report of this source in this run it is, from 1.
    """
    return _event("no_frame", source, at, monotonic_ns, silent_s=round(silent_s, 3), count=count)


def disconnected_event(
    source: str, *, at: datetime, monotonic_ns: int, cause: str, reason: str, count: int
) -> dict[str, Any]:
    """The JSON object that says that a source is lost and opened again.

    Args:
        source: as in records.
        at: when this was found.
        monotonic_ns: the same by the monotonic clock.
        cause: `absent` at the start, `lost`, or `hung`.
        reason: what the source said.
        count: which loss of this source in this run it is, from 1.
    """
    return _event("disconnected", source, at, monotonic_ns, cause=cause, reason=reason, count=count)


def reconnected_event(
    source: str, *, at: datetime, monotonic_ns: int, away_s: float, attempts: int, count: int
) -> dict[str, Any]:
    """The JSON object that says that a lost source gives frames again.

    Args:
        source: as in records.
        at: when the first of them came.
        monotonic_ns: the same by the monotonic clock.
        away_s: seconds since it was lost.
        attempts: how many times it was opened for that.
        count: that of the loss which this ends.
    """
    return _event("reconnected", source, at, monotonic_ns, away_s=round(away_s, 3), attempts=attempts, count=count)


def trigger_missed_event(
    source: str, *, part_id: str, at: datetime, monotonic_ns: int, waited_ms: float, reason: str
) -> dict[str, Any]:
    """The JSON object that says that a part was announced and not captured.

    Args:
        source: as in records.
        part_id: as announced.
        at: when it was given up.
        monotonic_ns: the same by the monotonic clock.
        waited_ms: how long it waited for a frame.
        reason: why it got none.
    """
    return _event(
        "trigger_missed", source, at, monotonic_ns, part_id=part_id, waited_ms=round(waited_ms, 3), reason=reason
    )


def drift_event(
    source: str, *, at: datetime, monotonic_ns: int, state: Literal["alarm", "cleared"], comparison: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON object that says that the scores of a source are no longer, or again, those that they were.

    Args:
        source: as in records.
        at: when this was found.
        monotonic_ns: the same by the monotonic clock.
        state: what began.
        comparison: the figures behind it; `verdict.schema.json` describes them.
    """
    return _event("drift", source, at, monotonic_ns, state=state, **comparison)
