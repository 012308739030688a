"""Patch maps → anomaly maps and scores by `resize_smooth.cu`, on the stream that computes the patch maps."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
from edge_ad.engine import EngineSpec
from edge_ad.image.geometry import place
from edge_ad.runtime.engines.tensorrt.kernels.resize_smooth import STATE_BYTES, ResizeSmoothBuffers, ResizeSmoothPlan
from edge_ad.runtime.engines.tensorrt.runner.loaded_kernels import LoadedKernels, on_device

ALIGNMENT_BYTES = 16


class KernelTail:
    """Does what the last layers of the graph do, for engines that end at the patch map.

    As those layers do, it takes the whole model input for picture: padding is dealt with afterwards, as it is for every
    engine. The mask is made of the frame's own map and not here. Made, used and closed while the device is current; the
    launches share a state, so they all go onto one stream.

    Args:
        driver: the module `pycuda.driver`.
        spec: of the engine.
        postprocess: the smoothing, and the kind of score.
        sm: compute capability of the device.
        largest: most images of a launch.
        freed_with: closed when the tail is not needed any more.

    Raises: EngineError when the kernel cannot be compiled, or not be launched for such maps.
    """

    def __init__(
        self, driver: Any, spec: EngineSpec, postprocess: PostprocessSpec, sm: int, largest: int, freed_with: ExitStack
    ) -> None:
        patches, maps, scores = spec.outputs
        self._names = patches.name, maps.name, scores.name
        height, width = (int(size or 0) for size in maps.shape[1:])
        canvas = place(PreprocessSpec(height, width, "stretch"), (height, width))
        patch_hw = int(patches.shape[1] or 0), int(patches.shape[2] or 0)
        self._plan = ResizeSmoothPlan.on_model_grid(canvas, patch_hw, postprocess)
        self._kernels = LoadedKernels(driver, "resize_smooth", sm, spec.cache_dir, freed_with)
        tables = self._plan.tables.data
        no_threshold = np.full(ALIGNMENT_BYTES // 4, np.inf, np.float32).view(np.uint8)
        state = np.zeros(largest * STATE_BYTES, np.uint8)
        self._tables = on_device(driver, np.concatenate([tables, no_threshold, state]), freed_with)
        self._threshold = self._tables + tables.nbytes
        self._state = self._threshold + no_threshold.nbytes

    def enqueue(self, images: int, addresses: Mapping[str, int], streams: Any) -> None:
        """Put the launch for so many images onto the stream `streams.compute`.

        Args:
            addresses: of each tensor of the graph, on the device.
        """
        patch_map, anomaly_map, score = (addresses[name] for name in self._names)
        buffers = ResizeSmoothBuffers(
            tables=self._tables,
            patch_map=patch_map,
            threshold=self._threshold,
            state=self._state,
            anomaly_map=anomaly_map,
            score=score,
        )
        self._kernels.launch(self._plan.launch(images, buffers), streams)
