"""The launches for a batch, recorded once as a CUDA graph and then replayed by a single call.

What is recorded is the graph of the network and the kernel behind it, which go onto one stream. The copies stay out of
it: a CUDA graph is ordered as a whole, and with copies in it the next upload would wait for this batch's download.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

from edge_ad.errors import EngineError, MissingExtraError, one_line
from edge_ad.runtime.engines.tensorrt.runner.device import CudaDevice
from edge_ad.runtime.engines.tensorrt.runner.execution import REMEDY
from edge_ad.runtime.engines.tensorrt.runner.pipeline import SLOTS, Enqueue, Streams

log = logging.getLogger(__name__)

MODULES = ("cuda.bindings.driver", "cuda.cuda")  # the second in cuda-python 11 and early 12
MAX_SIZES = 16  # of batches that are recorded; each takes memory, on the device too
MAX_GRAPHS = SLOTS * MAX_SIZES
ONE_BY_ONE = "launches are put onto the GPU one by one, which computes the same"


class Launches(Protocol):
    """How the launches for a batch get onto the stream."""

    def enqueue(self, images: int, addresses: Mapping[str, int], streams: Streams) -> None:
        """As `Enqueue`."""

    def sizes_to_rehearse(self, fewest: int, largest: int) -> range:
        """Numbers of images that are to be computed once before the first frame comes."""


class PlainLaunches:
    """Puts every launch onto the stream, batch by batch."""

    def __init__(self, plain: Enqueue) -> None:
        self._plain = plain

    def enqueue(self, images: int, addresses: Mapping[str, int], streams: Streams) -> None:
        self._plain(images, addresses, streams)

    def sizes_to_rehearse(self, fewest: int, largest: int) -> range:
        return range(0)


class ReplayedLaunches:
    """Records the launches for each number of images and each set of buffers, and from then on replays them.

    A graph holds the addresses and arguments that it was recorded with. TensorRT adds: it holds the state of the
    execution context that it was recorded from, which must not be changed afterwards, and the context must have been
    executed once since its shape changed. So each has an execution context of its own, whose first execution is for the
    batch at hand and whose second one is recorded.

    Where something refuses, batches are launched plainly from then on, and one line of the log says why.

    Made, used and closed while the device is current.

    Args:
        device: the GPU.
        plain: puts launches onto the stream, for what is not recorded.
        another: makes one that does the same, and whose state nothing but this object changes.
        freed_with: closed when no work is left and before what `another` has made.

    Raises: MissingExtraError without cuda-python; EngineError where it cannot be loaded.
    """

    def __init__(
        self, device: CudaDevice, plain: Enqueue, another: Callable[[], Enqueue], freed_with: ExitStack
    ) -> None:
        cuda = self._cuda = loaded_driver()
        # Of two functions with that name, of CUDA 11 and 12, it is the second one, which in 11 is called otherwise.
        self._instantiate = getattr(cuda, "cuGraphInstantiateWithFlags", None) or cuda.cuGraphInstantiate
        self._device = device
        self._plain = plain
        self._another = another
        self._recordable: dict[Any, Enqueue] = {}
        self._graphs: dict[Any, Any] = {}
        self._refused = False
        freed_with.callback(self._free)

    def sizes_to_rehearse(self, fewest: int, largest: int) -> range:
        """Those that are recorded, which takes longer than a frame has time."""
        return range(fewest, min(largest, fewest + MAX_SIZES - 1) + 1)

    def enqueue(self, images: int, addresses: Mapping[str, int], streams: Streams) -> None:
        key = images, tuple(sorted(addresses.items()))
        if self._refused:
            self._plain(images, addresses, streams)
        elif key in self._graphs:
            self._replay(key, images, addresses, streams)
        elif len(self._graphs) >= MAX_GRAPHS:
            self._plain(images, addresses, streams)
        else:
            with self._device.recordings.begun() as may_record:
                if may_record:
                    self._launch_and_record(key, images, addresses, streams)
                else:  # the next batch of this size may be
                    self._plain(images, addresses, streams)

    def _replay(self, key: Any, images: int, addresses: Mapping[str, int], streams: Streams) -> None:
        try:
            self._call(self._cuda.cuGraphLaunch, self._graphs[key], self._stream(streams))
        except EngineError as exc:  # then nothing was launched
            self._plain(images, addresses, streams)  # which fails too where it is not the graph's fault
            self._refuse(exc)

    def _launch_and_record(self, key: Any, images: int, addresses: Mapping[str, int], streams: Streams) -> None:
        try:
            if key not in self._recordable:
                self._recordable[key] = self._another()
        except (EngineError, self._device.driver.Error) as exc:
            self._plain(images, addresses, streams)
            self._refuse(exc)
            return
        self._recordable[key](images, addresses, streams)
        try:
            self._graphs[key] = self._record(self._recordable[key], images, addresses, streams)
        except (EngineError, self._device.driver.Error) as exc:
            self._refuse(exc)

    def _record(self, enqueue: Enqueue, images: int, addresses: Mapping[str, int], streams: Streams) -> Any:
        """The launches as an executable graph; none of them takes place. Raises: EngineError, or an error of CUDA."""
        cuda, stream = self._cuda, self._stream(streams)
        # Other threads go on meanwhile, and allocate memory for instance, which is only forbidden in this one.
        self._call(cuda.cuStreamBeginCapture, stream, cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            enqueue(images, addresses, streams)
        except BaseException:
            status, graph = cuda.cuStreamEndCapture(stream)  # or the stream could not be used any more
            if status == cuda.CUresult.CUDA_SUCCESS:
                cuda.cuGraphDestroy(graph)
            raise
        (graph,) = self._call(cuda.cuStreamEndCapture, stream)
        try:
            return self._call(self._instantiate, graph, 0)[0]
        finally:
            cuda.cuGraphDestroy(graph)

    def _stream(self, streams: Streams) -> Any:
        return self._cuda.CUstream(int(streams.compute.handle))

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of cuda-python returns behind its status. Raises: EngineError with what that means."""
        try:
            status, *results = function(*arguments)
        except RuntimeError as exc:  # the driver has no such function
            raise EngineError(one_line(exc)) from exc
        if status != self._cuda.CUresult.CUDA_SUCCESS:
            text = self._cuda.cuGetErrorString(status)[1] or b"unknown error"
            raise EngineError(f"{function.__name__} failed: {text.decode()}")
        return results

    def _refuse(self, why: Exception) -> None:
        self._refused = True
        log.warning("no CUDA graph of a batch: %s; %s", one_line(why).removesuffix(REMEDY), ONE_BY_ONE)

    def _free(self) -> None:
        """Nothing is said of what fails: it can only be that the device is lost, and others say that."""
        while self._graphs:
            self._cuda.cuGraphExecDestroy(self._graphs.popitem()[1])
        self.__dict__.clear()


def replayed_or_plain(
    device: CudaDevice, plain: Enqueue, another: Callable[[], Enqueue], freed_with: ExitStack
) -> Launches:
    """`ReplayedLaunches` where cuda-python is installed; a line of the log where it is not."""
    try:
        return ReplayedLaunches(device, plain, another, freed_with)
    except (MissingExtraError, EngineError) as exc:
        log.warning("%s; %s", exc, ONE_BY_ONE)
        return PlainLaunches(plain)


def loaded_driver() -> Any:
    """cuda-python's module for CUDA's driver, under whichever name. Raises: MissingExtraError; EngineError."""
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if str(exc.name).split(".")[0] != "cuda":
                raise EngineError(f"cuda-python cannot be loaded: {one_line(exc)}") from exc
        except (ImportError, RuntimeError) as exc:
            raise EngineError(f"cuda-python cannot be loaded: {one_line(exc)}") from exc
    raise MissingExtraError("a CUDA graph", "cuda-bindings", "tensorrt")
