"""`edge-ad bench`, from the options to everything that it found out."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version

import numpy as np

from edge_ad.bundle.bundle import Bundle
from edge_ad.engine import EngineSpec
from edge_ad.errors import EngineError, ImageError
from edge_ad.runtime.instruments.bench.baseline import (
    KIND,
    SCHEMA_VERSION,
    Baseline,
    Subject,
    check_same_subject,
    machine_notes,
    read_baseline,
)
from edge_ad.runtime.instruments.bench.busy import CALM
from edge_ad.runtime.instruments.bench.clock import processor_clock_is_fine
from edge_ad.runtime.instruments.bench.energy import ProbeMeter, Reading, find_probes
from edge_ad.runtime.instruments.bench.frames import frame_of
from edge_ad.runtime.instruments.bench.gate import GateReport, Side, judge
from edge_ad.runtime.instruments.bench.layers import LayerTimes, layer_times
from edge_ad.runtime.instruments.bench.machine import describe_machine
from edge_ad.runtime.instruments.bench.macs import Macs, graph_macs
from edge_ad.runtime.instruments.bench.measure import STAGES, Measurement, measure
from edge_ad.runtime.instruments.bench.options import BenchOptions
from edge_ad.runtime.instruments.bench.roofline import ON_THE_PROCESSOR, Roofline, arithmetics, roofline
from edge_ad.runtime.instruments.bench.yardstick import NAME, PeakGemm, Yardstick
from edge_ad.runtime.judge.detector import Detector
from edge_ad.runtime.judge.loader import open_detector

FEW_CALLS = 100  # below which the 99 % percentile is next to nothing but the maximum


@dataclass(frozen=True)
class BenchResult:
    """Everything that a run found out.

    Attributes:
        bundle: name of the bundle's directory.
        subject: what was measured.
        machine: see `describe_machine`.
        measured_at: date and time, UTC.
        ready_s: time from the opened bundle to a loaded and warmed engine.
        from_cache: whether the compiled engine came from the cache.
        measurement: all times.
        roofline: how near the engine came to the machine's peak.
        readings: what told energy and clocks, and `silent`, one line for each that did not.
        layers: times inside of the engine.
        gate: comparison with a baseline; None without one.
        notes: what a reader should know.
    """

    bundle: str
    subject: Subject
    machine: dict[str, str]
    measured_at: str
    ready_s: float
    from_cache: bool
    measurement: Measurement
    roofline: Roofline
    readings: tuple[Reading, ...]
    silent: tuple[str, ...]
    layers: LayerTimes
    gate: GateReport | None
    notes: tuple[str, ...]

    @property
    def side(self) -> Side:
        """What the gate compares."""
        found = self.measurement
        elapsed = {stage: found.ratios(stage) for stage in STAGES}
        counted = self.subject.engine in (*ON_THE_PROCESSOR, "fake") and processor_clock_is_fine()
        processor = {stage: found.ratios(stage, "processor") for stage in STAGES} if counted else None
        return Side(elapsed, processor, found.others)


def bench(options: BenchOptions, watch: Callable[[float], None] = lambda _: None) -> BenchResult:
    """Measure a bundle; nothing is written.

    Raises: BundleError, ConfigError, EngineError, ImageError, MissingExtraError.
    """
    baseline = None if options.baseline is None else read_baseline(options.baseline)
    frame, picture = frame_of(options.image, options.frame_hw)
    opened = Bundle.read(options.bundle)
    detector = open_detector(
        opened,
        engine=options.engine,
        precision=options.precision,
        engine_cache=options.engine_cache,
        device=options.device,
        dla=options.dla,
        batch=options.batch,
    )
    began = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(detector)
        ready_s = time.perf_counter() - began
        reason = detector.prepare(frame).reason
        if reason is not None:
            raise ImageError(f"the frame cannot be judged, so it takes no time: {reason}")
        frame_hw = (int(frame.shape[0]), int(frame.shape[1]))
        subject = _subject(detector, options, frame_hw, picture)
        if baseline is not None:
            check_same_subject(baseline, subject, f"baseline {options.baseline}")
        probes, silent = find_probes(stack, gpu=options.device)
        meters = [ProbeMeter(probe) for probe in probes]
        measurement = measure(
            detector,
            [frame] * options.batch,
            duration_s=options.duration_s,
            warmup_s=options.warmup_s,
            yardstick=Yardstick(),
            peaks=[PeakGemm(each) for each in arithmetics(options.engine, subject.computed_in)],
            meters=meters,
            watch=watch,
        )
        macs, layers = _inside(detector, options)
        machine = {**describe_machine(), "resize": detector.resizes_with}
    readings = [meter.reading() for meter in meters]
    notes = _notes(options.engine, measurement, macs)
    result = BenchResult(
        opened.path.resolve().name,
        subject,
        machine,
        datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        ready_s,
        detector.from_cache,
        measurement,
        roofline(options.engine, subject.computed_in, macs, measurement),
        tuple(reading for reading in readings if reading is not None),
        (*silent, *(f"{p.source}: stopped answering" for p, r in zip(probes, readings, strict=True) if r is None)),
        layers,
        None,
        notes,
    )
    if baseline is None:
        return result
    return _gated(result, baseline, options.fail_above)


def baseline_of(result: BenchResult) -> Baseline:
    """What is stored of a run."""
    side = result.side
    return Baseline(
        SCHEMA_VERSION,
        KIND,
        version("edge-ad"),
        result.measured_at,
        result.bundle,
        result.subject,
        result.machine,
        side.others,
        {stage: _median(result, stage) for stage in STAGES},
        {stage: tuple(ratios) for stage, ratios in side.elapsed.items()},
        None if side.processor is None else {stage: tuple(ratios) for stage, ratios in side.processor.items()},
    )


def _gated(result: BenchResult, baseline: Baseline, limit: float) -> BenchResult:
    old = Side(baseline.elapsed, baseline.processor, baseline.others)
    gate = judge(old, result.side, limit)
    notes = (*result.notes, *machine_notes(baseline, result.machine))
    return replace(result, gate=gate, notes=notes)


def _median(result: BenchResult, stage: str) -> float:
    return float(np.median(result.measurement.stage_ms(stage)))


def _subject(detector: Detector, options: BenchOptions, frame_hw: tuple[int, int], picture: str) -> Subject:
    return Subject(
        bundle_sha256=detector.bundle.sha256,
        engine=options.engine,
        precision=detector.precision,
        computed_in=detector.provenance.precision,
        batch=options.batch,
        frame_hw=frame_hw,
        picture=picture,
        device=options.device,
        dla=options.dla,
        yardstick=NAME,
    )


def _inside(detector: Detector, options: BenchOptions) -> tuple[Macs | None, LayerTimes]:
    """What the graph computes and where its time goes; a graph that cannot be looked into does not end the run."""
    manifest = detector.bundle.manifest
    if options.engine == "fake":
        return None, LayerTimes((), "the engine 'fake' computes no graph")
    graph = detector.bundle.read_graph(detector.precision)
    fixed, *sizes = manifest.input.shape
    shape = (fixed or options.batch, *(int(size or 1) for size in sizes))
    spec = EngineSpec(manifest.input, manifest.outputs, detector.precision, shape[0], "")
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    try:
        layers = layer_times(options.engine, graph, spec, images)
    except EngineError as exc:
        layers = LayerTimes((), str(exc))
    return graph_macs(graph, shape), layers


def _notes(engine: str, measurement: Measurement, macs: Macs | None) -> tuple[str, ...]:
    calls, others = len(measurement.frames_ms), measurement.others
    notes = []
    if calls < FEW_CALLS:
        notes.append(
            f"only {calls} calls: the high percentiles are little more than the maximum; give a longer --duration"
        )
    if others is not None and others > CALM:
        notes.append(
            f"other programs had {others:.0%} of the processors meanwhile, so times are longer than they need be"
        )
    if engine == "tensorrt":
        notes.append("the yardstick is computed by the processor and does not follow the GPU's clock: hold that fixed")
    if macs is not None and macs.not_counted:
        notes.append(f"not in the GMAC: {', '.join(macs.not_counted)}")
    return tuple(notes)
