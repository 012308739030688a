"""The stand-in for a GPU itself: it refuses what a driver refuses, and serves other processes as a library."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.image.geometry import place
from edge_ad.runtime.engines.tensorrt.kernels.launch import Launch
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import ResizeSmoothPlan

pytestmark = pytest.mark.rung(6)

Smoothing = Callable[..., Any]


@pytest.fixture
def case(cuda_on_cpu: ModuleType, smoothing: Smoothing) -> Any:
    """One launch that is in order."""
    made = cuda_on_cpu.Case()
    geometry = place(PreprocessSpec(20, 20, resize_mode="stretch"), (20, 20))
    plan = ResizeSmoothPlan.on_model_grid(geometry, (3, 3), PostprocessSpec())
    smoothing(made, plan, np.random.default_rng(0).random((1, 3, 3), np.float32))
    return made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda launch: replace(launch, kernel="resize_smoth"), "there is no kernel resize_smoth"),
        (lambda launch: replace(launch, values=launch.values[:-1]), "wrong number of arguments"),
        (lambda launch: replace(launch, values=(*launch.values[:-1], bytes(60))), "wrong size of argument 11"),
        (lambda launch: replace(launch, block=(64, 32, 1)), "block of this size"),
        (lambda launch: replace(launch, grid=(1, 0, 1)), "grid of this size"),
        (lambda launch: replace(launch, grid=(1, 65536, 1)), "grid of this size"),
        (lambda launch: replace(launch, shared_bytes=49153), "more shared memory"),
        (lambda launch: replace(launch, shared_bytes=launch.shared_bytes - 4), "write behind the shared memory"),
        (lambda launch: replace(launch, grid=(1, 2, 2)), "write outside of a buffer"),
    ],
)
def test_what_a_driver_refuses_is_refused(
    cpu_program: Any, cuda_on_cpu: ModuleType, case: Any, change: Callable[[Launch], Launch], said: str
) -> None:
    cpu_program.run(case)
    case.launches[0] = change(case.launches[0])
    with pytest.raises(cuda_on_cpu.KernelError, match=said):
        cpu_program.run(case)


def test_the_library_computes_the_same(compiler: Any, cpu_program: Any, case: Any, tmp_path: Path) -> None:
    """As an emulated driver uses it: a kernel by name, addresses of its own memory, a seed."""
    compiler.library(tmp_path / "libkernels.so")
    library = ctypes.CDLL(str(tmp_path / "libkernels.so"))
    library.cuda_on_cpu_find.restype = ctypes.c_void_p
    (launch,) = case.launches
    own = [array.copy() for array in case.arrays]
    arguments: list[Any] = []
    for value in launch.values:
        if isinstance(value, bytes):
            arguments.append(ctypes.create_string_buffer(value, len(value)))
        else:
            offset = value & ((1 << 40) - 1)
            arguments.append(ctypes.c_uint64(own[(value >> 40) - 1].ctypes.data + offset))
    addresses = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
    shape = (ctypes.c_uint32 * 8)(*launch.grid, *launch.block, launch.shared_bytes, 3)
    kernel = ctypes.c_void_p(library.cuda_on_cpu_find(launch.kernel.encode()))
    error = ctypes.create_string_buffer(200)
    assert library.cuda_on_cpu_launch(kernel, shape, addresses, error, ctypes.c_size_t(200)) == 0, error.value
    cpu_program.run(case)
    for mine, its in zip(own, case.arrays, strict=True):
        assert np.array_equal(mine, its)
    assert library.cuda_on_cpu_find(b"no_such_kernel") is None
