"""Stands in for the module `tensorrt` of a machine without one: makes plans, and computes them with ONNX Runtime.

Only what edge-ad needs is here. A plan is an ONNX graph with a head; nothing is optimized. Work goes onto the stream
that it is given, through the driver of the process, reads the addresses that were set and writes to them. What TensorRT
would not forgive (no current context, an address that is none, a size that was never set) is an error here too, or a
fault in the report of the emulated driver.
"""

from __future__ import annotations

import json
import weakref
from abc import ABC, abstractmethod
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

from stand_in_execution import SCRATCH_BYTES, DeviceMemory, ExecutionContext, needs_context

__version__ = "10.3.0"

MAGIC = b"stand-in plan\n"


def write_plan(graph: bytes, batches: tuple[int, ...] = (1, 1, 1), **changes: Any) -> bytes:
    """A plan for batches of so many images: fewest, best, most.

    Args:
        changes: `fails`: a plan that loads and cannot be executed; `input_type`: another type than the graph's;
            `outputs`: names of those that it returns, where these are not all; `uncapturable`: it cannot be recorded;
            `sole_profile`: one context alone can use it; `auxiliary`: it computes on a stream of its own, which joins
            the given one, or with "unjoined" does not when it is recorded.
    """
    return MAGIC + json.dumps({"batches": batches, **changes}).encode() + b"\n" + graph


class Severity(Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger(ABC):
    Severity = Severity

    @abstractmethod
    def log(self, severity: Severity, text: str) -> None: ...


class DataType(Enum):
    FLOAT = "tensor(float)"
    UINT8 = "tensor(uint8)"


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(IntEnum):
    TF32 = 7


class Network:
    """What the parser reads into: the graph, and the graph's one input."""

    num_inputs = 1

    def __init__(self) -> None:
        self.graph = b""
        self.unmarked: set[str] = set()

    @property
    def num_outputs(self) -> int:
        return len(self.outputs())

    def outputs(self) -> list[Any]:
        return [output for output in _session(self.graph).get_outputs() if output.name not in self.unmarked]

    def get_output(self, index: int) -> Any:
        return SimpleNamespace(name=self.outputs()[index].name)

    def unmark_output(self, tensor: Any) -> None:
        self.unmarked.add(tensor.name)

    def get_input(self, index: int) -> Any:
        (image,) = _session(self.graph).get_inputs()
        return SimpleNamespace(name=image.name, shape=_sizes(image))


class OnnxParser:
    num_errors = 0

    def __init__(self, network: Network, logger: ILogger) -> None:
        self._network = network

    def parse(self, model: bytes) -> bool:
        self._network.graph = model
        return True


class OptimizationProfile:
    shapes: tuple[tuple[int, ...], ...] = ()

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes = shapes


class BuilderConfig:
    batches: tuple[int, ...] = (1, 1, 1)

    def clear_flag(self, flag: BuilderFlag) -> None:
        pass

    def add_optimization_profile(self, profile: OptimizationProfile) -> int:
        self.batches = tuple(shape[0] for shape in profile.shapes)
        return 0


class Builder:
    create_builder_config = BuilderConfig
    create_optimization_profile = OptimizationProfile

    def __init__(self, logger: ILogger) -> None:
        needs_context("Builder")
        self.logger = logger

    def create_network(self, flags: int) -> Network:
        return Network()

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> bytes:
        return write_plan(network.graph, config.batches, outputs=[output.name for output in network.outputs()])


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        needs_context("Runtime")
        self._logger = logger
        self.engine_host_code_allowed = False
        self.DLA_core = -1

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if not plan.startswith(MAGIC):
            self._logger.log(
                Severity.ERROR,
                "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead"
                " == kSERIALIZATION_VERSION failed.Version tag does not match.)",
            )
            return None
        head, graph = plan[len(MAGIC) :].split(b"\n", 1)
        try:
            return Engine(json.loads(head), graph, self._logger)
        except MemoryError:
            self._logger.log(Severity.ERROR, "IRuntime: Error Code 2: OutOfMemory (cannot allocate the weights)")
            return None


class Engine:
    def __init__(self, head: dict[str, Any], graph: bytes, logger: ILogger) -> None:
        self.session = _session(graph)
        self.head = head
        self.logger = logger
        tensors = [(TensorIOMode.INPUT, tensor) for tensor in self.session.get_inputs()]
        kept = head.get("outputs")
        self.outputs = [tensor for tensor in self.session.get_outputs() if kept is None or tensor.name in kept]
        tensors += [(TensorIOMode.OUTPUT, tensor) for tensor in self.outputs]
        self._tensors = {tensor.name: (mode, tensor) for mode, tensor in tensors}
        self._weights = DeviceMemory("weights")
        self.contexts: weakref.WeakSet[ExecutionContext] = weakref.WeakSet()

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._tensors[name][0]

    def get_tensor_dtype(self, name: str) -> DataType:
        mode, tensor = self._tensors[name]
        changed = self.head.get("input_type") if mode is TensorIOMode.INPUT else None
        return DataType[changed] if changed else DataType(tensor.type)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return _sizes(self._tensors[name][1])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        return [(count, *self.get_tensor_shape(name)[1:]) for count in self.head["batches"]]

    @property
    def device_memory_size_v2(self) -> int:
        return SCRATCH_BYTES

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy | None = None
    ) -> ExecutionContext | None:
        try:
            return ExecutionContext(self, is_given_memory=strategy is not None and strategy.name == "USER_MANAGED")
        except MemoryError:
            self.say("ICudaEngine: Error Code 2: OutOfMemory (Requested size was 4096 bytes.)")
            return None

    def say(self, error: str) -> None:
        self.logger.log(Severity.ERROR, error)


def _session(graph: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _sizes(tensor: Any) -> tuple[int, ...]:
    """Its shape; -1 where it is open."""
    return tuple(size if isinstance(size, int) else -1 for size in tensor.shape)
