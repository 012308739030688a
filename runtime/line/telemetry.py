"""What a run was like: counts by status and verdict, percentiles by stage."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_ad.image.frame import Frame
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.line.scheduling.counters import Counters

WINDOW = 20_000  # frames that percentiles look back on; bounds the memory of a run of months
STAGES = ("decode", "wait", "preprocess", "infer", "postprocess", "total", "output")
PERCENTILES = (50, 95, 99)
BOUNDS_MS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
"""Upper bounds of a histogram's classes, inclusive; one more holds what is above."""


@dataclass(frozen=True)
class StageRow:
    """Milliseconds of one stage over the frames that went through it."""

    stage: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class Histogram:
    """Times of one stage over the whole run.

    Attributes:
        counts: frames in each class of `BOUNDS_MS`, and one above.
        sum_ms: all of them together.
    """

    counts: tuple[int, ...]
    sum_ms: float


class Telemetry:
    """Counts frames and collects times, from all threads of a line; made for one run.

    Attributes:
        counters: frames by lane and status, records by sink.
    """

    def __init__(self) -> None:
        self.counters = Counters()
        self._lock = threading.Lock()
        self._verdicts: Counter[str] = Counter()
        self._confusion: Counter[tuple[bool, str]] = Counter()
        self._times_ms: dict[str, deque[float]] = {stage: deque(maxlen=WINDOW) for stage in STAGES}
        self._counts = {stage: [0] * (len(BOUNDS_MS) + 1) for stage in STAGES}
        self._sums_ms = dict.fromkeys(STAGES, 0.0)

    @property
    def frames(self) -> int:
        """Captured frames of all lanes."""
        return self.counters.snapshot().captured

    @property
    def statuses(self) -> Counter[str]:
        return self.counters.snapshot().statuses

    @property
    def verdicts(self) -> Counter[str]:
        with self._lock:
            return self._verdicts.copy()

    @property
    def confusion(self) -> Counter[tuple[bool, str]]:
        """Frames of known truth by (is anomalous, verdict)."""
        with self._lock:
            return self._confusion.copy()

    def add(self, frame: Frame, verdict: Verdict) -> None:
        """Note verdict and times of one frame."""
        with self._lock:
            for stage, value in verdict.timings_ms.items():
                self._note(stage, value)
            if verdict.verdict is not None:
                self._verdicts[verdict.verdict] += 1
                if frame.truth is not None:
                    self._confusion[frame.truth.anomalous, verdict.verdict] += 1

    def wrote(self, seconds: float) -> None:
        """Note what one sink took for one record."""
        with self._lock:
            self._note("output", seconds * 1e3)

    def _note(self, stage: str, value_ms: float) -> None:
        self._times_ms[stage].append(value_ms)
        self._counts[stage][bisect_left(BOUNDS_MS, value_ms)] += 1
        self._sums_ms[stage] += value_ms

    def histograms(self) -> Mapping[str, Histogram]:
        """Times of every stage since the start."""
        with self._lock:
            return {stage: Histogram(tuple(self._counts[stage]), self._sums_ms[stage]) for stage in STAGES}

    def stages(self) -> list[StageRow]:
        """Percentiles of every stage that was measured (of the last 20,000 frames)."""
        with self._lock:
            measured = {stage: np.array(times) for stage, times in self._times_ms.items() if times}
        rows = []
        for stage, times in measured.items():
            p50_ms, p95_ms, p99_ms = (float(value) for value in np.percentile(times, PERCENTILES))
            rows.append(StageRow(stage, p50_ms, p95_ms, p99_ms, float(times.max())))
        return rows
