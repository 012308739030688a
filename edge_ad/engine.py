"""The protocol between a bundle and whatever computes its graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.bundle.specs import PostprocessSpec, Precision, PreprocessSpec, TensorSpec
from edge_ad.errors import EngineError, ImageError
from edge_ad.image.preprocess import Preprocessor
from edge_ad.image.scores import score_of

BatchArray = NDArray[np.uint8]

TOLERANCES = {"fp32": 1e-5, "tf32": 1e-2, "fp16": 1e-2}
COARSEST = 5e-2
"""How far rounding may take a score from the maximum of its map, and a value from its range, by the arithmetic.

Every engine gives the very maximum today; one that computes the map twice, in sums of another order, need not.
"""
AGAIN = "the graph or its compiled form is damaged: export the bundle again, and build or cache it anew"


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


def output_fault(outputs: Outputs, images: int, spec: EngineSpec, precision: str) -> str | None:
    """Why outputs are none that the graph of a bundle can give; None when they can be.

    A graph or a compiled form of it that is damaged, or whose makers did not mean well, returns something as well, and
    a score that is believed is a verdict. Held against the contract are type and shape, that all values are finite and
    in their range, and that each score is that of the map that came with it.

    Args:
        images: how many there were in the batch.
        precision: arithmetic that the engine computes in; how far rounding may go depends on it.
    """
    tolerance = TOLERANCES.get(precision, COARSEST)
    for field, wanted in zip(fields(outputs), spec.outputs, strict=True):
        values = getattr(outputs, field.name)
        shape = (images, *wanted.shape[1:])
        got = (getattr(values, "dtype", type(values).__name__), getattr(values, "shape", ()))
        if got != (np.float32, shape):
            return f"{field.name!r} as {got[0]} {got[1]}, the bundle has float32 {shape}; export it again"
        low, high = float(values.min()), float(values.max())  # both are NaN where any value is
        if not np.isfinite((low, high)).all():
            return f"values that are not finite in {field.name!r}"
        if spec.postprocess is not None:
            least, most = spec.postprocess.scores if field.name == "pred_score" else spec.postprocess.map_range
            if not (least - tolerance <= low and high <= most + tolerance):
                return f"values from {low:.6g} to {high:.6g} in {field.name!r}, wanted {least:g} to {most:g}; {AGAIN}"
    return None if spec.postprocess is None else _score_fault(outputs, spec.postprocess, tolerance)


def _score_fault(outputs: Outputs, postprocess: PostprocessSpec, tolerance: float) -> str | None:
    """Why scores are none of the maps beside them."""
    wanted = score_of(outputs.patch_map, outputs.anomaly_map, postprocess)
    if wanted is None:
        return None
    apart = np.abs(outputs.pred_score - wanted)
    worst = int(apart.argmax())
    scale = 1.0 if postprocess.activation == "sigmoid" else max(1.0, float(np.abs(wanted).max()))
    if apart[worst] > tolerance * scale:
        return (
            f"the score {float(outputs.pred_score[worst]):.6g} with {postprocess.scored_map!r} that gives"
            f" {float(wanted[worst]):.6g}, which has to be the same; {AGAIN}"
        )
    return None


def scores_to_believe(outputs: Outputs, postprocess: PostprocessSpec) -> NDArray[np.float32]:
    """(N,) float32: the scores that follow from the maps, or where none do what the graph says."""
    found = score_of(outputs.patch_map, outputs.anomaly_map, postprocess)
    return outputs.pred_score if found is None else found


@dataclass(frozen=True)
class EngineHealth:
    """How an engine is doing.

    Attributes:
        fault: why it computes nothing at the moment; None when it does.
        restarts: how often a fresh process has taken over from one that failed.
        last_fault: what the last one of them failed with.
        pid: the process that computes, where it is not this one; None too while there is none.
    """

    fault: str | None = None
    restarts: int = 0
    last_fault: str = ""
    pid: int | None = None


class Engine(ABC):
    """Computes one graph. Allocates on `__enter__`, frees on `__exit__`; one caller at a time.

    Args:
        read_model: returns the ONNX graph, which was checked; not called when a compiled blob is at hand.
        spec: what to compute.

    Attributes:
        name: as the user writes it after `--engine`.
        runs_graph: whether it computes the graph, which then has to be one that engines may see.
        effective_precision: arithmetic that the loaded engine really uses; known after `__enter__`.
        from_cache: True when no compilation was needed.
    """

    name: str
    runs_graph = True

    def __init__(self, read_model: Callable[[], CheckedGraph], spec: EngineSpec) -> None:
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
            EngineError: the engine is not loaded, fails, or returns something that cannot be (`output_fault`).
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
        fault = output_fault(outputs, len(batch_nhwc), self.spec, self.effective_precision)
        if fault is not None:
            raise EngineError(f"engine {self.name!r} returned {fault}")
        return outputs

    def preprocessor(self, spec: PreprocessSpec) -> Preprocessor:
        """What makes this engine's inputs of frames; to be asked of a loaded engine.

        Returns: one that belongs to the caller, who closes it before the engine or after. It may run in another thread
            than `infer`, at the same time.

        Raises: EngineError.
        """
        return Preprocessor(spec)

    @property
    def health(self) -> EngineHealth:
        """How it is doing; from any thread, and without waiting."""
        return EngineHealth()

    @property
    def lost(self) -> str | None:
        """Why this process cannot compute any more, though a fresh one may; None while it can."""
        return None

    @property
    def resizes_on_device(self) -> bool:
        """Whether `preprocessor` works where the engine does; known after `__enter__`."""
        return False

    @classmethod  # noqa: B027 - some need none
    def import_libraries(cls) -> None:
        """Load what `load_impl` needs, where it is installed; it takes a while, and the graph is not needed for it."""

    def give_up(self) -> None:  # noqa: B027 - most cannot
        """Make a call that hangs fail, where that can be done; from any thread. Nothing is computed from then on."""

    @abstractmethod
    def load_impl(self) -> None:
        """Compile or load the graph."""

    @abstractmethod
    def infer_impl(self, batch_nhwc: BatchArray) -> Outputs:
        """Compute a batch whose shape and type have been checked."""

    @abstractmethod
    def close_impl(self) -> None:
        """Free what `load_impl` allocated."""
