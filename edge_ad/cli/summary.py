"""The closing table of a run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_ad.runtime.telemetry import Telemetry


def print_summary(telemetry: Telemetry, *, budget_ms: float | None) -> None:
    """Counts and times of a run, on stderr."""
    if sys.stderr is None:
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    table = Table(title="milliseconds by stage", title_justify="left")
    table.add_column("stage")
    for heading in ("p50", "p95", "p99", "max"):
        table.add_column(heading, justify="right")
    for row in telemetry.stages():
        table.add_row(row.stage, *(f"{value:.2f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms)))
    console.print(table)
    counts = ", ".join(f"{count} {status}" for status, count in telemetry.statuses.most_common())
    console.print(f"{telemetry.frames} frames captured: {counts or 'none'}")
    if telemetry.verdicts:
        console.print("verdicts: " + ", ".join(f"{count} {name}" for name, count in telemetry.verdicts.most_common()))
    limit = "no budget set" if budget_ms is None else f"budget {budget_ms:g} ms"
    console.print(
        f"missed deadlines: {telemetry.missed} ({telemetry.statuses['late']} judged too late,"
        f" {telemetry.missed - telemetry.statuses['late']} too old to be judged; {limit}),"
        f" dropped for a newer frame: {telemetry.overtaken}"
    )
