"""Frames through the real detector, with the yardstick and the machine's peak between them, round by round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ad.image.frame import ImageArray
from edge_ad.record.verdict import Verdict
from edge_ad.runtime.instruments.bench.busy import OtherPrograms
from edge_ad.runtime.instruments.bench.clock import CLOCKS, Clock, Read, read_clocks
from edge_ad.runtime.instruments.bench.statistics import MIN_ROUNDS
from edge_ad.runtime.instruments.bench.yardstick import Peak, PeakGemm, Yardstick, yard_ms
from edge_ad.runtime.judge.detector import Detector

FloatArray = NDArray[np.float64]

STAGES = ("preprocess", "infer", "postprocess", "total")
ROUND_MS = 40.0
"""Time for the frames of a round: long beside the clocks' steps, short beside what disturbs a machine."""
MAX_FRAMES = 50
WARM_UP_FRAMES = 3
PEAK_SHARE = 0.2
"""Part of the time that the large products may take."""
MIN_PEAKS = 3


class Meter(Protocol):
    """Something that is read before and after the frames of every round."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True)
class Measurement:
    """What a run measured, all in milliseconds.

    Attributes:
        frames_ms: (calls, 4, 2) by stage and clock, see `STAGES` and `CLOCKS`. A call is one batch.
        round_of: (calls,) number of the round.
        yards_ms: (rounds, 2) the yardstick of each round, by clock.
        batch: frames of a call.
        elapsed_s: time of the whole run, without the warm-up.
        others: share of the processors that other programs had; None where unknown.
        peaks: what the machine multiplies at most, in the arithmetics that were asked for.
        verdict: of the last frame.
        threads: of OpenVINO, for yardstick and peaks.
    """

    frames_ms: FloatArray
    round_of: NDArray[np.int64]
    yards_ms: FloatArray
    batch: int
    elapsed_s: float
    others: float | None
    peaks: tuple[Peak, ...]
    verdict: Verdict
    threads: int

    @property
    def rounds(self) -> int:
        return len(self.yards_ms)

    def stage_ms(self, stage: str, clock: Clock = "elapsed") -> FloatArray:
        """(calls,) times of one stage."""
        return self.frames_ms[:, STAGES.index(stage), CLOCKS.index(clock)]

    def ratios(self, stage: str, clock: Clock = "elapsed") -> list[float]:
        """One for each round: median call of the stage divided by the yardstick of the same round."""
        times, yards = self.stage_ms(stage, clock), self.yards_ms[:, CLOCKS.index(clock)]
        medians = [float(np.median(times[self.round_of == number])) for number in range(self.rounds)]
        return [max(median, 1e-9) / float(yard) for median, yard in zip(medians, yards, strict=True)]

    @property
    def frames_per_s(self) -> float:
        """Frames per second of the stages one after the other, as the mean of all calls has it."""
        return self.batch * 1e3 / float(self.stage_ms("total").mean())


def measure(
    detector: Detector,
    images: Sequence[ImageArray],
    *,
    duration_s: float,
    warmup_s: float,
    yardstick: Yardstick,
    peaks: Sequence[PeakGemm] = (),
    meters: Sequence[Meter] = (),
    read: Read = read_clocks,
    watch: Callable[[float], None] = lambda _: None,
) -> Measurement:
    """Judge the same frames again and again, one batch after the other.

    A round is the yardstick, some batches, and the yardstick again. Between rounds the large products take their turn.
    It ends after `duration_s` and at least `MIN_ROUNDS` rounds.

    Args:
        detector: loaded.
        images: the frames of one batch, (H, W, 3) uint8 RGB each; such that can be judged.
        watch: called after each round with the share that is done.

    Raises: ImageError, EngineError.
    """
    per_round = _warm_up(detector, images, warmup_s, yardstick, peaks, read)
    calls: list[FloatArray] = []
    round_of: list[int] = []
    yards: list[FloatArray] = []
    others = OtherPrograms()
    began_ms, peaks_ms, number = read()[0], 0.0, 0
    turn = [peak for peak in peaks if peak.is_real]
    while number < MIN_ROUNDS or read()[0] - began_ms < duration_s * 1e3:
        before = yardstick.times()
        for meter in meters:
            meter.begin()
        for _ in range(per_round):
            times, verdict = timed_call(detector, images, read)
            calls.append(times)
            round_of.append(number)
        for meter in meters:
            meter.end()
        yards.append(yard_ms(np.concatenate([before, yardstick.times()])))
        number += 1
        if turn and peaks_ms <= PEAK_SHARE * (read()[0] - began_ms):
            peaks_ms += turn[0].run()
            turn.append(turn.pop(0))
        watch(min(number / MIN_ROUNDS, (read()[0] - began_ms) / (duration_s * 1e3), 1.0))
    for peak in turn:
        while len(peak.peak.times_ms) < MIN_PEAKS:
            peak.run()
    return Measurement(
        np.array(calls),
        np.array(round_of),
        np.array(yards),
        len(images),
        (read()[0] - began_ms) / 1e3,
        others.share(),
        tuple(peak.peak for peak in peaks),
        verdict,
        yardstick.threads,
    )


def timed_call(detector: Detector, images: Sequence[ImageArray], read: Read) -> tuple[FloatArray, Verdict]:
    """One batch from decoded frames to verdicts. Returns: (4, 2) ms by stage and clock, and the last verdict."""
    marks = [read()]
    prepared = [detector.prepare(image) for image in images]
    marks.append(read())
    outputs = detector.infer(prepared)
    marks.append(read())
    for index, each in enumerate(prepared):
        verdict = detector.conclude(each, outputs, index)
    marks.append(read())
    stages = np.diff(np.array(marks), axis=0)
    return np.concatenate([stages, stages.sum(axis=0, keepdims=True)]), verdict


def _warm_up(
    detector: Detector,
    images: Sequence[ImageArray],
    warmup_s: float,
    yardstick: Yardstick,
    peaks: Sequence[PeakGemm],
    read: Read,
) -> int:
    """Run everything until it is warm. Returns: calls for a round."""
    yardstick.times()
    for peak in peaks:
        peak.warm_up()
    began_ms = read()[0]
    totals: list[float] = []
    while len(totals) < WARM_UP_FRAMES or read()[0] - began_ms < warmup_s * 1e3:
        totals.append(float(timed_call(detector, images, read)[0][-1, 0]))
    yardstick.times()
    return int(np.clip(round(ROUND_MS / max(float(np.median(totals)), 1e-3)), 1, MAX_FRAMES))
