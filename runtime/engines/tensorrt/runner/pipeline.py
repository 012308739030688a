"""Batches through a graph on a GPU: while one piece is computed, the next is on its way there and the last on its back.

Three streams, one for each direction of the copies and one for the graph, and two sets of buffers that take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import TensorSpec
from edge_ad.engine import BatchArray
from edge_ad.runtime.engines.tensorrt.runner.device import CudaDevice

SLOTS = 2
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, for which pycuda has no name


class Streams:
    """One for each direction of the copies, and one for the graph.

    pycuda frees streams and events when nothing refers to them any more, and only where the device is current. So what
    holds them lets go when it is closed, and nothing else refers to them: no argument and no local variable, which a
    traceback would keep for as long as somebody keeps that.

    They do not wait for the default stream, on which other libraries of the process may work; and those may use it
    while one of these is recorded.
    """

    def __init__(self, driver: Any, freed_with: ExitStack) -> None:
        freed_with.callback(self.__dict__.clear)
        self.up = driver.Stream(NON_BLOCKING)
        self.compute = driver.Stream(NON_BLOCKING)
        self.down = driver.Stream(NON_BLOCKING)


Enqueue = Callable[[int, Mapping[str, int], Streams], None]
"""Puts the graph for so many images onto `Streams.compute`: (images, address of each tensor, streams)."""


def in_turn(first: Enqueue, second: Enqueue) -> Enqueue:
    """Both, one after the other."""

    def enqueue(images: int, addresses: Mapping[str, int], streams: Streams) -> None:
        first(images, addresses, streams)
        second(images, addresses, streams)

    return enqueue


class DeviceTensor(Protocol):
    """A tensor for the largest piece, on the device and in pinned host memory.

    Attributes:
        host: (N, …), what goes there or came from there.
        address: of the device's.
    """

    host: NDArray[Any]
    address: int

    def upload(self, images: int, streams: Streams) -> None: ...

    def download(self, images: int, streams: Streams) -> None: ...

    def free(self) -> None: ...


class CopiedTensor:
    """A `DeviceTensor` of a GPU with memory of its own."""

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: str) -> None:
        self._driver = driver
        self.host: NDArray[Any] = driver.pagelocked_empty(shape, dtype)
        try:
            self._memory = driver.mem_alloc(self.host.nbytes)
        except BaseException:
            _free_pinned(self.host)
            raise
        self.address = int(self._memory)

    def upload(self, images: int, streams: Streams) -> None:
        self._driver.memcpy_htod_async(self._memory, self.host[:images], streams.up)

    def download(self, images: int, streams: Streams) -> None:
        self._driver.memcpy_dtoh_async(self.host[:images], self._memory, streams.down)

    def free(self) -> None:
        self._memory.free()
        _free_pinned(self.host)


class MappedTensor:
    """A `DeviceTensor` of a GPU that works in the processor's memory, where a copy would only cost time."""

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: str) -> None:
        flags = driver.host_alloc_flags.DEVICEMAP
        self.host: NDArray[Any] = driver.pagelocked_empty(shape, dtype, mem_flags=flags)
        try:
            self.address = int(_pinned(self.host).get_device_pointer())
        except BaseException:
            _free_pinned(self.host)
            raise

    def upload(self, images: int, streams: Streams) -> None:
        pass

    def download(self, images: int, streams: Streams) -> None:
        pass

    def free(self) -> None:
        _free_pinned(self.host)


class _Slot:
    """Buffers of one piece, and how far it has come; its events are held as `Streams` are."""

    def __init__(
        self, device: CudaDevice, tensors: Mapping[str, TensorSpec], images: int, freed_with: ExitStack
    ) -> None:
        freed_with.callback(self.__dict__.clear)
        driver = device.driver
        kind = MappedTensor if device.shares_memory else CopiedTensor
        self.tensors: dict[str, DeviceTensor] = {}
        for name, tensor in tensors.items():
            shape = (images, *(int(size or 1) for size in tensor.shape[1:]))
            self.tensors[name] = kind(driver, shape, tensor.dtype)
            freed_with.callback(self.tensors[name].free)
        flags = driver.event_flags.DISABLE_TIMING
        self.uploaded = driver.Event(flags)
        self.computed = driver.Event(flags)
        self.downloaded = driver.Event(flags)
        self.addresses = {name: tensor.address for name, tensor in self.tensors.items()}


class Pipeline:
    """Computes batches of any size in pieces that the graph takes. Made, used and closed while the device is current.

    Args:
        device: the GPU.
        image: the graph's input.
        outputs: the graph's outputs.
        largest: most images that the graph takes at once.
        enqueue: puts the graph onto its stream.
    """

    def __init__(
        self, device: CudaDevice, image: TensorSpec, outputs: Sequence[TensorSpec], largest: int, enqueue: Enqueue
    ) -> None:
        self._image = image
        self._outputs = tuple(outputs)
        self._largest = largest
        self._enqueue = enqueue
        tensors = {tensor.name: tensor for tensor in (image, *outputs)}
        with ExitStack() as stack:
            self._streams = Streams(device.driver, stack)
            self._slots = [_Slot(device, tensors, largest, stack) for _ in range(SLOTS)]
            self._resources = stack.pop_all()

    def run(self, batch_nhwc: BatchArray) -> list[NDArray[Any]]:
        """The outputs for (N, H, W, C) images, in new arrays."""
        count = len(batch_nhwc)
        results: list[NDArray[Any]] = [
            np.empty((count, *self._slots[0].tensors[tensor.name].host.shape[1:]), tensor.dtype)
            for tensor in self._outputs
        ]
        pieces = [slice(first, min(first + self._largest, count)) for first in range(0, count, self._largest)]
        for index, piece in enumerate(pieces):
            if index >= SLOTS:
                self._collect(self._slots[index % SLOTS], pieces[index - SLOTS], results)
            self._start(self._slots[index % SLOTS], batch_nhwc[piece])
        for index in range(max(0, len(pieces) - SLOTS), len(pieces)):
            self._collect(self._slots[index % SLOTS], pieces[index], results)
        return results

    def rehearse(self, sizes: Iterable[int]) -> None:
        """Compute batches of these sizes, for what takes longer at the first time."""
        for count in sizes:
            self.run(np.zeros_like(self._slots[0].tensors[self._image.name].host[:count]))

    def _start(self, slot: _Slot, images: BatchArray) -> None:
        """Queue a piece. What its slot held before has been collected, so nothing is in the way."""
        count, streams = len(images), self._streams
        image = slot.tensors[self._image.name]
        np.copyto(image.host[:count], images)
        image.upload(count, streams)
        slot.uploaded.record(streams.up)
        streams.compute.wait_for_event(slot.uploaded)
        self._enqueue(count, slot.addresses, streams)
        slot.computed.record(streams.compute)
        streams.down.wait_for_event(slot.computed)
        for tensor in self._outputs:
            slot.tensors[tensor.name].download(count, streams)
        slot.downloaded.record(streams.down)

    def _collect(self, slot: _Slot, piece: slice, results: list[NDArray[Any]]) -> None:
        """Wait for a piece and take its outputs over, for its buffers will be used again."""
        slot.downloaded.synchronize()
        for tensor, result in zip(self._outputs, results, strict=True):
            np.copyto(result[piece], slot.tensors[tensor.name].host[: piece.stop - piece.start])

    def close(self) -> None:
        """Free everything, when no work is left."""
        self._resources.close()


def _pinned(host: NDArray[Any]) -> Any:
    """What pycuda made an array of pinned memory on."""
    return host.base


def _free_pinned(host: NDArray[Any]) -> None:
    _pinned(host).free()
