"""What happens between the frames of a line, as lines among the records: silence, outages, parts without a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from edge_ad.record.events import disconnected_event, no_frame_event, reconnected_event, trigger_missed_event
from edge_ad.runtime.line.scheduling.counters import Counters
from edge_ad.runtime.line.scheduling.trigger import Pending
from edge_ad.runtime.sources.outage import Lost, Outage


class LineEvents:
    """Counts events and hands them on; from any thread.

    Args:
        names: of the lanes.
        write: takes the JSON object of each event.
        say: receives what the user should know.
    """

    def __init__(
        self,
        names: Sequence[str],
        counters: Counters,
        write: Callable[[Mapping[str, Any]], None],
        say: Callable[[str], None],
        clock_ns: Callable[[], int],
    ) -> None:
        self._names = names
        self._counters = counters
        self._write = write
        self._say = say
        self._clock_ns = clock_ns
        self._away: dict[int, str] = {}

    def away(self, lane: int) -> str | None:
        """Why a source is waited for at the moment; None when it is there."""
        return self._away.get(lane)

    def silence(self, lane: int, silent_s: float) -> None:
        """A live source has given nothing for so long."""
        count = self._counters.no_frame(lane)
        self._write(
            no_frame_event(
                self._names[lane],
                at=datetime.now(timezone.utc),
                monotonic_ns=self._clock_ns(),
                silent_s=silent_s,
                count=count,
            )
        )

    def outage(self, lane: int, outage: Outage) -> None:
        """A source was lost, or is back."""
        name, at, monotonic_ns = self._names[lane], outage.at, outage.monotonic_ns
        if isinstance(outage, Lost):
            count = self._counters.disconnected(lane, hung=outage.cause == "hung")
            entry = disconnected_event(
                name, at=at, monotonic_ns=monotonic_ns, cause=outage.cause, reason=outage.reason, count=count
            )
            self._away[lane] = f"{outage.cause}: {outage.reason}"
            self._say(f"warning: {name}: {self._away[lane]}")
        else:
            self._away.pop(lane, None)
            count = self._counters.snapshot().lanes[lane].disconnected
            entry = reconnected_event(
                name, at=at, monotonic_ns=monotonic_ns, away_s=outage.away_s, attempts=outage.attempts, count=count
            )
            self._say(f"{name}: back after {outage.away_s:.1f} s and {outage.attempts} attempt(s)")
        self._write(entry)

    def trigger_missed(self, lane: int, trigger: Pending, waited_ns: int, reason: str) -> None:
        """A part was announced and not captured."""
        self._write(
            trigger_missed_event(
                self._names[lane],
                part_id=trigger.part_id,
                at=datetime.now(timezone.utc),
                monotonic_ns=self._clock_ns(),
                waited_ms=waited_ns / 1e6,
                reason=reason,
            )
        )
