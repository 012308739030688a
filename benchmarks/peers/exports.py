"""The same weights in the form of every peer: published graph, bundles of edge-ad, exports of anomalib."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from environment import UnavailableError
from suite.networks import Network
from torch import Tensor, nn

from edge_ad.models.glass.checkpoint import load_glass
from edge_ad.models.patch_head.options import HeadOptions

HERE = Path(__file__).parent
LONGEST_S = 1800
Exports = dict[str, dict[str, str]]
"""Paths of exports of anomalib: by the name of a size, and then `openvino` and `onnx`."""


@dataclass(frozen=True)
class Weights:
    """A trained or random network.

    Attributes:
        network: its structure.
        checkpoint, backbone: files in the authors' format.
    """

    network: Network
    checkpoint: Path
    backbone: Path


class PatchProbabilities(nn.Module):
    """(1, 3, H, W) float32 normalised RGB → (1, h, w) float32: the authors' network, without their post-process."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(self.network(image))


def published_graph(weights: Weights, path: Path) -> Path:
    """The network as published, traced as it is."""
    network = weights.network
    options = HeadOptions(
        backbone=network.backbone,
        backbone_weights=weights.backbone,
        layers=network.layers,
        pretrain_embed_dim=network.embed_dim,
    )
    module: nn.Module = PatchProbabilities(load_glass(weights.checkpoint, options).network).eval()
    example = torch.zeros((1, 3, network.side, network.side))
    with warnings.catch_warnings(), torch.no_grad(), pooling_that_is_exported():
        warnings.simplefilter("ignore")
        module(example)  # makes the matrices, so that they are constants of the graph
        torch.onnx.export(module, (example,), path, dynamo=False, opset_version=17, input_names=["image"])
    return path


@contextmanager
def pooling_that_is_exported() -> Iterator[None]:
    """Compute adaptive pooling with overlapping windows as a matrix product, for the exporter knows no operator for it.

    Where the sizes divide, as for WideResNet50-2, it stays what it is.
    """
    original = F.adaptive_avg_pool1d
    matrices: dict[tuple[int, int], Tensor] = {}

    def pool(values: Tensor, length: int) -> Tensor:
        given = int(values.shape[-1])
        if given % length == 0:
            return original(values, length)
        if (given, length) not in matrices:
            matrices[given, length] = original(torch.eye(given), length)
        return values @ matrices[given, length]

    F.adaptive_avg_pool1d = pool
    try:
        yield
    finally:
        F.adaptive_avg_pool1d = original


def anomalib_exports(weights: Weights, python: Path, frame_hw: tuple[int, int], folder: Path) -> dict[str, str]:
    """Let anomalib export the weights. Returns: paths, `openvino` and `onnx`. Raises: UnavailableError."""
    network = weights.network
    told: dict[str, Any] = {
        "checkpoint": str(weights.checkpoint),
        "weights": str(weights.backbone),
        "backbone": network.backbone,
        "layers": list(network.layers),
        "side": network.side,
        "embed_dim": network.embed_dim,
        "hidden_dim": network.hidden_dim,
        "resize_hw": resized(frame_hw, network.side),
        "frames": {"frame": list(frame_hw)},
    }
    return exported(python, "anomalib_export.py", told, folder)["frame"]


def exported(python: Path, script: str, told: Mapping[str, Any], folder: Path) -> Exports:
    """Let a script of this folder export in anomalib's environment.

    Args:
        script: reads its argument, and ends with one line of JSON on standard output.
        told: what it is told beside `output`, which is `folder`; `frames` are sizes by name.

    Returns: paths by the name of a size. Raises: UnavailableError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(python), str(HERE / script), json.dumps({**told, "output": str(folder)})]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise UnavailableError(f"anomalib's export took longer than {LONGEST_S} s") from exc
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UnavailableError(f"anomalib's export failed: {lines[-1] if lines else 'without a word'}")
    paths: Exports = json.loads(done.stdout.splitlines()[-1])
    return paths


def resized(frame_hw: tuple[int, int], side: int) -> list[int]:
    """Rows and columns when the shorter side becomes `side`, as torchvision rounds."""
    height, width = frame_hw
    return [side, side * width // height] if width >= height else [side * height // width, side]


def installed_mib(python: Path | str, *roots: str) -> float:
    """Size of an installation, see `sizes.py`."""
    command = [str(python), str(HERE / "sizes.py"), *roots]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return float(json.loads(done.stdout)["installed_mib"])


def own_files_mib() -> float:
    """edge-ad's own files, which an editable installation leaves where they are."""
    from importlib import import_module

    total = 0
    for name in ("edge_ad", "edge_ad.export", "edge_ad.calibration", "edge_ad.runtime"):
        folder = Path(import_module(name).__path__[0])
        total += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return total / (1 << 20)


THIS_PYTHON = sys.executable
