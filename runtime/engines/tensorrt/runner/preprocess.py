"""Frames → model inputs by `preprocess.cu`, on a stream of its own, so that it does not wait for the graph."""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import numpy as np

from edge_ad.bundle.specs import PreprocessSpec
from edge_ad.errors import EngineError
from edge_ad.image.frame import ColorOrder, ImageArray
from edge_ad.image.preprocess import ModelInput, Preprocessor, check_image
from edge_ad.runtime.engines.tensorrt.kernels.launch import Launch
from edge_ad.runtime.engines.tensorrt.kernels.preprocess import PreprocessBuffers, PreprocessPlan
from edge_ad.runtime.engines.tensorrt.runner.device import CudaDevice
from edge_ad.runtime.engines.tensorrt.runner.loaded_kernels import LoadedKernels
from edge_ad.runtime.engines.tensorrt.runner.pipeline import (
    NON_BLOCKING,
    CopiedTensor,
    DeviceTensor,
    MappedTensor,
    Streams,
)

log = logging.getLogger(__name__)

# Of frames, the ones used last: a line has some cameras, each with a part of the picture of its own. Each size holds
# its tables, which are small; the memory for the frame itself is one for all.
KEPT_SIZES = 32


class CudaPreprocessor(Preprocessor):
    """Does what `Preprocessor` does, within one grey level, on a GPU. For one caller at a time, in any thread.

    The CPU does it for frames that the kernel does not take, which are thousands of rows high, and for all once the GPU
    is lost or this is closed: the process that takes over needs model inputs too.

    Args:
        device: the GPU. It may be in use elsewhere at the same time.
        spec: target size and mode.
        sm: compute capability of the GPU, 87 for 8.7.
        cache_dir: folder for compiled kernels; None compiles every time.

    Raises: EngineError when the kernel cannot be compiled or loaded.
    """

    def __init__(self, device: CudaDevice, spec: PreprocessSpec, sm: int, cache_dir: Path | None) -> None:
        super().__init__(spec)
        self._device = device
        self._on_device: _Resizer | None = None
        with device.use("load the kernel for frames"):
            self._on_device = _Resizer(device, spec, sm, cache_dir)

    def __call__(self, image_hwc: ImageArray, color_order: ColorOrder = "rgb") -> ModelInput:
        """As `Preprocessor`. Raises: ImageError; EngineError for a frame at which the GPU fails."""
        check_image(image_hwc)
        if self._on_device is not None and self._device.lost is None and color_order in get_args(ColorOrder):
            with self._device.use("resize a frame"):
                made = self._on_device.run(image_hwc, color_order)
            if made is not None:
                return made
        return super().__call__(image_hwc, color_order)

    @property
    def resizes_with(self) -> str:
        """`CUDA`, or what the CPU does it with once it has to."""
        return super().resizes_with if self._on_device is None or self._device.lost is not None else "CUDA"

    def close(self) -> None:
        """Free what is held on the device, and stop the threads that resize."""
        super().close()
        on_device, self._on_device = self._on_device, None
        if on_device is None:
            return
        try:
            with self._device.use("free what frames were resized with"):
                on_device.close()
        except EngineError as exc:  # whoever closes it can do nothing about it
            if self._device.lost is None:
                log.warning("%s", exc)
            else:  # of which the engine speaks
                self._device.abandon()


class _OneStream(Streams):
    """One for all three: what is put onto it happens in that order, without events."""

    def __init__(self, driver: Any, freed_with: ExitStack) -> None:
        freed_with.callback(self.__dict__.clear)
        self.up = self.compute = self.down = driver.Stream(NON_BLOCKING)


class _Resizer:
    """The kernel and its memory. Made, used and closed while the device is current.

    Frames and tables are copied even to a GPU that works in the processor's memory. The kernel reads every pixel
    several times, and such a GPU does not cache what is mapped; the model input is written once.
    """

    def __init__(self, device: CudaDevice, spec: PreprocessSpec, sm: int, cache_dir: Path | None) -> None:
        self._driver = device.driver
        self._spec = spec
        self._sizes: OrderedDict[tuple[int, int, ColorOrder], _FrameSize | None] = OrderedDict()
        self._frame: CopiedTensor | None = None  # bytes, for the largest frame so far
        with ExitStack() as stack:
            self._streams = _OneStream(self._driver, stack)
            self._kernels = LoadedKernels(self._driver, "preprocess", sm, cache_dir, stack)
            kind = MappedTensor if device.shares_memory else CopiedTensor
            self._image: DeviceTensor = kind(self._driver, (1, *spec.size_hw, 3), "uint8")
            stack.callback(self._image.free)
            self._resources = stack.pop_all()

    def run(self, image_hwc: ImageArray, color_order: ColorOrder) -> ModelInput | None:
        """The model input of a frame; None for one that the kernel does not take."""
        size = self._size_of(image_hwc, color_order)
        if size is None:
            return None
        frame = self._frame_of(size.frame_bytes)
        size.upload(image_hwc, frame, self._streams)
        self._kernels.launch(size.launch(frame.address, self._image.address), self._streams)
        self._image.download(1, self._streams)
        self._streams.down.synchronize()
        return ModelInput(self._image.host[0].copy(), size.plan.geometry)

    def close(self) -> None:
        """Free everything, when no work is left."""
        while self._sizes:
            self._drop_oldest()
        self._drop_frame()
        self._resources.close()

    def _frame_of(self, size_bytes: int) -> CopiedTensor:
        """Memory for a frame; nothing is under way in it, for every frame is waited for."""
        if self._frame is not None and self._frame.host.nbytes >= size_bytes:
            return self._frame
        self._drop_frame()
        self._frame = CopiedTensor(self._driver, (size_bytes,), "uint8")
        return self._frame

    def _drop_frame(self) -> None:
        frame, self._frame = self._frame, None
        if frame is not None:
            frame.free()

    def _size_of(self, image_hwc: ImageArray, color_order: ColorOrder) -> _FrameSize | None:
        key = (image_hwc.shape[0], image_hwc.shape[1], color_order)
        if key not in self._sizes:
            while len(self._sizes) >= KEPT_SIZES:
                self._drop_oldest()
            try:
                plan = PreprocessPlan(self._spec, key[:2], color_order)
            except EngineError:
                self._sizes[key] = None
            else:
                self._sizes[key] = _FrameSize(self._driver, plan, self._streams)
        self._sizes.move_to_end(key)
        return self._sizes[key]

    def _drop_oldest(self) -> None:
        _, size = self._sizes.popitem(last=False)
        if size is not None:
            size.free()


class _FrameSize:
    """What frames of one size and channel order need: a plan, and its tables on the device.

    Attributes:
        frame_bytes: of the part of the frame that the kernel reads.
    """

    def __init__(self, driver: Any, plan: PreprocessPlan, streams: Streams) -> None:
        self.plan = plan
        left, top, right, bottom = plan.source_box
        self._pitch = 3 * (right - left)
        self.frame_bytes = (bottom - top) * self._pitch
        tables = plan.tables.data
        with ExitStack() as stack:
            self._tables = CopiedTensor(driver, (1, tables.size), "uint8")
            stack.callback(self._tables.free)
            np.copyto(self._tables.host[0], tables)
            self._tables.upload(1, streams)  # the last that may fail: what is freed must not be in use
            self._resources = stack.pop_all()

    def upload(self, image_hwc: ImageArray, frame: CopiedTensor, streams: Streams) -> None:
        left, top, right, bottom = self.plan.source_box
        part = image_hwc[top:bottom, left:right]
        np.copyto(frame.host[: self.frame_bytes].reshape(part.shape), part)
        frame.upload(self.frame_bytes, streams)

    def launch(self, frame: int, image: int) -> Launch:
        """The launch that reads the frame at one address, and writes to another."""
        left, top, _, _ = self.plan.source_box
        # Where the frame would begin if all of it were there.
        whole = frame - top * self._pitch - 3 * left
        return self.plan.launch(PreprocessBuffers(self._tables.address, whole, image, pitch=self._pitch))

    def free(self) -> None:
        self._resources.close()
