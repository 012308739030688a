"""Small GLASS graphs, their Q/DQ form, and NVIDIA's builder in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

SUPPORT = Path(__file__).resolve().parents[2] / "support"
BUILD_SECONDS = 120

Quantizer = Callable[[bytes, tuple[int, int]], bytes]
Builder = Callable[[bytes, Sequence[str]], dict[str, Any]]
GraphMaker = Callable[..., bytes]


@pytest.fixture(scope="session")
def glass_graph(deterministic_state: Callable[[Any], dict[str, Any]]) -> GraphMaker:
    """Float ONNX of a GLASS network with drawn weights: (config, size_hw) → bytes, dynamic batch, opset 17."""
    from edge_ad.bundle.specs import PostprocessSpec, PreprocessSpec
    from edge_ad.export.onnx_graph import graph_from_module
    from edge_ad.models import model_family
    from edge_ad.models.contract import fast_module
    from edge_ad.models.family import LoadedNetwork
    from edge_ad.models.glass.network import Glass
    from edge_ad.models.patch_head.config import HeadConfig

    def make(config: HeadConfig, size_hw: tuple[int, int]) -> bytes:
        network = Glass(config).eval().requires_grad_(False)
        network.load_state_dict(deterministic_state(network.state_dict()))
        loaded = LoadedNetwork(network, {}, "")
        module = fast_module(model_family("glass"), loaded, PreprocessSpec(*size_hw, resize=64), PostprocessSpec())
        return graph_from_module(module, size_hw, batch=None, opset=17).data

    return make


@pytest.fixture(scope="session")
def resnet18_float(glass_graph: GraphMaker) -> bytes:
    """ResNet18 with taps layer2 and layer3, 64×64."""
    from edge_ad.models.patch_head.config import HeadConfig

    return glass_graph(HeadConfig("resnet18", ("layer2", "layer3"), 96, 96, 64), (64, 64))


@pytest.fixture(scope="session")
def mobilenet_float(glass_graph: GraphMaker) -> bytes:
    """MobileNetV2 with taps 6 and 13, 64×64: grouped convolutions and clipped activations."""
    from edge_ad.models.patch_head.config import HeadConfig

    return glass_graph(HeadConfig("mobilenet_v2", ("features.6", "features.13"), 96, 96, 64), (64, 64))


@pytest.fixture(scope="session")
def quantized() -> Quantizer:
    """Float ONNX and size of its images → the Q/DQ form that ships: bytes → bytes, made once for each graph."""
    from edge_ad.calibration.quantize.calibrate import calibrate
    from edge_ad.export.parity import probe_images

    made: dict[bytes, bytes] = {}

    def quantize(float_onnx: bytes, size_hw: tuple[int, int]) -> bytes:
        if float_onnx not in made:
            images = list(probe_images(size_hw, count=3))
            made[float_onnx] = calibrate(float_onnx, lambda _: images, "min-max")[0].build()
        return made[float_onnx]

    return quantize


@pytest.fixture(scope="session")
def quantized_otherwise() -> Callable[..., bytes]:
    """onnxruntime's quantizer with other options, for graphs that must be refused."""
    return quantized_graph


def quantized_graph(float_onnx: bytes, size_hw: tuple[int, int], **changes: Any) -> bytes:
    """Convolutions but the last in int8; `changes` are passed on to onnxruntime's quantizer.

    A residual sum takes its shortcut through a pair, and the convolution's result as it is.
    """
    import tempfile

    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    from edge_ad.export.parity import probe_images

    model = onnx.load_model_from_string(float_onnx)
    last = [node.name for node in model.graph.node if node.op_type == "Conv"][-1]
    options: dict[str, Any] = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    extra = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": True,
        "OpTypesToExcludeOutputQuantization": ["Conv"],
    }
    extra |= changes.pop("extra_options", {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            model,
            path,
            Images(probe_images(size_hw, count=2)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[last],
            extra_options=extra,
            **(options | changes),
        )
        data: bytes = with_own_pairs(onnx.load_model(path)).SerializeToString()
        return data


class Images:
    """Pictures for onnxruntime's quantizer, one at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self._images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image[None]}


def with_own_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in which every Q/DQ pair feeds one node."""
    nodes = list(model.graph.node)
    producer = {name: node for node in nodes for name in node.output}
    taken: dict[str, int] = {}
    ordered: list[onnx.NodeProto] = []
    for node in nodes:
        for index, name in enumerate(node.input):
            source = producer.get(name)
            if source is None or source.op_type != "DequantizeLinear":
                continue
            taken[name] = taken.get(name, 0) + 1
            if taken[name] > 1:
                pair = [copied(part, f"_{taken[name]}") for part in (producer[source.input[0]], source)]
                pair[1].input[0] = pair[0].output[0]
                node.input[index] = pair[1].output[0]
                ordered += pair
        ordered.append(node)
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    return model


def copied(node: onnx.NodeProto, suffix: str) -> onnx.NodeProto:
    """A node that computes the same into a tensor of its own."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name += suffix
    copy.output[0] += suffix
    return copy


@pytest.fixture(scope="session")
def build_plans(tensorrt_rtx: None, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Builds an ONNX graph with TensorRT-RTX, without a GPU: (graph, compute capabilities) → result of each.

    A result says `parsed`, `built`, what was `said`, the `tensors`, and the `payload_bytes` of constants by type.
    """

    def build(graph: bytes, targets: Sequence[str]) -> dict[str, Any]:
        path = tmp_path_factory.mktemp("plan") / "model.onnx"
        path.write_bytes(graph)
        command = [sys.executable, str(SUPPORT / "build_with_tensorrt_rtx.py"), str(path), *targets]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS)
        assert done.returncode == 0, f"the builder ended with {done.returncode}: {done.stderr[-2000:]}"
        plans: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["plans"]
        return plans

    return build
