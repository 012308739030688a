"""What manifest.yaml of a bundle says, as frozen values; `edge_ad.bundle.bundle` reads and writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge_ad.bundle.inspection import Inspection
from edge_ad.bundle.specs import (
    GateVerdict,
    PostprocessSpec,
    Precision,
    PreprocessSpec,
    RangeMethod,
    TensorSpec,
    Thresholds,
    UsabilityLimits,
)
from edge_ad.bundle.tiles import TileGrid
from edge_ad.validation import strict


@strict
@dataclass(frozen=True)
class ModelInfo:
    """Where the model came from.

    Attributes:
        family: name of the model family.
        config: the family's own configuration, as plain values.
        checkpoint_sha256: hash of the checkpoint file; None when there was none.
    """

    family: str
    config: dict[str, Any]
    checkpoint_sha256: str | None = None


@strict
@dataclass(frozen=True)
class Parity:
    """How far the exported graph is from the network it came from, on the images of the export check.

    Attributes:
        images: how many images were compared.
        patch_map, anomaly_map, pred_score: largest absolute differences; of values that are no probabilities as a share
            of the largest.
        patch_map_spread: largest minus smallest value of the published network's patch maps, likewise; near 0 the
            comparison says little.
        tolerance: what was allowed for the three outputs.
    """

    images: int
    patch_map: float
    anomaly_map: float
    pred_score: float
    patch_map_spread: float
    tolerance: float


@strict
@dataclass(frozen=True)
class Quantization:
    """How a graph of lower precision came from the float one, and whether that is proven.

    Attributes:
        ranges: how the range of each activation was chosen; None for fp16, which needs none.
        images: how many images the ranges were taken on.
        images_sha256: hash of the content of those images.
        seed: that they were drawn with.
        layers: quantized or cast layers of the network, without those of `float_layers`.
        float_layers: layers that the gate put back into float.
        gate: `passed` when the graph agrees with the float one within the tolerances on images that it was not made
            with; `unproven` when nobody asked.
        held_out: how many images the gate looked at.
        flips: images among them that the two models label differently; None when they were not counted.
        auroc_change: image AUROC of this graph minus that of the float one; None without labels.
        map_correlation: Pearson's, of the two anomaly maps; None when it was not measured.
        speed_up: time of the float graph divided by the time of this one, as the gate saw; None when not measured.
    """

    ranges: RangeMethod | None
    images: int
    images_sha256: str
    seed: int
    layers: int
    float_layers: tuple[str, ...]
    gate: GateVerdict
    held_out: int
    flips: int | None
    auroc_change: float | None
    map_correlation: float | None
    speed_up: float | None

    def __post_init__(self) -> None:
        """Raises: ValueError for negative counts, or a gate that has passed without an image to look at."""
        if min(self.images, self.layers, self.held_out, self.flips or 0) < 0:
            raise ValueError("images, layers, held_out and flips: wanted at least 0")
        if self.gate == "passed" and not self.held_out:
            raise ValueError("gate: cannot have passed on no image")

    @property
    def is_proven_and_faster(self) -> bool:
        """Whether this graph is the one to run unless another is asked for."""
        return self.gate == "passed" and (self.speed_up is None or self.speed_up >= 1)


@strict
@dataclass(frozen=True)
class LearnedPicture:
    """A good picture that was falsely rejected, and what was learned of it.

    Attributes:
        name: of its file, below the folder that all pictures of the lesson have in common.
        sha256: of the file.
        patches: how many of its patches were learned; 0 where those of others were enough.
        score_before, score_after: by the float model before and after the lesson.
    """

    name: str
    sha256: str
    patches: int
    score_before: float
    score_after: float


@strict
@dataclass(frozen=True)
class Lesson:
    """What `edge-ad learn` added to the float model at one time.

    Attributes:
        id: what `--undo` calls it.
        time: UTC, ISO 8601.
        pictures: what was learned from.
        patches: of all of them.
        threshold: that they were above.
        radius: of a learned patch, beyond which nothing changes; None for entries of a bank.
        defective: labelled defects that were judged before and after; 0 where none were shown.
        recall_before, recall_after: share of them at or above the threshold; None without any.
    """

    id: str
    time: str
    pictures: tuple[LearnedPicture, ...]
    patches: int
    threshold: float
    radius: float | None = None
    defective: int = 0
    recall_before: float | None = None
    recall_after: float | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError for counts below what a lesson has."""
        if self.patches < 1 or self.defective < 0 or any(picture.patches < 0 for picture in self.pictures):
            raise ValueError("patches: wanted at least 1 in a lesson, and no count below 0")


@strict
@dataclass(frozen=True)
class Manifest:
    """Content of manifest.yaml.

    Attributes:
        tiles: how the model's input is cut apart in the graph; None where it is one picture.
        models: file of each precision that the bundle holds.
        quantization: how those of lower precision were made; none for a precision without a record.
        thresholds: of fp32, and of each precision that has none of its own.
        precision_thresholds: of the precisions that have their own.
        usability: which frames show too little to be judged, learned from good ones; None where nobody has shown any.
        learned: lessons of `edge-ad learn`, in their order; what they added stands in the float model in that order.
        inspection: what of a frame counts, and how the part is found; its pictures are files of the bundle. None for
            all of every frame.
        openvino_ir: the same as OpenVINO IR (`.xml` file), where it was asked for.
        parity, openvino_ir_parity: what the export check saw on the ONNX graph, without what it has learned since, and
            on the IR.
        files: SHA-256 of every file but the manifest and its checksum.
        tools: versions of what wrote the bundle.
    """

    schema_version: int
    model: ModelInfo
    preprocess: PreprocessSpec
    postprocess: PostprocessSpec
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    opset: int
    models: dict[Precision, str]
    files: dict[str, str]
    tiles: TileGrid | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    precision_thresholds: dict[Precision, Thresholds] = field(default_factory=dict)
    quantization: dict[Precision, Quantization] = field(default_factory=dict)
    usability: UsabilityLimits | None = None
    learned: tuple[Lesson, ...] = ()
    inspection: Inspection | None = None
    openvino_ir: dict[Precision, str] = field(default_factory=dict)
    parity: Parity | None = None
    openvino_ir_parity: Parity | None = None
    tools: dict[str, str] = field(default_factory=dict)
