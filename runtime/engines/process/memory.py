"""Pictures and maps in memory that two processes see. It has no name, and is gone when both are, however they ended."""

from __future__ import annotations

import math
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.engine import BatchArray, EngineSpec, Outputs
from edge_ad.errors import EngineError

ALIGNED = 64  # bytes; a line of the processor's cache


class Exchange:
    """Arrays in such memory, one batch's worth of inputs and outputs.

    Args:
        spec: gives their shapes.
        descriptor: of the memory, which stays the caller's.

    Raises: EngineError for a spec whose images or maps have no fixed size.
    """

    def __init__(self, spec: EngineSpec, descriptor: int) -> None:
        self._shapes = [_fixed(tensor.name, tensor.shape[1:]) for tensor in (spec.image, *spec.outputs)]
        self._types: list[Any] = [np.uint8, *[np.float32] * len(spec.outputs)]
        self._descriptor = descriptor
        self._arrays: list[NDArray[Any]] = []
        self.images = 0

    def make_room(self, images: int) -> None:
        """Make it large enough for a batch; for the side that asks. Raises: EngineError when there is no memory."""
        if images <= self.images:
            return
        try:
            os.posix_fallocate(self._descriptor, 0, self._places(images)[-1])
        except OSError as exc:
            raise EngineError(f"no memory for a batch of {images} images: {exc.strerror}") from exc
        self.use(images)

    def use(self, images: int) -> None:
        """Look at memory that is large enough for so many images. Raises: OSError, ValueError when it is not."""
        if images == self.images:
            return
        *places, size = self._places(images)
        memory = mmap.mmap(self._descriptor, size)
        self._arrays = [
            np.frombuffer(memory, dtype, images * math.prod(shape), place).reshape(images, *shape)
            for dtype, shape, place in zip(self._types, self._shapes, places, strict=True)
        ]
        self.images = images

    def close(self) -> None:
        """Look at it no longer, whoever still holds this object: the traceback of an exception does for a while."""
        self._arrays, self.images = [], 0

    def put_inputs(self, batch_nhwc: BatchArray) -> None:
        np.copyto(self._arrays[0][: len(batch_nhwc)], batch_nhwc)

    def inputs(self, images: int) -> BatchArray:
        """(N, H, W, 3) uint8: the memory itself."""
        view: BatchArray = self._arrays[0][:images]
        return view

    def put_outputs(self, outputs: Outputs, images: int) -> bool:
        """Returns: False when they are not what the spec says, in type and shape."""
        given = (outputs.patch_map, outputs.anomaly_map, outputs.pred_score)
        places = [array[:images] for array in self._arrays[1:]]
        if any((one.dtype, one.shape) != (place.dtype, place.shape) for one, place in zip(given, places, strict=True)):
            return False
        for values, place in zip(given, places, strict=True):
            np.copyto(place, values)
        return True

    def outputs(self, images: int) -> Outputs:
        """Copies, which belong to the caller."""
        return Outputs(*(array[:images].copy() for array in self._arrays[1:]))

    def _places(self, images: int) -> list[int]:
        """Where each array begins, and where the last one ends; bytes."""
        places = [0]
        for dtype, shape in zip(self._types, self._shapes, strict=True):
            size = images * math.prod(shape) * np.dtype(dtype).itemsize
            places.append(places[-1] + -(-size // ALIGNED) * ALIGNED)
        return places


def _fixed(name: str, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    sizes = tuple(size for size in shape if size)
    if len(sizes) < len(shape):
        raise EngineError(
            f"tensor {name!r} has no fixed size, which an engine in a process of its own needs; use"
            " --engine-process off"
        )
    return sizes
