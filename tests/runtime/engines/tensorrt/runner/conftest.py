"""Processes with the emulated driver, and the real GPU where there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loaded_module import loaded

from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.flavour import FLAVOURS, Flavour
from edge_ad.runtime.engines.tensorrt.gpu import Gpu

SUPPORT = Path(__file__).resolve().parents[4] / "support"
SCENARIOS = Path(__file__).with_name("scenarios.py")
BINDINGS = Path(os.environ.get("EDGE_AD_TENSORRT_BINDINGS", SUPPORT.parents[1] / "build" / "tensorrt_bindings"))
PROCESS_SECONDS = 120


@dataclass(frozen=True)
class Done:
    """What came of a process: its exit code, what it wrote, and the emulated driver's report at its very end."""

    code: int
    out: str
    err: str
    report: dict[str, Any]


def _absent(reason: str) -> None:
    if os.environ.get("EDGE_AD_REQUIRE_LADDER"):
        pytest.fail(f"{reason}; CI has to prove the runner")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def emulated_driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emulated libcuda.so.1; compiled once, and kept in pytest's cache."""
    builder = loaded(SUPPORT / "emulated_cuda" / "build.py")
    reason = builder.missing()
    if reason is not None:
        _absent(reason)
    cache = getattr(request.config, "cache", None)
    folder = cache.mkdir("emulated_cuda") if cache is not None else tmp_path_factory.mktemp("emulated_cuda")
    library: Path = builder.build(folder)
    return library


@pytest.fixture(scope="session")
def cpu_kernels(emulated_driver: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels, compiled for the CPU, as the emulated driver launches them."""
    harness = loaded(SUPPORT / "cuda_on_cpu" / "harness.py")
    folder = tmp_path_factory.mktemp("cpu_kernels")
    harness.Compiler(folder).library(folder / "kernels.so")
    return folder / "kernels.so"


@pytest.fixture(scope="session")
def kernel_tail(cpu_kernels: Path) -> dict[str, str]:
    """Variables with which scenarios run engines that end at the patch map; the kernel goes on from there."""
    return {"EDGE_AD_TEST_TAIL": "kernel", "EMULATED_CUDA_KERNELS": str(cpu_kernels)}


@pytest.fixture
def cuda_graph() -> dict[str, str]:
    """Variables with which scenarios run engines that record their launches."""
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        _absent("no cuda-bindings: pip install 'edge-ad[tensorrt]'")
    return {"EDGE_AD_TEST_CUDA_GRAPH": "1"}


@pytest.fixture(scope="session")
def old_cuda_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cuda-python as it was for CUDA 11."""
    wheels = sorted(BINDINGS.glob("cuda_bindings-11.*.whl"))
    if not wheels:
        command = f"python -m pip download --no-deps -r tests/support/tensorrt_bindings.txt -d {BINDINGS}"
        _absent(f"no cuda-bindings 11 in {BINDINGS}: {command}")
    folder = tmp_path_factory.mktemp("old_cuda_python")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        wheel.extractall(folder)
    return folder


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def emulated_in(emulated_driver: Path) -> Callable[[Path], Run]:
    """A folder for the driver's report → what runs `python ARGUMENTS` with the emulated driver."""
    builder = loaded(SUPPORT / "emulated_cuda" / "build.py")

    def of(folder: Path) -> Run:
        report = folder / "emulated_cuda.json"

        def run(*arguments: str, **settings: str) -> Done:
            report.unlink(missing_ok=True)
            environment = builder.environment(emulated_driver, EMULATED_CUDA_REPORT=str(report), **settings)
            environment.pop("PYTEST_ADDOPTS", None)
            done = subprocess.run(
                [sys.executable, *arguments],
                capture_output=True,
                text=True,
                env=environment,
                timeout=PROCESS_SECONDS,
                check=False,
            )
            content = json.loads(report.read_text()) if report.exists() else {}
            return Done(done.returncode, done.stdout, done.stderr, content)

        return run

    return of


@pytest.fixture
def emulated(emulated_in: Callable[[Path], Run], tmp_path: Path) -> Run:
    """Run `python ARGUMENTS` with the emulated driver; keywords are further variables of its environment."""
    return emulated_in(tmp_path)


@pytest.fixture(scope="session")
def built_engines(
    emulated_in: Callable[[Path], Run], tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What `edge-ad build` has made. Do not change it."""
    folder = tmp_path_factory.mktemp("built")
    command = ("-W", "error", "-m", "edge_ad", "build", str(tiny_bundle), "--engine-cache")
    done = emulated_in(folder)(*command, str(folder / "engines"))
    assert done.code == 0, done.err
    assert done.report["faults"] == []
    assert done.report["primary_retains"] == 0
    return folder / "engines"


@pytest.fixture
def engines(built_engines: Path, tmp_path: Path) -> Path:
    """A cache with an engine that `edge-ad build` has made."""
    return Path(shutil.copytree(built_engines, tmp_path / "engines"))


@pytest.fixture
def scenario(emulated: Callable[..., Done], tiny_bundle: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run a scenario; it has to end well, say nothing but `says` at most, and leave nothing behind but `retains`."""

    def run(
        name: str,
        *,
        says: str | tuple[str, ...] = (),
        retains: int = 0,
        bundle: Path = tiny_bundle,
        **settings: str,
    ) -> dict[str, Any]:
        folder = tmp_path / "engines"
        folder.mkdir(exist_ok=True)
        done = emulated("-W", "error", str(SCENARIOS), name, str(bundle), str(folder), **settings)
        assert done.code == 0, done.err
        assert [line for line in done.err.splitlines() if not line.startswith(says)] == []
        assert done.report["primary_retains"] == retains
        return dict(json.loads(done.out))

    return run


@pytest.fixture(scope="session")
def gpu_flavour(gpu: Gpu, no_gpu: Callable[[str], None]) -> Flavour:
    """The TensorRT that is installed."""
    reasons = []
    for flavour in FLAVOURS.values():
        try:
            flavour.load()
        except EngineError as exc:
            reasons.append(str(exc))
        else:
            return flavour
    no_gpu(reasons[0])
    raise AssertionError
