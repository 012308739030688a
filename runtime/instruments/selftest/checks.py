"""What follows from the findings: what is recorded, what is too slow, what else a reader should know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge_ad.errors import OutputError
from edge_ad.runtime.engines.tensorrt.choices import Choices
from edge_ad.runtime.instruments.selftest.agreement import LIMITS, Difference, difference
from edge_ad.runtime.instruments.selftest.bench import DEFAULTS, Bench, Way
from edge_ad.runtime.instruments.selftest.examine import Findings
from edge_ad.runtime.instruments.selftest.images import FrameSet
from edge_ad.runtime.instruments.selftest.latency import Times
from edge_ad.runtime.instruments.selftest.record import same
from edge_ad.runtime.instruments.selftest.reference import Reference
from edge_ad.runtime.instruments.selftest.report import LatencyRow

FLAT = 1e-3  # standard deviation of the reference's maps below which they say little


def keep(bench: Bench, way: Way | None, times: Mapping[str, Times]) -> tuple[str, str | None]:
    """Record the fastest way, or the defaults where none has passed. Returns: what was done, and why it failed."""
    if bench.record is None:
        return "nothing is recorded: there is nothing to choose on this engine", None
    medians_ms = {name: float(f"{np.median(taken.total_ms):.4g}") for name, taken in times.items()}
    choices = replace(way.choices if way is not None else Choices(), medians_ms=medians_ms)
    try:
        path = bench.record.keep(choices)
    except OutputError as exc:
        return f"NOT recorded: {exc}", str(exc)
    name = way.name if way is not None else f"{DEFAULTS}, because nothing has passed"
    return f"recorded for 'edge-ad run': {name}, in {path}", None


def leave(bench: Bench, found: Findings) -> str:
    """What is said where nothing is to be recorded."""
    before = bench.record.before if bench.record is not None else None
    for way in bench.ways:
        if before is not None and same(before, way.choices) and not found.passed(way):
            return f"not recorded, as was asked for; WARNING: what is recorded, {way.name}, has failed"
    return "not recorded, as was asked for"


def against_fp32(bench: Bench, reference: Reference, found: Findings) -> Difference | None:
    """The first engine that gave answers, against the float32 model."""
    answer = next((found.answers[name] for name in bench.engines if name in found.answers), None)
    if reference.in_fp32 is None or answer is None:
        return None
    return difference(reference.in_fp32, answer, reference.threshold, LIMITS["int8"])


def fp32_faults(off: Difference | None, least_correlation: float | None) -> tuple[str, ...]:
    """What is outside of the gate's tolerance, if that is to hold."""
    if off is None or least_correlation is None or off.correlation is None or off.correlation >= least_correlation:
        return ()
    return (
        f"against the fp32 model: correlation of the maps {off.correlation:.4f}, wanted {least_correlation:g};"
        " see 'edge-ad calibrate'",
    )


def over_budget(budget_ms: float | None, way: Way | None, rows: Sequence[LatencyRow]) -> str | None:
    """That the way which would be taken is too slow, in words."""
    for row in rows:
        if budget_ms is not None and way is not None and row.way == way.name and row.total.p99 > budget_ms:
            return f"1 of 100 frames takes {row.total.p99:.2f} ms or more, the budget is {budget_ms:g} ms"
    return None


def notes(frames: FrameSet, reference: Reference, *, own_pictures: bool) -> tuple[str, ...]:
    """What else a reader should know."""
    said = [f"not read: {line}" for line in frames.left_out]
    if float(reference.judged.maps.std()) < FLAT * reference.scale:
        said.append(
            "the reference's maps hardly vary on these pictures, so they prove little; give others, --images DIR"
        )
    if reference.in_fp32 is not None and not own_pictures:
        said.append("against fp32 is for information; on pictures of your own, --images DIR, the gate's limit holds")
    return tuple(said)
