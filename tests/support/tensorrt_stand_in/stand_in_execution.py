"""Execution contexts of the stand-in for TensorRT, and its use of the driver of the process."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np

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


class ExecutionContext:
    """Of what TensorRT requires of recordings, this holds: nothing is set between the execution before and the recorded
    one, nor after that; and contexts that share memory do not compute at the same time.
    """

    def __init__(self, engine: Any, is_given_memory: bool) -> None:
        self._engine = engine
        # As in TensorRT 8.5, which gives a profile to one context alone.
        self.active_optimization_profile = -1 if engine.head.get("sole_profile") and engine.contexts else 0
        engine.contexts.add(self)
        self._auxiliary = _AuxiliaryStream() if engine.head.get("auxiliary") else None
        self._scratch: DeviceMemory | None = None
        self._scratch_address = 0
        if not is_given_memory:
            self._scratch = DeviceMemory("scratch")
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
        if self.active_optimization_profile < 0:
            return self._refuse("Assertion mOptimizationProfile >= 0 failed.")
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
        self._engine.say(f"IExecutionContext::enqueueV3: Error Code 3: API Usage Error ({reason})")
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


class DeviceMemory:
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


def needs_context(what: str) -> None:
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
