"""The closing table of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge_ad.cli.printable import console_on
from edge_ad.errors import DeadlineError, LostRecordsError

if TYPE_CHECKING:
    from edge_ad.runtime.line.telemetry import Telemetry


def print_summary(telemetry: Telemetry, budgets_ms: Sequence[float | None]) -> None:
    """Counts and times of a run, on stderr. Args: budgets_ms: of the cameras."""
    if sys.stderr is None:
        return
    from rich.table import Table

    console = console_on(sys.stderr)
    table = Table(title="milliseconds by stage", title_justify="left")
    table.add_column("stage")
    for heading in ("p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    for row in telemetry.stages():
        table.add_row(row.stage, *(f"{value:.2f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms)))
    console.print(table)
    counts = telemetry.counters.snapshot()
    console.print(f"{counts.captured} frames captured: {_listed(counts.statuses)}")
    if len(counts.lanes) > 1:
        for lane in counts.lanes:
            console.print(f"  {lane.name}: {lane.captured} frames captured: {_listed(lane.statuses)}")
    if telemetry.verdicts:
        console.print("verdicts: " + ", ".join(f"{count} {name}" for name, count in telemetry.verdicts.most_common()))
    late, missed = counts.statuses["late"], counts.missed - counts.overtaken
    limit = _budgets([budget_ms for budget_ms in budgets_ms if budget_ms is not None])
    console.print(
        f"missed deadlines: {missed} ({late} judged too late, {missed - late} too old to be judged; {limit}),"
        f" dropped for a newer frame: {counts.overtaken}"
    )
    if counts.engine_restarts:
        console.print(f"the engine failed and was started again {counts.engine_restarts} times; error records say why")
    for lane in counts.lanes:
        if lane.no_frame:
            console.print(f"{lane.name} was silent: reported {lane.no_frame} times")
        if lane.disconnected:
            console.print(f"{lane.name} was lost: {lane.disconnected} times, {lane.hung} of them by the watchdog")
        if lane.triggers.accepted or lane.triggers.refused:
            console.print(
                f"{lane.name}: {lane.triggers.accepted} triggers, {lane.triggers.answered} answered,"
                f" {lane.triggers.missed} without a frame; {lane.triggers.refused} more were refused"
            )
    for sink in counts.sinks:
        if sink.lost or sink.dropped or sink.failures or sink.waiting:
            waiting = f" {sink.waiting} waiting," if sink.waiting else ""
            gone = f"; {sink.gone} of them were taken away by somebody else" if sink.gone else ""
            console.print(
                f"{sink.name}: {sink.delivered} of {sink.taken} written, {sink.lost} lost, {sink.dropped} left out,"
                f"{waiting} {sink.failures} failures{gone}"
            )


def _budgets(budgets_ms: Sequence[float]) -> str:
    if not budgets_ms:
        return "no budget set"
    if len(set(budgets_ms)) == 1:
        return f"budget {budgets_ms[0]:g} ms"
    return f"budgets {min(budgets_ms):g} to {max(budgets_ms):g} ms"


def check_miss_rate(telemetry: Telemetry, limit: float | None) -> None:
    """Raises: DeadlineError when a larger share of the captured frames than `limit` was late or skipped."""
    counts = telemetry.counters.snapshot()
    if limit is not None and counts.miss_rate > limit:
        raise DeadlineError(
            f"{counts.missed} of {counts.captured} frames were late or skipped, a share of {counts.miss_rate:.3g};"
            f" wanted {limit:g} at most; take a faster engine or precision, a larger budget or fewer frames"
        )


def check_lost(telemetry: Telemetry, hung: Sequence[str]) -> None:
    """Raises: LostRecordsError when a sink has lost what it should have kept. Args: hung: sinks that still write."""
    sinks = [sink for sink in telemetry.counters.snapshot().sinks if sink.lost]
    lost = [f"{sink.lost} of {sink.taken} by {sink.name}" for sink in sinks]
    lost += [f"what {name} was still writing at the end" for name in hung]
    if lost:
        raise LostRecordsError(
            f"records are lost: {', '.join(lost)}; mend what was said of it above, and judge them anew"
        )


def _listed(statuses: Mapping[str, int]) -> str:
    by_count = sorted(statuses.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {status}" for status, count in by_count) or "none"
