"""How many multiply-accumulates a graph has: whole numbers, from the shapes that OpenVINO works out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from edge_ad.bundle.graph.contract import CheckedGraph
from edge_ad.errors import EngineError
from edge_ad.openvino_core import openvino_core, openvino_reason

NOT_COUNTED = frozenset(
    {
        "DeformableConvolution",
        "Einsum",
        "GRUSequence",
        "If",
        "LSTMSequence",
        "Loop",
        "RNNSequence",
        "ScaledDotProductAttention",
        "TensorIterator",
    }
)


@dataclass(frozen=True)
class Macs:
    """What a graph multiplies.

    Attributes:
        count: multiply-accumulates of the convolutions and matrix products, for one call of the graph.
        not_counted: kinds of layers in the graph that multiply too, and are not in `count`.
    """

    count: int
    not_counted: tuple[str, ...] = ()


def graph_macs(graph: CheckedGraph, input_shape: Sequence[int]) -> Macs:
    """Count those of an ONNX graph that depend on the image; what is constant is computed once, not for each frame.

    Padding counts as values do, as everybody counts it.

    Args:
        graph: ONNX model with one input.
        input_shape: of that, such as (1, 288, 288, 3).

    Raises: EngineError when OpenVINO cannot read it or find all shapes.
    """
    try:
        model = openvino_core().read_model(io.BytesIO(graph))
        model.reshape(list(input_shape))
        return model_macs(model)
    except Exception as exc:  # see the engine
        raise EngineError(f"OpenVINO cannot find the shapes in the graph: {openvino_reason(exc)}") from exc


def model_macs(model: Any) -> Macs:
    """The same for an `openvino.Model` whose shapes are fixed."""
    count, others = 0, set()
    varying: set[str] = set()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        inputs = [node.input_value(index) for index in range(node.get_input_size())]
        if kind != "Parameter" and not any(source.get_node().get_name() in varying for source in inputs):
            continue
        if kind == "ShapeOf":
            continue  # shapes are fixed, so what is computed of them is constant
        varying.add(node.get_name())
        if kind in COUNTS:
            shapes = [tuple(int(size) for size in source.get_shape()) for source in inputs]
            output = tuple(int(size) for size in node.output(0).get_shape())
            count += COUNTS[kind](shapes, output, node)
        elif kind in NOT_COUNTED:
            others.add(kind)
    return Macs(count, tuple(sorted(others)))


Shapes = list[tuple[int, ...]]


def _convolution(shapes: Shapes, output: tuple[int, ...], _: Any) -> int:
    return prod(output) * prod(shapes[1][1:])  # weights (out, in, …)


def _group_convolution(shapes: Shapes, output: tuple[int, ...], _: Any) -> int:
    return prod(output) * prod(shapes[1][2:])  # weights (groups, out / groups, in / groups, …)


def _transposed(shapes: Shapes, _: tuple[int, ...], __: Any) -> int:
    return prod(shapes[0]) * prod(shapes[1][1:])  # weights (in, out, …)


def _group_transposed(shapes: Shapes, _: tuple[int, ...], __: Any) -> int:
    return prod(shapes[0]) * prod(shapes[1][2:])  # weights (groups, in / groups, out / groups, …)


def _product(shapes: Shapes, output: tuple[int, ...], node: Any) -> int:
    turned = node.get_attributes()["transpose_a"] and len(shapes[0]) > 1
    return prod(output) * shapes[0][-2 if turned else -1]


COUNTS = {
    "Convolution": _convolution,
    "GroupConvolution": _group_convolution,
    "ConvolutionBackpropData": _transposed,
    "GroupConvolutionBackpropData": _group_transposed,
    "MatMul": _product,
}
