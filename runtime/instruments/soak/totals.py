"""Counts of several lines in a row, as one."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

from edge_ad.runtime.line.scheduling.counters import LaneCounts, Snapshot
from edge_ad.runtime.sinks.counts import SinkCounts


def added(first: Snapshot, second: Snapshot) -> Snapshot:
    """The sum, camera by camera and sink by sink; an empty snapshot adds nothing."""
    if not first.lanes:
        return second
    lanes = tuple(_lane(a, b) for a, b in zip(first.lanes, second.lanes, strict=True))
    sinks = tuple(_sink(a, b) for a, b in zip(first.sinks, second.sinks, strict=True))
    return Snapshot(lanes, sinks, first.engine_restarts + second.engine_restarts)


def _lane(a: LaneCounts, b: LaneCounts) -> LaneCounts:
    return replace(
        a,
        captured=a.captured + b.captured,
        statuses=dict(Counter(a.statuses) + Counter(b.statuses)),
        in_flight=a.in_flight + b.in_flight,
        overtaken=a.overtaken + b.overtaken,
        no_frame=a.no_frame + b.no_frame,
        disconnected=a.disconnected + b.disconnected,
        hung=a.hung + b.hung,
        left_out=a.left_out + b.left_out,
        verdicts=dict(Counter(a.verdicts) + Counter(b.verdicts)),
    )


def _sink(a: SinkCounts, b: SinkCounts) -> SinkCounts:
    sums = {one.name: getattr(a, one.name) + getattr(b, one.name) for one in fields(a) if one.name != "name"}
    return replace(a, **sums)
