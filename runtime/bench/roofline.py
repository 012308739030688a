"""How near an engine comes to what this machine can multiply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.runtime.bench.gemm import HINTS
from edge_ad.runtime.bench.macs import Macs
from edge_ad.runtime.bench.yardstick import Peak

ALWAYS = ("fp32", "int8")
ON_THE_PROCESSOR = frozenset({"openvino", "onnxruntime"})
"""Engines whose graph the processor computes, so that its peak is theirs."""


@dataclass(frozen=True)
class Roofline:
    """Attributes:
    macs: of one call of the graph; None where they cannot be counted or the engine computes no graph.
    reached: 1e9 multiply-accumulates per second of the engine, by its median call.
    share: of the peak in the engine's own arithmetic, by medians; above 1 where the graph's layers suit the machine
        better than a large product does.
    best_share: the same by the fastest call of each, which other programs disturb least.
    reason: why something is None.
    """

    macs: Macs | None
    reached: float | None
    share: float | None
    best_share: float | None
    reason: str | None


def arithmetics(engine: str, computed_in: str) -> tuple[str, ...]:
    """Those to measure the peak in: fp32 and int8, and the engine's own where it is another one of the processor."""
    own = (computed_in,) if engine in ON_THE_PROCESSOR and computed_in in HINTS and computed_in not in ALWAYS else ()
    return (*ALWAYS, *own)


def roofline(
    engine: str, computed_in: str, macs: Macs | None, infer_ms: NDArray[np.float64], peaks: Sequence[Peak]
) -> Roofline:
    """Put an engine under its roof.

    Args:
        macs: of one call; None where the engine computes no graph.
        infer_ms: time of each call.
        peaks: as measured in the same run.
    """
    if macs is None:
        return Roofline(None, None, None, None, f"the engine {engine!r} computes no graph")
    reached = macs.count / 1e6 / float(np.median(infer_ms))
    if engine not in ON_THE_PROCESSOR:
        return Roofline(
            macs, reached, None, None, f"the peak is the processor's, and {engine!r} does not compute on it"
        )
    peak = next((each for each in peaks if each.arithmetic == computed_in), None)
    if peak is None or peak.gmacs_per_s is None or peak.best_gmacs_per_s is None:
        why = peak.reason if peak is not None else f"no peak is measured in {computed_in}"
        return Roofline(macs, reached, None, None, why)
    best = macs.count / 1e6 / float(infer_ms.min())
    return Roofline(macs, reached, reached / peak.gmacs_per_s, best / peak.best_gmacs_per_s, None)
