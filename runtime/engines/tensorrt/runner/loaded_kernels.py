"""What the CUDA kernels of edge-ad need on a device: their code, memory for what they read, and a launch."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EngineError
from edge_ad.runtime.engines.tensorrt.kernels.compile import compiled
from edge_ad.runtime.engines.tensorrt.kernels.launch import Launch


class LoadedKernels:
    """Entry points of one source, on a device. Made, used and closed while that is current.

    pycuda unloads code when nothing refers to it any more, and only where the device is current. So `freed_with` lets
    go of it, and no local variable holds it, which a traceback would keep.

    Args:
        driver: the module `pycuda.driver`.
        name: of the source, see `edge_ad.runtime.engines.tensorrt.kernels.compile.compiled`.
        sm: compute capability of the device.
        cache_dir: folder for compiled kernels.
        freed_with: closed when the kernels are not needed any more.

    Raises: EngineError when they cannot be compiled, or the driver refuses them; errors of CUDA.
    """

    def __init__(self, driver: Any, name: str, sm: int, cache_dir: Path | None, freed_with: ExitStack) -> None:
        self._driver = driver
        cubin = compiled(name, sm, cache_dir, driver_cuda=_cuda_of(driver))
        freed_with.callback(self.__dict__.clear)
        try:
            self._module = driver.module_from_buffer(cubin)
        except UnicodeDecodeError as exc:  # pycuda quotes a log that the driver has left as it was
            raise EngineError(f"the driver refuses the compiled kernel {name!r} without a word; see dmesg") from exc
        self._functions: dict[str, Any] = {}

    def launch(self, launch: Launch, streams: Any, stream: str = "compute") -> None:
        """Put a launch onto the stream of that name among `streams`."""
        try:
            if launch.kernel not in self._functions:
                self._functions[launch.kernel] = self._module.get_function(launch.kernel)
                self._functions[launch.kernel].prepare(launch.format)
            self._functions[launch.kernel].prepared_async_call(
                launch.grid, launch.block, getattr(streams, stream), *launch.values, shared_size=launch.shared_bytes
            )
        except self._driver.Error as exc:
            raise exc.with_traceback(None) from None  # pycuda's own frames hold the stream


def on_device(driver: Any, content: NDArray[np.uint8], freed_with: ExitStack) -> int:
    """A copy of bytes in device memory. While nobody records, see `CudaDevice.recordings`. Returns: its address."""
    memory = driver.mem_alloc(content.nbytes)
    freed_with.callback(memory.free)
    driver.memcpy_htod(memory, content)
    driver.Context.synchronize()  # it may still be on its way, and streams that read it do not wait for that
    return int(memory)


def _cuda_of(driver: Any) -> tuple[int, int]:
    """The newest CUDA that the driver runs."""
    version = int(driver.get_driver_version())
    return version // 1000, version % 1000 // 10
