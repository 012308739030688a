"""Stands in for the module `tensorrt` of a machine without one: makes plans, and computes them with ONNX Runtime.

Only what edge-ad needs is here. A plan is an ONNX graph with a head; nothing is optimized. Work goes onto the stream
that it is given, through the driver of the process, reads the addresses that were set and writes to them. What TensorRT
would not forgive (no current context, an address that is none, a size that was never set) is an error here too, or a
fault in the report of the emulated driver.
"""

from __future__ import annotations

import ctypes
import json
import weakref
from abc import ABC, abstractmethod
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

__version__ = "10.3.0"

MAGIC = b"stand-in plan\n"
SCRATCH_BYTES = 4096
HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_driver = ctypes.CDLL("libcuda.so.1")
_driver.emulated_cuda_covers.argtypes = (ctypes.c_uint64, ctypes.c_size_t)
_driver.cuLaunchHostFunc.argtypes = (ctypes.c_void_p, HOST_FUNCTION, ctypes.c_void_p)
for _name, _count in (("cuEventRecord", 2), ("cuStreamDestroy_v2", 1), ("cuEventDestroy_v2", 1)):
    getattr(_driver, _name).argtypes = (ctypes.c_void_p,) * _count
_driver.cuStreamWaitEvent.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
_driver.cuStreamIsCapturing.argtypes = (ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))

_recorded: list[Any] = []  # callbacks in CUDA graphs, which may outlive the contexts that made them


def write_plan(graph: bytes, batches: tuple[int, ...] = (1, 1, 1), **changes: Any) -> bytes:
    """A plan for batches of so many images: fewest, best, most.

    Args:
        changes: `fails`: a plan that loads and cannot be executed; `input_type`: another type than the graph's;
            `outputs`: names of those that it returns, where these are not all; `uncapturable`: it cannot be recorded;
            `auxiliary`: it computes on a stream of its own, which joins the given one, or with "unjoined" does not when
            it is recorded.
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
        _needs_context("Builder")
        self.logger = logger

    def create_network(self, flags: int) -> Network:
        return Network()

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> bytes:
        return write_plan(network.graph, config.batches, outputs=[output.name for output in network.outputs()])


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        _needs_context("Runtime")
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
        self._weights = _DeviceMemory("weights")

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
            self.logger.log(Severity.ERROR, "ICudaEngine: Error Code 2: OutOfMemory (Requested size was 4096 bytes.)")
            return None


class ExecutionContext:
    """Of what TensorRT requires of recordings, this holds: nothing is set between the execution before and the recorded
    one, nor after that; and contexts that share memory do not compute at the same time.
    """

    def __init__(self, engine: Engine, is_given_memory: bool) -> None:
        self._engine = engine
        self._auxiliary = _AuxiliaryStream() if engine.head.get("auxiliary") else None
        self._scratch: _DeviceMemory | None = None
        self._scratch_address = 0
        if not is_given_memory:
            self._scratch = _DeviceMemory("scratch")
            self._scratch_address = self._scratch.address
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] | None = None
        self._callbacks: dict[int, Any] = {}  # the driver holds their addresses
        self._done: set[int] = set()
        self._last_number = 0
        self._changes = 0
        self._changes_executed = -1

    def set_device_memory(self, memory: int, size: int) -> None:
        if size < SCRATCH_BYTES or not _driver.emulated_cuda_covers(memory, size):
            _fault(f"an execution context was given {size} bytes at {memory:#x} to work in")
        self._scratch_address = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._changes += 1
        fewest, _, most = self._engine.head["batches"]
        whole = self._engine.get_tensor_shape(name)
        fits = len(shape) == len(whole) and fewest <= shape[0] <= most
        fits = fits and all(wanted in (-1, got) for wanted, got in zip(whole, shape, strict=True))
        if not fits:
            return self._refuse(f"Static dimension mismatch while setting input shape for {name}")
        self._shape = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._changes += 1
        if name not in [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]:
            return self._refuse(f"Given invalid tensor name: {name}")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        names = [output.name for output in self._engine.outputs]
        image = self._engine.session.get_inputs()[0].name
        missing = {image, *names} - self._addresses.keys()
        if missing or self._shape is None or not self._scratch_address or self._engine.head.get("fails"):
            return self._refuse(f"Neither address or allocator is set for {sorted(missing)}")
        status = ctypes.c_int()
        if _driver.cuStreamIsCapturing(stream_handle, ctypes.byref(status)) != 0:
            return self._refuse("Cuda Runtime (an illegal memory access was encountered)")
        is_recorded = status.value != 0
        if is_recorded and self._engine.head.get("uncapturable"):
            return self._refuse("Cuda Runtime (operation not permitted when stream is capturing)")
        if is_recorded and self._changes != self._changes_executed:
            return self._refuse("changes that were not executed yet cannot be captured")
        self._changes_executed = self._changes
        for number in tuple(self._done):  # they have returned
            self._done.discard(number)
            del self._callbacks[number]
        compute, deliver = self._work(image, names, is_recorded)
        if self._auxiliary is None:
            launched = self._launch(stream_handle, lambda: (compute(), deliver()), is_recorded)
        else:
            launched = self._auxiliary.fork(stream_handle)
            launched = launched and self._launch(self._auxiliary.stream, compute, is_recorded)
            if not (is_recorded and self._engine.head["auxiliary"] == "unjoined"):
                launched = launched and self._auxiliary.join(stream_handle)
            launched = launched and self._launch(stream_handle, deliver, is_recorded)
        return launched or self._refuse("Cuda Runtime (an illegal memory access was encountered)")

    def _work(self, image: str, names: list[str], is_recorded: bool) -> tuple[Any, Any]:
        """What is done: compute in the scratch memory, deliver the outputs."""
        shape, addresses, scratch, changes = self._shape, dict(self._addresses), self._scratch_address, self._changes
        session, this, token = self._engine.session, weakref.ref(self), id(self).to_bytes(8, "little")
        assert shape is not None
        results: list[Any] = []

        def compute() -> None:
            context = this()
            if is_recorded and (context is None or context._changes != changes):
                _fault("what is replayed was recorded from an execution context that has changed")
            _bytes_at(scratch, 8)[:] = token
            batch = np.ctypeslib.as_array(_bytes_at(addresses[image], int(np.prod(shape)))).reshape(shape)
            results[:] = session.run(names, {image: batch})
            if bytes(_bytes_at(scratch, 8)) != token:
                _fault("two executions worked in the same memory at the same time")

        def deliver() -> None:
            for name, result in zip(names, results, strict=True):
                _bytes_at(addresses[name], result.nbytes)[:] = np.ascontiguousarray(result).tobytes()
            results.clear()

        return compute, deliver

    def _launch(self, stream: int, work: Any, is_recorded: bool) -> bool:
        number = self._last_number = self._last_number + 1
        done = self._done

        def run(_: int | None) -> None:
            try:
                work()
            except Exception as exc:  # nothing may leave a callback of the driver
                _fault(f"execution: {type(exc).__name__}: {exc}")
            finally:
                if not is_recorded:
                    done.add(number)

        callback = HOST_FUNCTION(run)
        if is_recorded:
            _recorded.append(callback)
        else:
            self._callbacks[number] = callback
        if _driver.cuLaunchHostFunc(stream, callback, None) == 0:
            return True
        self._callbacks.pop(number, None)
        return False

    def __del__(self) -> None:
        if len(getattr(self, "_callbacks", ())) > len(getattr(self, "_done", ())):
            _fault("an execution context was destroyed while its work waits")

    def _refuse(self, reason: str) -> bool:
        text = f"IExecutionContext::enqueueV3: Error Code 3: API Usage Error ({reason})"
        self._engine.logger.log(Severity.ERROR, text)
        return False


class _AuxiliaryStream:
    """A stream that works beside the one that was given, as TensorRT has them."""

    def __init__(self) -> None:
        made = [ctypes.c_void_p() for _ in range(3)]
        makers = (_driver.cuStreamCreate, _driver.cuEventCreate, _driver.cuEventCreate)
        self._made: list[tuple[Any, int]] = []
        enders = (_driver.cuStreamDestroy_v2, _driver.cuEventDestroy_v2, _driver.cuEventDestroy_v2)
        for handle, make, end in zip(made, makers, enders, strict=True):
            if make(ctypes.byref(handle), 1) != 0:
                raise MemoryError
            self._made.append((end, int(handle.value or 0)))
        self.stream, self._forked, self._joined = (handle for _, handle in self._made)

    def fork(self, stream: int) -> bool:
        return (
            _driver.cuEventRecord(self._forked, stream) == 0 == _driver.cuStreamWaitEvent(self.stream, self._forked, 0)
        )

    def join(self, stream: int) -> bool:
        return (
            _driver.cuEventRecord(self._joined, self.stream) == 0 == _driver.cuStreamWaitEvent(stream, self._joined, 0)
        )

    def __del__(self) -> None:
        for end, handle in self._made:
            end(handle)


def _follows(later: int, earlier: int, event: int) -> bool:
    """Let a stream wait for what is on another one. Returns: whether the driver did."""
    return _driver.cuEventRecord(event, earlier) == 0 and _driver.cuStreamWaitEvent(later, event, 0) == 0


class _DeviceMemory:
    """Memory that TensorRT itself takes: it is freed in a current context, or it is a fault."""

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose
        address = ctypes.c_uint64()
        if _driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(SCRATCH_BYTES)) != 0:
            raise MemoryError
        self.address = int(address.value)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            _driver.cuMemFree_v2(ctypes.c_uint64(self.address))  # without a current context the driver reports it


def _session(graph: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _sizes(tensor: Any) -> tuple[int, ...]:
    """Its shape; -1 where it is open."""
    return tuple(size if isinstance(size, int) else -1 for size in tensor.shape)


def _needs_context(what: str) -> None:
    current = ctypes.c_void_p()
    _driver.cuCtxGetCurrent(ctypes.byref(current))
    if not current:
        _fault(f"{what} was made without a current context")


def _bytes_at(address: int, count: int) -> Any:
    if not _driver.emulated_cuda_covers(address, count):
        raise ValueError(f"{count} bytes at {address:#x} are not the device's")
    return (ctypes.c_uint8 * count).from_address(address)


def _fault(text: str) -> None:
    _driver.emulated_cuda_fault(text.encode())
