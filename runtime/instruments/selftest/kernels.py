"""The two CUDA kernels against what they stand for: the float64 operator, and the CPU's model inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.engine import Outputs
from edge_ad.image.frame import ColorOrder, ImageArray
from edge_ad.image.operators import resize_smooth_matrix
from edge_ad.image.preprocess import ModelInput
from edge_ad.image.scores import score_of

# float32 weights, sums of about 36 products: 5e-7 on a CPU. Another smoothing, tap or border is off by 1e-3 and more.
OPERATOR_LIMIT = 1e-5
GREY_LEVELS = 1
STRAYS = 1e-3  # share of the values: a weight at the edge of rounding

Prepare = Callable[[ImageArray, ColorOrder], ModelInput]


@dataclass(frozen=True)
class OperatorDifference:
    """Maps and scores against the operator in float64 on the same patch maps: largest absolute differences."""

    anomaly_map: float
    score: float

    def faults(self, scale: float = 1.0) -> Iterator[str]:
        """What is outside of the limits, in words."""
        for name, value in (("anomaly map", self.anomaly_map), ("score", self.score)):
            if not value <= OPERATOR_LIMIT * scale:
                yield f"{name} off the float64 operator by {value:.2g}, allowed {OPERATOR_LIMIT * scale:.2g}"


@dataclass(frozen=True)
class PreprocessDifference:
    """Model inputs of the device against those of the CPU.

    Attributes:
        grey_levels: largest difference.
        share: of the values that differ.
        same_place: whether both say that the pixels lie in the same place of the frame.
    """

    grey_levels: int
    share: float
    same_place: bool

    def faults(self) -> Iterator[str]:
        """What is outside of the limits, in words."""
        if self.grey_levels > GREY_LEVELS:
            yield f"model inputs off by {self.grey_levels} grey levels, allowed {GREY_LEVELS}"
        if self.share > STRAYS:
            yield f"{100 * self.share:.2g} % of a model input's values differ, allowed {100 * STRAYS:.2g} %"
        if not self.same_place:
            yield "model inputs show another part of the frame"


def operator_difference(outputs: Outputs, postprocess: PostprocessSpec) -> OperatorDifference:
    """How far maps and scores are from the operator A_h · Z · A_wᵀ in float64, on the patch maps beside them."""
    patch_maps = outputs.patch_map.astype(np.float64)
    rows, columns = (
        resize_smooth_matrix(n_in, n_out, postprocess)
        for n_in, n_out in zip(patch_maps.shape[1:], outputs.anomaly_map.shape[1:], strict=True)
    )
    maps = rows @ patch_maps @ columns.T
    found = score_of(patch_maps, maps, postprocess)
    scores = outputs.pred_score if found is None else found
    return OperatorDifference(
        float(np.abs(maps - outputs.anomaly_map).max()), float(np.abs(scores - outputs.pred_score).max())
    )


def preprocess_difference(frames: Sequence[ImageArray], wanted: Prepare, got: Prepare) -> PreprocessDifference:
    """How far model inputs are apart, for every frame in both channel orders. Raises: ImageError, EngineError."""
    worst, strays, values, same_place = 0, 0, 0, True
    for frame in frames:
        for order in get_args(ColorOrder):
            ours, theirs = wanted(frame, order), got(frame, order)
            apart = np.abs(ours.image_hwc.astype(np.int16) - theirs.image_hwc)
            worst = max(worst, int(apart.max()))
            strays += int(np.count_nonzero(apart))
            values += apart.size
            same_place &= ours.geometry == theirs.geometry
    return PreprocessDifference(worst, strays / values, same_place)
