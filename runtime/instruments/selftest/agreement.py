"""How far what an engine returns may be from the reference, and how far it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.specs import PostprocessSpec
from edge_ad.engine import Engine, Outputs
from edge_ad.errors import EngineError
from edge_ad.image.frame import ImageArray
from edge_ad.image.geometry import FrameGeometry
from edge_ad.image.padding import frame_score, without_padding
from edge_ad.record.decision import reaches

QUANTILE = 0.99  # of the reference's maps: where pixels and verdicts are compared when the bundle has no threshold


@dataclass(frozen=True)
class Limits:
    """How far two engines that compute the same graph may be apart.

    Attributes:
        values: largest difference of a probability; of a family whose values go beyond 1, of the largest of them.
        mask_share: share of the pixels that may be on the other side of the threshold.
        correlation: least correlation of the anomaly maps.
    """

    values: float
    mask_share: float
    correlation: float


# Measured on the same graph with OpenVINO and with ONNX Runtime, which add up and round in different places as a GPU
# does: float32 6e-7, float16 3e-3, int8 2.4e-2 in a patch. A GPU has its own exponential and another order of sums: the
# limits leave room for that, and a wrong layer, another picture or a map that is shifted by a pixel is far outside.
LIMITS = {
    "fp32": Limits(values=2e-4, mask_share=1e-3, correlation=0.9999),
    "tf32": Limits(values=2e-2, mask_share=5e-3, correlation=0.999),
    "fp16": Limits(values=2e-2, mask_share=5e-3, correlation=0.999),
    "bf16": Limits(values=1e-1, mask_share=2e-2, correlation=0.99),
    "int8": Limits(values=1e-1, mask_share=2e-2, correlation=0.99),
}
"""By the arithmetic that the engine computes in."""


@dataclass(frozen=True)
class Judged:
    """Outputs for some frames, and what a verdict is made of: padding counts nowhere.

    Attributes:
        outputs: of the graph, for N frames.
        maps: (N, H, W) float32.
        scores: (N,) float32.
    """

    outputs: Outputs
    maps: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """How far outputs are from the reference's.

    Attributes:
        patch_map, anomaly_map, score: largest absolute difference of a value.
        mask_share: share of the pixels on the other side of the threshold.
        flips: frames with another verdict.
        near_flips: those of them whose reference score is nearer to the threshold than values may be apart.
        correlation: of the anomaly maps, over all pixels; None where they do not vary.
        frames: how many there were.
    """

    patch_map: float
    anomaly_map: float
    score: float
    mask_share: float
    flips: int
    near_flips: int
    correlation: float | None
    frames: int

    def faults(self, limits: Limits, scale: float = 1.0) -> Iterator[str]:
        """What is outside of the limits, in words. Args: scale: what `Limits.values` are a share of."""
        allowed = limits.values * scale
        for name, value in (
            ("patch map", self.patch_map),
            ("anomaly map", self.anomaly_map),
            ("score", self.score),
        ):
            if not value <= allowed:
                yield f"{name} off by {value:.2g}, allowed {allowed:.2g}"
        if not self.mask_share <= limits.mask_share:
            yield f"{100 * self.mask_share:.2g} % of the mask differs, allowed {100 * limits.mask_share:.2g} %"
        if self.flips > self.near_flips:
            yield f"{self.flips - self.near_flips} of {self.frames} verdicts differ"
        if self.correlation is not None and not self.correlation >= limits.correlation:
            yield f"correlation of the maps {self.correlation:.4f}, wanted {limits.correlation:g}"


def judged(outputs: Outputs, geometries: Sequence[FrameGeometry], postprocess: PostprocessSpec) -> Judged:
    """What the runtime makes of outputs, as `Detector.conclude` does."""
    maps, scores = [], []
    for index, geometry in enumerate(geometries):
        patch_map, anomaly_map = without_padding(
            outputs.patch_map[index], outputs.anomaly_map[index], geometry, postprocess
        )
        maps.append(anomaly_map)
        pred_score = float(outputs.pred_score[index])
        scores.append(frame_score(patch_map, anomaly_map, pred_score, geometry, postprocess))
    return Judged(outputs, np.stack(maps), np.array(scores, np.float32))


def difference(reference: Judged, got: Judged, threshold: float, limits: Limits) -> Difference:
    """How far one is from the other. Raises: EngineError where they have not the same form."""
    largest = {}
    for field in fields(Outputs):
        ours, theirs = getattr(reference.outputs, field.name), getattr(got.outputs, field.name)
        if ours.shape != theirs.shape:
            raise EngineError(f"the engine returned {field.name!r} as {theirs.shape}, the reference as {ours.shape}")
        largest[field.name] = float(np.abs(ours.astype(np.float64) - theirs).max())
    flipped = reaches(reference.scores, threshold) != reaches(got.scores, threshold)
    near = np.abs(reference.scores - threshold) <= limits.values * scale_of(reference.outputs)
    return Difference(
        patch_map=largest["patch_map"],
        anomaly_map=largest["anomaly_map"],
        score=largest["pred_score"],
        mask_share=float(np.mean(reaches(reference.maps, threshold) != reaches(got.maps, threshold))),
        flips=int(flipped.sum()),
        near_flips=int((flipped & near).sum()),
        correlation=_correlation(reference.maps, got.maps),
        frames=len(reference.scores),
    )


def scale_of(outputs: Outputs) -> float:
    """What differences are a share of: 1 for probabilities, and the largest value of maps that go beyond."""
    return max(1.0, float(np.abs(outputs.anomaly_map).max()))


def threshold_for(wanted: float | None, reference: Judged) -> float:
    """The bundle's threshold; without one, a value that some pixels and some scores of the reference reach."""
    return wanted if wanted is not None else float(np.quantile(reference.maps, QUANTILE))


def infer_in_batches(engine: Engine, images: Sequence[ImageArray], batch: int) -> Outputs:
    """Outputs for model inputs, computed `batch` at a time; the last batch is filled up with its last image.

    Raises: EngineError.
    """
    parts = []
    for first in range(0, len(images), batch):
        part = list(images[first : first + batch])
        part += part[-1:] * (batch - len(part))
        parts.append(engine.infer(np.stack(part)))
    joined = (np.concatenate([getattr(part, field.name) for part in parts])[: len(images)] for field in fields(Outputs))
    return Outputs(*joined)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float | None:
    first, second = (values.astype(np.float64).ravel() - values.mean(dtype=np.float64) for values in (one, other))
    spread = float(np.sqrt((first @ first) * (second @ second)))
    return None if spread == 0 else float(first @ second) / spread
