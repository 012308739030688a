"""GPUs as the driver lists them, with a driver that is made for the test."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle.bundle import Bundle
from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt import gpu
from edge_ad.runtime.engines.tensorrt.builder.build import graph_of, plan_job
from edge_ad.runtime.engines.tensorrt.builder.options import build_options
from edge_ad.runtime.engines.tensorrt.gpu import Gpu, current_gpu, find_gpu, find_gpus

SUPPORT = Path(__file__).resolve().parents[4] / "support"
ORIN, RTX_3060 = Gpu(0, "Orin", 87), Gpu(1, "NVIDIA GeForce RTX 3060", 86)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        reason = "no C compiler for the stand-in of the driver: install one that is called cc"
        if os.environ.get("EDGE_AD_REQUIRE_LADDER") and platform.system() == "Linux":
            pytest.fail(reason)
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = str(SUPPORT / "cuda_driver_stub.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), source], check=True, timeout=60)
    return path


@pytest.fixture
def driver(library: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(gpu, "LIBRARY", str(library))
    return ctypes.CDLL(str(library))


def test_all_are_listed(driver: Any) -> None:
    assert find_gpus() == (ORIN, RTX_3060)
    assert find_gpu(1) == RTX_3060
    with pytest.raises(EngineError, match=r"GPU 2 does not exist; visible to CUDA: 0 \(Orin\), 1 \(NVIDIA"):
        find_gpu(2)


def test_contexts_are_given_back(driver: Any) -> None:
    with current_gpu(RTX_3060):
        assert (driver.stub_retained(), driver.stub_pushed()) == (1, 1)
    with pytest.raises(ZeroDivisionError), current_gpu(ORIN):
        raise ZeroDivisionError
    assert (driver.stub_retained(), driver.stub_pushed()) == (0, 0)
    with pytest.raises(EngineError, match="cuDeviceGet failed with CUDA error 101"), current_gpu(Gpu(5, "", 0)):
        pass


def test_a_driver_that_fails_is_said(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AD_STUB_CUDA_ERROR", "100")
    with pytest.raises(EngineError, match="cuInit failed with CUDA error 100; see nvidia-smi"):
        find_gpus()


@pytest.mark.parametrize("name", ["libno-such-library.so.1", "libm.so.6"])
def test_no_driver_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LIBRARY", name)
    with pytest.raises(EngineError, match=r"no NVIDIA GPU can be used here: .*; install NVIDIA's driver"):
        find_gpus()


def test_rtx_builds_for_the_gpu_that_is_there(
    driver: Any, tensorrt_rtx: None, three_precisions: Path, tmp_path: Path
) -> None:
    graph = graph_of(Bundle.read(three_precisions), "int8")

    def job(**values: Any) -> Any:
        return plan_job(graph, build_options({"bundle": three_precisions, "flavour": "rtx", **values}, "test"))

    there = job(device=1, engine_cache=tmp_path)
    assert there.fingerprint == job(sm="86", engine_cache=tmp_path).fingerprint  # what is built for it elsewhere fits
    assert there.request.gpu is None and there.fingerprint.sm == (86,)
    with pytest.raises(EngineError, match="does not build for SM87, only for SM75, SM80"):
        job(device=0)
