"""What a run was like: counts by status and verdict, percentiles by stage."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from edge_ad.frame import Frame
from edge_ad.verdict import OVERTAKEN, Verdict

WINDOW = 100_000  # frames that percentiles look back on; bounds the memory of a run of months
STAGES = ("decode", "wait", "preprocess", "infer", "postprocess", "total", "output")
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class StageRow:
    """Milliseconds of one stage over the frames that went through it."""

    stage: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class Telemetry:
    """Counts frames and collects times; made for one run."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.overtaken = 0
        self.confusion: Counter[tuple[bool, str]] = Counter()
        self._times_ms: dict[str, deque[float]] = {stage: deque(maxlen=WINDOW) for stage in STAGES}

    @property
    def frames(self) -> int:
        return sum(self.statuses.values())

    @property
    def missed(self) -> int:
        """Frames whose deadline passed: judged too late, or too old to be judged."""
        return self.statuses["late"] + self.statuses["skipped"] - self.overtaken

    def add(self, frame: Frame, verdict: Verdict, output_ms: float) -> None:
        """Count one frame."""
        self.statuses[verdict.status] += 1
        self.overtaken += verdict.reason == OVERTAKEN
        self._times_ms["output"].append(output_ms)
        for stage, value in verdict.timings_ms.items():
            self._times_ms[stage].append(value)
        if verdict.verdict is not None:
            self.verdicts[verdict.verdict] += 1
            if frame.truth is not None:
                self.confusion[frame.truth.anomalous, verdict.verdict] += 1

    def stages(self) -> list[StageRow]:
        """Percentiles of every stage that was measured (of the last 100,000 frames)."""
        rows = []
        for stage, times in self._times_ms.items():
            if times:
                p50_ms, p95_ms, p99_ms = (float(value) for value in np.percentile(times, PERCENTILES))
                rows.append(StageRow(stage, p50_ms, p95_ms, p99_ms, max(times)))
        return rows
