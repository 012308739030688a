"""A self-test from its options to its report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import Precision
from edge_ad.disk.blob_cache import ENGINE_FOLDER, default_cache_dir
from edge_ad.engine import EngineSpec
from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.gpu import find_gpus
from edge_ad.runtime.instruments.selftest import checks as conclusions
from edge_ad.runtime.instruments.selftest.bench import Bench, cpu_bench
from edge_ad.runtime.instruments.selftest.examine import (
    Findings,
    Watch,
    examine_engines,
    examine_preprocessing,
    fastest_way,
    latency_rows,
    time_ways,
)
from edge_ad.runtime.instruments.selftest.images import FrameSet, frames_below, made_up_frames
from edge_ad.runtime.instruments.selftest.latency import Times
from edge_ad.runtime.instruments.selftest.machine import about_software, gpu_clocks
from edge_ad.runtime.instruments.selftest.memory import MEBIBYTE, MemoryFigures, MemoryWatch
from edge_ad.runtime.instruments.selftest.options import EngineName, SelftestOptions
from edge_ad.runtime.instruments.selftest.reference import Reference, make_reference
from edge_ad.runtime.instruments.selftest.report import Report
from edge_ad.runtime.judge.loader import engine_spec

PACKAGES = ("numpy", "openvino", "onnxruntime", "pycuda", "cuda-bindings")
NEEDS_GPU = ("TensorRT engine", "kernel tail", "device preprocessing", "CUDA graph")
Say = Callable[[str], None]


def selftest(
    options: SelftestOptions,
    *,
    least_correlation: float,
    say: Say = lambda _: None,
    watch: Watch = lambda things, _, __: things,
) -> Report:
    """Examine an engine on this machine, and keep what was found to be fastest.

    Args:
        least_correlation: of the maps of a quantized model with those of the float32 one, on the user's own pictures.
        say: receives what a user may want to know while it takes its time.
        watch: shows how far it is.

    Raises: EngineError, BundleError, SourceError, MissingExtraError when nothing can be tested; whatever is wrong with
        an engine that runs is in the report.
    """
    bundle = Bundle.read(options.bundle)
    precision = bundle.precision(options.precision)
    engine, no_gpu = _engine(options)
    frames = _frames(options, bundle)
    spec = _spec(bundle, precision, options)
    found = Findings()
    with _bench(engine, bundle, spec, options, no_gpu, say) as bench:
        free_loaded = bench.free_bytes() if bench.free_bytes is not None else None
        reference = make_reference(engine, bundle, spec, frames)
        times, watched, clocks = examine(bench, frames, reference, options, found, watch)
        way = fastest_way(bench, times, found)
        if options.record:
            recorded, record_error = conclusions.keep(bench, way, times)
        else:
            recorded, record_error = conclusions.leave(bench, found), None
        rows = latency_rows(bench, times, found)
        off_fp32 = conclusions.against_fp32(bench, reference, found)
    fp32_faults = conclusions.fp32_faults(off_fp32, least_correlation if options.images else None)
    memory = MemoryFigures(bench.free_before, free_loaded, tuple(watched.free), watched.process_growth)
    return Report(
        about={**about_software(PACKAGES), "bundle": _about_bundle(bundle, precision), **bench.about},
        engine=engine,
        reference=f"{reference.engine} on the CPU ({precision} model)",
        images=frames.title,
        threshold=reference.threshold,
        threshold_of=reference.threshold_of,
        engines=tuple(found.engines),
        operators=tuple(found.operators),
        preprocess=found.preprocess,
        against_fp32=off_fp32,
        against_fp32_faults=fp32_faults,
        latency=rows,
        frames=options.frames,
        clocks=clocks,
        fastest=None if way is None or bench.record is None else way.name,
        recorded=recorded,
        memory=memory,
        missing=_missing(bench, reference, precision),
        notes=conclusions.notes(frames, reference, own_pictures=options.images is not None),
        budget_ms=options.budget_ms,
        over_budget=conclusions.over_budget(options.budget_ms, way, rows),
        failures=(*found.listed(), *fp32_faults, *_leaks(memory)),
        record_error=record_error,
    )


def _engine(options: SelftestOptions) -> tuple[EngineName, str | None]:
    """Which is to be tested, and why there is no GPU."""
    no_gpu = None
    try:
        if not find_gpus():
            no_gpu = "no NVIDIA GPU is visible"
    except EngineError as exc:
        no_gpu = str(exc)
    if options.engine is not None:
        return options.engine, no_gpu
    return ("tensorrt" if no_gpu is None else "openvino"), no_gpu


def _frames(options: SelftestOptions, bundle: Bundle) -> FrameSet:
    if options.images is not None:
        return frames_below(options.images)
    return made_up_frames(bundle.manifest.preprocess.size_hw, options.seed)


def _spec(bundle: Bundle, precision: Precision, options: SelftestOptions) -> EngineSpec:
    """What is to be computed, for any number of images at once unless the graph has fixed it."""
    folder = options.engine_cache if options.engine_cache is not None else default_cache_dir(ENGINE_FOLDER)
    bundle.examine_graph(precision)
    spec = engine_spec(bundle, precision, bundle.manifest.files[bundle.model_file(precision)], folder)
    return replace(spec, batch=bundle.manifest.input.shape[0], device=options.device, dla=options.dla)


def _bench(
    engine: EngineName, bundle: Bundle, spec: EngineSpec, options: SelftestOptions, no_gpu: str | None, say: Say
) -> AbstractContextManager[Bench]:
    if engine == "tensorrt":
        from edge_ad.runtime.instruments.selftest.tensorrt_bench import tensorrt_bench

        return tensorrt_bench(bundle, spec, options, say)
    why = no_gpu or f"engine {engine} was asked for"
    return cpu_bench(bundle, spec, engine, dict.fromkeys(NEEDS_GPU, why))


def examine(
    bench: Bench,
    frames: FrameSet,
    reference: Reference,
    options: SelftestOptions,
    found: Findings,
    watch: Watch,
) -> tuple[dict[str, Times], MemoryWatch, tuple[str, ...]]:
    """Look at everything that is loaded; meanwhile nobody is to rely on what was recorded before.

    Args:
        found: receives what is wrong.

    Returns: the times of the ways that passed, memory meanwhile, and clocks before and after.

    Raises: EngineError when the device is lost; then the defaults are recorded. OutputError when they cannot be.
    """
    record = bench.record if options.record else None
    if record is not None:
        record.suspend()
    try:
        examine_engines(bench, reference, found, watch)
        examine_preprocessing(bench, frames.judged, found, watch)
        before = _clocks(bench, options)
        times, memory = time_ways(bench, frames.timed, options.frames, reference.scale, found, watch)
        return times, memory, before + _clocks(bench, options)
    except KeyboardInterrupt:
        if record is not None:
            record.restore()
        raise


def _clocks(bench: Bench, options: SelftestOptions) -> tuple[str, ...]:
    if bench.free_bytes is None:
        return ()
    from edge_ad.runtime.instruments.selftest.tensorrt_bench import pci_bus_id

    clocks = gpu_clocks(lambda: pci_bus_id(options.device))
    return () if clocks is None else (clocks,)


def _about_bundle(bundle: Bundle, precision: Precision) -> str:
    record = bundle.manifest.quantization.get(precision)
    gate = "" if record is None else f" ({record.gate} by the gate)"
    height, width = bundle.manifest.preprocess.size_hw
    return f"{Path(bundle.path).resolve().name}, {precision}{gate}, {width}x{height}, sha256 {bundle.sha256}"


def _missing(bench: Bench, reference: Reference, precision: Precision) -> dict[str, str]:
    if precision == "fp32" or reference.in_fp32 is not None:
        return dict(bench.missing)
    return {**bench.missing, "against fp32": "the bundle holds no fp32 model"}


def _leaks(memory: MemoryFigures) -> tuple[str, ...]:
    if memory.leaked is None:
        return ()
    return (f"memory: the timed frames took {memory.leaked / MEBIBYTE:.1f} MiB of the device's for good",)
