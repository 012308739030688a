"""How near an engine comes to what this machine can multiply."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_ad.runtime.instruments.bench.busy import CALM
from edge_ad.runtime.instruments.bench.clock import Clock, processor_clock_is_fine
from edge_ad.runtime.instruments.bench.gemm import HINTS
from edge_ad.runtime.instruments.bench.macs import Macs
from edge_ad.runtime.instruments.bench.measure import Measurement

ALWAYS = ("fp32", "int8")
ON_THE_PROCESSOR = frozenset({"openvino", "onnxruntime"})
"""Engines whose graph the processor computes, so that its peak is theirs."""


@dataclass(frozen=True)
class Roofline:
    """An engine under its roof.

    Attributes:
        macs: of one call of the graph; None where they cannot be counted or the engine computes no graph.
        reached: 1e9 multiply-accumulates per second of the engine, by its median call.
        share: of the peak in the engine's own arithmetic, by medians; above 1 where the graph's layers suit the machine
            better than a large product does.
        best_share: the same by the fastest call of each, which other programs disturb least.
        clock: that the shares are taken by: processor time where other programs were busy, for they take elapsed time
            from large products and small layers unequally.
        reason: why something is None.
    """

    macs: Macs | None
    reached: float | None
    share: float | None
    best_share: float | None
    clock: Clock
    reason: str | None


def arithmetics(engine: str, computed_in: str) -> tuple[str, ...]:
    """Those to measure the peak in: fp32 and int8, and the engine's own where it is another one of the processor."""
    own = (computed_in,) if engine in ON_THE_PROCESSOR and computed_in in HINTS and computed_in not in ALWAYS else ()
    return (*ALWAYS, *own)


def roofline(engine: str, computed_in: str, macs: Macs | None, measurement: Measurement) -> Roofline:
    """Put an engine under its roof.

    Args:
        computed_in: arithmetic of the engine.
        macs: of one call; None where the engine computes no graph.
    """
    clock: Clock = "processor" if (measurement.others or 0) > CALM and processor_clock_is_fine() else "elapsed"
    if macs is None:
        return Roofline(None, None, None, None, clock, f"the engine {engine!r} computes no graph")
    reached = macs.count / 1e6 / float(np.median(measurement.stage_ms("infer")))
    if engine not in ON_THE_PROCESSOR:
        why = f"the peak is the processor's, and {engine!r} does not compute on it"
        return Roofline(macs, reached, None, None, clock, why)
    peak = next((each for each in measurement.peaks if each.arithmetic == computed_in), None)
    typical, best = (peak.gmacs_per_s(clock, best=is_best) if peak is not None else None for is_best in (False, True))
    if typical is None or best is None:
        why = f"no peak is measured in {computed_in}" if peak is None or peak.reason is None else peak.reason
        return Roofline(macs, reached, None, None, clock, why)
    times_ms = measurement.stage_ms("infer", clock)
    share, best_share = (macs.count / 1e6 / float(of(times_ms)) for of in (np.median, np.min))
    return Roofline(macs, reached, share / typical, best_share / best, clock, None)
