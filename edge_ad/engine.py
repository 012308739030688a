"""The protocol between a bundle and whatever computes its graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PostprocessSpec, Precision, PreprocessSpec, TensorSpec
from edge_ad.errors import EngineError, ImageError
from edge_ad.image.preprocess import Preprocessor

BatchArray = NDArray[np.uint8]


@dataclass(frozen=True)
class Outputs:
    """What a graph returns for N images.

    Attributes:
        patch_map: (N, h, w) float32, probability of an anomaly per patch.
        anomaly_map: (N, H, W) float32, resized to the model input and smoothed.
        pred_score: (N,) float32, raw: neither clipped nor normalised.
    """

    patch_map: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]
    pred_score: NDArray[np.float32]


@dataclass(frozen=True)
class EngineSpec:
    """What an engine is to compute.

    Attributes:
        image: the input tensor.
        outputs: the output tensors, in the order of `Outputs`.
        precision: arithmetic that the bundle promises.
        batch: images per call that the engine is compiled for; None leaves it open.
        model_sha256: hash of the graph; part of the key of compiled blobs.
        cache_dir: folder for compiled blobs; None compiles every time.
        postprocess: what makes maps and scores of patch maps, for engines that do this beside the graph; None leaves it
            to the graph.
        device: number of the GPU, for engines that run on one.
        dla: core of that device's deep learning accelerator; None for the GPU itself.
    """

    image: TensorSpec
    outputs: tuple[TensorSpec, ...]
    precision: Precision
    batch: int | None
    model_sha256: str
    cache_dir: Path | None = None
    postprocess: PostprocessSpec | None = None
    device: int = 0
    dla: int | None = None


class Engine(ABC):
    """Computes one graph. Allocates on `__enter__`, frees on `__exit__`; one caller at a time.

    Args:
        read_model: returns the bytes of the ONNX graph; not called when a compiled blob is at hand.
        spec: what to compute.

    Attributes:
        name: as the user writes it after `--engine`.
        effective_precision: arithmetic that the loaded engine really uses; known after `__enter__`.
        from_cache: True when no compilation was needed.
    """

    name: str

    def __init__(self, read_model: Callable[[], bytes], spec: EngineSpec) -> None:
        self.spec = spec
        self.effective_precision: str = spec.precision
        self.from_cache = False
        self._read_model = read_model
        self._loaded = False

    def __enter__(self) -> Engine:
        if not self._loaded:
            self.load_impl()
            self._loaded = True
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loaded:
            self._loaded = False
            self.close_impl()

    def infer(self, batch_nhwc: BatchArray) -> Outputs:
        """Compute the outputs of N images.

        Args:
            batch_nhwc: (N, H, W, 3) uint8 RGB at model size.

        Returns: arrays that belong to the caller.

        Raises:
            ImageError: the batch has another shape or type than the bundle expects.
            EngineError: the engine is not loaded, fails, or returns something that is no number.
        """
        if not self._loaded:
            raise EngineError(f"engine {self.name!r} is not loaded; use it inside a 'with' block")
        wanted = self.spec.image.shape[1:]
        if batch_nhwc.dtype != np.uint8 or batch_nhwc.shape[1:] != wanted or len(batch_nhwc) == 0:
            raise ImageError(
                f"input 'image': got {batch_nhwc.shape} {batch_nhwc.dtype},"
                f" bundle expects (N, {', '.join(map(str, wanted))}) uint8; resize or re-export"
            )
        if self.spec.batch is not None and len(batch_nhwc) != self.spec.batch:
            raise ImageError(
                f"input 'image': got a batch of {len(batch_nhwc)}, the engine is compiled for {self.spec.batch}"
            )
        outputs = self.infer_impl(batch_nhwc)
        for field in fields(outputs):  # the maps too: a maximum may pass over NaN and leave a harmless score
            if not np.isfinite(getattr(outputs, field.name)).all():
                raise EngineError(f"engine {self.name!r} returned values that are not finite in {field.name!r}")
        return outputs

    def preprocessor(self, spec: PreprocessSpec) -> Preprocessor:
        """What makes this engine's inputs of frames; to be asked of a loaded engine.

        Returns: one that belongs to the caller, who closes it before the engine or after. It may run in another thread
            than `infer`, at the same time.

        Raises: EngineError.
        """
        return Preprocessor(spec)

    @abstractmethod
    def load_impl(self) -> None:
        """Compile or load the graph."""

    @abstractmethod
    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        """Compute a batch whose shape and type have been checked."""

    @abstractmethod
    def close_impl(self) -> None:
        """Free what `load_impl` allocated."""
