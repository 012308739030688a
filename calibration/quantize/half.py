"""Half precision as casts in the graph, so that every engine computes what the file says.

From the first layer to the last convolution everything is float16, weights included; normalisation, the logit, its
sigmoid and the smoothing stay float32, and so do the inputs and outputs of the contract.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from edge_ad.calibration.quantize.graph import Graph
from edge_ad.errors import ExportError

if TYPE_CHECKING:
    from onnx import NodeProto

GREATEST = float(np.finfo(np.float16).max)
DATA_INPUTS = {
    "Resize": 1,
    "Shape": 0,
    "Squeeze": 1,
    "Reshape": 1,
}  # how many inputs are data; others are sizes or axes


def with_half(graph: Graph, float_layers: Collection[str] = ()) -> bytes:
    """The graph with its layers in float16, but for some.

    Args:
        graph: float32; it stays as it is.
        float_layers: names of the layers that keep float32.

    Raises: ExportError when a weight is too large for float16.
    """
    from onnx import TensorProto, helper

    changed = graph.copy()
    half = _half_nodes(changed, {layer.name for layer in changed.layers} - set(float_layers))
    made_half = {out for node in changed.model.graph.node if node.name in half for out in node.output}
    cast: dict[tuple[str, int], str] = {}
    nodes = []
    for node in changed.model.graph.node:
        wanted = TensorProto.FLOAT16 if node.name in half else TensorProto.FLOAT
        for index, name in enumerate(node.input):
            if name not in _data_inputs(node):
                continue
            if changed.is_constant(name):
                if wanted == TensorProto.FLOAT16 and changed.is_float(name):
                    node.input[index] = _half_constant(changed, name, node.name)
            elif (name in made_half) != (wanted == TensorProto.FLOAT16):
                if (name, wanted) not in cast:
                    cast[name, wanted] = f"{name}.{'half' if wanted == TensorProto.FLOAT16 else 'float'}"
                    nodes.append(
                        helper.make_node("Cast", [name], [cast[name, wanted]], f"{cast[name, wanted]}.cast", to=wanted)
                    )
                node.input[index] = cast[name, wanted]
        nodes.append(node)
    ordered = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del changed.model.graph.node[:]
    del changed.model.graph.value_info[:]
    changed.model.graph.node.extend(ordered)
    changed.drop_unused_constants()
    return changed.serialized()


def _half_constant(graph: Graph, name: str, reader: str) -> str:
    """Name of the constant in float16. Raises: ExportError when it does not fit."""
    value = graph.constant(name)
    largest = float(np.abs(value).max(initial=0))
    if largest > GREATEST:
        raise ExportError(f"{reader} has a constant of {largest:.3g}, float16 ends at {GREATEST:.0f}; use int8")
    half = f"{name}.half"
    return half if graph.is_constant(half) else graph.add_constant(half, value, np.float16)


def _half_nodes(graph: Graph, layers: Collection[str]) -> set[str]:
    """Names of the layers, and of what lies between one of them, with no other layer on the way, and a convolution."""
    behind: set[str] = set()
    for node in graph.model.graph.node:
        if node.name in layers or (node.op_type != "Conv" and any(name in behind for name in node.input)):
            behind.update(node.output)
    before: set[str] = set()
    found = set(layers)
    for node in reversed(list(graph.model.graph.node)):
        if node.op_type == "Conv":
            before.add(node.input[0])
        elif any(name in before for name in node.output):
            before.update(_data_inputs(node))
            if any(name in behind for name in _data_inputs(node)):
                found.add(node.name)
    return found


def _data_inputs(node: NodeProto) -> list[str]:
    return [name for name in node.input[: DATA_INPUTS.get(node.op_type, len(node.input))] if name]
