"""TensorRT on an NVIDIA GPU: runs plans that 'edge-ad build' has made for this very machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.engine import BatchArray, Engine, EngineHealth, EngineSpec, Outputs
from edge_ad.errors import EngineError
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.engines.process.keeper import Keeper, Limits
from edge_ad.runtime.engines.tensorrt.choices import Choices, read_choices
from edge_ad.runtime.engines.tensorrt.fingerprint import TF32, Fingerprint, PlanNeed, this_platform
from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS, Flavour, FlavourName, installed_flavours
from edge_ad.runtime.engines.tensorrt.gpu import Gpu, find_gpu
from edge_ad.runtime.engines.tensorrt.plans import FoundPlan, find_plan
from edge_ad.runtime.engines.tensorrt.runner.device import open_device
from edge_ad.runtime.engines.tensorrt.runner.graph import Launches, PlainLaunches, replayed_or_plain
from edge_ad.runtime.engines.tensorrt.runner.loaded_plan import HOW_TO_BUILD, LoadedPlan
from edge_ad.runtime.engines.tensorrt.runner.pipeline import Enqueue, Pipeline, in_turn
from edge_ad.runtime.engines.tensorrt.runner.preprocess import CudaPreprocessor
from edge_ad.runtime.engines.tensorrt.runner.tail import KernelTail

log = logging.getLogger(__name__)


class TensorRtEngine(Engine):
    """Runs a plan from the engine cache. It never builds one: that takes minutes, and a line would stand still.

    When the GPU is lost to this process, a fresh one takes over; until it is ready, every batch is an EngineError.

    Args:
        read_model, spec: as for `Engine`.
        choices: what to run, whatever was found to be fastest; a plan with the other tail is then not taken.

    Attributes:
        fingerprint, plan_path: of the plan; known after `__enter__`.
    """

    name = "tensorrt"
    fingerprint: Fingerprint
    plan_path: Path
    _successor: Keeper | None = None

    def __init__(
        self, read_model: Callable[[], CheckedGraph], spec: EngineSpec, choices: Choices | None = None
    ) -> None:
        super().__init__(read_model, spec)
        self._wanted = choices

    @property
    def batches(self) -> tuple[int, int]:
        """Fewest and most images that the loaded plan takes at once."""
        return self._graph.fewest, self._graph.largest

    @property
    def lost(self) -> str | None:
        return self._device.lost if hasattr(self, "_device") else None

    @property
    def health(self) -> EngineHealth:
        if self._successor is not None:
            return self._successor.health
        return EngineHealth(self.lost, last_fault=self.lost or "")

    @property
    def resizes_on_device(self) -> bool:
        return self._choices.preprocess != "cpu"

    def load_impl(self) -> None:
        self._successor = None
        gpu = find_gpu(self.spec.device)
        flavour, plan, self._choices = _plan_for(self.spec, gpu, self._wanted)
        self.fingerprint, self.plan_path = plan.fingerprint, plan.path
        self._sm = gpu.sm
        self._device = open_device(self.spec.device)
        with self._device.use("load the engine"), ExitStack() as stack:
            with self._device.recordings.kept_out():
                launches = self._load(flavour, plan, gpu, stack)
            stack.callback(self._device.wait_for_all)  # the first to be called: what is freed must not be in use
            self._pipeline.rehearse(launches.sizes_to_rehearse(self._graph.fewest, self._graph.largest))
            self._resources = stack.pop_all()
        self.effective_precision = TF32 if TF32 in plan.fingerprint.flags else self.spec.precision
        self.from_cache = True

    def _load(self, flavour: Flavour, plan: FoundPlan, gpu: Gpu, stack: ExitStack) -> Launches:
        graph = self._graph = LoadedPlan(flavour, plan, self.spec)
        stack.callback(graph.close)
        tail = self._tail(gpu, stack) if plan.fingerprint.tail == "kernel" else None
        launches = self._launches(tail, stack)
        self._pipeline = Pipeline(self._device, self.spec.image, self.spec.outputs, graph.largest, launches.enqueue)
        stack.callback(self._pipeline.close)
        return launches

    def _tail(self, gpu: Gpu, stack: ExitStack) -> KernelTail:
        assert self.spec.postprocess is not None  # else no such plan is looked for
        return KernelTail(
            self._device.driver, self.spec, self.spec.postprocess, gpu.sm, self._graph.largest, freed_with=stack
        )

    def _launches(self, tail: KernelTail | None, stack: ExitStack) -> Launches:
        def whole(enqueue: Enqueue) -> Enqueue:
            return enqueue if tail is None else in_turn(enqueue, tail.enqueue)

        plain = whole(self._graph.enqueue)
        if self._choices.cuda_graph:
            driver = self._device.driver
            return replayed_or_plain(self._device, plain, lambda: whole(self._graph.another(driver)), stack)
        return PlainLaunches(plain)

    def preprocessor(self, spec: PreprocessSpec) -> Preprocessor:
        if not self.resizes_on_device or spec.filter != "pillow_bilinear":  # the kernel knows no other
            return super().preprocessor(spec)
        return CudaPreprocessor(self._device, spec, self._sm, self.spec.cache_dir)

    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        self._graph.check(len(batch_nhwc))
        if self._device.lost is not None:
            if self._successor is None:
                self._successor = Keeper(self.name, self.spec, _no_graph, Limits(), reason=self._device.lost)
                self._successor.start()
            return self._successor.infer(batch_nhwc)
        with self._device.use("compute a batch"):
            return Outputs(*self._pipeline.run(batch_nhwc))

    def close_impl(self) -> None:
        if self._successor is not None:
            self._successor.close()
        device, resources = self._device, self._resources
        del self._device, self._graph, self._pipeline, self._resources
        try:
            with device.use("close the engine"):
                resources.close()
        except EngineError as exc:  # whoever closes an engine can do nothing about it
            log.warning("%s", exc)
            if device.lost is not None:
                device.abandon()


def _no_graph() -> CheckedGraph:
    raise EngineError("a fresh process computes what was compiled before, and has no graph to compile")


def plan_need(spec: EngineSpec, gpu: Gpu, flavour: FlavourName, version: str) -> PlanNeed:
    """What a plan has to do, to compute `spec` on a GPU with that TensorRT."""
    return PlanNeed(
        flavour=flavour,
        version=version,
        sm=gpu.sm,
        gpu=gpu.name,
        precision=spec.precision,
        batch=spec.batch or 1,
        onnx_sha256=spec.model_sha256,
        dla=spec.dla,
        platform=this_platform(),
        tail="graph" if spec.postprocess is None else None,
    )


def _plan_for(spec: EngineSpec, gpu: Gpu, wanted: Choices | None) -> tuple[Flavour, FoundPlan, Choices]:
    """A plan for this machine, what loads it, and what else was found to be faster here.

    Of the two tails it is the wanted one. Where none is wanted, it is the one that was found to be faster here, or the
    graph's; where that was not built, the other.

    Raises: EngineError with what is missing or does not fit.
    """
    versions, reasons = installed_flavours()
    if not versions:
        raise EngineError(reasons[0])
    if spec.cache_dir is None:
        raise EngineError("engine 'tensorrt' runs what 'edge-ad build' made, and here there is no folder to look in")
    unfit: list[str] = []
    for name, version in versions.items():
        need = plan_need(spec, gpu, name, version)
        if wanted is not None:
            need = replace(need, tail=wanted.tail)
        choices = wanted or read_choices(spec.cache_dir, need) or Choices()
        tail = need.tail or choices.tail
        plan = find_plan(spec.cache_dir, replace(need, tail=tail)) or find_plan(spec.cache_dir, need, unfit.append)
        if plan is not None:
            return FLAVOURS[name], plan, choices
    why = unfit[0] if unfit else f"none was built from this bundle's {spec.precision} model"
    raise EngineError(f"no TensorRT engine in {spec.cache_dir}: {why}; {HOW_TO_BUILD}")
