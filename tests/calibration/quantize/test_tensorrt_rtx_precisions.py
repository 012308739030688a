"""The published network and MobileNetV2 in all precisions, with open and fixed batch, become plans of that precision.

TensorRT-RTX parses and compiles without a GPU; what it cannot do here is run.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import onnx
import pytest

from edge_ad.calibration.quantize.graph import Graph
from edge_ad.calibration.quantize.half import with_half

pytestmark = pytest.mark.rung(3)

ELEMENT = {"fp32": "float", "fp16": "half", "int8": "int8"}
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
FIXED = 2
PADDED = {-1: 1.25, FIXED: 5.0}
"""Most bytes of constants by batch, of the weights' bytes.

Kernels pad channels, and for a fixed batch they hold some int8 weights once for each image. Measured: 1.19 and 4.41 for
MobileNetV2 in int8, at most 1.04 for all others.
"""
LEFT_FLOAT = 0.1
"""Most that the rest of a plan of lower precision may keep in float, of the float weights' bytes."""


def with_fixed_batch(graph: bytes) -> bytes:
    """The same graph for batches of `FIXED` and nothing else."""
    model = onnx.load_model_from_string(graph)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = FIXED
    data: bytes = model.SerializeToString()
    return data


def weights_of(graph: bytes) -> int:
    """How many weights the convolutions of a float graph have."""
    model = onnx.load_model_from_string(graph)
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return sum(prod(shapes[node.input[1]]) for node in model.graph.node if node.op_type == "Conv")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    ("network", "size"), [("mobilenet", 64), ("wide_resnet", 96)], ids=["mobilenet", "wide_resnet"]
)
def test_the_plan_has_the_precision_of_the_graph(
    network: str,
    size: int,
    precision: str,
    quantized: Callable[..., bytes],
    build_plans: Callable[..., dict[str, Any]],
    request: pytest.FixtureRequest,
) -> None:
    plain: bytes = request.getfixturevalue(f"{network}_float")
    weights = weights_of(plain)
    graph = {
        "fp32": lambda: plain,
        "fp16": lambda: with_half(Graph.parse(plain)),
        "int8": lambda: quantized(plain, (size, size)),
    }[precision]()
    for batch, built_from in ((-1, graph), (FIXED, with_fixed_batch(graph))):
        plan = build_plans(built_from, ["SM86"])["SM86"]
        assert plan["built"] and plan["said"] == [], (batch, plan)
        assert plan["tensors"]["image"] == ["UINT8", batch, size, size, 3]
        payload = plan["payload_bytes"]
        size_bytes = weights * BYTES[precision]
        assert 0.95 * size_bytes <= payload[ELEMENT[precision]] <= PADDED[batch] * size_bytes, (batch, payload)
        assert set(payload) <= {"float", ELEMENT[precision]}, payload
        if precision != "fp32":
            assert payload["float"] <= LEFT_FLOAT * 4 * weights, payload
