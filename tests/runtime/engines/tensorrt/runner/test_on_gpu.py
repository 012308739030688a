"""The TensorRT engine on the GPU of this machine: `pytest -m gpu`.

Without a GPU, pycuda or TensorRT these are skipped, and fail where EDGE_AD_REQUIRE_GPU=1. The last tests, which need no
GPU, hold that; and they run the others on the emulated driver, so that they are known to work before a GPU is at hand.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from edge_ad.bundle.bundle import Bundle
from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.cli.main import main
from edge_ad.engine import Engine, EngineSpec, Outputs
from edge_ad.errors import MissingExtraError
from edge_ad.image.frame import ColorOrder
from edge_ad.image.preprocess import Preprocessor
from edge_ad.runtime.engines import make_engine
from edge_ad.runtime.engines.tensorrt.choices import Choices, write_choices
from edge_ad.runtime.engines.tensorrt.flavour import Flavour
from edge_ad.runtime.engines.tensorrt.gpu import Gpu
from edge_ad.runtime.engines.tensorrt.runner import graph as cuda_graph
from edge_ad.runtime.engines.tensorrt.runner.device import open_device
from edge_ad.runtime.engines.tensorrt.runner.engine import plan_need
from edge_ad.runtime.engines.tensorrt.runner.preprocess import CudaPreprocessor

pytestmark = pytest.mark.rung(7)  # those marked `gpu` are the last one

MakeEngine = Callable[..., Engine]

# Probabilities of a float32 graph without TF32; a GPU adds up in another order and has its own exponential.
GPU_ATOL = 2e-4
STRAYS = 1e-3  # share of values of a model input that may be one grey level off
LARGEST = 2
MEBIBYTE = 1 << 20
BUNDLE_VARIABLE = "EDGE_AD_GPU_TEST_BUNDLE"
SOURCE = ["--source", "sim:?size=160x120&seed=1&defects=0.5", "--max-frames", "12"]
REPOSITORY = Path(__file__).resolve().parents[5]


@pytest.fixture(scope="module")
def bundle(gpu_flavour: Flavour, request: pytest.FixtureRequest) -> Path:
    """The small bundle; of the process that runs these tests on the emulated driver, where there is one."""
    given = os.environ.get(BUNDLE_VARIABLE)
    exported: Path = Path(given) if given else request.getfixturevalue("tiny_bundle")
    return exported


@pytest.fixture(scope="module")
def engines(gpu_flavour: Flavour, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with an engine for one or two images, built on this machine."""
    folder = tmp_path_factory.mktemp("gpu_engines")
    options = ["--flavour", gpu_flavour.name, "--batch", str(LARGEST), "--engine-cache", str(folder)]
    assert main(["build", str(bundle), *options]) in (0, None)
    return folder


@pytest.fixture(scope="module")
def make(engines: Path, bundle: Path) -> MakeEngine:
    opened = Bundle.read(bundle)
    file = opened.model_file("fp32")
    manifest = opened.manifest
    spec = EngineSpec(manifest.input, manifest.outputs, "fp32", None, manifest.files[file], engines)

    def make_one(name: str = "tensorrt", **changes: Any) -> Engine:
        return make_engine(name, lambda: opened.read_file(file), replace(spec, **changes))

    return make_one


def _images(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


def _difference(one: Outputs, other: Outputs) -> float:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Outputs)]
    assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


@pytest.mark.gpu
def test_batches_of_any_size(make: MakeEngine) -> None:
    with make("onnxruntime") as reference, make() as engine:
        for count in range(1, 3 * LARGEST):
            images = _images(2 * count, count)[::2, ::-1]
            assert _difference(reference.infer(images), engine.infer(images)) <= GPU_ATOL
        contrast = _difference(engine.infer(_images(1, 8)), engine.infer(_images(1, 9)))
    assert contrast > 100 * GPU_ATOL


@pytest.mark.gpu
def test_loaded_here_used_there_closed_elsewhere(make: MakeEngine) -> None:
    with make("onnxruntime", batch=1) as reference:
        wanted = reference.infer(_images(1))
    engine = make(batch=1)
    with ThreadPoolExecutor(1) as loading, ThreadPoolExecutor(1) as using, ThreadPoolExecutor(1) as closing:
        loading.submit(engine.__enter__).result()
        assert _difference(wanted, using.submit(engine.infer, _images(1)).result()) <= GPU_ATOL
        closing.submit(engine.__exit__, None, None, None).result()


@pytest.mark.gpu
def test_replayed_batches_are_those_that_were_launched(
    engines: Path,
    make: MakeEngine,
    gpu: Gpu,
    gpu_flavour: Flavour,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        cuda_graph.loaded_driver()
    except MissingExtraError as exc:
        pytest.skip(str(exc))
    replays = []
    replay = cuda_graph.ReplayedLaunches._replay
    monkeypatch.setattr(
        cuda_graph.ReplayedLaunches, "_replay", lambda self, *batch: (replays.append(1), replay(self, *batch))
    )
    folder = tmp_path / "engines"
    shutil.copytree(engines, folder)
    with make() as launched, make("onnxruntime") as reference:
        version = str(gpu_flavour.load().__version__)
        write_choices(folder, plan_need(launched.spec, gpu, gpu_flavour.name, version), Choices(cuda_graph=True))
        with make(cache_dir=folder) as replayed:
            for count in (1, 2, 1, 5, 4, 5):
                images = _images(count, count)
                assert _difference(launched.infer(images), replayed.infer(images)) <= GPU_ATOL
                assert _difference(reference.infer(images), replayed.infer(images)) <= GPU_ATOL
    assert [record.getMessage() for record in caplog.records if "CUDA graph" in record.getMessage()] == []
    assert len(replays) >= 10


@pytest.mark.gpu
def test_frames_and_engines_leave_no_memory_behind(make: MakeEngine) -> None:
    device = open_device(0)

    def free_bytes() -> int:
        with device.use("ask for its memory"):
            return int(device.driver.mem_get_info()[0])

    with make(batch=1) as engine:  # what CUDA and TensorRT load once, for good
        engine.infer(_images(1))
    before = free_bytes()
    for _ in range(3):
        with make(batch=1) as engine:
            for number in range(5):
                engine.infer(_images(1, number))
            after_five = free_bytes()
            for number in range(200):
                engine.infer(_images(1, number))
            assert abs(free_bytes() - after_five) <= MEBIBYTE
    assert before - free_bytes() <= MEBIBYTE


@pytest.mark.gpu
def test_verdicts_are_those_of_openvino(
    engines: Path, bundle: Path, engine_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = []
    for options in (["--engine", "tensorrt", "--engine-cache", str(engines)], ["--engine-cache", str(engine_cache)]):
        assert main(["run", str(bundle), *options, *SOURCE]) == 0
        records.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert len(records[0]) == len(records[1]) == 12
    for one, other in zip(*records, strict=True):
        assert (one["status"], one["verdict"]) == ("ok", other["verdict"])
        assert math.isclose(one["score"], other["score"], rel_tol=0, abs_tol=GPU_ATOL)


@pytest.mark.gpu
def test_model_inputs_are_those_of_the_cpu(gpu: Gpu, tmp_path: Path) -> None:
    spec = PreprocessSpec(288, 288, resize=288)
    on_cpu, on_device = Preprocessor(spec), CudaPreprocessor(open_device(0), spec, gpu.sm, tmp_path)
    for seed, frame_hw in enumerate([(1080, 1920), (480, 640), (301, 300)]):
        frame = np.random.default_rng(seed).integers(0, 256, (*frame_hw, 3), np.uint8)
        for order in get_args(ColorOrder):
            difference = np.abs(on_cpu(frame, order).image_hwc.astype(int) - on_device(frame, order).image_hwc)
            assert difference.max() <= 1
            assert (difference > 0).mean() <= STRAYS
    on_device.close()


PYTEST = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", str(Path(__file__)))
GPU_TESTS = 6


def test_these_tests_pass_on_the_emulated_driver(
    emulated: Callable[..., Any], cpu_kernels: Path, tiny_bundle: Path
) -> None:
    settings = {"EMULATED_CUDA_KERNELS": str(cpu_kernels), BUNDLE_VARIABLE: str(tiny_bundle)}
    done = emulated(*PYTEST, **{"EDGE_AD_REQUIRE_GPU": "1", **settings})
    assert done.code == 0, done.out
    assert re.search(rf"^{GPU_TESTS} passed", done.out, re.MULTILINE), done.out
    assert done.report["faults"] == []


@pytest.mark.parametrize(("required", "outcome"), [("", "skipped"), ("1", "errors")])
def test_without_a_gpu_they_are_skipped_and_say_so_or_fail_if_so_wanted(required: str, outcome: str) -> None:
    environment = {**os.environ, "EDGE_AD_REQUIRE_GPU": required, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *PYTEST], capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False
    )
    assert done.returncode == (1 if required else 0), done.stdout
    assert re.search(rf"^{GPU_TESTS} {outcome}|{GPU_TESTS} {outcome} in", done.stdout, re.MULTILINE), done.stdout
    assert "needs a GPU: " in done.stdout or "EDGE_AD_REQUIRE_GPU is set: " in done.stdout
