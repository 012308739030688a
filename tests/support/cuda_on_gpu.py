"""Runs the cases of cuda_on_cpu/harness.py on the GPU of this machine, with code that is compiled as for a user.

Every array lies in an allocation of its own between guards, which a kernel must leave as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from edge_ad.runtime.engines.tensorrt.kernels.launch import Launch
from edge_ad.runtime.engines.tensorrt.runner.device import open_device
from edge_ad.runtime.engines.tensorrt.runner.loaded_kernels import LoadedKernels, on_device

GUARD_BYTES = 4096
GUARD = 0xA5


class DeviceProgram:
    """The kernels on a GPU; as `Program` of the harness, but `Case.seed` says nothing there.

    Args:
        harness: the module that makes the cases.
        sm: compute capability of GPU 0, 90 for 9.0.
        folder: for the compiled kernels.
    """

    def __init__(self, harness: ModuleType, sm: int, folder: Path) -> None:
        self._harness = harness
        self._sm = sm
        self._folder = folder
        self._device = open_device(0)

    def run(self, cases: Any | Sequence[Any]) -> None:
        """Run cases one after another and put the results into their arrays. Raises: KernelError, EngineError."""
        given = [cases] if isinstance(cases, self._harness.Case) else list(cases)
        with self._device.use("run kernels"), ExitStack() as freed_with:
            kernels = {
                name: LoadedKernels(self._device.driver, name, self._sm, self._folder, freed_with)
                for name in ("resize_smooth", "preprocess")
            }
            for case in given:
                with ExitStack() as freed_after:
                    self._run(case, kernels, freed_after)

    def _run(self, case: Any, kernels: dict[str, LoadedKernels], freed_with: ExitStack) -> None:
        driver = self._device.driver
        guard = np.full(GUARD_BYTES, GUARD, np.uint8)
        contents = [np.concatenate([guard, array.reshape(-1).view(np.uint8), guard]) for array in case.arrays]
        places = [on_device(driver, content, freed_with) for content in contents]
        stream = driver.Stream()
        for launch in case.launches:
            name = "preprocess" if launch.kernel.startswith("preprocess") else "resize_smooth"
            kernels[name].launch(self._placed(launch, places), SimpleNamespace(compute=stream))
        stream.synchronize()
        for index, (array, content, place) in enumerate(zip(case.arrays, contents, places, strict=True)):
            driver.memcpy_dtoh(content, place)
            before, inner, after = np.split(content, [GUARD_BYTES, GUARD_BYTES + array.nbytes])
            if not (np.array_equal(before, guard) and np.array_equal(after, guard)):
                raise self._harness.KernelError(f"array {index} was written outside of its {array.nbytes} bytes")
            case.arrays[index] = inner.copy().view(array.dtype).reshape(array.shape)

    def _placed(self, launch: Launch, places: Sequence[int]) -> Launch:
        """The launch with the device's addresses in place of the case's."""
        values = []
        for value in launch.values:
            if isinstance(value, int) and value:
                index, offset = self._harness.placed(value)
                value = places[index] + GUARD_BYTES + offset
            values.append(value)
        return Launch(launch.kernel, launch.grid, launch.block, launch.shared_bytes, launch.format, tuple(values))
