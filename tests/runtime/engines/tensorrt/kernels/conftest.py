"""The kernels on the CPU, where g++ compiles them, and on a GPU; how their absence is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from loaded_module import loaded
from numpy.typing import NDArray

from edge_ad.runtime.engines.tensorrt.kernels.preprocess import PreprocessBuffers, PreprocessPlan
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import STATE_BYTES, ResizeSmoothBuffers, ResizeSmoothPlan

Smoothing = Callable[..., ResizeSmoothBuffers]
Preparation = Callable[..., int]

SUPPORT = Path(__file__).resolve().parents[4] / "support"


@pytest.fixture(scope="session")
def absent() -> Callable[[str], None]:
    """Skips for want of a tool, and says which; in CI that is a failure."""
    return _absent


def _absent(reason: str) -> None:
    if os.environ.get("EDGE_AD_REQUIRE_LADDER"):
        pytest.fail(f"{reason}; CI has to prove the kernels")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def cuda_on_cpu() -> ModuleType:
    """The module that puts cases together, and compiles and runs kernels on the CPU."""
    return loaded(SUPPORT / "cuda_on_cpu" / "harness.py")


@pytest.fixture(scope="session")
def compiler(cuda_on_cpu: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compiles the kernels, and changed copies of them."""
    if shutil.which("g++") is None:
        _absent("no g++ (11 or newer): the kernels cannot be compiled for the CPU")
    return cuda_on_cpu.Compiler(tmp_path_factory.mktemp("cuda_on_cpu"))


@pytest.fixture(scope="session")
def cpu_program(compiler: Any) -> Any:
    """Both kernels as they are, on the CPU, without a sanitizer."""
    return compiler.program()


@pytest.fixture(scope="session", params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def program(request: pytest.FixtureRequest, cuda_on_cpu: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Both kernels as they are, on the CPU, and on the GPU of this machine."""
    if request.param == "cpu":
        return request.getfixturevalue("cpu_program")
    gpu = request.getfixturevalue("gpu")
    on_gpu = loaded(SUPPORT / "cuda_on_gpu.py")
    return on_gpu.DeviceProgram(cuda_on_cpu, gpu.sm, tmp_path_factory.mktemp("gpu_kernels"))


@pytest.fixture(scope="session")
def smoothing(cuda_on_cpu: ModuleType) -> Smoothing:
    """Puts one launch of resize_smooth into a case: (case, plan, (N, h, w) patch maps, threshold) → its buffers.

    The outputs hold NaN, 7 and NaN before the launch; `without` names those to leave out, `state` one to use again.
    """

    def put(
        case: Any,
        plan: ResizeSmoothPlan,
        patch_maps: NDArray[Any],
        threshold: float = 0.5,
        without: tuple[str, ...] = (),
        state: int | None = None,
    ) -> ResizeSmoothBuffers:
        batch = len(patch_maps)
        outputs = {
            "anomaly_map": np.full((batch, *plan.map_hw), np.nan, np.float32),
            "mask": np.full((batch, *plan.map_hw), 7, np.uint8),
            "score": np.full(batch, np.nan, np.float32),
        }
        buffers = ResizeSmoothBuffers(
            tables=case.put(plan.tables.data),
            patch_map=case.put(patch_maps),
            threshold=case.put(np.array([threshold], np.float32)),
            state=case.put(np.zeros(batch * STATE_BYTES, np.uint8)) if state is None else state,
            **{name: case.put(array) for name, array in outputs.items() if name not in without},
        )
        case.launches.append(plan.launch(batch, buffers))
        return buffers

    return put


@pytest.fixture(scope="session")
def preparation(cuda_on_cpu: ModuleType) -> Preparation:
    """Puts one launch of preprocess into a case: (case, plan, frame, spare bytes behind each row) → image's address.

    A packed frame is (H, W, 3) uint8; an NV12 one (H, W) and (H/2, W/2, 2).
    """

    def put(case: Any, plan: PreprocessPlan, planes: tuple[NDArray[np.uint8], ...], spare: int = 0) -> int:
        wide = [np.ascontiguousarray(plane).reshape(len(plane), -1) for plane in planes]
        padded = [np.pad(plane, ((0, 0), (0, spare)), constant_values=255) for plane in wide]
        # The last row ends with its last pixel: what lies behind it is not the frame's.
        addresses = [case.put(plane.reshape(-1)[: plane.size - spare]) for plane in padded]
        dtype = np.float16 if plan.kernel.endswith("half") else np.uint8
        image = case.put(np.full((*plan.geometry.model_hw, 3), 77, dtype))
        pitches = [plane.shape[1] if spare else 0 for plane in padded]
        buffers = PreprocessBuffers(
            tables=case.put(plan.tables.data),
            frame=addresses[0],
            image=image,
            pitch=pitches[0],
            chroma=addresses[1] if len(planes) > 1 else 0,
            chroma_pitch=pitches[1] if len(planes) > 1 else 0,
        )
        case.launches.append(plan.launch(buffers))
        return image

    return put
