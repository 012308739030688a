"""What a soak says while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_ad.record.verdict import STATUSES
from edge_ad.runtime.instruments.soak.checks import INVARIANTS, Findings
from edge_ad.runtime.instruments.soak.process import Held
from edge_ad.runtime.line.scheduling.counters import LaneCounts, Snapshot
from edge_ad.runtime.sinks.counts import SinkCounts

SINKS = ("witness", "records", "pictures", "database")


@dataclass(frozen=True)
class SoakResult:
    """What came of a soak.

    Attributes:
        findings: breaches of the invariants; none when all hold.
        totals: counts over all rounds.
        faults: how often each kind struck.
        rounds: lines that ran.
        growth_mib: growth of memory; None where it is not known.
        began, ended: what the process held before and after.
        interrupted: whether the user ended it.
    """

    findings: Findings
    totals: Snapshot
    faults: dict[str, int]
    rounds: int
    growth_mib: float | None
    began: Held
    ended: Held
    interrupted: bool


def counters_line(totals: Snapshot, faults: int, held: Held, seconds: float) -> str:
    """All that is counted, in one line."""
    everything = LaneCounts(
        "all cameras", totals.captured, dict(totals.statuses), sum(lane.in_flight for lane in totals.lanes)
    )
    return f"{seconds:6.0f} s  {lane_sum(everything)}; faults {faults}; {held}"


def lane_sum(lane: LaneCounts) -> str:
    """`captured` and what it is the sum of."""
    terms = " + ".join(f"{status} {lane.statuses.get(status, 0)}" for status in STATUSES)
    return f"{lane.name}: captured {lane.captured} = {terms} + in flight {lane.in_flight}"


def sink_sum(name: str, sink: SinkCounts) -> str:
    """`taken` and what it is the sum of."""
    return (
        f"{name}: taken {sink.taken} = delivered {sink.delivered} + lost {sink.lost} + dropped {sink.dropped}"
        f" + waiting {sink.waiting}; {sink.failures} failures, {sink.gone} of the lost taken away by somebody else"
    )


def closing_lines(result: SoakResult) -> Iterator[str]:
    """Every count and every invariant."""
    yield f"{result.rounds} lines ran one after another"
    for lane in result.totals.lanes:
        lost = f"lost {lane.disconnected} times, {lane.hung} of them by the watchdog"
        yield f"{lane_sum(lane)}; reported silent {lane.no_frame} times; {lost}"
    for number, sink in enumerate(result.totals.sinks):
        yield sink_sum(SINKS[number] if number < len(SINKS) else f"sink {number}", sink)
    yield f"the engine's process: {result.totals.engine_restarts} fresh ones took over while a line ran"
    struck = ", ".join(f"{kind} {count}" for kind, count in sorted(result.faults.items())) or "none"
    yield f"faults: {sum(result.faults.values())} ({struck})"
    grown = "not known" if result.growth_mib is None else f"{result.growth_mib:+.1f} MiB"
    yield f"at the start {result.began}; at the end {result.ended}; growth of memory {grown}"
    counts = result.findings.counts
    for invariant, meaning in INVARIANTS.items():
        yield f"{'BROKEN' if counts[invariant] else 'holds ':6} {invariant:12} {meaning}"
        for example in result.findings.examples(invariant):
            yield f"         {example}"
        if counts[invariant] > len(result.findings.examples(invariant)):
            yield f"         ... {counts[invariant]} times in all"
