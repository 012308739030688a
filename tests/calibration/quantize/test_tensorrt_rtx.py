"""NVIDIA's own builder takes the Q/DQ graphs, keeps the weights int8 and refuses what the lint refuses.

TensorRT-RTX parses and compiles without a GPU; what it cannot do here is run.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import onnx
import pytest

pytestmark = pytest.mark.rung(3)

Bytes = Callable[..., bytes]
Plans = Callable[..., dict[str, Any]]
TARGETS = ("SM86", "SM89")
SIZE_HW = (64, 64)
LEFT_FLOAT = 0.1
"""Most that biases, scales, the last convolution and the resize operators may take, of the float weights' bytes.

Measured: 0.004 for ResNet18, 0.064 for MobileNetV2, whose weights are few.
"""


def int8_bytes(graph: bytes) -> int:
    """Weights that the graph quantizes, one byte each."""
    model = onnx.load_model_from_string(graph)
    stored = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    quantized = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return sum(prod(dims) for name, dims in stored.items() if name in quantized)


def float_bytes(graph: bytes) -> int:
    """Weights of the convolutions that are not quantized, four bytes each."""
    model = onnx.load_model_from_string(graph)
    stored = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return sum(4 * prod(stored.get(node.input[1], [0])) for node in model.graph.node if node.op_type == "Conv")


# Kernels pad channels to what they want, which shows where layers have few: measured 1.001 and 1.19.
@pytest.mark.parametrize(
    ("network", "padded"), [("resnet18", 1.01), ("mobilenet", 1.25)], ids=["resnet18", "mobilenet"]
)
def test_the_plan_holds_int8_weights(
    network: str, padded: float, quantized: Bytes, build_plans: Plans, request: pytest.FixtureRequest
) -> None:
    """The published network is built from a bundle, in tests/runtime/engines/tensorrt/builder."""
    plain: bytes = request.getfixturevalue(f"{network}_float")
    graph = quantized(plain, SIZE_HW)
    weights = int8_bytes(graph)
    assert 0.95 * float_bytes(plain) <= 4 * weights < float_bytes(plain)
    for target, plan in build_plans(graph, TARGETS).items():
        assert plan["built"] and plan["said"] == [], (target, plan)
        payload = plan["payload_bytes"]
        assert weights <= payload["int8"] <= padded * weights, (target, payload, weights)
        assert payload["float"] <= LEFT_FLOAT * 4 * weights, (target, payload, weights)
        assert payload["int8"] + payload["float"] == sum(payload.values()), (target, payload)


def test_the_plan_has_the_contract(resnet18_float: bytes, quantized: Bytes, build_plans: Plans) -> None:
    plan = build_plans(quantized(resnet18_float, SIZE_HW), ["SM86"])["SM86"]
    assert plan["tensors"] == {
        "image": ["UINT8", -1, 64, 64, 3],
        "patch_map": ["FLOAT", -1, 8, 8],
        "anomaly_map": ["FLOAT", -1, 64, 64],
        "pred_score": ["FLOAT", -1],
    }


def test_the_float_plan_holds_no_int8(resnet18_float: bytes, build_plans: Plans) -> None:
    """Control: the same text of the plan, read the same way, tells float weights from int8 ones."""
    weights = float_bytes(resnet18_float)
    for target, plan in build_plans(resnet18_float, TARGETS).items():
        assert plan["built"], (target, plan)
        assert plan["payload_bytes"].get("int8", 0) == 0
        assert weights <= plan["payload_bytes"]["float"] <= (1 + LEFT_FLOAT) * weights


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_type": "QUInt8", "extra_options": {"ActivationSymmetric": False}}, "zero point"),
        ({"extra_options": {"ActivationSymmetric": False}}, "zero point"),
        ({"extra_options": {"QuantizeBias": True}}, "Int32"),
    ],
    ids=["uint8", "asymmetric", "int32 bias"],
)
def test_the_builder_refuses_what_the_lint_refuses(
    resnet18_float: bytes, quantized_otherwise: Bytes, build_plans: Plans, changes: dict[str, Any], words: str
) -> None:
    from onnxruntime.quantization import QuantType

    from edge_ad.calibration.quantize.lint import qdq_faults

    if "activation_type" in changes:
        changes = changes | {"activation_type": QuantType[changes["activation_type"]]}
    graph = quantized_otherwise(resnet18_float, SIZE_HW, **changes)
    assert qdq_faults(onnx.load_model_from_string(graph))
    for target, plan in build_plans(graph, TARGETS).items():
        assert not plan["built"], (target, plan)
        assert any(words.lower() in line.lower() for line in plan["said"]), (target, plan)


def test_uint8_without_offset_is_taken_for_int8_so_the_lint_refuses_it(
    resnet18_float: bytes, quantized: Bytes, build_plans: Plans
) -> None:
    """Where the builder does not refuse, it warns and halves the range: such a plan computes something else."""
    from edge_ad.calibration.quantize.lint import qdq_faults

    model = onnx.load_model_from_string(quantized(resnet18_float, SIZE_HW))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    activations = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in stored]
    for name in {node.input[2] for node in activations}:
        stored[name].CopyFrom(onnx.numpy_helper.from_array(np.zeros((), np.uint8), name))
    assert len([fault for fault in qdq_faults(model) if "its type is uint8" in fault]) == len(activations)
    plan = build_plans(model.SerializeToString(), ["SM86"])["SM86"]
    assert not plan["built"] or any("UINT8" in line for line in plan["said"]), plan


def test_a_builder_that_dies_is_noticed(build_plans: Plans) -> None:
    with pytest.raises(AssertionError, match="the builder ended with"):
        build_plans(b"", ["SM1"])
