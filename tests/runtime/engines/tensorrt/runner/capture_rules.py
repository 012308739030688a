"""Controls of the emulated driver: what a capture takes, what it forbids, and what a graph does when it is launched."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from station import Emulator, Station

from edge_ad.runtime.engines.tensorrt.runner.device import CudaDevice, open_device
from edge_ad.runtime.engines.tensorrt.runner.pipeline import NON_BLOCKING


def rules_of_capturing(station: Station, emulator: Emulator) -> dict[str, Any]:
    """What each call within a capture and its end say; then a graph with a fork and a join, launched twice."""
    device = open_device(0)
    with device.use("test"):
        rules = _Rules(device)
        said = {name: rules.captured(*case) for name, case in rules.cases().items()}
        copies = emulator.report()["copies"]
        results, counted, ended = rules.replayed(emulator)
        rules.free()
        del rules
    report = emulator.report()
    return {
        "said": said,
        "copies": copies,
        "results": results,
        "counted": counted,
        "ended": ended,
        "held": emulator.held(),
        "faults": report["faults"],
    }


class _Rules:
    def __init__(self, device: CudaDevice) -> None:
        from cuda.bindings import driver as cuda

        self.device, self.cuda, self.pycuda = device, cuda, device.driver
        self.main, self.side, self.blocking = (self.pycuda.Stream(flag) for flag in (NON_BLOCKING, NON_BLOCKING, 0))
        self.fork, self.join, self.before = (self.pycuda.Event() for _ in range(3))
        self.memory = self.pycuda.mem_alloc(4)
        self.host, self.back = (self.pycuda.pagelocked_empty(4, np.uint8) for _ in range(2))
        self.before.record(self.side)

    def cases(self) -> dict[str, tuple[Any, ...]]:
        """Stream that is captured, what is done meanwhile, mode."""
        main = self.main
        return {
            "a copy": (main, lambda: self.pycuda.memcpy_htod_async(self.memory, self.host, main)),
            "fork and join": (main, self.forked),
            "fork without join": (main, lambda: self.forked(is_joined=False)),
            "waiting for the stream": (main, main.synchronize),
            "asking the stream": (main, main.is_done),
            "waiting for a captured event": (main, lambda: (self.fork.record(main), self.fork.synchronize())),
            "waiting for the device": (main, self.pycuda.Context.synchronize),
            "an event from outside": (main, lambda: main.wait_for_event(self.before)),
            "memory": (main, self.allocate),
            "memory in another thread": (main, self.elsewhere(self.allocate)),
            "memory in another thread, mode global": (main, self.elsewhere(self.allocate), "GLOBAL"),
            "memory, mode relaxed": (main, self.allocate, "RELAXED"),
            "the default stream": (main, self.on_default_stream),
            "the default stream beside a blocking one": (self.blocking, self.on_default_stream),
        }

    def captured(self, origin: Any, body: Callable[[], Any], mode: str = "THREAD_LOCAL") -> list[str]:
        """What the body says, and what the end of the capture says."""
        cuda, handle = self.cuda, self.cuda.CUstream(int(origin.handle))
        modes = cuda.CUstreamCaptureMode
        assert cuda.cuStreamBeginCapture(handle, getattr(modes, f"CU_STREAM_CAPTURE_MODE_{mode}"))[0] == 0
        try:
            body()
            answer = "no error"
        except self.pycuda.Error as exc:
            answer = str(exc)
        status, graph = cuda.cuStreamEndCapture(handle)
        if status == 0:
            cuda.cuGraphDestroy(graph)
        return [answer, status.name]

    def replayed(self, emulator: Emulator) -> tuple[list[list[int]], dict[str, int], list[str]]:
        """What came back before a launch and after two; what is counted; what calls after the end say."""
        cuda, handle = self.cuda, self.cuda.CUstream(int(self.main.handle))
        cuda.cuStreamBeginCapture(handle, cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        self.forked()
        self.pycuda.memcpy_dtoh_async(self.back, self.memory, self.main)
        graph = cuda.cuStreamEndCapture(handle)[1]
        executable = cuda.cuGraphInstantiate(graph, 0)[1]
        results = [self.back.tolist()]
        for value in (5, 9):
            self.host[:] = value
            cuda.cuGraphLaunch(executable, handle)
            self.main.synchronize()
            results.append(self.back.tolist())
        counted = {name: emulator.report()[name] for name in ("captures", "graphs", "graph_execs", "graph_launches")}
        ended = [cuda.cuGraphExecDestroy(executable)[0], cuda.cuGraphDestroy(graph)[0]]
        ended += [cuda.cuGraphLaunch(executable, handle)[0], cuda.cuGraphDestroy(graph)[0]]
        ended += [cuda.cuStreamEndCapture(handle)[0]]
        return results, counted, [status.name for status in ended]

    def forked(self, is_joined: bool = True) -> None:
        self.fork.record(self.main)
        self.side.wait_for_event(self.fork)
        self.pycuda.memcpy_htod_async(self.memory, self.host, self.side)
        self.join.record(self.side)
        if is_joined:
            self.main.wait_for_event(self.join)

    def elsewhere(self, call: Callable[[], Any]) -> Callable[[], Any]:
        def work() -> None:
            context = self.device._context  # and no `use`, which would wait for the whole device after an error
            context.push()
            try:
                call()
            finally:
                context.pop()

        def body() -> None:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(work).result()

        return body

    def allocate(self) -> None:
        memory = self.pycuda.mem_alloc(4)
        memory.free()

    def on_default_stream(self) -> None:
        self.pycuda.memcpy_htod(self.memory, self.host)

    def free(self) -> None:
        for allocation in (self.memory, self.host.base, self.back.base):
            allocation.free()
