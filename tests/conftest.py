"""What several test modules need: deterministic weights, a small checkpoint, a small bundle, the photographs."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
TINY_EXPORT = {"backbone": "resnet18", "layers": "layer1,layer2", "imgsz": 64, "pretrain_embed_dim": 48}


@pytest.fixture(scope="session")
def deterministic_state() -> Callable[[Any], dict[str, Any]]:
    """Weights drawn by tensor name, as tests/golden/README.md describes: state dict → state dict."""
    import torch

    def draw(state: Any) -> dict[str, Any]:
        drawn = {}
        for name, tensor in state.items():
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            shape = tuple(tensor.shape)
            if name.endswith("num_batches_tracked"):
                value = np.zeros(shape)
            elif name.endswith("running_mean"):
                value = 0.1 * rng.standard_normal(shape)
            elif name.endswith("running_var"):
                value = rng.uniform(0.5, 1.5, shape)
            elif len(shape) == 4:
                value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
            elif len(shape) == 2:
                value = rng.standard_normal(shape) * np.sqrt(1 / shape[1])
            elif len(shape) == 1 and name.endswith("weight"):
                value = rng.uniform(0.5, 1.0, shape)
            else:
                value = 0.1 * rng.standard_normal(shape)
            drawn[name] = torch.as_tensor(value).to(tensor.dtype)
        return drawn

    return draw


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, deterministic_state: Any) -> tuple[Path, Path]:
    """An official-format GLASS checkpoint for resnet18 (layer1, layer2; 48/48/32), and its backbone's weights."""
    import torch

    from edge_ad.models.glass.network import Glass, GlassConfig

    network = Glass(GlassConfig("resnet18", ("layer1", "layer2"), 48, 48, 32))
    folder = tmp_path_factory.mktemp("checkpoint")
    parts = {"discriminator": network.discriminator, "pre_projection": network.adaptor}
    torch.save({key: deterministic_state(part.state_dict()) for key, part in parts.items()}, folder / "ckpt_best_1.pth")
    torch.save(deterministic_state(network.backbone.trunk.state_dict()), folder / "backbone.pth")
    return folder / "ckpt_best_1.pth", folder / "backbone.pth"


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: tuple[Path, Path]) -> Path:
    """A bundle of the small checkpoint: 64×64 input, 16×16 patches, threshold 0.5, dynamic batch. Do not change it."""
    from edge_ad.export.options import export_options
    from edge_ad.export.to_bundle import export_bundle

    checkpoint, weights = tiny_checkpoint
    output = tmp_path_factory.mktemp("bundle") / "tiny.edgead"
    values = {**TINY_EXPORT, "checkpoint": checkpoint, "backbone_weights": weights, "output": output, "threshold": 0.5}
    return export_bundle(export_options(values, "test")).path


@pytest.fixture(scope="session")
def halved_graph(tiny_bundle: Path) -> bytes:
    """The graph of the small bundle with all outputs halved, which floating point does exactly."""
    import onnx

    graph = onnx.load(tiny_bundle / "model.onnx")
    outputs = {output.name: f"{output.name}_whole" for output in graph.graph.output}
    for node in graph.graph.node:
        node.input[:] = [outputs.get(name, name) for name in node.input]
        node.output[:] = [outputs.get(name, name) for name in node.output]
    half = onnx.helper.make_tensor("half", onnx.TensorProto.FLOAT, [], [0.5])
    graph.graph.initializer.append(half)
    graph.graph.node.extend(onnx.helper.make_node("Mul", [whole, "half"], [name]) for name, whole in outputs.items())
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())


@pytest.fixture(scope="session")
def two_precisions(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, halved_graph: bytes) -> Path:
    """The small bundle with the halved graph as an unproven int8 one and no thresholds of its own. Do not change it."""
    from edge_ad.bundle import Bundle, write_changed

    files = {"model.int8.onnx": halved_graph}
    changes = {"models": {"fp32": "model.onnx", "int8": "model.int8.onnx"}}
    path = tmp_path_factory.mktemp("bundle") / "two.edgead"
    return write_changed(Bundle.read(tiny_bundle), path, changes, files=files).path


@pytest.fixture(scope="session")
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of compiled engines that is not the user's."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with `data/` (photographs) and `checkpoints/`: EDGE_AD_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("EDGE_AD_SHARED", ROOT.parent / "shared"))
    if not (folder / "data" / "cookies").is_dir():
        pytest.skip("no photographs: EDGE_AD_SHARED names no folder with data/cookies")
    return folder
