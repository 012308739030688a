"""What is loaded, against the reference: engines at every batch, maps against the operator, model inputs, times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from edge_ad.errors import EdgeAdError, EngineError
from edge_ad.image.frame import ImageArray
from edge_ad.runtime.instruments.selftest.agreement import (
    LIMITS,
    Judged,
    Limits,
    difference,
    infer_in_batches,
    judged,
)
from edge_ad.runtime.instruments.selftest.bench import Bench, Subject, Way
from edge_ad.runtime.instruments.selftest.kernels import operator_difference, preprocess_difference
from edge_ad.runtime.instruments.selftest.latency import Call, Percentiles, Times, fastest, interleave
from edge_ad.runtime.instruments.selftest.memory import MemoryWatch
from edge_ad.runtime.instruments.selftest.reference import Reference
from edge_ad.runtime.instruments.selftest.report import EngineRow, LatencyRow, OperatorRow, PreprocessRow

T = TypeVar("T")
Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Passes things on, and shows how far they are: (things, what is done, how many there are)."""


@dataclass
class Findings:
    """What was found so far; `failures` by the name of the engine, preprocessing or way that is wrong."""

    engines: list[EngineRow] = field(default_factory=list)
    operators: list[OperatorRow] = field(default_factory=list)
    preprocess: PreprocessRow | None = None
    answers: dict[str, Judged] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)

    def fail(self, name: str, faults: Iterable[str]) -> None:
        for fault in faults:
            self.failures.setdefault(name, []).append(fault)

    def listed(self) -> tuple[str, ...]:
        """All that is wrong, one line each."""
        return tuple(f"{name}: {fault}" for name, faults in self.failures.items() for fault in faults)

    def passed(self, way: Way) -> bool:
        return not self.failures.keys() & {way.name, way.engine, _preprocessing(way.preprocess)}


def examine_engines(bench: Bench, reference: Reference, found: Findings, watch: Watch) -> None:
    """Every engine at every batch. Raises: EngineError when the device is lost."""
    jobs = [(name, subject, batch) for name, subject in bench.engines.items() for batch in subject.batches]
    for name, subject, batch in watch(jobs, "comparing", len(jobs)):
        limits = limits_of(subject)
        try:
            answer = _answer(subject, reference, batch)
            off = difference(reference.judged, answer, reference.threshold, limits)
        except EdgeAdError as exc:
            _check_alive(bench)
            found.engines.append(EngineRow(name, batch, limits, None, (str(exc),)))
            found.fail(name, [f"batch {batch}: {exc}"])
            continue
        faults = tuple(off.faults(limits, reference.scale))
        found.engines.append(EngineRow(name, batch, limits, off, faults))
        found.fail(name, (f"batch {batch}: {fault}" for fault in faults))
        found.answers.setdefault(name, answer)
        _examine_maps(name, subject, answer, reference, found)


def _examine_maps(name: str, subject: Subject, answer: Judged, reference: Reference, found: Findings) -> None:
    """Maps against the operator; of several batches only the first is listed, unless another is wrong."""
    off = operator_difference(answer.outputs, reference.postprocess)
    faults = tuple(off.faults(reference.scale)) if subject.makes_maps else ()
    if faults or name not in {row.engine for row in found.operators}:
        found.operators.append(OperatorRow(name, off, subject.makes_maps, faults))
        found.fail(name, faults)


def examine_preprocessing(bench: Bench, frames: Sequence[ImageArray], found: Findings, watch: Watch) -> None:
    """Model inputs that are not made by the CPU. Raises: EngineError when the device is lost."""
    for name, preprocess in bench.preprocessors.items():
        if name == "cpu":
            continue
        try:
            off = preprocess_difference(
                list(watch(frames, "preprocessing", len(frames))), bench.preprocessors["cpu"], preprocess
            )
        except EdgeAdError as exc:
            _check_alive(bench)
            found.preprocess = PreprocessRow(None, (str(exc),))
        else:
            found.preprocess = PreprocessRow(off, tuple(off.faults()))
        found.fail(_preprocessing(name), found.preprocess.faults)


def time_ways(
    bench: Bench, frames: Sequence[ImageArray], rounds: int, scale: float, found: Findings, watch: Watch
) -> tuple[dict[str, Times], MemoryWatch]:
    """All ways that have not failed, in turns; one that fails now is left out from then on.

    Returns: what those took that went through, and what became of the memory meanwhile.

    Raises: EngineError when the device is lost.
    """
    calls: dict[str, Call] = {}
    for way in bench.ways:
        if found.passed(way):
            calls[way.name] = _call(bench, way, frames, scale)
    memory = MemoryWatch(bench.free_bytes, rounds)

    def numbers() -> Iterable[int]:
        memory.look()  # when the warm-up is over
        yield from watch(range(rounds), "timing", rounds)

    times, failed = interleave(calls, numbers(), after=memory.after)
    if failed:
        _check_alive(bench)
    for name, reason in failed.items():
        found.fail(name, [f"while timing: {reason}"])
    return times, memory


def latency_rows(bench: Bench, times: dict[str, Times], found: Findings) -> tuple[LatencyRow, ...]:
    """Percentiles of what was timed, those that need less first."""
    return tuple(
        LatencyRow(
            way.name,
            Percentiles.of(times[way.name].total_ms),
            float(np.median(times[way.name].preprocess_ms)),
            float(np.median(times[way.name].infer_ms)),
            found.passed(way),
        )
        for way in bench.ways
        if way.name in times
    )


def fastest_way(bench: Bench, times: dict[str, Times], found: Findings) -> Way | None:
    """Of those that passed; None where none did."""
    ways = {way.name: way for way in bench.ways if way.name in times and found.passed(way)}
    if not ways:
        return None
    return ways[fastest({name: times[name].total_ms for name in ways}, list(ways))]


def limits_of(subject: Subject) -> Limits:
    return LIMITS.get(subject.engine.effective_precision, LIMITS["int8"])


def _answer(subject: Subject, reference: Reference, batch: int) -> Judged:
    images = [made.image_hwc for made in reference.inputs]
    outputs = infer_in_batches(subject.engine, images, batch)
    return judged(outputs, [made.geometry for made in reference.inputs], reference.postprocess)


def _call(bench: Bench, way: Way, frames: Sequence[ImageArray], scale: float) -> Call:
    """Judges one frame; it has to say of the same frame the same every time."""
    subject, preprocess = bench.engines[way.engine], bench.preprocessors[way.preprocess]
    copies = subject.engine.spec.batch or 1
    allowed = limits_of(subject).values * scale
    first: dict[int, float] = {}

    def call(number: int) -> tuple[float, float]:
        place = number % len(frames)
        began = time.perf_counter()
        image = preprocess(frames[place]).image_hwc
        prepared = time.perf_counter()
        outputs = subject.engine.infer(image[None] if copies == 1 else np.repeat(image[None], copies, axis=0))
        ended = time.perf_counter()
        score = float(outputs.pred_score[0])
        if not abs(score - first.setdefault(place, score)) <= allowed:
            raise EngineError(f"a frame that had the score {first[place]:.6g} got {score:.6g} in round {number + 1}")
        return (prepared - began) * 1e3, (ended - prepared) * 1e3

    return call


def _preprocessing(name: str) -> str:
    return f"{name} preprocessing"


def _check_alive(bench: Bench) -> None:
    reason = bench.lost()
    if reason is not None:
        raise EngineError(f"self-test: {reason}")
