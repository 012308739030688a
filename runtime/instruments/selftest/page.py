"""The report as a page of text, to be pasted into a bug report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge_ad.runtime.instruments.selftest.agreement import Difference
from edge_ad.runtime.instruments.selftest.kernels import GREY_LEVELS, OPERATOR_LIMIT, STRAYS
from edge_ad.runtime.instruments.selftest.latency import RULE
from edge_ad.runtime.instruments.selftest.machine import without_home
from edge_ad.runtime.instruments.selftest.memory import MEBIBYTE, MemoryFigures
from edge_ad.runtime.instruments.selftest.report import EngineRow, Report


def page(report: Report) -> str:
    """The report as text, without the name of the user's home folder."""
    return str(without_home("\n".join(_lines(report)))) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"edge-ad selftest of engine {report.engine}"
    width = max(map(len, report.about))
    for name, value in report.about.items():
        yield f"  {name:{width}}  {value}"
    yield ""
    yield f"Engine against {report.reference}, {report.images};"
    yield f"  masks and verdicts at {report.threshold:.6g}, {report.threshold_of}"
    yield from _engine_table(report.engines)
    if report.against_fp32 is not None:
        yield from _against_fp32(report.against_fp32, report.against_fp32_faults)
    yield ""
    yield f"Maps and scores against the operator in float64, on the engine's own patch maps; allowed {OPERATOR_LIMIT:g}"
    rows = [("", "anomaly map", "score", "")]
    for row in report.operators:
        off = row.difference
        rows.append((row.engine, f"{off.anomaly_map:.1e}", f"{off.score:.1e}", _judgement(row.faults, row.judged)))
    yield from _table(rows)
    if report.preprocess is not None:
        yield ""
        yield (
            f"Model inputs of the device against the CPU's; allowed {GREY_LEVELS} grey level in {100 * STRAYS:g} % of"
            " the values"
        )
        found = report.preprocess.difference
        figures = "failed" if found is None else f"{found.grey_levels} in {100 * found.share:.3g} %"
        yield f"  {figures}  {_judgement(report.preprocess.faults)}"
    yield ""
    yield from _latency(report)
    yield from _memory(report.memory)
    if report.missing:
        yield ""
        yield "Not checked"
        for reason in dict.fromkeys(report.missing.values()):
            names = [name for name, why in report.missing.items() if why == reason]
            yield f"  {', '.join(names)}: {reason}"
    if report.notes:
        yield ""
        yield from (f"Note: {note}" for note in report.notes)
    if report.failures:
        yield ""
        yield "Wrong"
        yield from (f"  {failure}" for failure in report.failures)
    yield ""
    yield report.verdict


def _engine_table(rows: Sequence[EngineRow]) -> Iterator[str]:
    table: list[tuple[str, ...]] = [
        ("", "batch", "patch map", "anomaly map", "score", "mask", "verdicts", "correlation", "")
    ]
    for row in rows:
        found = row.difference
        if found is None:
            table.append((row.engine, str(row.batch), *("-",) * 6, _judgement(row.faults)))
            continue
        correlation = "-" if found.correlation is None else f"{found.correlation:.6f}"
        verdicts = f"{found.flips} of {found.frames}" + (f" ({found.near_flips} near)" if found.near_flips else "")
        values = tuple(f"{value:.1e}" for value in (found.patch_map, found.anomaly_map, found.score))
        mask = f"{100 * found.mask_share:.3f} %"
        table.append((row.engine, str(row.batch), *values, mask, verdicts, correlation, _judgement(row.faults)))
    for limits in dict.fromkeys(row.limits for row in rows):
        values = (f"{limits.values:.0e}",) * 3
        mask = f"{100 * limits.mask_share:g} %"
        table.append(("allowed", "", *values, mask, "near ones", f">= {limits.correlation:g}", ""))
    yield from _table(table)


def _against_fp32(found: Difference, faults: tuple[str, ...]) -> Iterator[str]:
    correlation = "not defined" if found.correlation is None else f"{found.correlation:.4f}"
    yield (
        f"  against the bundle's fp32 model: maps off by {found.anomaly_map:.2g} at most, correlation {correlation},"
        f" {found.flips} of {found.frames} verdicts differ{': FAILED' if faults else ''}"
    )


def _latency(report: Report) -> Iterator[str]:
    yield f"Milliseconds from a frame to its maps and score, host to host; {report.frames} rounds, in turns"
    rows: list[tuple[str, ...]] = [("", "p50", "p95", "p99", "max", "preprocess", "engine", "")]
    for row in report.latency:
        total = (f"{value:.2f}" for value in (row.total.p50, row.total.p95, row.total.p99, row.total.max))
        mark = "" if row.passed else "not eligible: it failed"
        if row.passed and row.way == report.fastest:
            mark = "<- taken"
        rows.append((row.way, *total, f"{row.preprocess_p50:.2f}", f"{row.infer_p50:.2f}", mark))
    yield from _table(rows)
    if report.budget_ms is not None:
        yield f"  budget {report.budget_ms:g} ms: {report.over_budget or 'kept by 99 of 100 frames'}"
    for when, clocks in zip(("before", "after"), report.clocks, strict=False):
        yield f"  clocks {when}: {clocks}"
    if report.fastest is not None:
        yield f"  rule: {RULE}"
    yield f"  {report.recorded}"


def _memory(memory: MemoryFigures) -> Iterator[str]:
    parts = []
    if memory.free_before is not None and memory.free_loaded is not None:
        parts.append(f"device: all engines together took {_mebibytes(memory.free_before - memory.free_loaded)}")
    if len(memory.free_while_timing) > 1:
        change = memory.free_while_timing[0] - memory.free_while_timing[-1]
        parts.append(f"the timed frames took {_mebibytes(change)}")
    if memory.process_growth is not None:
        parts.append(f"this process grew by {_mebibytes(memory.process_growth)} over the timed frames")
    if parts:
        yield f"  memory: {', '.join(parts)}"


def _mebibytes(count: int) -> str:
    return f"{count / MEBIBYTE:.1f} MiB"


def _judgement(faults: tuple[str, ...], judged: bool = True) -> str:
    if not judged:
        return "for information"
    return "FAILED" if faults else "ok"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The first column to the left, the last as it is, and numbers to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        first, *middle, last = row
        cells = [f"{first:{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(middle, widths[1:], strict=False))]
        yield f"  {'  '.join(cells)}  {last}".rstrip()
