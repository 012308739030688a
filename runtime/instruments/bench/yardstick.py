"""The fixed work that frames are measured against, and the largest products that this machine can compute."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_ad.runtime.instruments.bench.clock import CLOCKS, Clock, Read, read_clocks
from edge_ad.runtime.instruments.bench.gemm import Gemm

GEMM_SIDE, GEMM_DEPTH = 192, 24
GEMM_WEIGHT = 0.75
COPY_BYTES = 16 << 20
REPEATS = 2
NAME = (
    f"{GEMM_DEPTH} float32 GEMM {GEMM_SIDE} on OpenVINO, weight {GEMM_WEIGHT:g}, and copy of {COPY_BYTES >> 20} MiB,"
    " geometric mean (1)"
)
"""Identity of the yardstick: ratios to another one cannot be compared. The number counts its versions."""
PEAK_SIDE = 2048


class Yardstick:
    """A chain of products that keeps all cores busy as an engine does, and a copy that keeps the memory busy.

    Between two products all threads wait for the slowest, as between the layers of a network. Where other programs take
    a core now and then, that costs a network far more than one large product (measured on two cores of which others had
    half: ratios to one product spread three times as far as ratios to this chain). Raises: EngineError.
    """

    def __init__(self, *, read: Read = read_clocks) -> None:
        self._read = read
        self._gemm = Gemm(GEMM_SIDE, "fp32", depth=GEMM_DEPTH)
        self.threads = self._gemm.threads
        self._source = np.random.default_rng(0).integers(0, 256, COPY_BYTES, dtype=np.uint8)
        self._target = np.empty_like(self._source)

    def times(self) -> NDArray[np.float64]:
        """Compute and copy `REPEATS` times. Returns: (REPEATS, 2, 2) ms; product and copy, by both clocks."""
        marks = [self._read()]
        for _ in range(REPEATS):
            self._gemm.run()
            marks.append(self._read())
            np.copyto(self._target, self._source)
            marks.append(self._read())
        return np.diff(np.array(marks), axis=0).reshape(REPEATS, 2, 2)


def yard_ms(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(calls, 2, 2) times of one round → (2,) one figure by each clock: the weighted geometric mean of both medians."""
    medians = np.maximum(np.median(times, axis=0), 1e-6)  # a coarse clock may have seen nothing
    return np.asarray(medians[0] ** GEMM_WEIGHT * medians[1] ** (1 - GEMM_WEIGHT), np.float64)


@dataclass
class Peak:
    """How fast this machine multiplies in one arithmetic, measured between the frames of a run.

    Attributes:
        arithmetic: such as `int8`.
        kernel: that computed it; None where there is none in this arithmetic.
        reason: why there is none.
        macs: of one call.
        times_ms: each call by both clocks, in the order of `CLOCKS`.
    """

    arithmetic: str
    kernel: str | None
    reason: str | None
    macs: int
    times_ms: list[tuple[float, float]] = field(default_factory=list)

    def gmacs_per_s(self, clock: Clock = "elapsed", *, best: bool = False) -> float | None:
        """1e9 multiply-accumulates per second by the median call, or the fastest; None where there was no call."""
        times = [each[CLOCKS.index(clock)] for each in self.times_ms]
        return self.macs / 1e6 / (min(times) if best else float(np.median(times))) if times else None


class PeakGemm:
    """A large product that times itself into `peak`; compiled when it is made."""

    def __init__(self, arithmetic: str, *, side: int = PEAK_SIDE, read: Read = read_clocks) -> None:
        self._read = read
        self._gemm = Gemm(side, arithmetic)
        self.is_real = self._gemm.is_as_asked
        reason = None
        if not self.is_real:
            reason = (
                f"OpenVINO computes the {arithmetic} product in {self._gemm.effective or 'another arithmetic'} here"
            )
        self.peak = Peak(arithmetic, self._gemm.kernel if self.is_real else None, reason, self._gemm.macs)

    def warm_up(self) -> None:
        self._gemm.run()

    def run(self) -> float:
        """Compute once. Returns: elapsed milliseconds, which are noted too."""
        began = self._read()
        self._gemm.run()
        ended = self._read()
        self.peak.times_ms.append((ended[0] - began[0], ended[1] - began[1]))
        return ended[0] - began[0]
