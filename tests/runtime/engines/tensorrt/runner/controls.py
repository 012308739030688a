"""Scenarios that do something wrong on purpose, and kernels: what the emulated driver sees of it."""

from __future__ import annotations

import ctypes
import inspect
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from station import Emulator, Station, difference

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.errors import EngineError
from edge_ad.image.operators import ResizeSmooth
from edge_ad.runtime.engines.tensorrt.kernels.launch import Launch
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import STATE_BYTES, ResizeSmoothBuffers, ResizeSmoothPlan
from edge_ad.runtime.engines.tensorrt.runner import engine as runner
from edge_ad.runtime.engines.tensorrt.runner import pipeline as cuda_pipeline
from edge_ad.runtime.engines.tensorrt.runner import tail as cuda_tail
from edge_ad.runtime.engines.tensorrt.runner.device import open_device


def wrong_pipelines(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Controls: how far the outputs are off where the pipeline's source has a fault; inf for what is no number."""
    station.put((1, 1, 1))
    images = station.images(5)
    with station.engine("onnxruntime") as reference:
        wanted = reference.infer(images)
    off_by = {}
    for name, (right, wrong) in MUTATIONS.items():
        with mutated(cuda_pipeline, "Pipeline", right, wrong), station.engine() as engine:
            try:
                off_by[name] = difference(wanted, engine.infer(images))
            except EngineError:  # NaN of memory that nobody has written to
                off_by[name] = float("inf")
    return {"off by": off_by, "faults": emulator.report()["faults"]}


def leaking(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Controls: an engine that is not closed, and one that is closed while it works."""
    station.put((1, 1, 1))
    engine = station.engine(batch=1)
    engine.__enter__()
    held = emulator.held()
    faults = {"before": emulator.report()["faults"]}
    pipeline: Any = engine
    pipeline = pipeline._pipeline
    with open_device(0).use("test"):
        pipeline._start(pipeline._slots[0], station.images(1))
        pipeline.close()
    faults["closed too soon"] = emulator.report()["faults"]
    return {"held": held, "faults": faults}


def emulator_checks(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Controls: what a GPU would not forgive, or would let pass in silence."""
    device = open_device(0)
    cuda = device.driver
    said: dict[str, str] = {}
    with device.use("test"):
        memory = cuda.mem_alloc(100)
        host = cuda.pagelocked_empty(101, np.uint8)
        stream = cuda.Stream()
        plain = np.zeros(100, np.uint8)
        tries: dict[str, Callable[[], Any]] = {
            "copy there": lambda: cuda.memcpy_htod(memory, host),
            "copy back": lambda: cuda.memcpy_dtoh(host, memory),
            "queued copy there": lambda: cuda.memcpy_htod_async(memory, host, stream),
            "queued copy back": lambda: cuda.memcpy_dtoh_async(host, memory, stream),
            "a copy that fits": lambda: cuda.memcpy_htod_async(memory, host[:100], stream),
            "not mapped": lambda: host.base.get_device_pointer(),
            "not emulated": lambda: cuda.mem_alloc_pitch(8, 8, 4),
        }
        for name, call in tries.items():
            said[name] = _cuda_error(cuda, call)
        stream.synchronize()
        cuda.memcpy_htod_async(memory, plain, stream)
        stream.synchronize()
        pageable = emulator.report()["pageable_copies"]
        ctypes.c_uint8.from_address(int(memory) + 100).value = 7  # one byte behind it
        memory.free()
        host.base.free()
        stream = None
    said["no context"] = _cuda_error(cuda, lambda: cuda.mem_alloc(100))
    return {"said": said, "pageable": pageable, "held": emulator.held(), "faults": emulator.report()["faults"]}


def kernel(station: Station, emulator: Emulator) -> dict[str, Any]:
    """resize_smooth through pycuda: what it computes, and launches that a driver refuses."""
    patch_maps = np.random.default_rng(3).random((2, 16, 16), np.float32)
    plan = ResizeSmoothPlan.on_model_grid(_whole(64), (16, 16), PostprocessSpec())
    device = open_device(0)
    cuda = device.driver
    said: dict[str, str] = {}
    with device.use("test"):
        module = cuda.module_from_buffer(b"\x7fELF" + bytes(60))
        stream = cuda.Stream()
        given = [plan.tables.data, patch_maps, np.float32([0.5]), np.zeros(2 * STATE_BYTES, np.uint8)]
        memory = [cuda.to_device(np.ascontiguousarray(array)) for array in given]
        maps, mask, score = (
            np.empty(shape, kind) for shape, kind in (((2, 64, 64), "f4"), ((2, 64, 64), "u1"), (2, "f4"))
        )
        results = [cuda.mem_alloc(array.nbytes) for array in (maps, mask, score)]
        launch = plan.launch(2, ResizeSmoothBuffers(*map(int, (*memory, *results))))
        _launch(module, launch, stream)
        stream.synchronize()
        for array, result in zip((maps, mask, score), results, strict=True):
            cuda.memcpy_dtoh(array, result)
        wrong = {
            "an argument too few": replace(launch, format=launch.format[1:], values=launch.values[1:]),
            "an argument too many": replace(launch, format=f"{launch.format}i", values=(*launch.values, 0)),
            "a large block": replace(launch, block=(64, 32, 1)),
            "a high grid": replace(launch, grid=(1, 65536, 1)),
            "much shared memory": replace(launch, shared_bytes=48 * 1024 + 1),
            "no such kernel": replace(launch, kernel="resize_rough"),
        }
        for name, bad in wrong.items():
            said[name] = _cuda_error(cuda, partial(_launch, module, bad, stream))
        launches = emulator.report()["launches"]
        faults = emulator.report()["faults"]
        results[0].free()  # the map's memory, and one that is too small in its place
        results[0] = cuda.mem_alloc(maps.nbytes - 4)
        _launch(module, plan.launch(2, ResizeSmoothBuffers(*map(int, (*memory, *results)))), stream)
        stream.synchronize()
        overrun = emulator.report()["faults"][len(faults) :]
        for allocation in (*memory, *results):
            allocation.free()
        module = stream = None
    smooth = ResizeSmooth((16, 16), (64, 64))(patch_maps)
    return {
        "off by": float(np.abs(maps - smooth).max()),
        "scores off by": float(np.abs(score - smooth.max(axis=(1, 2))).max()),
        "mask pixels": int(((smooth >= 0.5) * 255 != mask).sum()),
        "masked": int((mask == 255).sum()),
        "said": said,
        "launches": launches,
        "faults": faults,
        "overrun": overrun,
        "held": emulator.held(),
    }


def _launch(module: Any, launch: Launch, stream: Any) -> None:
    function = module.get_function(launch.kernel)
    function.prepare(launch.format)
    assert struct.calcsize(f"@{launch.format}") == len(launch.argument_buffer)
    function.prepared_async_call(launch.grid, launch.block, stream, *launch.values, shared_size=launch.shared_bytes)


def _whole(size: int) -> Any:
    from edge_ad.bundle.specs import PreprocessSpec
    from edge_ad.image.geometry import place

    return place(PreprocessSpec(size, size, "stretch"), (size, size))


def wrong_tails(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Controls: how far maps and scores are off where the tail's source has a fault."""
    station.put((1, 2, 3))
    batches = [station.images(count, count) for count in (2, 1, 3, 5)]
    with station.engine("onnxruntime") as reference:
        wanted = [reference.infer(images) for images in batches]
    off_by = {}
    for name, (right, wrong) in TAIL_MUTATIONS.items():
        with mutated(cuda_tail, "KernelTail", right, wrong), station.engine() as engine:
            try:
                off_by[name] = max(difference(a, engine.infer(b)) for a, b in zip(wanted, batches, strict=True))
            except EngineError:
                off_by[name] = float("inf")
    return {"off by": off_by, "faults": emulator.report()["faults"]}


TAIL_MUTATIONS = {
    "none": ("state=self._state", "state=self._state"),
    "the state is not zero at first": ("np.zeros(largest * STATE_BYTES", "np.full(largest * STATE_BYTES, 255"),
    "on a stream of its own": ("buffers), streams)", "buffers), streams, 'up')"),
    "one image for all": ("self._plan.launch(images,", "self._plan.launch(1,"),
    "another score": ("patch_hw, postprocess)", "patch_hw, PostprocessSpec(score='patch_max'))"),
    "another smoothing": ("patch_hw, postprocess)", "patch_hw, PostprocessSpec(sigma=3.9))"),
}

MUTATIONS = {
    "none": ("SLOTS = 2", "SLOTS = 2"),
    "one slot": ("SLOTS = 2", "SLOTS = 1"),
    "the graph does not wait for its input": ("streams.compute.wait_for_event(slot.uploaded)", "pass"),
    "the way back does not wait for the graph": ("streams.down.wait_for_event(slot.computed)", "pass"),
    "outputs are taken before they are there": ("slot.downloaded.synchronize()", "pass"),
    "a slot is filled while it is in use": ("self._start(self._slots[index % SLOTS],", "self._start(self._slots[0],"),
    "a piece too much stays in its slot": ("if index >= SLOTS:", "if index > SLOTS:"),
}
"""Part of the pipeline's source, and what takes its place."""


@contextmanager
def mutated(original: ModuleType, used: str, right: str, wrong: str) -> Iterator[None]:
    source = inspect.getsource(original)
    assert source.count(right) == 1
    module = ModuleType(original.__name__)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source.replace(right, wrong), f"{wrong} in place of {right}", "exec"), vars(module))
        setattr(runner, used, getattr(module, used))
        yield
    finally:
        sys.modules[module.__name__] = original
        setattr(runner, used, getattr(original, used))


def _cuda_error(cuda: Any, call: Callable[[], Any]) -> str:
    try:
        call()
    except cuda.Error as exc:
        return str(exc)
    return "no error"
