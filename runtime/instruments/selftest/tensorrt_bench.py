"""Every way that TensorRT engines can be run on this machine, loaded beside each other."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.engine import EngineSpec
from edge_ad.errors import EdgeAdError, EngineError, MissingExtraError
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.engines.tensorrt.builder.build import build_job, graph_of, plan_job
from edge_ad.runtime.engines.tensorrt.builder.options import BuildOptions
from edge_ad.runtime.engines.tensorrt.choices import Choices
from edge_ad.runtime.engines.tensorrt.fingerprint import PlanNeed, Tail, batches
from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS, FlavourName, installed_flavours
from edge_ad.runtime.engines.tensorrt.gpu import Gpu, find_gpu
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import kernel_fault
from edge_ad.runtime.engines.tensorrt.plans import find_plan
from edge_ad.runtime.engines.tensorrt.runner.device import CudaDevice, open_device
from edge_ad.runtime.engines.tensorrt.runner.engine import TensorRtEngine, plan_need
from edge_ad.runtime.engines.tensorrt.runner.preprocess import CudaPreprocessor
from edge_ad.runtime.instruments.selftest.bench import VARIANTS, Bench, Subject, Way
from edge_ad.runtime.instruments.selftest.options import SelftestOptions
from edge_ad.runtime.instruments.selftest.record import Record

TAILS: tuple[Tail, ...] = ("graph", "kernel")
GRAPHS = "edge_ad.runtime.engines.tensorrt.runner.graph"
"""The module that records launches and replays them."""


@contextmanager
def tensorrt_bench(
    bundle: Bundle, spec: EngineSpec, options: SelftestOptions, say: Callable[[str], None]
) -> Iterator[Bench]:
    """All engines for the GPU of `options`, and both ways to make their inputs.

    Raises: EngineError when none of the engines can be loaded, with the reason and the command that builds one;
        MissingExtraError without pycuda.
    """
    gpu = find_gpu(spec.device)
    versions, reasons = installed_flavours()
    if not versions:
        raise EngineError(reasons[0])
    device = open_device(spec.device)
    plans = _Plans(bundle, spec, options, gpu, versions)
    if options.build:
        plans.build(say)
    with ExitStack() as stack:
        before = _free_bytes(device)
        read = _graph_of(bundle, spec)
        engines, missing = _engines(plans, spec, read, stack)
        if not engines:
            raise EngineError(f"no TensorRT engine can be tested: {'; '.join(missing.values())}")
        preprocessors: dict[str, Preprocessor] = {"cpu": Preprocessor(bundle.manifest.preprocess)}
        stack.callback(preprocessors["cpu"].close)
        try:
            preprocessors["device"] = CudaPreprocessor(device, bundle.manifest.preprocess, gpu.sm, spec.cache_dir)
            stack.callback(preprocessors["device"].close)
        except EngineError as exc:
            missing["device preprocessing"] = str(exc)
        yield Bench(
            engines={
                name: Subject(engine, _batches(engine), tail == "kernel") for (name, tail), engine in engines.items()
            },
            preprocessors=preprocessors,
            ways=tuple(
                Way(variant.name, variant.choices, _engine_name(variant.choices), variant.choices.preprocess)
                for variant in VARIANTS
                if _engine_name(variant.choices) in {name for name, _ in engines}
                and variant.choices.preprocess in preprocessors
            ),
            missing=missing,
            about=_about(device, gpu, plans, engines, before),
            record=Record(plans.folder, plans.need),
            free_before=before,
            free_bytes=lambda: _free_bytes(device),
            lost=lambda: device.lost,
        )


class _Plans:
    """The plans that `edge-ad run` would choose from, by tail.

    Attributes:
        folder: where they are.
        flavour, version: the TensorRT that would run them: the first that has one, as for a run.
        need: what they have to do.
    """

    def __init__(
        self, bundle: Bundle, spec: EngineSpec, options: SelftestOptions, gpu: Gpu, versions: dict[FlavourName, str]
    ) -> None:
        assert spec.cache_dir is not None
        self.folder = spec.cache_dir
        self._bundle = bundle
        self._options = options
        self._precision = spec.precision
        needs = {name: plan_need(spec, gpu, name, version) for name, version in versions.items()}
        held = (name for name, need in needs.items() if find_plan(self.folder, need) is not None)
        self.flavour: FlavourName = next(held, next(iter(needs)))
        self.version = versions[self.flavour]
        self.need: PlanNeed = needs[self.flavour]

    def missing(self, tail: Tail) -> str | None:
        """Why there is no plan with that tail, and the command that builds it; None where there is one."""
        reasons: list[str] = []
        if find_plan(self.folder, replace(self.need, tail=tail), reasons.append) is not None:
            return None
        why = f"{reasons[0]}; " if reasons else ""
        return f"{why}build the engine: {self.command(tail)}"

    def command(self, tail: Tail) -> str:
        """What a user types to build the plan with that tail."""
        words = ["edge-ad", "build", str(self._options.bundle), "--precision", self._precision]
        given = {
            "--tail": tail if tail != "graph" else None,
            "--flavour": self.flavour if self.flavour != "tensorrt" else None,
            "--device": self._options.device or None,
            "--dla": self._options.dla,
            "--engine-cache": self._options.engine_cache,
        }
        words += [word for key, value in given.items() if value is not None for word in (key, str(value))]
        return shlex.join(words)

    def build(self, say: Callable[[str], None]) -> None:
        """Build what is missing. Raises: EngineError, ConfigError, OutputError."""
        for tail in TAILS:
            if self.missing(tail) is None or (tail == "kernel" and kernel_fault(self._bundle.manifest.postprocess)):
                continue
            wanted = BuildOptions(
                bundle=self._options.bundle,
                flavour=self.flavour,
                precision=self._precision,
                device=self._options.device,
                dla=self._options.dla,
                tail=tail,
                engine_cache=self.folder,
            )
            build_job(plan_job(graph_of(self._bundle, self._precision), wanted), say=say)


def _engines(
    plans: _Plans, spec: EngineSpec, read: Callable[[], CheckedGraph], stack: ExitStack
) -> tuple[dict[tuple[str, Tail], TensorRtEngine], dict[str, str]]:
    """Those that can be loaded, by name and tail, and why the others cannot."""
    engines: dict[tuple[str, Tail], TensorRtEngine] = {}
    missing: dict[str, str] = {}
    no_graph = None if find_spec(GRAPHS) else "this edge-ad puts every launch onto its stream by itself"
    for tail in TAILS:
        absent = plans.missing(tail)
        if absent is not None:
            missing[f"{tail} tail"] = absent
            continue
        for cuda_graph in (False, True):
            if cuda_graph and no_graph is not None:
                continue
            choices = Choices(tail=tail, cuda_graph=cuda_graph)
            try:
                engine, refusal = _loaded(TensorRtEngine(read, spec, choices), stack)
            except MissingExtraError:
                raise
            except EdgeAdError as exc:
                missing[_engine_name(choices)] = str(exc)
                continue
            if refusal is None:
                engines[_engine_name(choices), tail] = engine
            elif cuda_graph:
                no_graph = refusal
    if no_graph is not None:
        missing["CUDA graph"] = no_graph
    return engines, missing


def _loaded(engine: TensorRtEngine, stack: ExitStack) -> tuple[TensorRtEngine, str | None]:
    """A loaded engine, and why it does not replay its launches: it goes on without that, and says so in the log."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener, log = Listener(), logging.getLogger(GRAPHS)
    log.addHandler(listener)
    spread, log.propagate = log.propagate, False
    try:
        engine.__enter__()
    finally:
        log.propagate = spread
        log.removeHandler(listener)
    if said:
        engine.__exit__(None, None, None)
        return engine, said[0]
    stack.push(engine)
    return engine, None


def _engine_name(choices: Choices) -> str:
    return f"{choices.tail} tail" + (" + CUDA graph" if choices.cuda_graph else "")


def _batches(engine: TensorRtEngine) -> tuple[int, ...]:
    """One image, as many as the plan takes, and so many that all buffers are in use and the last piece is small."""
    if engine.spec.batch is not None:
        return (engine.spec.batch,)
    fewest, largest = engine.batches
    return tuple(sorted({fewest, largest, 2 * largest + fewest}))


def _free_bytes(device: CudaDevice) -> int:
    with device.use("ask for its memory"):
        return int(device.driver.mem_get_info()[0])


def _graph_of(bundle: Bundle, spec: EngineSpec) -> Callable[[], CheckedGraph]:
    return lambda: bundle.read_graph(spec.precision)


def _about(
    device: CudaDevice,
    gpu: Gpu,
    plans: _Plans,
    engines: dict[tuple[str, Tail], TensorRtEngine],
    free_before: int,
) -> dict[str, str]:
    number = int(device.driver.get_driver_version())
    total = _total_bytes(device)
    about = {
        "GPU": f"{gpu.name}, SM {gpu.sm // 10}.{gpu.sm % 10}, {total / 2**20:.0f} MiB,"
        f" {free_before / 2**20:.0f} free before the engines were loaded"
        + (", shares the processor's memory" if device.shares_memory else ""),
        "CUDA driver": f"{number // 1000}.{number % 1000 // 10}",
        "TensorRT": f"{FLAVOURS[plans.flavour].title} {plans.version}",
    }
    for (name, _), engine in engines.items():
        built = engine.fingerprint
        flags = f", {', '.join(built.flags)}" if built.flags else ""
        about[f"engine, {name}"] = (
            f"{engine.effective_precision}, {batches(built.batch_min, built.batch_max)}{flags}, fingerprint {built.key}"
            f" in {engine.plan_path}"
        )
    return about


def _total_bytes(device: CudaDevice) -> int:
    with device.use("ask for its memory"):
        return int(device.driver.mem_get_info()[1])


def pci_bus_id(index: int) -> str | None:
    """Where a GPU is plugged in, as nvidia-smi names it; None where the driver does not say, as on Jetson."""
    device = open_device(index)
    try:
        with device.use("ask where it is"):
            return str(device.driver.Device(index).pci_bus_id())
    except EdgeAdError:
        return None
