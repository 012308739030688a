"""What is done in a process of its own, with the emulated driver: `python scenarios.py NAME BUNDLE FOLDER`.

Each function is one scenario and returns what the tests assert, which the process prints as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import capture_rules
import controls
import cuda_graphs
import device_preprocess
import numpy as np
import overlap
from station import (
    GRAPH_VARIABLE,
    HELD,
    ILLEGAL_ADDRESS,
    INVALID,
    OUT_OF_MEMORY,
    OUTPUTS,
    SAME_ATOL,
    Emulator,
    Station,
    difference,
    error_of,
)

from edge_ad.errors import EngineError
from edge_ad.runtime.engines.process import keeper
from edge_ad.runtime.engines.tensorrt.choices import Choices, write_choices
from edge_ad.runtime.engines.tensorrt.fingerprint import KERNEL_TAIL
from edge_ad.runtime.engines.tensorrt.gpu import find_gpu
from edge_ad.runtime.engines.tensorrt.plans import PlanFile
from edge_ad.runtime.engines.tensorrt.runner import engine as runner


def batches(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Batches of one to eight images on an engine that takes three, against ONNX Runtime."""
    station.put((1, 2, 3))
    differences, shapes = [], []
    with station.engine("onnxruntime") as reference, station.engine() as engine:
        loaded = emulator.report()
        for count in range(1, 9):
            images = station.images(2 * count, count)[::2, ::-1]  # a view with gaps, upside down
            wanted, got = reference.infer(images), engine.infer(images)
            differences.append(difference(wanted, got))
            shapes.append([list(getattr(got, name).shape) for name in OUTPUTS])
        first = engine.infer(station.images(2))
        kept = {name: getattr(first, name).copy() for name in OUTPUTS}
        engine.infer(station.images(2, 1))
        own = all(np.array_equal(getattr(first, name), kept[name]) for name in OUTPUTS)
        contrast = difference(engine.infer(station.images(1, 8)), engine.infer(station.images(1, 9)))
        used = emulator.report()
    report = emulator.report()
    return {
        "differences": differences,
        "contrast": contrast,
        "shapes": shapes,
        "own": own,
        "copies": report["copies"],
        "pageable_copies": report["pageable_copies"],
        "launches": report["launches"],
        "graph_launches": report["graph_launches"],
        "loaded": {name: loaded[name] for name in HELD},
        "used": {name: used[name] for name in HELD},
        "held": emulator.held(),
        "faults": report["faults"],
        "precision": engine.effective_precision,
        "from_cache": engine.from_cache,
    }


def frames(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Two hundred frames: what is allocated after five of them and after all."""
    station.put((1, 1, 1))
    counts = []
    with station.engine(batch=1) as engine:
        for number in range(200):
            engine.infer(station.images(1, number))
            if number in (4, 199):
                report = emulator.report()
                counts.append({name: report[name] for name in (*HELD, "device_bytes", "primary_retains")})
    return {"counts": counts, "held": emulator.held(), "faults": emulator.report()["faults"]}


def threads(station: Station, emulator: Emulator) -> dict[str, Any]:
    """An engine loaded here, used there and closed elsewhere; then four at once, each in a thread of its own."""
    station.put((1, 1, 1))
    engine = station.engine(batch=1)
    with station.engine("onnxruntime", batch=1) as reference:
        wanted = [reference.infer(station.images(1, seed)) for seed in range(8)]
    differences = []
    with ThreadPoolExecutor(1) as loading, ThreadPoolExecutor(1) as using, ThreadPoolExecutor(1) as closing:
        loading.submit(engine.__enter__).result()
        differences.append(difference(wanted[0], using.submit(engine.infer, station.images(1, 0)).result()))
        closing.submit(engine.__exit__, None, None, None).result()
    alone = emulator.held()
    barrier = threading.Barrier(4)

    def work(number: int) -> list[float]:
        with station.engine(batch=1) as own:
            barrier.wait(20)
            return [difference(wanted[seed], own.infer(station.images(1, seed))) for seed in (number, number + 4)]

    with ThreadPoolExecutor(4) as pool:
        differences += [value for values in pool.map(work, range(4)) for value in values]
    return {"differences": differences, "alone": alone, "held": emulator.held(), "faults": emulator.report()["faults"]}


def every_call_fails_once(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Load, compute images in three pieces and close, again and again; each time another call of CUDA fails."""
    largest, count = (1, 3) if station.flags else (2, 5)  # emulated kernels are slow
    station.put((1, largest, largest))
    images = station.images(count)
    with station.engine("onnxruntime") as reference:
        wanted = reference.infer(images)
    with station.engine() as engine:
        engine.infer(images)
    outcomes: list[str] = []
    wrong: list[str] = []
    # The kernel and recording add calls, which fail in one way here: in both all of it would take twice as long.
    adds_calls = os.environ.get(GRAPH_VARIABLE) or station.flags
    for code in (INVALID,) if adds_calls else (INVALID, OUT_OF_MEMORY):
        call = 0
        while True:
            call += 1
            emulator.fail("*", call, code)
            before = emulator.report()["calls"]
            caught = None
            try:
                with station.engine() as engine:
                    try:
                        engine.infer(images)
                    except EngineError as exc:
                        caught = exc
                        again = difference(wanted, engine.infer(images))  # it goes on with the next batch
                        if again > SAME_ATOL:
                            wrong.append(f"call {call}: off by {again} afterwards")
            except EngineError as exc:
                caught = exc
            held = emulator.held()  # while the exception, and all that its traceback shows, still lives
            if held:
                wrong.append(f"call {call}: {held} not freed after {caught}")
            if caught is not None and "\n" in str(caught):
                wrong.append(f"call {call}: more than one line: {caught}")
            outcomes.append("passed" if caught is None else str(caught))
            if emulator.report()["calls"] - before < call:
                break  # the call to fail was never made: all have had their turn
    emulator.fail("", 0, 0)
    return {"outcomes": outcomes, "wrong": wrong, "faults": emulator.report()["faults"]}


def lost_device(station: Station, emulator: Emulator) -> dict[str, Any]:
    """The device fails for good in the middle of a batch; another process takes over, is killed, and so on."""
    station.put((1, 1, 1))
    with station.engine("onnxruntime", batch=1) as reference:
        wanted = [reference.infer(station.images(1, seed)) for seed in range(4)]
    engine: Any = station.engine(batch=1)
    with station.engine(batch=1) as other, engine:
        engine.infer(station.images(1))
        emulator.fail("cuEventSynchronize", 1, ILLEGAL_ADDRESS, for_good=True)
        said = [error_of(partial(one.infer, station.images(1))) for one in (engine, engine, other)]
        differences, waited = _until_it_computes(engine, station, wanted)
        said += waited
        first = engine._successor.health.pid
        os.kill(first, signal.SIGKILL)
        said.append(error_of(partial(engine.infer, station.images(1))))
        again, waited = _until_it_computes(engine, station, wanted)
        said += waited
        second = engine._successor.health.pid
        late = error_of(partial(_infer_with_a_process_that_hangs, engine, station.images(1)))
    said.append(error_of(station.engine(batch=1).__enter__))
    return {
        "said": list(dict.fromkeys(said)),
        "differences": differences + again,
        "another": first != second,
        "ended": not os.path.exists(f"/proc/{second}"),
        "late": late,
    }


def _until_it_computes(engine: Any, station: Station, wanted: list[Any]) -> tuple[list[float], list[str]]:
    """Try until the process that takes over is ready. Returns: differences of some images, and what was said before."""
    said: list[str] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            engine.infer(station.images(1))
        except EngineError as exc:
            said.append(f"EngineError: {exc}")
            time.sleep(0.05)
        else:
            return [difference(one, engine.infer(station.images(1, seed))) for seed, one in enumerate(wanted)], said
    raise AssertionError(said[-1])


def _infer_with_a_process_that_hangs(engine: Any, images: Any) -> None:
    os.kill(engine._successor.health.pid, signal.SIGSTOP)
    engine._successor._limits = replace(engine._successor._limits, answer_s=0.2)
    keeper.SLOWER = 0
    engine.infer(images)


def refused(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Engines that are missing, do not fit, are damaged, or that TensorRT refuses."""
    import tensorrt

    said: dict[str, Any] = {"nothing built": error_of(station.engine(batch=1).__enter__)}
    said["no folder"] = error_of(station.engine(batch=1, cache_dir=None).__enter__)
    cases: dict[str, Callable[[], PlanFile]] = {
        "other GPU": lambda: station.put(sm=(89,), gpu="RTX 4090"),
        "other version": lambda: station.put(version="10.2.0"),
        "other batch": lambda: station.put((4, 4, 4)),
        "garbage": lambda: station.put(plan=b"no plan at all"),
        "other input": lambda: station.put(plan=tensorrt.write_plan(station.graph, input_type="FLOAT")),
        "other outputs": lambda: station.put(plan=tensorrt.write_plan(_renamed(station.graph))),
    }
    for name, put in cases.items():
        place = put()
        said[name] = error_of(station.engine(batch=1).__enter__)
        place.path.unlink()
        place.sidecar.unlink()
    damaged = station.put()
    damaged.path.write_bytes(damaged.path.read_bytes()[:-1])
    said["damaged"] = error_of(station.engine(batch=1).__enter__)
    station.put(plan=tensorrt.write_plan(station.graph, fails=True))
    with station.engine(batch=1) as engine:
        said["execution"] = [error_of(lambda: engine.infer(station.images(1))) for _ in range(2)]
    emulator.fail("cuMemAlloc", 2, OUT_OF_MEMORY)  # the second one is the execution context's
    said["memory"] = error_of(station.engine(batch=1).__enter__)
    fixed = station.put((2, 2, 2))
    with station.engine(batch=2) as engine:
        engine.spec = replace(engine.spec, batch=None)
        said["too few"] = error_of(lambda: engine.infer(station.images(3)))
    fixed.path.unlink()
    return {"said": said, "held": emulator.held(), "faults": emulator.report()["faults"]}


def tails(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Which of the two tails runs: by what was built, by what was found to be faster, and by what the spec allows."""

    def launches(**changes: Any) -> int:
        before = emulator.report()["launches"]
        with station.engine(batch=1, **changes) as engine:
            engine.infer(station.images(1))
        return int(emulator.report()["launches"] - before)

    need = runner.plan_need(station.spec, find_gpu(0), "tensorrt", "10.3.0")
    found: dict[str, Any] = {}
    station.put((1, 1, 1), flags=(KERNEL_TAIL,))
    found["only the kernel's is there"] = launches()
    found["a spec without its smoothing"] = error_of(partial(launches, postprocess=None))
    station.put((1, 1, 1), flags=())
    found["nothing was measured"] = launches()
    write_choices(station.cache, need, Choices(tail="kernel"))
    found["the kernel's was faster"] = launches()
    write_choices(station.cache, need, Choices(tail="graph"))
    found["the graph's was faster"] = launches()
    write_choices(station.cache, need, Choices(tail="kernel"))
    for path in station.cache.glob("*.choices"):
        path.write_text(path.read_text().replace("kernel", "colonel"))
    found["the file is damaged"] = launches()
    station.put((1, 1, 1), flags=("tf32",))
    with station.engine(batch=1) as engine:
        found["precision"] = engine.effective_precision
    return {**found, "held": emulator.held(), "faults": emulator.report()["faults"]}


def not_installed(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Without pycuda; then without TensorRT too."""
    station.put((1, 1, 1))
    without: dict[str, Any] = {"pycuda": None}
    said = []
    for more in ({}, {"tensorrt": None, "tensorrt_rtx": None}):
        without |= more
        sys.modules.update(without)
        said.append(error_of(station.engine(batch=1).__enter__))
    return {"said": said}


def _renamed(graph: bytes) -> bytes:
    import onnx

    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.output[:] = ["heat_map" if name == "patch_map" else name for name in node.output]
        node.input[:] = ["heat_map" if name == "patch_map" else name for name in node.input]
    for output in model.graph.output:
        if output.name == "patch_map":
            output.name = "heat_map"
    return bytes(model.SerializeToString())


SCENARIOS = {
    function.__name__: function
    for function in (
        batches,
        frames,
        threads,
        every_call_fails_once,
        lost_device,
        refused,
        tails,
        not_installed,
        controls.wrong_pipelines,
        controls.wrong_tails,
        controls.leaking,
        controls.emulator_checks,
        controls.kernel,
        cuda_graphs.graphs_of_all_kinds,
        cuda_graphs.graphs_that_are_refused,
        cuda_graphs.recording_beside_other_threads,
        cuda_graphs.lost_in_a_replay,
        cuda_graphs.wrong_graphs,
        capture_rules.rules_of_capturing,
        overlap.copies_beside_computing,
        overlap.resizing_beside_computing,
        device_preprocess.frames_on_device,
        device_preprocess.changing_frames,
        device_preprocess.prepare_in_threads,
        device_preprocess.every_call_of_a_resize_fails_once,
        device_preprocess.device_lost_in_a_resize,
        device_preprocess.wrong_resizes,
    )
}

if __name__ == "__main__":
    name, bundle, folder = sys.argv[1:]
    print(json.dumps(SCENARIOS[name](Station(Path(bundle), Path(folder)), Emulator())))
