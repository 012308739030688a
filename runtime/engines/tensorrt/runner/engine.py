"""TensorRT on an NVIDIA GPU: runs plans that 'edge-ad build' has made for this very machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_ad.bundle.specs import PreprocessSpec, TensorSpec
from edge_ad.engine import BatchArray, Engine, EngineSpec, Outputs
from edge_ad.errors import EngineError, one_line
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.engines.tensorrt.choices import Choices, read_choices
from edge_ad.runtime.engines.tensorrt.fingerprint import TF32, Fingerprint, PlanNeed, this_platform
from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS, Flavour, FlavourName, installed_flavours, optional
from edge_ad.runtime.engines.tensorrt.gpu import Gpu, find_gpu
from edge_ad.runtime.engines.tensorrt.messages import Messages
from edge_ad.runtime.engines.tensorrt.plans import FoundPlan, find_plan
from edge_ad.runtime.engines.tensorrt.runner.device import open_device
from edge_ad.runtime.engines.tensorrt.runner.execution import Executions
from edge_ad.runtime.engines.tensorrt.runner.graph import Launches, PlainLaunches, replayed_or_plain
from edge_ad.runtime.engines.tensorrt.runner.pipeline import Enqueue, Pipeline, in_turn
from edge_ad.runtime.engines.tensorrt.runner.preprocess import CudaPreprocessor
from edge_ad.runtime.engines.tensorrt.runner.successor import Successor
from edge_ad.runtime.engines.tensorrt.runner.tail import KernelTail

log = logging.getLogger(__name__)

TYPES = {"uint8": "UINT8", "float32": "FLOAT"}
HOW_TO_BUILD = "build one on this machine with 'edge-ad build'"


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
    _successor: Successor | None = None

    def __init__(self, read_model: Callable[[], bytes], spec: EngineSpec, choices: Choices | None = None) -> None:
        super().__init__(read_model, spec)
        self._wanted = choices

    @property
    def batches(self) -> tuple[int, int]:
        """Fewest and most images that the loaded plan takes at once."""
        return self._graph.fewest, self._graph.largest

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
        if self._choices.preprocess == "cpu" or spec.filter != "pillow_bilinear":  # the kernel knows no other
            return super().preprocessor(spec)
        return CudaPreprocessor(self._device, spec, self._sm, self.spec.cache_dir)

    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        self._graph.check(len(batch_nhwc))
        if self._device.lost is not None:
            if self._successor is None:
                self._successor = Successor(self.name, self.spec, self._device.lost)
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


class LoadedPlan:
    """A plan, ready to be executed. Made, used and closed while the device is current.

    No local variable holds an object of TensorRT: a traceback would keep it until there is no current device any more.

    Args:
        flavour: which TensorRT loads it.
        plan: what it loads.
        spec: what it is to compute.

    Attributes:
        fewest, largest: images that it takes at once.
        enqueue: puts the graph onto its stream; raises EngineError with TensorRT's reason.

    Raises: EngineError when TensorRT refuses the plan, or it computes something else.
    """

    fewest: int
    largest: int
    enqueue: Enqueue

    def __init__(self, flavour: Flavour, plan: FoundPlan, spec: EngineSpec) -> None:
        trt = self._trt = flavour.load()
        self._title = f"{flavour.title} {trt.__version__}"
        self._image = spec.image
        self._messages = Messages()
        self._logger = self._messages.logger(trt)
        self._runtime: Any = None
        self._engine: Any = None
        self._executions: Executions | None = None
        try:
            self._load(plan, spec)
        except (TypeError, RuntimeError) as exc:  # the bindings got nothing to make an object of
            self.close()
            raise self._refused(f"cannot load the engine ({one_line(exc)})") from exc
        except BaseException:
            self.close()
            raise
        self._messages.errors.clear()

    def _load(self, plan: FoundPlan, spec: EngineSpec) -> None:
        self._runtime = self._trt.Runtime(self._logger)
        if spec.dla is not None:
            self._runtime.DLA_core = spec.dla
        # Engines that run with later versions bring a small runtime of their own. The sidecar vouches for them.
        if optional(self._trt.Runtime, "engine_host_code_allowed") is not None:  # from 8.6 on
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan.data)
        if self._engine is None:
            raise self._refused("refuses the engine")
        outputs = spec.outputs if plan.fingerprint.tail == "graph" else spec.outputs[:1]
        self._check_tensors(spec.image, outputs)
        self.fewest, self.largest = self._batches()
        image, names = spec.image, self._names
        self._executions = Executions(self._trt, self._engine, image, names, self._messages, self._title)
        self.enqueue = self._executions.first()

    def check(self, images: int) -> None:
        """Raises: EngineError for a batch of which some piece would be too small."""
        rest = images % self.largest or min(images, self.largest)
        if rest < self.fewest:
            raise EngineError(
                f"the engine takes {self.fewest} to {self.largest} images at once, got {images}; build one that takes"
                " fewer"
            )

    def another(self, driver: Any) -> Enqueue:
        """As `enqueue`, with an execution context of its own, see `Executions.another`."""
        assert self._executions is not None  # until it is closed
        return self._executions.another(driver)

    def close(self) -> None:
        """Free what TensorRT holds on the device, last made first."""
        if self._executions is not None:
            self._executions.close()
        self._executions = None
        self._engine = None
        self._runtime = None

    def _check_tensors(self, image: TensorSpec, outputs: Sequence[TensorSpec]) -> None:
        modes = self._trt.TensorIOMode
        wanted = {image.name: (modes.INPUT, *_shape_of(image))}
        wanted |= {tensor.name: (modes.OUTPUT, *_shape_of(tensor)) for tensor in outputs}
        self._names = tuple(wanted)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        held = {
            name: (
                self._engine.get_tensor_mode(name),
                self._engine.get_tensor_dtype(name).name,
                *tuple(self._engine.get_tensor_shape(name))[1:],
            )
            for name in names
        }
        for name in sorted(wanted.keys() | held.keys()):
            if wanted.get(name) != held.get(name):
                raise EngineError(
                    f"the engine computes something else: tensor {name!r} is {_words(held.get(name))}, the bundle has"
                    f" {_words(wanted.get(name))}; {HOW_TO_BUILD}, with --force"
                )

    def _batches(self) -> tuple[int, int]:
        name = self._image.name
        fixed = int(self._engine.get_tensor_shape(name)[0])
        if fixed != -1:
            return fixed, fixed
        fewest, _, most = self._engine.get_tensor_profile_shape(name, 0)
        return int(fewest[0]), int(most[0])

    def _refused(self, what: str) -> EngineError:
        return EngineError(f"{self._title} {what}: {self._messages.cause}; {HOW_TO_BUILD}, with --force")


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


def _shape_of(tensor: TensorSpec) -> tuple[Any, ...]:
    """Type and shape of one image's part, as TensorRT names them."""
    return (TYPES[tensor.dtype], *(-1 if size is None else size for size in tensor.shape[1:]))


def _words(tensor: tuple[Any, ...] | None) -> str:
    if tensor is None:
        return "absent"
    mode, dtype, *shape = tensor
    return f"{mode.name.lower()} {dtype.lower()} (N, {', '.join(map(str, shape))})".replace(", )", ")")
