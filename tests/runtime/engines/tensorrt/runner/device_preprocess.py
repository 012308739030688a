"""Scenarios in which frames become model inputs on the device, and controls of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from controls import mutated
from station import HELD, ILLEGAL_ADDRESS, INVALID, OUT_OF_MEMORY, Emulator, Station, difference, error_of

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import EngineError
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.engines.tensorrt.choices import Choices, write_choices
from edge_ad.runtime.engines.tensorrt.gpu import find_gpu
from edge_ad.runtime.engines.tensorrt.runner import engine as runner
from edge_ad.runtime.engines.tensorrt.runner import preprocess as cuda_preprocess
from edge_ad.runtime.engines.tensorrt.runner.device import open_device
from edge_ad.runtime.engines.tensorrt.runner.preprocess import KEPT_SIZES, CudaPreprocessor
from edge_ad.runtime.judge.detector import Detector

SPECS = [
    PreprocessSpec(50, 67, resize=60, pad_rgb=(11, 22, 33)),
    PreprocessSpec(50, 67, resize_mode="stretch"),
    PreprocessSpec(50, 67, resize_mode="letterbox", pad_rgb=(11, 22, 33)),
]
FRAME_SIZES = [(1, 1), (9, 70), (50, 67), (97, 203), (203, 97), (240, 320)]
SM = 86


def frames_on_device(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Frames of all kinds against the CPU's model inputs; and those that do not go to the device."""
    apart: list[Any] = []
    same_geometry = True
    for spec in SPECS:
        with _both(station, spec) as (on_cpu, on_device):
            for number, frame_hw in enumerate(FRAME_SIZES):
                wide = _picture((2 * frame_hw[0], 2 * frame_hw[1]), number)
                views = wide[:-1:2, ::2], wide[frame_hw[0] :, frame_hw[1] :], wide[frame_hw[0] - 1 :: -1, : frame_hw[1]]
                for order in ("rgb", "bgr"):
                    wanted, got = (one(views[number % 3], order) for one in (on_cpu, on_device))
                    apart.append(np.abs(wanted.image_hwc.astype(int) - got.image_hwc).ravel())
                    same_geometry &= wanted.geometry == got.geometry
    launches = emulator.report()["launches"]
    first, second = _picture((60, 80), 1), _picture((60, 80), 2)
    with _both(station, SPECS[0]) as (on_cpu, on_device):
        kept = on_device(first).image_hwc
        other = on_device(second).image_hwc
        own = np.array_equal(kept, on_device(first).image_hwc) and kept.flags.c_contiguous and kept.flags.writeable
        contrast = int(np.abs(kept.astype(int) - other).max())
        bad = [
            (first[..., 0],),
            (first.astype(np.float32),),
            (first[:0],),
            ("a name",),
            (first[..., :2],),
            (first, "grb"),
        ]
        said = [[error_of(partial(one, *arguments)) for one in (on_cpu, on_device)] for arguments in bad]
    before = emulator.report()["launches"]
    closed = on_device(first)
    on_device.close()  # for the second time
    on_cpu_again = [np.array_equal(closed.image_hwc, on_cpu(first).image_hwc)]
    with _both(station, PreprocessSpec(4, 4, resize_mode="stretch")) as (on_cpu, on_device):
        tall = _picture((3000, 4), 3)
        on_cpu_again += [np.array_equal(on_device(tall).image_hwc, on_cpu(tall).image_hwc) for _ in range(2)]
    return {
        "worst": int(max(part.max() for part in apart)),
        "strays": float(np.mean(np.concatenate(apart) > 0)),
        "same geometry": same_geometry,
        "launches": launches,
        "own": bool(own),
        "contrast": contrast,
        "said": said,
        "on the CPU": on_cpu_again,
        "launches for those": emulator.report()["launches"] - before,
        "copies": emulator.report()["copies"],
        "pageable_copies": emulator.report()["pageable_copies"],
        "held": emulator.held(),
        "faults": emulator.report()["faults"],
    }


def changing_frames(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Frames of more sizes than are kept; what is allocated after every size once, and after all.

    Then what it takes to go round eight sizes that are known, as several cameras do, and one of them as often.
    """
    sizes = [(40 + number, 60 - number) for number in range(KEPT_SIZES + 2)]
    pictures = [_picture(frame_hw, seed) for seed, frame_hw in enumerate(sizes)]
    counts, worst = [], 0
    with _both(station, PreprocessSpec(16, 24, resize_mode="stretch")) as (on_cpu, on_device):
        wanted = [on_cpu(picture).image_hwc.astype(int) for picture in pictures]
        order = [*range(len(sizes)), *np.random.default_rng(5).integers(0, len(sizes), 80), *range(len(sizes))]
        for number, index in enumerate(order):
            worst = max(worst, int(np.abs(on_device(pictures[index]).image_hwc - wanted[index]).max()))
            if number in (len(sizes) - 1, len(order) - 1):
                report = emulator.report()
                counts.append({name: report[name] for name in (*HELD, "device_bytes")})
        made = []
        for known in (pictures[-1:] * 8, pictures[-8:]):
            before = emulator.report()
            for picture in known:
                on_device(picture)
            after = emulator.report()
            made.append([after[name] - before[name] for name in ("calls", "copies")])
    return {
        "counts": counts,
        "worst": worst,
        "sizes": KEPT_SIZES,
        "calls and copies for known sizes": made,
        "held": emulator.held(),
        "faults": emulator.report()["faults"],
    }


def prepare_in_threads(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Made here, used there and closed elsewhere, after the engine; while it computes in a thread of its own."""
    station.put((1, 1, 1))
    _choose(station, "device")
    spec = station.bundle.manifest.preprocess
    pictures = [_picture((60 + seed % 3, 80), seed) for seed in range(24)]
    wanted_inputs = [Preprocessor(spec)(picture).image_hwc.astype(int) for picture in pictures]
    images = [station.images(1, seed) for seed in range(24)]
    with station.engine("onnxruntime", batch=1) as reference:
        wanted = [reference.infer(image) for image in images]
    engine = station.engine(batch=1)
    barrier = threading.Barrier(2)

    def prepare() -> list[int]:
        barrier.wait(20)
        return [
            int(np.abs(made(picture).image_hwc - inputs).max())
            for picture, inputs in zip(pictures, wanted_inputs, strict=True)
        ]

    def infer() -> list[float]:
        barrier.wait(20)
        return [difference(one, engine.infer(image)) for one, image in zip(wanted, images, strict=True)]

    with ThreadPoolExecutor(1) as loading, ThreadPoolExecutor(1) as preparing, ThreadPoolExecutor(1) as inferring:
        loading.submit(engine.__enter__).result()
        made = loading.submit(engine.preprocessor, spec).result()
        resizes_with = [made.resizes_with]
        prepared, inferred = preparing.submit(prepare), inferring.submit(infer)
        result = {"apart": max(prepared.result()), "differences": max(inferred.result())}
        loading.submit(engine.__exit__, None, None, None).result()
        late = int(np.abs(preparing.submit(made, pictures[0]).result().image_hwc - wanted_inputs[0]).max())
        inferring.submit(made.close).result()
        resizes_with.append(made.resizes_with)
    report = emulator.report()
    return {
        **result,
        "without its engine": late,
        "resizes with": resizes_with,
        "launches": report["launches"],
        "held": emulator.held(),
        "faults": report["faults"],
    }


def every_call_of_a_resize_fails_once(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Load, make three model inputs of frames of two sizes and close; each time another call of CUDA fails."""
    spec = PreprocessSpec(16, 24, resize_mode="stretch")
    pictures = [_picture((30, 40), 0), _picture((50, 40), 1), _picture((30, 40), 2)]
    wanted = [Preprocessor(spec)(picture).image_hwc.astype(int) for picture in pictures]
    device = open_device(0)
    with _both(station, spec) as (_, on_device):
        on_device(pictures[0])
    outcomes: list[str] = []
    wrong: list[str] = []
    for code in (INVALID, OUT_OF_MEMORY):
        call = 0
        while True:
            call += 1
            emulator.fail("*", call, code)
            before = emulator.report()["calls"]
            caught = None
            try:
                on_device = CudaPreprocessor(device, spec, SM, station.cache)
            except EngineError as exc:
                caught = exc
            else:
                for picture, image in zip(pictures, wanted, strict=True):
                    try:
                        made = on_device(picture)
                    except EngineError as exc:
                        caught = exc
                        made = on_device(picture)  # it goes on
                    if np.abs(made.image_hwc - image).max() > 1:
                        wrong.append(f"call {call}: another picture after {caught}")
                on_device.close()
            held = emulator.held()  # while the exception, and all that its traceback shows, still lives
            if held:
                wrong.append(f"call {call}: {held} not freed after {caught}")
            if caught is not None and ("\n" in str(caught) or device.lost is not None):
                wrong.append(f"call {call}: {caught}, lost: {device.lost}")
            outcomes.append("passed" if caught is None else str(caught))
            if emulator.report()["calls"] - before < call:
                break  # the call to fail was never made: all have had their turn
    emulator.fail("", 0, 0)
    return {"outcomes": outcomes, "wrong": wrong, "faults": emulator.report()["faults"]}


def device_lost_in_a_resize(station: Station, emulator: Emulator) -> dict[str, Any]:
    """The device fails for good in a resize: that frame is lost, and the others are made on the CPU for the successor.

    After the loss the emulator frees nothing more, so what is held then says nothing.
    """
    station.put((1, 1, 1))
    _choose(station, "device")
    thresholds = station.bundle.thresholds("fp32")
    picture = _picture((60, 80), 1)
    with Detector(station.bundle, station.engine("onnxruntime", batch=1), thresholds) as reference:
        wanted = reference.judge(picture).score
    with Detector(station.bundle, station.engine(batch=1), thresholds) as detector:
        before = detector.judge(picture).score
        emulator.fail("cuLaunchKernel", 1, ILLEGAL_ADDRESS, for_good=True)
        said = [error_of(partial(detector.judge, picture))]
        prepared = detector.prepare(picture).model_input.image_hwc
        same = np.array_equal(prepared, Preprocessor(station.bundle.manifest.preprocess)(picture).image_hwc)
        after = None
        deadline = time.monotonic() + 60
        while after is None and time.monotonic() < deadline:
            try:
                after = detector.judge(picture).score
            except EngineError as exc:
                said.append(f"EngineError: {exc}")
                time.sleep(0.05)
    assert wanted is not None and before is not None and after is not None
    return {
        "said": list(dict.fromkeys(said)),
        "made on the CPU": same,
        "off by": [abs(before - wanted), abs(after - wanted)],
    }


def wrong_resizes(station: Station, emulator: Emulator) -> dict[str, Any]:
    """Controls: how many grey levels model inputs are off where the source has a fault."""
    station.put((1, 1, 1))
    _choose(station, "device")
    spec = PreprocessSpec(20, 20, resize=24)
    # The one of which most is read comes first: memory that grew would be freed while a faulty kernel still reads it.
    pictures = [_picture((96, 48), 3)] + [_picture((48, 96), seed) for seed in range(3)]
    wanted = [Preprocessor(spec)(picture, "bgr").image_hwc.astype(int) for picture in pictures]
    wanted.append(Preprocessor(spec)(pictures[1], "rgb").image_hwc.astype(int))
    off_by = {}
    for name, (right, wrong) in MUTATIONS.items():
        with mutated(cuda_preprocess, "CudaPreprocessor", right, wrong), station.engine(batch=1) as engine:
            on_device = engine.preprocessor(spec)
            try:
                made = [on_device(picture, "bgr") for picture in pictures]
                made.append(on_device(pictures[1], "rgb"))
                off_by[name] = max(
                    int(np.abs(one.image_hwc - other).max()) for one, other in zip(made, wanted, strict=True)
                )
            except EngineError:
                off_by[name] = 255
            on_device.close()
    return {"off by": off_by}


MUTATIONS = {
    "none": ("KEPT_SIZES = 32", "KEPT_SIZES = 32"),
    "one size is kept": ("KEPT_SIZES = 32", "KEPT_SIZES = 1"),
    "the result is taken before it is there": ("self._streams.down.synchronize()", "pass"),
    "the caller gets the buffer": ("self._image.host[0].copy()", "self._image.host[0]"),
    "one order for all": ("key[:2], color_order)", "key[:2], 'rgb')"),
    "one plan for both orders": ("image_hwc.shape[1], color_order)", "image_hwc.shape[1], 'bgr')"),
    "another pitch": ("pitch=self._pitch)", "pitch=self._pitch + 3)"),
    "rows not counted from the frame's": ("- top * self._pitch - 3 * left", "- 3 * left"),
    "columns not counted from the frame's": ("- top * self._pitch - 3 * left", "- top * self._pitch"),
    "another part of the frame": ("image_hwc[top:bottom, left:right]", "image_hwc[top:bottom, : right - left]"),
    "the tables stay here": ("self._tables.upload(1, streams)", "pass"),
    "the frame stays here": ("frame.upload(self.frame_bytes, streams)", "pass"),
    "the kernel is not launched": (
        "self._kernels.launch(size.launch(frame.address, self._image.address), self._streams)",
        "pass",
    ),
}
"""Part of the source, and what takes its place."""


@contextmanager
def _both(station: Station, spec: PreprocessSpec) -> Iterator[tuple[Preprocessor, CudaPreprocessor]]:
    on_cpu, on_device = Preprocessor(spec), CudaPreprocessor(open_device(0), spec, SM, station.cache)
    yield on_cpu, on_device
    on_cpu.close()
    on_device.close()


def _choose(station: Station, preprocess: Any) -> None:
    need = runner.plan_need(station.spec, find_gpu(0), "tensorrt", "10.3.0")
    write_choices(station.cache, need, Choices(preprocess=preprocess))


def _picture(frame_hw: tuple[int, int], seed: int) -> Any:
    """Noise on a slope, so that misplaced and misweighted pixels show."""
    rows, columns = (np.linspace(0, 120, length) for length in frame_hw)
    slope = rows[:, None, None] + columns[None, :, None] * [1.0, 0.5, 0.0]
    noise = np.random.default_rng(seed).integers(0, 80, (*frame_hw, 3))
    return (slope + noise).clip(0, 255).astype(np.uint8)
