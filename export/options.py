"""Options of `edge-ad export`, the same from the command line and from a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edge_ad.bundle.consistency import MAX_BATCH, MAX_OPSET, MIN_OPSET
from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec, ResizeMode, ScoreKind
from edge_ad.errors import ConfigError
from edge_ad.models import model_family
from edge_ad.models.family import NetworkOptions
from edge_ad.models.option_types import Name, Names, Positive, Size
from edge_ad.training_run import export_values, is_run
from edge_ad.validation import build_rest, by_name, strict

ExportFormat = Literal["onnx", "openvino", "engine"]


@strict
@dataclass(frozen=True)
class ExportOptions:
    """Everything `edge-ad export` can be told.

    Attributes:
        checkpoint: trained model in the official format of its family, or the folder of a training run, which then
            says the rest.
        output: directory of the bundle to write.
        family: model family.
        backbone, backbone_weights, layers: network that gives the features, its weights, its taps.
        imgsz: model input, (height, width) in pixels; written `288` or `256x320`.
        resize: shorter side before the centre crop; `min(imgsz)` when None.
        resize_mode: see PreprocessSpec.
        embed_dim, pretrain_embed_dim, hidden_dim: sizes of the head; read from the checkpoint where they can be.
        score: see PostprocessSpec.
        threshold: raw score from which on a frame is anomalous, written into the bundle.
        format: `onnx` alone, or with `openvino` IR beside it; `engine` writes what `onnx` does, and the command then
            builds an engine from it.
        batch: fixed batch size of the graph; None leaves it open.
        opset: ONNX operator set, 13 to 17.
        force: replace an existing bundle.
    """

    checkpoint: Path
    output: Path
    family: Name = "glass"
    backbone: Name | None = None
    backbone_weights: Path | None = None
    layers: Names | None = None
    imgsz: Size = (288, 288)
    resize: Positive | None = None
    resize_mode: ResizeMode = "shorter_side_crop"
    embed_dim: Positive | None = None
    pretrain_embed_dim: Positive | None = None
    hidden_dim: Positive | None = None
    score: ScoreKind = "map_max"
    threshold: float | None = None
    format: ExportFormat = "onnx"
    batch: Annotated[int, Field(gt=0, le=MAX_BATCH)] | None = None
    opset: Annotated[int, Field(ge=MIN_OPSET, le=MAX_OPSET)] = MAX_OPSET
    force: bool = False

    @property
    def network(self) -> NetworkOptions:
        names = [field.name for field in fields(NetworkOptions)]
        return NetworkOptions(**{name: getattr(self, name) for name in names})

    @property
    def preprocess(self) -> PreprocessSpec:
        height, width = self.imgsz
        resize = None
        if self.resize_mode == "shorter_side_crop":
            resize = self.resize if self.resize is not None else min(self.imgsz)
        return PreprocessSpec(height=height, width=width, resize_mode=self.resize_mode, resize=resize)

    @property
    def postprocess(self) -> PostprocessSpec:
        return PostprocessSpec(score=self.score)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is allowed and yet hardly meant, one line each."""
        if self.threshold is None or 0 <= self.threshold <= 1:
            return ()
        return (f"scores lie between 0 and 1; threshold {self.threshold:g} gives one verdict to all frames",)


NAMES = frozenset(field.name for field in fields(ExportOptions))


def export_options(values: dict[str, Any], where: str, overrides: dict[str, Any] | None = None) -> ExportOptions:
    """Check options by name.

    A file that lacks is a fault only beside others: alone, reading it raises CheckpointError.

    Args:
        values: by name, words joined by `_` or `-`; None is the same as not given.
        overrides: by field name; they win.

    Raises: ConfigError with every fault; CheckpointError for the folder of a run without a checkpoint.
    """
    named, faults = by_name(values)
    named |= {key: value for key, value in (overrides or {}).items() if value is not None}
    given = {key: value for key, value in named.items() if value is not None or key not in NAMES}
    if isinstance(given.get("checkpoint"), (str, Path)) and is_run(Path(given["checkpoint"])):
        given = export_values(Path(given["checkpoint"])) | {k: v for k, v in given.items() if k != "checkpoint"}
    options, wrong = build_rest(ExportOptions, given, {"checkpoint": Path(), "output": Path()})
    faulty = {fault.key for fault in wrong}
    faults += [fault.line for fault in wrong]
    faults += [*_contradictions(options), *_network_faults(options, faulty)]
    if faults:
        raise ConfigError(where, [*faults, *_missing_files(options, faulty)])
    return options


def _contradictions(options: ExportOptions) -> list[str]:
    faults = []
    if options.resize is not None and options.resize_mode != "shorter_side_crop":
        faults.append(f"resize: belongs to resize_mode shorter_side_crop, not to {options.resize_mode}; leave it out")
    if options.layers is not None and len(set(options.layers)) != len(options.layers):
        faults.append(f"layers: {', '.join(options.layers)} names a layer twice")
    return faults


def _network_faults(options: ExportOptions, faulty: set[str]) -> list[str]:
    """What the family says of the network, as far as the options that it depends on are not `faulty` themselves."""
    try:
        family = model_family(options.family)
    except ConfigError as exc:
        return [f"{exc.where}: {fault}" for fault in exc.faults]
    if faulty & {"family", "backbone"}:
        return []
    return family.faults(replace(options.network, layers=()) if "layers" in faulty else options.network)


def _missing_files(options: ExportOptions, faulty: set[str]) -> list[str]:
    from edge_ad.models.weights import file_fault

    files = {"checkpoint": options.checkpoint, "backbone_weights": options.backbone_weights}
    found = {key: (path, file_fault(path)) for key, path in files.items() if path is not None and key not in faulty}
    return [f"{key}: {path}: {fault}" for key, (path, fault) in found.items() if fault]
