"""The published network and MobileNetV2: exported, quantized, in a bundle, and from there to NVIDIA's builder.

Each in three precisions, for any batch and for a fixed one. The weights are drawn and rounded to the nearest int8, the
images are small; none of it changes what the builder sees of layers and types.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_ad.bundle.bundle import Bundle, write_changed
from edge_ad.bundle.specs import contract

pytestmark = pytest.mark.rung(3)

Builds = Callable[..., list[dict[str, Any]]]
SIZE = 64
FIXED, LARGEST = 2, 4
NETWORKS: dict[str, dict[str, Any]] = {
    "wide_resnet50_2": {"layers": ("layer2", "layer3"), "dims": (1536, 1536, 1024)},
    "mobilenet_v2": {"layers": ("features.6", "features.13"), "dims": (384, 384, 256)},
}
ELEMENT = {"fp32": ("float", 4), "fp16": ("half", 2), "int8": ("int8", 1)}
LEFT_FLOAT = 0.1
"""Most that biases, scales, the last convolution and the resize operators may take, of the float weights' bytes.

Measured: 0.004 for WideResNet50-2, 0.07 for MobileNetV2, whose weights are few.
"""


def padded(network: str, precision: str, batch: int) -> float:
    """Most bytes that constants may take, of the weights'.

    Kernels pad channels where layers have few. Of a fixed batch some keep int8 weights once for each image.
    """
    if network == "mobilenet_v2" and precision == "int8":
        return 5.0 if batch == FIXED else 1.25
    return 1.05


@pytest.fixture(scope="module", params=list(NETWORKS))
def bundle(
    request: pytest.FixtureRequest,
    deterministic_state: Callable[[Any], dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """A bundle as `edge-ad export` writes it, and the other two precisions beside its float graph."""
    import torch

    from edge_ad.calibration.quantize.calibrate import calibrate
    from edge_ad.calibration.quantize.graph import Graph
    from edge_ad.calibration.quantize.half import with_half
    from edge_ad.export.options import export_options
    from edge_ad.export.parity import probe_images
    from edge_ad.export.to_bundle import export_bundle
    from edge_ad.models.glass.network import Glass
    from edge_ad.models.patch_head.config import HeadConfig

    name, shape = request.param, NETWORKS[request.param]
    folder = tmp_path_factory.mktemp(name)
    network = Glass(HeadConfig(name, shape["layers"], *shape["dims"]))
    parts = {"discriminator": network.discriminator, "pre_projection": network.adaptor}
    torch.save({key: deterministic_state(part.state_dict()) for key, part in parts.items()}, folder / "ckpt.pth")
    torch.save(deterministic_state(network.backbone.trunk.state_dict()), folder / "backbone.pth")
    pretrain_embed_dim, embed_dim, hidden_dim = shape["dims"]
    options = {
        "checkpoint": folder / "ckpt.pth",
        "backbone": name,
        "backbone_weights": folder / "backbone.pth",
        "layers": shape["layers"],
        "imgsz": SIZE,
        "pretrain_embed_dim": pretrain_embed_dim,
        "embed_dim": embed_dim,
        "hidden_dim": hidden_dim,
        "output": folder / "float.edgead",
    }
    exported = export_bundle(export_options(options, "test"))
    graph = exported.read_file("model.onnx")
    images = list(probe_images((SIZE, SIZE), count=1))
    quantized = calibrate(graph, lambda _: images, "min-max")[0].build()
    files = {"model.fp16.onnx": with_half(Graph.parse(graph)), "model.int8.onnx": quantized}
    models = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
    yield write_changed(exported, folder / "three.edgead", {"models": models}, files=files).path
    shutil.rmtree(folder)  # hundreds of MB


def with_fixed_batch(bundle: Path, output: Path) -> Path:
    """The same graphs, in a bundle for `FIXED` images at once and no other number."""
    opened = Bundle.read(bundle)
    files = {}
    for name in opened.manifest.models.values():
        model = onnx.load_model_from_string(opened.read_file(name))
        for tensor in (*model.graph.input, *model.graph.output):
            tensor.type.tensor_type.shape.dim[0].dim_value = FIXED
        files[name] = model.SerializeToString()
    patch_hw = opened.manifest.outputs[0].shape[1:]
    image, outputs = contract(SIZE, SIZE, (int(patch_hw[0] or 0), int(patch_hw[1] or 0)), FIXED)
    return write_changed(opened, output, {"input": image, "outputs": outputs}, files=files).path


def weights_of(bundle: Path) -> int:
    """How many weights the convolutions of the float graph have."""
    model = onnx.load(bundle / "model.onnx")
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return sum(prod(shapes[node.input[1]]) for node in model.graph.node if node.op_type == "Conv")


def test_every_precision_becomes_an_engine_of_that_type(bundle: Path, build_engines: Builds) -> None:
    fixed = with_fixed_batch(bundle, bundle.parent / "fixed.edgead")
    cache = bundle.parent / "engines"
    wanted = list(product(ELEMENT, ((bundle, LARGEST), (fixed, FIXED))))
    common = {"flavour": "rtx", "sm": "86", "engine_cache": cache}
    results = build_engines(
        *({"bundle": path, "precision": precision, "batch": batch, **common} for precision, (path, batch) in wanted)
    )
    weights, network = weights_of(bundle), str(Bundle.read(bundle).manifest.model.config["backbone"])
    for (precision, (path, batch)), built in zip(wanted, results, strict=True):
        case = (network, precision, batch, built)
        assert "error" not in built and built["notes"] == [], case
        fingerprint = json.loads(Path(built["path"]).with_suffix(".json").read_text())["fingerprint"]
        assert fingerprint["onnx_sha256"] == Bundle.read(path).manifest.files[f"model{SUFFIX[precision]}.onnx"], case
        assert (fingerprint["batch_min"], fingerprint["batch_max"]) == (1 if batch == LARGEST else batch, batch), case
        (element, width), payload = ELEMENT[precision], built["payload"]
        size_bytes = width * weights
        assert 0.95 * size_bytes <= payload[element] <= padded(network, precision, batch) * size_bytes, case
        assert set(payload) <= {"float", element}, case
        if precision != "fp32":
            assert payload["float"] <= LEFT_FLOAT * 4 * weights, case


SUFFIX = {"fp32": "", "fp16": ".fp16", "int8": ".int8"}
"""Of the graphs' names in the bundle."""
