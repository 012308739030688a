"""Execution contexts of a TensorRT engine: with each of them it puts batches onto a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_ad.bundle.specs import TensorSpec
from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.flavour import optional
from edge_ad.runtime.engines.tensorrt.messages import Messages
from edge_ad.runtime.engines.tensorrt.runner.pipeline import Enqueue, Streams

REMEDY = "; if it does so again, build the engine anew with 'edge-ad build', with --force"


class Executions:
    """All that are made of one engine. Made, used and closed while the device is current.

    Args:
        trt: the module of TensorRT.
        engine: of TensorRT.
        image: its input.
        names: of all its tensors.
        messages: what TensorRT says.
        title: of TensorRT and its version.
    """

    def __init__(
        self, trt: Any, engine: Any, image: TensorSpec, names: tuple[str, ...], messages: Messages, title: str
    ) -> None:
        self._trt = trt
        self._engine = engine
        self.image = image
        self.names = names
        self.messages = messages
        self.title = title
        self._made: list[_Execution] = []
        self._memory: Any = None

    def first(self) -> Enqueue:
        """Puts the graph onto its stream, and raises EngineError with TensorRT's reason.

        Raises: EngineError when TensorRT cannot get ready for that.
        """
        return self._make().enqueue

    def another(self, driver: Any) -> Enqueue:
        """As `first`, with a state of its own. What these compute on the way lies in the same memory, for all of them.

        So they have to be put onto one stream. TensorRT 8 cannot share memory; there each takes its own. Nor does its
        8.5 share an optimization profile, and refuses where the engine takes batches of any size.

        Args:
            driver: the module `pycuda.driver`.

        Raises: as `first`; EngineError where the engine has no profile left; errors of CUDA when there is no memory.
        """
        strategy = optional(self._trt, "ExecutionContextAllocationStrategy")
        size_bytes = optional(self._engine, "device_memory_size_v2")
        if strategy is None or size_bytes is None:
            return self._make().enqueue
        if self._memory is None:
            self._memory = driver.mem_alloc(max(size_bytes, 1))
        execution = self._make(strategy.USER_MANAGED)
        execution.work_in(int(self._memory), size_bytes)
        return execution.enqueue

    def close(self) -> None:
        """Free all of them, and what they compute in."""
        while self._made:
            self._made.pop().close()
        if self._memory is not None:
            self._memory.free()
        self._memory = self._engine = None

    def _make(self, *strategy: Any) -> _Execution:
        self._made.append(_Execution(self, self._engine.create_execution_context(*strategy)))
        return self._made[-1]


class _Execution:
    """One of them. Nothing else holds TensorRT's object, no local variable either, see `LoadedPlan`."""

    def __init__(self, all_of_them: Executions, context: Any) -> None:
        if context is None:
            raise EngineError(
                f"{all_of_them.title} cannot make the engine ready: {all_of_them.messages.cause}; if the GPU's memory"
                " is full, end other programs that use it, or build the engine for smaller batches"
            )
        if context.active_optimization_profile < 0:
            raise EngineError(
                f"{all_of_them.title} lets one execution context use the engine's optimization profile, and there is"
                " one already"
            )
        self._context = context
        self._image = all_of_them.image
        self._names = all_of_them.names
        self._messages = all_of_them.messages
        self._title = all_of_them.title
        self._set_for: tuple[int, dict[str, int]] | None = None

    def work_in(self, address: int, size_bytes: int) -> None:
        """Use that device memory, where the context was made without any."""
        self._context.set_device_memory(address, size_bytes)

    def enqueue(self, images: int, addresses: Mapping[str, int], streams: Streams) -> None:
        if not (self._set(images, addresses) and self._context.execute_async_v3(int(streams.compute.handle))):
            reason = self._messages.cause
            self._messages.errors.clear()
            raise EngineError(f"{self._title} failed on a batch: {reason}{REMEDY}")

    def _set(self, images: int, addresses: Mapping[str, int]) -> bool:
        """Set what is other than before: whatever is set, TensorRT has more to do the next time."""
        wanted = images, dict(addresses)
        if self._set_for != wanted:
            self._set_for = None
            done = self._context.set_input_shape(self._image.name, (images, *self._image.shape[1:]))
            done = done and all(self._context.set_tensor_address(name, addresses[name]) for name in self._names)
            self._set_for = wanted if done else None
        return self._set_for is not None

    def close(self) -> None:
        self._context = None
