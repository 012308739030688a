"""The CUDA kernels on the GPU of this machine: how long one launch takes among many that follow one another.

    python benchmarks/kernels_on_gpu.py [--launches 500] [--rounds 9]

The launches are recorded as one CUDA graph, so that Python does not hold them up, and timed by events. The rounds take
turns, the median is shown. The first line, a map of one pixel, is what a launch costs without work. The bytes are those
of the kernels' header comments: what has to cross the memory at least once, if no cache holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import click
import numpy as np

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.image.geometry import place
from edge_ad.runtime.engines.tensorrt.gpu import find_gpu
from edge_ad.runtime.engines.tensorrt.kernels.preprocess import PreprocessBuffers, PreprocessPlan
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import STATE_BYTES, ResizeSmoothBuffers, ResizeSmoothPlan
from edge_ad.runtime.engines.tensorrt.runner.device import open_device
from edge_ad.runtime.engines.tensorrt.runner.loaded_kernels import LoadedKernels, on_device

SIDE, PATCHES = 288, 36
Put = Callable[[Any], int]
Candidate = tuple[str, Any, float]


def smoothing(put: Put, batch: int, patch_type: Any, model_side: int = SIDE, patches: int = PATCHES) -> Candidate:
    """(title, launch, bytes) of patch maps that become maps, masks and scores."""
    canvas = place(PreprocessSpec(model_side, model_side, "stretch"), (model_side, model_side))
    plan = ResizeSmoothPlan.on_model_grid(canvas, (patches, patches), PostprocessSpec(), patch_type)
    maps = np.random.default_rng(0).random((batch, patches, patches)).astype(patch_type)
    pixels = batch * model_side * model_side
    buffers = ResizeSmoothBuffers(
        tables=put(plan.tables.data),
        patch_map=put(maps),
        threshold=put(np.float32([0.5])),
        state=put(np.zeros(batch * STATE_BYTES, np.uint8)),
        anomaly_map=put(np.zeros(pixels, np.float32)),
        mask=put(np.zeros(pixels, np.uint8)),
        score=put(np.zeros(batch, np.float32)),
    )
    moved = maps.nbytes + plan.tables.data.nbytes + 5 * pixels
    return f"resize_smooth {patch_type}, batch {batch}, {model_side}²", plan.launch(batch, buffers), moved


def preparation(put: Put, frame_hw: tuple[int, int]) -> Candidate:
    """(title, launch, bytes) of a packed frame that becomes a model input."""
    plan = PreprocessPlan(PreprocessSpec(SIDE, SIDE, resize=SIDE), frame_hw, "bgr")
    frame = np.random.default_rng(0).integers(0, 256, (*frame_hw, 3), np.uint8)
    buffers = PreprocessBuffers(
        tables=put(plan.tables.data), frame=put(frame), image=put(np.zeros((SIDE, SIDE, 3), np.uint8))
    )
    height, width = frame_hw
    read = 3 * min(height, width) ** 2  # the centre of the frame
    return f"preprocess {width}x{height} to {SIDE}²", plan.launch(buffers), read + 3 * SIDE * SIDE


class Recorded:
    """One launch, many times over, as a CUDA graph. Made, used and closed while the device is current."""

    def __init__(self, stream: Any, enqueue: Callable[[], None], launches: int) -> None:
        from cuda.bindings import driver as cuda

        self._cuda, self._stream, self._launches = cuda, stream, launches
        enqueue()  # what is looked up at first
        stream.synchronize()
        mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._checked(cuda.cuStreamBeginCapture(stream.handle, mode))
        for _ in range(launches):
            enqueue()
        self._graph = self._checked(cuda.cuStreamEndCapture(stream.handle))
        self._ready = self._checked(cuda.cuGraphInstantiate(self._graph, 0))

    def time_us(self, driver: Any) -> float:
        """Microseconds of one launch."""
        begin, end = driver.Event(), driver.Event()
        begin.record(self._stream)
        self._checked(self._cuda.cuGraphLaunch(self._ready, self._stream.handle))
        end.record(self._stream)
        end.synchronize()
        return float(begin.time_till(end)) * 1000 / self._launches

    def close(self) -> None:
        self._checked(self._cuda.cuGraphExecDestroy(self._ready))
        self._checked(self._cuda.cuGraphDestroy(self._graph))

    def _checked(self, answer: tuple[Any, ...]) -> Any:
        error, *values = answer
        if error != self._cuda.CUresult.CUDA_SUCCESS:
            raise SystemExit(f"CUDA: {error}")
        return values[0] if values else None


@click.command()
@click.option("--launches", default=500)
@click.option("--rounds", default=9)
def main(launches: int, rounds: int) -> None:
    gpu = find_gpu(0)
    device = open_device(0)
    with TemporaryDirectory() as folder, device.use("time kernels"), ExitStack() as freed_with:
        driver = device.driver
        kernels = {
            name: LoadedKernels(driver, name, gpu.sm, Path(folder), freed_with)
            for name in ("resize_smooth", "preprocess")
        }
        streams = SimpleNamespace(compute=driver.Stream())

        def put(array: Any) -> int:
            return on_device(driver, np.ascontiguousarray(array).reshape(-1).view(np.uint8), freed_with)

        candidates = [
            smoothing(put, 1, "float32", 1, 1),
            smoothing(put, 1, "float32"),
            smoothing(put, 1, "float16"),
            smoothing(put, 8, "float32"),
            smoothing(put, 64, "float32"),
            preparation(put, (720, 1280)),
            preparation(put, (1080, 1920)),
            preparation(put, (2160, 3840)),
        ]
        recorded = {}
        for title, launch, _ in candidates:
            kernel = kernels[launch.kernel.rsplit("_", 1)[0].removesuffix("_packed")]
            recorded[title] = Recorded(
                streams.compute, lambda kernel=kernel, launch=launch: kernel.launch(launch, streams), launches
            )
            freed_with.callback(recorded[title].close)
        times: dict[str, list[float]] = {title: [] for title in recorded}
        for _ in range(rounds + 1):
            for title, one in recorded.items():
                times[title].append(one.time_us(driver))
    print(f"{gpu.name}, SM {gpu.sm / 10}, {launches} launches, median of {rounds} rounds")
    for title, _, moved in candidates:
        took = median(times[title][1:])  # the first one warms up
        print(f"{title:44} {took:8.2f} us  {moved / 1e6:7.2f} MB  {moved / took / 1e3:7.1f} GB/s")


if __name__ == "__main__":
    main()
