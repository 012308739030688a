"""What `edge-ad bench` prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_ad.cli.printable import console_on

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from edge_ad.runtime.instruments.bench.run import BenchResult

PIPE_COLUMNS = 120  # width of the tables where no terminal sets one
MOST_LAYERS = 8


def print_result(result: BenchResult, percentiles: Sequence[float]) -> None:
    """Everything that was found out, on standard output."""
    from rich.text import Text

    console = console_on(sys.stdout)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    for line in _head(result):
        console.print(Text(line))
    console.print(_latency_table(result, percentiles))
    for line in (*_throughput(result), *_roofline(result), *_energy(result), *_layers(result)):
        console.print(Text(line))
    _print_gate(result, console)
    for note in result.notes:
        console.print(Text(f"note: {note}"))


def _head(result: BenchResult) -> list[str]:
    subject, machine, found = result.subject, result.machine, result.measurement
    height, width = subject.frame_hw
    return [
        f"{result.bundle}: {subject.engine}, {subject.precision} computed in {subject.computed_in}, batch"
        f" {subject.batch}, frame {width}x{height}",
        f"{machine['processor']}, {machine['processors']} processors, {found.threads} threads; OpenVINO"
        f" {machine['openvino']}",
    ]


def _latency_table(result: BenchResult, percentiles: Sequence[float]) -> Table:
    from rich.table import Table

    from edge_ad.runtime.instruments.bench.record import latencies

    batch = result.subject.batch
    title = "milliseconds of a frame" if batch == 1 else f"milliseconds of a batch of {batch} frames"
    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    found = latencies(result.measurement, percentiles)
    for heading in found["total"]:
        table.add_column(heading, justify="right")
    for stage, row in found.items():
        table.add_row(stage, *(f"{value:.2f}" for value in row.values()))
    return table


def _throughput(result: BenchResult) -> list[str]:
    found = result.measurement
    verdict = found.verdict.verdict or "without a threshold"
    cached = "from the cache" if result.from_cache else "not from the cache"
    return [
        f"throughput: {found.frames_per_s:.1f} frames/s, one stage after the other ({len(found.frames_ms)} calls in"
        f" {found.rounds} rounds, {found.elapsed_s:.1f} s; verdict: {verdict}, regions: {len(found.verdict.regions)})",
        f"ready: {result.ready_s:.2f} s after the bundle was read, compiled model {cached}",
    ]


def _roofline(result: BenchResult) -> list[str]:
    roof = result.roofline
    lines = []
    if roof.macs is not None and roof.reached is not None:
        line = f"roofline: {roof.macs.count / 1e9:.3f} GMAC per call, {roof.reached:.1f} GMAC/s"
        if roof.share is not None:
            line += f" = {roof.share:.0%} of this machine's peak in {result.subject.computed_in}"
            line += f" ({roof.best_share:.0%} by the fastest calls), by {roof.clock} time"
        lines.append(line)
    if roof.reason is not None:
        lines.append(f"roofline: {roof.reason}")
    for peak in result.measurement.peaks:
        typical, best = peak.gmacs_per_s(), peak.gmacs_per_s(best=True)
        found = peak.reason
        if typical is not None and best is not None:
            found = f"{typical:.1f} GMAC/s (best {best:.1f}), GEMM 2048, {peak.kernel}"
        lines.append(f"  peak {peak.arithmetic}: {found}")
    return lines


def _energy(result: BenchResult) -> list[str]:
    frames = len(result.measurement.frames_ms) * result.measurement.batch
    lines = []
    for each in result.readings:
        parts = []
        if each.joules is not None and each.watts is not None:
            parts.append(f"{each.joules / frames:.3f} J per frame, {each.watts:.1f} W")
        if each.clocks_mhz is not None:
            parts.append("{:.0f} / {:.0f} / {:.0f} MHz (lowest, median, highest)".format(*each.clocks_mhz))
        lines.append(f"{each.source}: {'; '.join(parts)}")
    if not any(each.joules is not None for each in result.readings):
        lines.append("energy: no device here tells it")
    return [*lines, *(f"  {line}" for line in result.silent)]


def _layers(result: BenchResult) -> list[str]:
    layers = result.layers.layers
    if not layers:
        return [f"layers: {result.layers.note}"]
    total = sum(layer.mean_ms for layer in layers)
    return [
        f"layers: {len(layers)} that take time, slowest first ({result.layers.note})",
        *(
            f"  {layer.mean_ms:8.3f} ms {layer.mean_ms / total:6.1%}  {layer.kind}  {layer.name}  {layer.kernel}"
            for layer in layers[:MOST_LAYERS]
        ),
    ]


def _print_gate(result: BenchResult, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from edge_ad.runtime.instruments.bench.statistics import RULE

    gate = result.gate
    if gate is None:
        return
    title = f"against the baseline, by {gate.clock} time, limit {gate.limit:+.0%}"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("stage")
    for heading in ("change", "from", "to"):
        table.add_column(heading, justify="right")
    table.add_column("finding")
    for stage, change in gate.changes.items():
        shown = (f"{(value - 1) * 100:+.1f} %" for value in (change.ratio, change.low, change.high))
        table.add_row(stage, *shown, change.finding)
    console.print(table)
    console.print(Text(RULE))
    for note in gate.notes:
        console.print(Text(f"note: {note}"))
