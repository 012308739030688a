"""GPUs as the CUDA driver lists them, without any CUDA package: what `libcuda` itself says."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edge_ad.errors import EngineError, one_line

LIBRARY = "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: its number, as CUDA counts those that are visible.
        name: such as `NVIDIA GeForce RTX 3060`, or `Orin`.
        sm: compute capability, 86 for 8.6.
    """

    index: int
    name: str
    sm: int


def find_gpus() -> tuple[Gpu, ...]:
    """All visible GPUs. Raises: EngineError when there is no driver, or it fails."""
    driver = _driver()
    count = ctypes.c_int()
    _check(driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    return tuple(_described(driver, index) for index in range(count.value))


def find_gpu(index: int) -> Gpu:
    """The GPU of a number. Raises: EngineError when there is none of that number."""
    gpus = find_gpus()
    if not 0 <= index < len(gpus):
        held = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus) or "none"
        raise EngineError(f"GPU {index} does not exist; visible to CUDA: {held}")
    return gpus[index]


@contextmanager
def current_gpu(gpu: Gpu) -> Iterator[None]:
    """Make a GPU the current one of this thread, in its primary context, which is the one that TensorRT uses.

    Raises: EngineError when the driver refuses.
    """
    driver = _driver()
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _check(driver.cuDeviceGet(ctypes.byref(device), gpu.index), "cuDeviceGet")
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "cuDevicePrimaryCtxRetain")
    try:
        _check(driver.cuCtxPushCurrent_v2(context), "cuCtxPushCurrent")
        try:
            yield
        finally:
            driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)


def _driver() -> Any:
    try:
        driver = ctypes.CDLL(LIBRARY)
        _check(driver.cuInit(0), "cuInit")
    except (OSError, AttributeError) as exc:
        raise EngineError(f"no NVIDIA GPU can be used here: {one_line(exc)}; install NVIDIA's driver") from exc
    return driver


def _described(driver: Any, index: int) -> Gpu:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES)
    _check(driver.cuDeviceGet(ctypes.byref(device), index), "cuDeviceGet")
    _check(driver.cuDeviceGetName(name, NAME_BYTES, device), "cuDeviceGetName")
    major, minor = (_attribute(driver, device, attribute) for attribute in (MAJOR, MINOR))
    return Gpu(index, name.value.decode("utf-8", "replace"), 10 * major + minor)


def _attribute(driver: Any, device: ctypes.c_int, attribute: int) -> int:
    value = ctypes.c_int()
    _check(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
    return value.value


def _check(status: int, call: str) -> None:
    if status:
        raise EngineError(f"no NVIDIA GPU can be used here: {call} failed with CUDA error {status}; see nvidia-smi")
