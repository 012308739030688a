"""Bundles with random weights, made by the project's own export: time does not depend on weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import Precision, ScoreKind
from edge_ad.calibration.quantize.calibrate import calibrate
from edge_ad.export.options import export_options
from edge_ad.export.parity import probe_images
from edge_ad.export.to_bundle import export_bundle
from edge_ad.models.backbone import Backbone
from edge_ad.models.cpr.checkpoint import checkpoint_of
from edge_ad.models.cpr.config import CprConfig
from edge_ad.models.cpr.network import Cpr, Foreground, LocalBranch
from edge_ad.models.cpr.options import KNOWN_LAYERS
from edge_ad.models.cpr.specs import SIDE as CPR_SIDE
from edge_ad.models.diffusionad.config import MULTIPLIERS, DiffusionAdConfig, strides_of
from edge_ad.models.diffusionad.network import DiffusionAd
from edge_ad.models.draem.config import DraemConfig
from edge_ad.models.draem.network import Draem
from edge_ad.models.efficientad.config import WIDTHS, EfficientAdConfig, PdnSize
from edge_ad.models.efficientad.network import EfficientAd
from edge_ad.models.efficientad.statistics import measure_quantiles, measure_teacher
from edge_ad.models.glass.network import Glass
from edge_ad.models.patch_head.config import HeadConfig
from edge_ad.models.patchcore.checkpoint import checkpoint_parts
from edge_ad.models.patchcore.config import PatchCoreConfig
from edge_ad.models.patchcore.network import PatchCore
from edge_ad.models.simplenet.network import SimpleNet


@dataclass(frozen=True)
class Network:
    """A detector of the suite with a backbone.

    Attributes:
        backbone, layers: as for `edge-ad export`.
        side: rows and columns of the model input.
        embed_dim, hidden_dim: sizes of the head.
        family: glass or simplenet.
    """

    backbone: str
    layers: tuple[str, ...]
    side: int
    embed_dim: int
    hidden_dim: int
    family: str = "glass"


@dataclass(frozen=True)
class Reconstructing:
    """DRAEM of the suite.

    Attributes:
        config: its widths.
        side: rows and columns of the model input.
    """

    config: DraemConfig
    side: int


@dataclass(frozen=True)
class Denoising:
    """DiffusionAD of the suite.

    Attributes:
        width, segmentation: of the UNet's first level, and of the segmentation's first block.
        groups: of a normalisation.
        side: rows and columns of the model input.
        passes: 2 as published, or 1.
    """

    width: int
    segmentation: int
    groups: int
    side: int
    passes: int = 2


@dataclass(frozen=True)
class StudentTeacher:
    """EfficientAD of the suite, at 256². Attributes: size: of its teacher and student, as published."""

    size: PdnSize


@dataclass(frozen=True)
class Searching:
    """PatchCore of the suite.

    Attributes:
        config: its features.
        entries: of its bank.
        side: rows and columns of the model input.
    """

    config: PatchCoreConfig
    entries: int
    side: int


@dataclass(frozen=True)
class Retrieving:
    """CPR of the suite, of an object.

    Attributes:
        backbone: its frozen network.
        references: how many pictures it keeps.
    """

    backbone: str
    references: int


FAST_FEATURES = PatchCoreConfig("mobilenet_v2", ("features.6", "features.13"), "averaged", embed_dim=128)
NETWORKS = {
    "mobilenet_v2-256": Network("mobilenet_v2", ("features.6", "features.13"), 256, 512, 256),
    "resnet18-256": Network("resnet18", ("layer2", "layer3"), 256, 384, 256),
    "wide_resnet50_2-288": Network("wide_resnet50_2", ("layer2", "layer3"), 288, 1536, 1024),
}
Detector = Network | Reconstructing | Denoising | StudentTeacher | Searching | Retrieving
OTHER_FAMILIES: dict[str, Detector] = {
    "simplenet-wide_resnet50_2-288": Network("wide_resnet50_2", ("layer2", "layer3"), 288, 1536, 1024, "simplenet"),
    "draem-16-128": Reconstructing(DraemConfig(16, 16), 128),
    "draem-32-256": Reconstructing(DraemConfig(32, 16), 256),
    "draem-128-256": Reconstructing(DraemConfig(), 256),
    "diffusionad-32-64": Denoising(32, 16, 8, 64),
    "diffusionad-32-64-one-pass": Denoising(32, 16, 8, 64, passes=1),
    "diffusionad-32-256": Denoising(32, 16, 8, 256),
    "diffusionad-128-256": Denoising(128, 64, 32, 256),
    "efficientad-small-256": StudentTeacher("small"),
    "efficientad-medium-256": StudentTeacher("medium"),
    "patchcore-mobilenet_v2-256-2048": Searching(FAST_FEATURES, 2048, 256),
    "patchcore-wide_resnet50_2-224-1639": Searching(PatchCoreConfig(), 1639, 224),
    "patchcore-wide_resnet50_2-224-16386": Searching(PatchCoreConfig(), 16386, 224),
    "cpr-mobilenet_v2-320": Retrieving("mobilenet_v2", 31),
    "cpr-densenet201-320": Retrieving("densenet201", 31),
}
"""Named after the family; DRAEM's after the width of its reconstruction (the last one is the published one),
DiffusionAD's after its UNet's;
PatchCore's after the entries of its bank: 1 % of 200 pictures at 256², and 1 % and 10 % of 209 at 224². CPR's compare a
picture with 10 of 31."""


def write_weights(network: Network, folder: Path) -> tuple[Path, Path]:
    """Draw weights. Returns: checkpoint in the authors' format, and weights of the backbone."""
    torch.manual_seed(0)
    config = HeadConfig(network.backbone, network.layers, network.embed_dim, network.embed_dim, network.hidden_dim)
    made = SimpleNet(config) if network.family == "simplenet" else Glass(config)
    checkpoint, weights = folder / "ckpt_best_0.pth", folder / "backbone.pth"
    parts = {"discriminator": made.discriminator.state_dict(), "pre_projection": made.adaptor.state_dict()}
    torch.save(parts, checkpoint)
    torch.save(made.backbone.trunk.state_dict(), weights)
    return checkpoint, weights


def export_network(network: Detector, folder: Path) -> Bundle:
    """A bundle with the float model, and the weights that it came from, in `folder`."""
    folder.mkdir(parents=True)
    if isinstance(network, Reconstructing):
        return _export_reconstructing(network, folder)
    if isinstance(network, Denoising):
        return _export_denoising(network, folder)
    if isinstance(network, StudentTeacher):
        return _export_student_teacher(network, folder)
    if isinstance(network, Searching):
        return _export_searching(network, folder)
    if isinstance(network, Retrieving):
        return _export_retrieving(network, folder)
    checkpoint, weights = write_weights(network, folder)
    return export_weights(network, checkpoint, weights, folder / "network.edgead")


def _export_reconstructing(network: Reconstructing, folder: Path) -> Bundle:
    torch.manual_seed(0)
    made = Draem(network.config)
    torch.save(made.reconstruction.state_dict(), folder / "drawn.pckl")
    torch.save(made.segmentation.state_dict(), folder / "drawn_seg.pckl")
    return _exported(
        {"checkpoint": folder / "drawn.pckl", "imgsz": network.side, "output": folder / "network.edgead"}, "draem"
    )


def _export_denoising(network: Denoising, folder: Path) -> Bundle:
    torch.manual_seed(0)
    side = network.side
    levels = MULTIPLIERS[side], strides_of(side)
    made = DiffusionAd(DiffusionAdConfig(network.width, *levels, network.segmentation, groups=network.groups))
    settings = {"img_size": side, "groups": network.groups}
    parts = {"unet_model_state_dict": made.unet.state_dict(), "seg_model_state_dict": made.segmentation.state_dict()}
    torch.save({"n_epoch": 0, **parts, "args": settings}, folder / "drawn.pt")
    placed = {"checkpoint": folder / "drawn.pt", "output": folder / "network.edgead"}
    return _exported({**placed, "passes": network.passes}, "diffusionad")


def _export_student_teacher(network: StudentTeacher, folder: Path) -> Bundle:
    torch.manual_seed(0)
    made = EfficientAd(EfficientAdConfig(network.size, WIDTHS[network.size])).eval()
    images = list(probe_images((256, 256), count=2))
    measure_teacher(made, images)
    measure_quantiles(made, images)
    parts = {part: made.get_submodule(part).state_dict() for part in ("teacher", "student", "autoencoder")}
    measured = {name: getattr(made, name) for name in ("mean", "std", "quantiles")}
    torch.save({**parts, **measured}, folder / "drawn.pth")
    return _exported({"checkpoint": folder / "drawn.pth", "output": folder / "network.edgead"}, "efficientad")


def _export_searching(network: Searching, folder: Path) -> Bundle:
    torch.manual_seed(0)
    made = PatchCore(network.config, torch.randn(network.entries, network.config.embed_dim))
    torch.save(checkpoint_parts(made), folder / "bank.pth")
    torch.save(made.backbone.trunk.state_dict(), folder / "backbone.pth")
    values = {"checkpoint": folder / "bank.pth", "backbone_weights": folder / "backbone.pth"}
    placed = {"imgsz": network.side, "resize_mode": "stretch", "output": folder / "network.edgead"}
    return _exported({**values, **placed}, "patchcore")


def _export_retrieving(network: Retrieving, folder: Path) -> Bundle:
    torch.manual_seed(0)
    backbone = Backbone(network.backbone, KNOWN_LAYERS[network.backbone]).eval()
    channels = [shape[0] for shape in backbone.shapes(CPR_SIDE, CPR_SIDE)]
    pictures = torch.from_numpy(probe_images((CPR_SIDE, CPR_SIDE), network.references, seed=1))
    config, foreground = (
        CprConfig(network.backbone, backbone.taps),
        Foreground(torch.randn(channels[0]), torch.tensor(0.5)),
    )
    centres, lrb = torch.randn(12, channels[0]), LocalBranch(channels)
    for layer in lrb.modules():
        if isinstance(layer, torch.nn.Conv2d):  # torch's default lets biases alone speak, and all patches look alike
            torch.nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
    made = Cpr(config, backbone, lrb, centres, foreground, pictures, ()).eval()
    torch.save(checkpoint_of(made), folder / "drawn.pth")
    return _exported({"checkpoint": folder / "drawn.pth", "output": folder / "network.edgead"}, "cpr")


def export_weights(
    network: Network, checkpoint: Path, weights: Path, output: Path, score: ScoreKind = "map_max"
) -> Bundle:
    """A bundle of a checkpoint in the authors' format."""
    values = {
        "checkpoint": checkpoint,
        "backbone": network.backbone,
        "backbone_weights": weights,
        "layers": list(network.layers),
        "imgsz": network.side,
        "pretrain_embed_dim": network.embed_dim,
        "score": score,
        "output": output,
    }
    return _exported(values, network.family)


def _exported(values: dict[str, Any], family: str) -> Bundle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter
        return export_bundle(export_options({"family": family, **values}, "benchmark"))


def with_int8(bundle: Bundle, output: Path) -> Bundle:
    """The same with a quantized model beside the float one, calibrated on made pictures; its accuracy is unproven."""
    graph = bundle.read_file(bundle.model_file("fp32"))
    images = list(probe_images(bundle.manifest.preprocess.size_hw, count=4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ONNX Runtime's quantizer
        data = calibrate(graph, lambda _: images, "min-max")[0].build()
    models: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
    return write_changed(bundle, output, {"models": models}, files={"model.int8.onnx": data})
