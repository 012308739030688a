"""What a bundle says about its model, as frozen values: preprocessing, post-processing, tensors, thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edge_ad.validation import strict

ThresholdRule = Literal["best-f1", "quantile", "false-alarm", "value"]
ResizeMode = Literal["shorter_side_crop", "stretch", "letterbox"]
Filter = Literal["pillow_bilinear", "pillow_bicubic", "opencv_bilinear", "opencv_area"]
ChannelOrder = Literal["rgb", "bgr"]
Activation = Literal["sigmoid", "none"]
MapResize = Literal["bilinear", "nearest"]
Smoothing = Literal["gaussian", "box", "none"]
Border = Literal["repeat", "reflect101"]
ScoreKind = Literal["map_max", "patch_max", "top_mean", "reweighted", "reconstruction", "family"]
MapName = Literal["patch_map", "anomaly_map"]
Precision = Literal["fp32", "fp16", "int8"]
RangeMethod = Literal["min-max", "percentile", "entropy", "mse"]
GateVerdict = Literal["passed", "failed", "unproven"]

SCORED_MAPS: dict[ScoreKind, MapName] = {
    "map_max": "anomaly_map",
    "patch_max": "patch_map",
    "top_mean": "anomaly_map",
}
"""The output that a score is taken from; a score of another kind is what the graph says, and declares its range."""
PROBABILITIES = (0.0, 1.0)
ScoreRange = tuple[float | None, float | None]
"""Lowest and highest score; None where there is no bound."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # torchvision's published statistics, RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


@strict
@dataclass(frozen=True)
class PreprocessSpec:
    """How a frame becomes the model's input.

    Attributes:
        height, width: model input in pixels.
        resize_mode: `shorter_side_crop` resizes the shorter side to `resize` and crops the centre; `stretch`
            resizes both sides independently; `letterbox` fits the whole frame and pads.
        resize: length of the shorter side before the crop; only for `shorter_side_crop`.
        filter: resampling filter; Pillow's are antialiased, OpenCV's bilinear is not.
        channel_order: in which the network was trained; a record, for the graph takes RGB whatever it is.
        mean, std: normalisation of RGB in [0, 1]; it lives in the exported graph and is kept here as a record.
        pad_rgb: grey levels of padding (`letterbox`, or a crop larger than the resized frame).
    """

    height: int
    width: int
    resize_mode: ResizeMode = "shorter_side_crop"
    resize: int | None = None
    filter: Filter = "pillow_bilinear"
    channel_order: ChannelOrder = "rgb"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pad_rgb: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        """Raises: ValueError for sizes below 1, a standard deviation that is not positive, and no grey levels."""
        if min(self.height, self.width) < 1 or (self.resize is not None and self.resize < 1):
            raise ValueError("height, width and resize: wanted at least 1 pixel")
        if min(self.std) <= 0:
            raise ValueError("std: wanted positive numbers")
        if not all(0 <= level <= 255 for level in self.pad_rgb):
            raise ValueError("pad_rgb: wanted grey levels, 0 to 255")

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.height, self.width


@strict
@dataclass(frozen=True)
class PostprocessSpec:
    """How what a network says of patches becomes an anomaly map and a score.

    Attributes:
        activation: what makes the patch map of the network's output: `sigmoid`, then values are probabilities, or
            `none`, then they have no bounds.
        resize: of the patch map to the size of the model's input, half-pixel centres.
        smoothing: of the resized map: `gaussian` of `sigma` and `truncate`, `box`, the mean of a square of `size`
            pixels in which what lies outside of the map counts as 0, or `none`.
        sigma: standard deviation of the Gaussian in model pixels.
        truncate: radius of the Gaussian in standard deviations (4 is SciPy's default).
        border: what a Gaussian sees beyond the map: its edge again and again (`repeat`, SciPy's reflect), or its
            mirror without the edge (`reflect101`, OpenCV's).
        size: side of the box, odd; None for another smoothing.
        score: `map_max` is the maximum of the anomaly map, `patch_max` that of the patch map, `top_mean` the mean of
            the `top_pixels` highest pixels of the anomaly map; `reweighted`, `reconstruction` and `family` are what
            the graph says.
        top_pixels: for `top_mean`; None for another score.
        score_range: of scores that only the graph knows; None for those of a map.
        frame_map: which map the map in frame pixels is made from: the patch map, smoothed as above, or the anomaly map
            as it is, of a family whose anomaly map is no smoothing of its patch map.
    """

    sigma: float = 4.0
    truncate: float = 4.0
    score: ScoreKind = "map_max"
    activation: Activation = "sigmoid"
    resize: MapResize = "bilinear"
    smoothing: Smoothing = "gaussian"
    border: Border = "repeat"
    size: int | None = None
    top_pixels: int | None = None
    score_range: ScoreRange | None = None
    frame_map: MapName = "patch_map"

    def __post_init__(self) -> None:
        """Raises: ValueError for values that do not belong together, or to no operator."""
        if self.sigma < 0 or self.truncate < 0:
            raise ValueError("sigma and truncate: wanted at least 0")
        if (self.smoothing == "box") != (self.size is not None):
            raise ValueError("size: belongs to the smoothing box, which needs it")
        if self.size is not None and (self.size < 1 or self.size % 2 == 0):
            raise ValueError("size: wanted an odd number above 0")
        if (self.score == "top_mean") != (self.top_pixels is not None):
            raise ValueError("top_pixels: belongs to the score top_mean, which needs it")
        if self.top_pixels is not None and self.top_pixels < 1:
            raise ValueError("top_pixels: wanted at least 1")
        if (self.score in SCORED_MAPS) != (self.score_range is None):
            raise ValueError("score_range: belongs to scores that are taken from no map, which need it")
        if not all(bound is None or math.isfinite(bound) for bound in self.score_range or ()):
            raise ValueError("score_range: wanted finite numbers, or null for no bound")
        if not self.scores[0] < self.scores[1]:
            raise ValueError("score_range: wanted the lower bound first")

    def with_score(
        self, score: ScoreKind | None, ranges: Mapping[ScoreKind, ScoreRange] | None = None
    ) -> PostprocessSpec:
        """The same with another score; None leaves it.

        Args:
            ranges: of the scores that the graph can give.

        Raises: ValueError for a score that needs more than its name.
        """
        if score is None or score == self.score:
            return self
        return replace(self, score=score, top_pixels=None, score_range=(ranges or {}).get(score))

    @property
    def scored_map(self) -> MapName | None:
        """The output that the score is taken from; None where only the graph knows it."""
        return SCORED_MAPS.get(self.score)

    @property
    def map_range(self) -> tuple[float, float]:
        """Lowest and highest value of both maps."""
        return PROBABILITIES if self.activation == "sigmoid" else (-math.inf, math.inf)

    @property
    def scores(self) -> tuple[float, float]:
        """Lowest and highest score; infinite where there is no bound."""
        if self.score_range is None:
            return self.map_range
        least, most = self.score_range
        return -math.inf if least is None else least, math.inf if most is None else most


@strict
@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the graph; None in `shape` is a size that may vary from run to run."""

    name: str
    shape: tuple[int | None, ...]
    dtype: Literal["uint8", "float32"]


@strict
@dataclass(frozen=True)
class ThresholdOrigin:
    """How a threshold was chosen, and what it did to the images that it was chosen on.

    Attributes:
        rule: `best-f1` on labelled images; `quantile` of the scores of good ones; `false-alarm`, the wanted rate among
            good ones; `value`, given by the user.
        images: which images: `test` or `train` of a data set, or `scores`, a file of them; None for none.
        good_images, defective_images: how many were scored.
        quantile, wanted_rate: what the rule was told; None for other rules.
        false_alarm_rate: share of the good images at or above the threshold, which is what to expect of others like
            them; None without good images.
        interval: lower and upper bound of that rate (Clopper and Pearson), at the level `confidence`.
        precision, recall, f1: on these images; None where they are not defined.
    """

    rule: ThresholdRule
    images: Literal["test", "train", "scores"] | None = None
    good_images: int = 0
    defective_images: int = 0
    quantile: float | None = None
    wanted_rate: float | None = None
    false_alarm_rate: float | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


@strict
@dataclass(frozen=True)
class Thresholds:
    """Raw scores from which on something is anomalous; None where nobody has chosen one.

    Attributes:
        image: for the score of a frame, and for the pixels of its anomaly map where they have none of their own.
        pixel: for the pixels of the anomaly map; None where that of the frame counts for them too.
        image_origin: how it was chosen; None where that is not known, as in bundles of edge-ad 0.1.
    """

    image: float | None = None
    image_origin: ThresholdOrigin | None = None
    pixel: float | None = None

    @property
    def pixels(self) -> float | None:
        """What counts for the pixels of the anomaly map."""
        return self.image if self.pixel is None else self.pixel


@strict
@dataclass(frozen=True)
class UsabilityLimits:
    """From what on a frame shows too little to be judged. What was learned lies far beyond all good frames.

    Attributes:
        images: good images that the limits were learned from; 0 for those that suit every line.
        sharpness_min: least sharpness (`edge_ad.image.sharpness`); None where blur is not looked for.
        black_below: grey level, 0..255; a frame is black when 99.9 % of its pixels are below in all colours. 0 where
            the good frames are black, so that no frame is too dark.
        saturated_above: grey level, 0..255; a frame is saturated when 99.9 % of its pixels are above in all colours.
            255 where the good frames are white.
        one_colour: whether a frame of one colour shows something, as where the good frames are black or white.
    """

    images: int = 0
    sharpness_min: float | None = None
    black_below: int = 10  # sensor noise of a covered lens stays below, the darkest usable scene is far above
    saturated_above: int = 245
    one_colour: bool = False

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that are none of images, sharpness or grey levels."""
        if self.images < 0:
            raise ValueError("images: wanted at least 0")
        if self.sharpness_min is not None and self.sharpness_min <= 0:
            raise ValueError("sharpness_min: wanted a number above 0")
        if not (0 <= self.black_below <= 255 and 0 <= self.saturated_above <= 255):
            raise ValueError("black_below and saturated_above: wanted grey levels, 0 to 255")


def contract(
    height: int, width: int, patch_hw: tuple[int, int], batch: int | None
) -> tuple[TensorSpec, tuple[TensorSpec, ...]]:
    """Input and outputs that every exported graph has, whatever its family.

    Returns: the input `image`, RGB at model size; and the outputs `patch_map`, `anomaly_map`, `pred_score`.
    """
    image = TensorSpec("image", (batch, height, width, 3), "uint8")
    outputs = (
        TensorSpec("patch_map", (batch, *patch_hw), "float32"),
        TensorSpec("anomaly_map", (batch, height, width), "float32"),
        TensorSpec("pred_score", (batch,), "float32"),
    )
    return image, outputs
