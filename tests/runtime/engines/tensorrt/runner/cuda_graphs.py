"""Scenarios in which launches are recorded and replayed, and controls of them. They run with GRAPH_VARIABLE set."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
from controls import mutated
from station import ILLEGAL_ADDRESS, INVALID, OUTPUTS, Emulator, Station, difference, error_of

from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.runner import graph as cuda_graph
from edge_ad.runtime.engines.tensorrt.runner import pipeline as cuda_pipeline
from edge_ad.runtime.engines.tensorrt.runner.device import open_device

KINDS: dict[str, dict[str, Any]] = {"one stream": {}, "two streams": {"auxiliary": "joined"}, "TensorRT 8": {}}
REFUSED: dict[str, dict[str, Any]] = {
    "layers that cannot be recorded": {"uncapturable": True},
    "a stream that does not join": {"auxiliary": "unjoined"},
    "a profile that contexts do not share": {"sole_profile": True},
}
CALLS = ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphLaunch")


def graphs_of_all_kinds(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Batches whose size changes, on engines with one stream and with two."""
    import tensorrt

    found: dict[str, Any] = {}
    for name, head in KINDS.items():
        if name == "TensorRT 8":
            del tensorrt.ExecutionContextAllocationStrategy
        with _pair(station, head) as (reference, engine):
            before = emulator.report()["graph_launches"]
            sizes = [1, 2, 3, 1, 1, 7, 2, 5, 3, 8]
            found[name] = {
                "differences": [_apart(reference, engine, station.images(size, size)) for size in sizes],
                "replays": emulator.report()["graph_launches"] - before,
                "graphs": emulator.report()["graph_execs"],
                "device_allocations": emulator.report()["device_allocations"],
            }
    package = cuda_graph.loaded_driver().__file__
    return {**found, "package": package, "held": emulator.held(), "faults": emulator.report()["faults"]}


def graphs_that_are_refused(station: Station, emulator: Emulator) -> dict[str, Any]:
    """What refuses a graph costs no frame: how far outputs are off, what the log says, what is left; case by case."""
    found: dict[str, Any] = {}

    def compute(name: str, head: dict[str, Any], fails: str | None = None) -> None:
        with _logged() as lines, _pair(station, head, fails and partial(emulator.fail, fails, 1, INVALID)) as pair:
            apart = [_apart(*pair, station.images(size, size)) for size in (1, 5, 1, 2)]
            replays = emulator.report()["graph_launches"]
        found[name] = {"apart": max(apart), "said": lines, "replays": replays, "held": emulator.held()}

    for name, head in REFUSED.items():
        compute(name, head)
    for call in CALLS:
        compute(call, {}, call)
    original = dict(sys.modules)
    sys.modules.update(dict.fromkeys(cuda_graph.MODULES))  # type: ignore[arg-type]  # importing them fails
    compute("cuda-python is not installed", {})
    sys.modules.update({name: original[name] for name in cuda_graph.MODULES if name in original})
    return {"found": found, "faults": emulator.report()["faults"]}


def recording_beside_other_threads(station: Station, emulator: Emulator) -> dict[str, Any]:
    """While one thread records, another allocates, copies on the default stream, fails, and wants to wait for all."""
    device = open_device(0)
    recording, goes_on = threading.Event(), threading.Event()
    original = cuda_graph.ReplayedLaunches._record
    waited: list[bool] = []

    def slow(self: Any, enqueue: Any, *arguments: Any) -> Any:
        def interrupted(*batch: Any) -> None:
            recording.set()
            assert goes_on.wait(20)
            enqueue(*batch)

        return original(self, interrupted, *arguments)

    def beside() -> str:
        assert recording.wait(20)
        with device.use("test"):
            memory = device.driver.mem_alloc(100)
            device.driver.memcpy_htod(memory, np.zeros(100, np.uint8))  # on the default stream
            memory.free()
        threading.Timer(0.2, lambda: (waited.append(not failed.done()), goes_on.set())).start()
        return failed.result(20)

    def fail() -> str:
        with device.use("fail in another thread"):
            raise EngineError("this alone is what is said")

    cuda_graph.ReplayedLaunches._record = slow  # type: ignore[method-assign]
    station.put((1, 1, 1))
    with ThreadPoolExecutor(2) as pool, station.engine("onnxruntime") as reference:
        failed = pool.submit(lambda: recording.wait(20) and error_of(fail))
        other = pool.submit(beside)
        with station.engine(batch=1) as engine:
            apart = _apart(reference, engine, station.images(1))
            said = other.result(20)
    replays = emulator.report()["graph_launches"]
    cuda_graph.ReplayedLaunches._record = original  # type: ignore[method-assign]
    graphs = []
    with device.recordings.kept_out():  # as a thread does that loads another engine
        engine = station.engine(batch=1)
        engine.__enter__()
        graphs.append(emulator.report()["graph_execs"])
    engine.infer(station.images(1))
    graphs.append(emulator.report()["graph_execs"])
    engine.__exit__(None, None, None)
    return {
        "apart": apart,
        "graphs": graphs,
        "said": said,
        "waited": waited,
        "replays": replays,
        "faults": emulator.report()["faults"],
    }


def lost_in_a_replay(station: Station, emulator: Emulator) -> dict[str, Any]:
    """The device is lost when a graph is launched: what is said, and what the log says of the graph."""
    station.put((1, 1, 1))
    with _logged() as lines, station.engine(batch=1) as engine:
        engine.infer(station.images(1))
        emulator.fail("cuGraphLaunch", 1, ILLEGAL_ADDRESS, for_good=True)
        said = error_of(partial(engine.infer, station.images(1)))
    return {"said": said, "log": lines}


def wrong_graphs(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Controls: what is seen where the source has a fault."""
    seen: dict[str, Any] = {}
    logging.getLogger(cuda_graph.__name__).setLevel(logging.ERROR)
    for name, (module, used, right, wrong, head) in MUTATIONS.items():
        faults, replays = len(emulator.report()["faults"]), emulator.report()["graph_launches"]
        held = emulator.held()
        apart: list[float] = []
        with mutated(module, used, right, wrong), suppress(EngineError), _pair(station, head) as (reference, engine):
            for size in (1, 2, 5, 2):
                apart.append(float("inf"))  # where it fails
                apart[-1] = _apart(reference, engine, station.images(size, size))
        report = emulator.report()
        seen[name] = {
            "off": bool(max(apart, default=float("inf")) > 1e-3),
            "faults": sorted({fault.split(":")[0] for fault in report["faults"][faults:]}),
            "replays": report["graph_launches"] > replays,
            "held": sorted(name for name, count in emulator.held().items() if count > held.get(name, 0)),
        }
    return {"seen": seen}


GRAPHS = cuda_graph, "replayed_or_plain"
MUTATIONS: dict[str, tuple[Any, str, str, str, dict[str, Any]]] = {
    "none": (*GRAPHS, "SLOTS *", "SLOTS *", {}),
    "the graph of the other slot": (*GRAPHS, "key = images, tuple(sorted(addresses.items()))", "key = images", {}),
    "the graph of another number of images": (*GRAPHS, "key = images, tuple", "key = tuple", {}),
    "recorded from the context that is used for others": (*GRAPHS, "= self._another()", "= self._plain", {}),
    "recorded before the first execution": (
        *GRAPHS,
        "        self._recordable[key](images",
        "        self._plain(images",
        {},
    ),
    "a recording that failed is not ended": (
        *GRAPHS,
        "status, graph = cuda.cuStreamEndCapture(stream)",
        "status, graph = None, None",
        {"uncapturable": True},
    ),
    "the recording is not freed": (
        *GRAPHS,
        "finally:\n            cuda.cuGraphDestroy(graph)",
        "finally:\n            pass",
        {},
    ),
    "the graphs are not freed": (*GRAPHS, "self._cuda.cuGraphExecDestroy(", "(", {}),
    "the graph does not wait for its input": (
        cuda_pipeline,
        "Pipeline",
        "streams.compute.wait_for_event(slot.uploaded)",
        "pass",
        {},
    ),
    "the way back does not wait for the graph": (
        cuda_pipeline,
        "Pipeline",
        "streams.down.wait_for_event(slot.computed)",
        "pass",
        {},
    ),
}
"""Module, what of it is used, part of its source, what takes its place, kind of engine."""


@contextmanager
def _pair(
    station: Station, head: dict[str, Any], prepare: Callable[[], None] | None = None
) -> Iterator[tuple[Any, Any]]:
    """ONNX Runtime, and the engine of a kind for one to two images."""
    import tensorrt

    kept = OUTPUTS[:1] if station.flags else OUTPUTS
    station.put((1, 2, 2), tensorrt.write_plan(station.graph, (1, 2, 2), outputs=kept, **head))
    with station.engine("onnxruntime") as reference:
        if prepare is not None:
            prepare()
        with station.engine() as engine:
            yield reference, engine


def _apart(reference: Any, engine: Any, images: Any) -> float:
    return difference(reference.infer(images), engine.infer(images))


@contextmanager
def _logged() -> Iterator[list[str]]:
    """The warnings of edge-ad."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("edge_ad")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
